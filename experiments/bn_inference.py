"""BN section 3.1, Algorithm 2: by which statistics should a trained net be tested?

BN-4, exactly: inference is deterministic, affine, independent of the batch, and folds into the
layer before it. BN-5, by simulation: the variance of small batches needs m/(m-1). BN-30: moving
averages against Algorithm 2's population statistics, and against the test batches' own, over
decay, examples behind a statistic and length of training.

    python -m experiments.bn_inference                                             small, MNIST-5k
    python -m experiments.bn_inference --size full --data-dir DIR                  CIFAR-10
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from vggbn.claims.results import Results
from vggbn.claims.stats import verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Effect, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.gate import FOR_ANY_NET
from vggbn.experiment.judges import accuracy_text, verdict_interval
from vggbn.experiment.views import view
from vggbn.report import Table
from vggbn.training.recipe import Recipe

DECAYS = (0.5, 0.99, 0.999)
GROUPS = {"2 examples": 64, "8 examples": 16, "32 examples": 4}
SHORTER = {"1/20 of the steps": 20, "1/5 of the steps": 5}

# What the sweeps chose (sweep.json beside the results).
SMALL = Tuned({"lr": 0.03})
FULL = Tuned({"lr": 0.03})

BASE = Recipe(
    model="vgg_a",
    width=1 / 8,
    fc=128,
    norm="batch",
    norm_fc=True,
    batch=128,
    dropout=0.0,
    crop_pad=2,
    flip=True,  # where the labels allow it
    schedule="exponential",
    lr_factor=0.1,
    split="fixed",
    evaluations=8,
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """The baseline (decay 0.9, 128 examples a statistic), and edits of it one at a time."""
    arms = {"base": base}
    arms |= {f"decay {decay:g}": base.but(bn_decay=decay) for decay in DECAYS}
    arms |= {name: base.but(bn_groups=groups) for name, groups in GROUPS.items()}
    arms["2 examples, biased"] = arms["2 examples"].but(bn_unbiased=False)
    for name, times in SHORTER.items():
        steps = max(1, base.steps // times)
        arms[name] = base.but(steps=steps, lr_every=base.lr_every / times)
        arms[f"{name}, decay 0.999"] = arms[name].but(bn_decay=0.999)
    return arms


def views(variants):
    """Every net by the statistics of 32 test images, and the baseline by those of 2 to 512."""
    found = {f"{name} by batches of 32": view(name, 32, by=("by_batch",)) for name in variants}
    for size in (2, 8, 128, 512):
        found[f"base by batches of {size}"] = view("base", size, by=("by_batch",))
    return found


# --- BN-4 and BN-5, without training --------------------------------------------------------------


def check_inference() -> tuple[bool, str]:
    """In float32, on a convolution and a dense layer with random statistics, and on a whole net."""
    import jax.numpy as jnp

    from vggbn.nn.batch_norm import batch_norm, fold
    from vggbn.nn.layers import conv, dense

    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {"scale": 1 + draw(8) / 4, "bias": draw(8)}
    stats = {"mean": draw(8), "var": jnp.asarray(rng.uniform(0.5, 2, 8), jnp.float32)}
    worst = {"batch": 0.0, "affine": 0.0, "folded": 0.0}

    def infer(y):
        return batch_norm(y, params, stats, train=False)[0]

    for layer, x, kernel in (
        (conv, draw(12, 6, 6, 3), draw(3, 3, 3, 8)),
        (dense, draw(12, 5), draw(5, 8)),
    ):
        y = jnp.asarray(layer({"kernel": kernel}, x))
        whole = infer(y)
        for size in (1, 3, 5):
            parts = [infer(y[i : i + size]) for i in range(0, len(y), size)]
            worst["batch"] = max(worst["batch"], far(jnp.concatenate(parts), whole))
        mixed = infer(0.3 * y + 0.7 * y[::-1])
        worst["affine"] = max(worst["affine"], far(mixed, 0.3 * whole + 0.7 * whole[::-1]))
        folded = layer(fold({"kernel": kernel}, params, stats), x)
        worst["folded"] = max(worst["folded"], far(folded, whole))
    x_NHWC, both = both_forms()
    logits_NC = both["normed"](x_NHWC)
    assert float(logits_NC.std(0).min()) > 0, "the net tells these images apart"
    worst["folded net"] = far(both["folded"](x_NHWC), logits_NC)
    text = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
    holds = all(value < 1e-5 for value in worst.values())  # NaN is not
    return holds, f"largest relative deviation: {text}; {time_per_image(x_NHWC, both)}"


def far(a, b) -> float:
    """The largest deviation of a from b, over the largest value of b."""
    return float(abs(a - b).max() / abs(b).max())


def both_forms():
    """(images, {normed, folded: logits of images x_NHWC}): the net of this experiment, at its
    initial weights, by the statistics of the images."""
    import jax
    from jax import numpy as jnp

    from vggbn.machine import compiling
    from vggbn.models import Net, build
    from vggbn.models.folded import fold_net

    bn = {"norm": "batch", "norm_fc": True}
    net = Net((32, 32, 3), 10, model=BASE.model, **bn, width=BASE.width, fc=BASE.fc)
    model = build(net)
    variables = compiling.jit(lambda key: model.init(key, "he"))(jax.random.key(0))
    params = variables["params"]
    # The last layer starts at zero.
    params["fc3"] = jax.tree.map(lambda a: a + jnp.arange(a.size).reshape(a.shape), params["fc3"])
    x_NHWC = jax.random.normal(jax.random.key(1), (128, *net.image))
    _, stats = compiling.jit(partial(model.apply, train=True, decay=0.0))(variables, x_NHWC)
    variables = {"params": params, "batch_stats": stats}
    apply = compiling.jit(partial(model.apply, train=False))
    folded = fold_net(net, variables)
    return x_NHWC, {
        "normed": lambda x_NHWC: jnp.asarray(apply(variables, x_NHWC)[0]),
        "folded": lambda x_NHWC: jnp.asarray(apply(folded, x_NHWC)[0]),
    }


def time_per_image(images_NHWC, both, batches=(1, 128), rounds: int = 15) -> str:
    """The shortest time of a call over its images, with BN and folded, called in turns."""
    import jax

    texts = []
    for batch in batches:
        x_NHWC = images_NHWC[:batch]
        best = dict.fromkeys(both, float("inf"))
        for name in list(both) * (1 + rounds):  # the first turn compiles
            began = time.perf_counter()
            jax.block_until_ready(both[name](x_NHWC))
            best[name] = min(best[name], time.perf_counter() - began)
        a, b = (1e6 * best[name] / batch for name in ("normed", "folded"))
        texts.append(f"{a:.3g} µs an image with BN, {b:.3g} folded, in batches of {batch}")
    return "; ".join(texts)


def check_variance() -> tuple[bool, str]:
    """Batches of four values of N(1, 9) through batch_norm with decay 0, averaged."""
    import jax

    from vggbn.nn.batch_norm import batch_norm, batch_norm_init

    m, channels, batches, variance = 4, 1000, 200, 9.0
    rng = np.random.default_rng(0)
    params, stats = batch_norm_init(channels)
    means = {}
    for unbiased in (True, False):
        step = jax.jit(
            lambda x, unbiased=unbiased: batch_norm(
                x, params, stats, train=True, decay=0.0, unbiased=unbiased
            )[1]["var"]
        )
        draws = (1 + 3 * rng.normal(size=(m, channels)) for _ in range(batches))
        means[unbiased] = float(np.mean([step(x.astype(np.float32)) for x in draws]) / variance)
    holds = abs(means[True] - 1) < 0.01 and abs(means[False] - (m - 1) / m) < 0.01
    return holds, (
        f"over the true variance: {means[True]:.4f} with m/(m−1), {means[False]:.4f} without, for "
        f"m = {m} ({(m - 1) / m:g} expected); {batches * channels:,} batches"
    )


EXACT = (
    ExactClaim(
        id="BN-4",
        sentence=(
            "Inference is deterministic, affine and independent of the batch, and folds into the "
            "layer before it."
        ),
        criterion=(
            "Outputs for any split of the batch, of a mixture, and of the folded convolution, "
            "dense layer or whole VGG-A agree to 1e-5."
        ),
        paper="Algorithm 2, lines 10 and 11",
        check=check_inference,
    ),
    ExactClaim(
        id="BN-5",
        sentence="The population variance needs m/(m − 1).",
        criterion=(
            "Normal values in batches of 4: the corrected mean variance is within 1 % of the true "
            "one, the uncorrected within 1 % of 3/4 of it."
        ),
        paper="Algorithm 2, line 10",
        check=check_variance,
        measured=True,
    ),
)

# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "cifar10"
MARGIN = 0.5  # points


def gap(results: Results, name: str) -> list[float]:
    """Test accuracy with moving averages less that with Algorithm 2's statistics, in points."""
    moving, exact = (
        results.final(name, score) for score in ("test_accuracy", "test_accuracy_population")
    )
    return [100 * (moving[seed] - exact[seed]) for seed in results.seeds(name)]


