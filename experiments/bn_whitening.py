"""BN sections 2 and 3: what would full whitening cost, and what would it give?

BN-12, measured: time and products of whitening against BN for 16 to 512 channels, and the rank of a
batch's covariance where the batch is smaller than the number of channels. Then the same net with
BN, with its layers fully whitened, whitened in groups of 16 channels (Huang et al. 2018), by five
Newton iterations (Huang et al. 2019), and with nothing.

    python -m experiments.bn_whitening                                             small, MNIST-5k
    python -m experiments.bn_whitening --size full --data-dir DIR                  Fashion-MNIST
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np

from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment.design import Experiment, Size, Sweep, Tuned
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.judges import accuracy_text, diverged
from vggbn.experiment.plan import edited
from vggbn.report import Table
from vggbn.training.recipe import Recipe

NORMS = {
    "BN": "batch",
    "whitening": "whiten",
    "whitening in groups": "whiten_groups",
    "iterative whitening": "whiten_iterative",
    "no norm": "none",
}

# What the sweeps chose (sweep.json beside the results): BN's rate, and those of the others by norm.
SMALL = Tuned(
    {"lr": 0.3},
    arms={
        "whiten": {"lr": 0.1},
        "whiten_groups": {"lr": 1.0},
        "whiten_iterative": {"lr": 1.0},
        "none": {"lr": 0.3},
    },
)
FULL = Tuned(
    {"lr": 1.0},
    arms={
        "whiten": {"lr": 0.3},
        "whiten_groups": {"lr": 0.3},
        "whiten_iterative": {"lr": 1.0},
        "none": {"lr": 0.1},
    },
)

BASE = Recipe(
    model="mlp",
    fc=100,
    activation="sigmoid",
    norm="batch",
    init="normal_0.1",
    image_size=28,
    batch=128,  # more examples than channels, so that a batch's covariance has full rank
    steps=5_000,
    l2=0.0,
    dropout=0.0,
    split="fixed",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """One net, five norms, each at its own rate; full whitening where the batch is smaller than
    the layer."""
    arms = {
        name: edited(base, {"norm": norm, **size.tuned.arms.get(norm, {})})
        for name, norm in NORMS.items()
    }
    for name in ("BN", "whitening"):
        arms[f"{name}, batch 32"] = arms[name].but(batch=32)
    return arms


# --- BN-12, measured ------------------------------------------------------------------------------

CHANNELS = (16, 32, 64, 128, 256, 512)
BATCH = 1024
ROUNDS = 3


@cache
def costs() -> dict[int, tuple[float, float]]:
    """{channels: (BN's seconds, whitening's)} of a forward and backward pass on [BATCH, channels].

    The shortest of some calls, BN and whitening in turns.
    """
    found = {}
    for channels in CHANNELS:
        calls = [timed(name, channels) for name in ("batch", "whiten")]
        best = [float("inf")] * 2
        for _ in range(ROUNDS):
            for i, call in enumerate(calls):
                best[i] = min(best[i], call())
        found[channels] = (best[0], best[1])
    return found


def timed(norm: str, channels: int):
    """A function that runs one compiled forward and backward pass and returns its seconds."""
    import jax
    import jax.numpy as jnp

    from vggbn.nn.norms import NORMS as BY_NAME

    init, apply, *_ = BY_NAME[norm]
    params, stats = init(channels)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, channels)), jnp.float32)

    @jax.jit
    def step(x, params):
        loss = lambda x, params: (apply(x, params, stats, train=True)[0] ** 3).sum()  # noqa: E731
        return jax.grad(loss, argnums=(0, 1))(x, params)

    jax.block_until_ready(step(x, params))

    def call() -> float:
        began = time.perf_counter()
        jax.block_until_ready(step(x, params))
        return time.perf_counter() - began

    return call


def rank(examples: int, channels: int) -> int:
    """Of the covariance of so many normal examples."""
    x = np.random.default_rng(0).normal(size=(examples, channels))
    return int(np.linalg.matrix_rank(np.cov(x.T, bias=True)))


def check_cost() -> tuple[bool, str]:
    """The ratio of the times grows with the channels; the rank is below the batch."""
    ratios = {channels: white / bn for channels, (bn, white) in costs().items()}
    first, last = ratios[CHANNELS[0]], ratios[CHANNELS[-1]]
    ranks = {m: rank(m, 64) for m in (8, 16, 32, 64)}
    holds = last > first and all(r <= m - 1 for m, r in ranks.items())
    text = ", ".join(f"{channels}: {ratio:.3g}×" for channels, ratio in ratios.items())
    of = ", ".join(f"{r} of 64 from {m}" for m, r in ranks.items())
    return holds, f"time over BN's by channels, {text}; rank of the covariance {of} examples"


EXACT = (
    ExactClaim(
        id="BN-12",
        sentence=(
            "Full whitening is costly, and singular where the batch is smaller than the layer."
        ),
        criterion=(
            f"Forward and backward on {BATCH} examples: its time over BN's is larger at 512 "
            "channels than at 16; the covariance of m examples has rank m − 1 at most."
        ),
        paper="sections 2 and 3, by argument",
        check=check_cost,
        measured=True,
    ),
)

# --- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """Accuracy, and the time of a step."""
    rows = [
        (name, accuracy_text(results, name), step_text(results, name))
        for name in results.variants
        if results.runs[name]
    ]
    headers = ("norm", "test accuracy, %", "a step, ms")
    return [Table(headers, rows, "Norms", "Mean ± half the 95 % interval over seeds.")]


def step_text(results: Results, name: str) -> str:
    """The mean time of a step in ms, over the runs that went on to their end; else a dash."""
    lost = diverged(results, name)
    lines = [line for seed, line in results.runs[name].items() if seed not in lost]
    steps = [1000 * line["seconds"]["step"] / line["history"][-1]["step"] for line in lines]
    return f"{sum(steps) / len(steps):.2f}" if steps else "–"


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 40, "evaluations": 3}, tuned=SMALL),
    "small": Size(seeds=3, edits={"steps": 1_000}, tuned=SMALL),
    "full": Size(seeds=5, edits={"data": "fashion_mnist"}, tuned=FULL),
}

EXPERIMENT = Experiment(
    name="bn_whitening",
    title="Whitening",
    question="What does full whitening cost, and is it worth it where it can be afforded?",
    base=BASE,
    baseline="BN",
    variants=variants,
    claims=(),
    exact=EXACT,
    tables=tables,
    sizes=SIZES,
    panels={"norms": tuple(NORMS), "batch 32": ("BN, batch 32", "whitening, batch 32")},
    sweep=Sweep(
        arms={name: {"norm": norm} for name, norm in NORMS.items() if norm != "batch"} | {"BN": {}},
        rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        seeds=2,
    ),
    any_images={},
)

if __name__ == "__main__":
    main(EXPERIMENT)