def effects_bn_30(results: Results) -> list[Effect]:
    gaps = dict(zip(results.seeds("base"), gap(results, "base"), strict=True))
    return [Effect("moving averages less Algorithm 2", gaps)]


def judge_bn_30(results: Results) -> Verdict:
    (effect,) = effects_bn_30(results)
    interval = verdict_interval(effect.values)
    texts, aside = [], results.for_verdict()  # told beside: these arms may fail
    for name in results.variants:
        if (
            name != "base"
            and results.runs[name]
            and "view" not in next(iter(results.runs[name].values()))
        ):
            values = gap(aside, name)
            texts.append(f"{name} {sum(values) / len(values):+.2f}")
    found = verdict(interval, margin=MARGIN, equivalence=True)
    return Verdict(found, interval, "points", "elsewhere: " + ", ".join(texts))


CLAIMS = (
    Claim(
        id="BN-30",
        sentence="Moving averages track the population statistics.",
        criterion=(
            "At the end of training, with decay 0.9: test accuracy with moving averages less that "
            f"with Algorithm 2's statistics inside ±{MARGIN:g} points."
        ),
        paper="used to follow training (no figure)",
        primary=PRIMARY,
        judge=judge_bn_30,
        gate=FOR_ANY_NET,
        effects=effects_bn_30,
    ),
)

# --- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """Test accuracy of every net by each kind of statistics."""
    rows = []
    for name in results.variants:
        batch = f"{name} by batches of 32"
        if batch in results.variants and results.runs[name]:
            scores = [(name, s) for s in ("test_accuracy", "test_accuracy_population")]
            cells = [
                accuracy_text(results, *score) for score in (*scores, (batch, "test_accuracy"))
            ]
            rows.append((name, *cells))
    sizes = [
        (str(n), accuracy_text(results, f"base by batches of {n}", "test_accuracy"))
        for n in (2, 8, 32, 128, 512)
    ]
    headers = ("net", "moving averages", "Algorithm 2", "batches of 32 test images")
    note = "Mean ± half the 95 % interval over seeds."
    return [
        Table(headers, rows, "Test accuracy by statistics, %", note),
        Table(
            ("test images normalised together", "test accuracy, %"),
            sizes,
            "The baseline by the test batches' own statistics",
            note,
        ),
    ]


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(
        seeds=2, edits={"steps": 20, "lr_every": 12, "evaluations": 2}, tuned=SMALL, arms=("base",)
    ),
    "small": Size(seeds=3, edits={"steps": 300, "lr_every": 180}, tuned=SMALL),
    "full": Size(
        seeds=10,
        edits={
            "data": "cifar10",
            "image_size": 32,
            "crop_pad": 4,
            "steps": 1_055,  # 3 epochs
            "lr_every": 633,
        },
        tuned=FULL,
    ),
}

EXPERIMENT = Experiment(
    name="bn_inference",
    title="Statistics for inference",
    question=(
        "Do moving averages stand for Algorithm 2's population statistics, and what do the test "
        "batches' own statistics give instead?"
    ),
    base=BASE,
    baseline="base",
    variants=variants,
    views=views,
    claims=CLAIMS,
    exact=EXACT,
    tables=tables,
    sizes=SIZES,
    panels={
        "decay": ("base", *(f"decay {decay:g}" for decay in DECAYS)),
        "examples behind a statistic": ("base", *GROUPS),
        "length of training": ("base", *SHORTER),
    },
    sweep=Sweep(arms={"BN": {}}, rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3), seeds=2),
    notes=(
        "Moving averages start as plain means of what they have seen (docs/choices.md), so a long "
        "memory costs little at the start. Algorithm 2 averages over 32 training batches.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
