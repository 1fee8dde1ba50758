"""BN section 3.3: what the scale of the weights does, with and without BN.

BN-8, exactly: BN(Wu) = BN((aW)u), its Jacobian in u is the same, its gradient in W is 1/a of it.
BN-9: a net started from kernels of 0.1 to 100 times Glorot's, with and without BN. BN-26: singular
values of the layers' Jacobians, at the first step and at the last.

    python -m experiments.bn_scale                                             small, MNIST-5k
    python -m experiments.bn_scale --size full --data-dir DIR                  Fashion-MNIST
"""

from __future__ import annotations

from functools import cache

import numpy as np

from vggbn.claims.parts import Part
from vggbn.claims.results import Results
from vggbn.claims.stats import verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.gate import FOR_ANY_NET, FOR_FAILURES
from vggbn.experiment.judges import verdict_interval, verdict_on
from vggbn.report import Chart
from vggbn.training.recipe import Recipe

SCALES = (0.1, 1.0, 10.0, 100.0)
ARMS = {"plain": "none", "bn": "batch"}

# What the sweeps chose (sweep.json beside the results): the best rate without BN.
SMALL = Tuned({"lr": 0.03})
FULL = Tuned({"lr": 0.01})

BASE = Recipe(
    model="mlp",
    fc=100,
    hidden=5,
    activation="tanh",
    init="glorot",
    image_size=28,
    batch=60,
    steps=20_000,
    lr=0.01,
    l2=0.0,
    dropout=0.0,
    split="fixed",
    watch="weights",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Both nets from every scale, and both with their Jacobians watched."""
    arms = {}
    for arm, norm in ARMS.items():
        start = base if norm == base.norm else base.but(norm=norm)
        for scale in SCALES:
            arms[f"{arm} ×{scale:g}"] = start if scale == 1 else start.but(init_scale=scale)
        arms[f"{arm} Jacobians"] = start.but(watch="jacobians")
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "fashion_mnist"


@cache
def identities(eps: float) -> dict[float, tuple[float, float, float]]:
    """{a: largest relative deviation of (value, gradient in u, a times the gradient in aW)}."""
    import jax
    import jax.numpy as jnp

    from vggbn.machine.compiling import enable_x64
    from vggbn.nn.batch_norm import batch_norm, batch_norm_init

    with enable_x64():
        rng = np.random.default_rng(0)
        u, w, dy = (jnp.asarray(rng.normal(size=s)) for s in ((64, 20), (20, 10), (64, 10)))
        params, stats = batch_norm_init(10, jnp.float64)

        def layer(u, w):
            return batch_norm(u @ w, params, stats, train=True, eps=eps)[0]

        def far(got, expected):
            return float(jnp.abs(got - expected).max() / jnp.abs(expected).max())

        y, pull = jax.vjp(layer, u, w)
        du, dw = pull(dy)
        found = {}
        for a in (0.1, 2.0, 100.0):
            y_a, pull_a = jax.vjp(layer, u, a * w)
            du_a, dw_a = pull_a(dy)
            found[a] = far(y_a, y), far(du_a, du), far(a * dw_a, dw)
        return found


def check_identities() -> tuple[bool, str]:
    """All three to 1e-6 without eps; and by how much eps breaks them."""
    worst = max(max(values) for values in identities(0.0).values())
    broken = {a: max(values) for a, values in identities(1e-5).items()}
    text = ", ".join(f"a = {a:g}: {value:.1e}" for a, value in broken.items())
    return worst < 1e-6, f"largest deviation {worst:.0e} with eps 0; with eps 1e-5, {text}"


EXACT = (
    ExactClaim(
        id="BN-8",
        sentence=(
            "The scale of the weights changes neither BN's output nor its gradient in the input, "
            "and divides its gradient in the weights."
        ),
        criterion="The three identities to 1e-6 for a = 0.1, 2, 100 with eps = 0, in float64.",
        paper="BN(Wu) = BN((aW)u) and its two derivatives",
        check=check_identities,
    ),
)


def spread(results: Results, arm: str, seed: int) -> float:
    """Best less worst final test accuracy over the scales, in points."""
    values = [results.final(f"{arm} ×{scale:g}")[seed] for scale in SCALES]
    return 100 * (max(values) - min(values))


def judge_bn_9(results: Results) -> Verdict:
    seeds = results.seeds(*(f"{arm} ×{scale:g}" for arm in ARMS for scale in SCALES))
    spreads = {arm: [spread(results, arm, seed) for seed in seeds] for arm in ARMS}
    gains = [a - b for a, b in zip(spreads["plain"], spreads["bn"], strict=True)]
    interval = verdict_interval(gains)
    outcome = verdict(interval, margin=None)
    growth = {arm: [grown(results, arm, scale, seeds) for scale in SCALES] for arm in ARMS}
    texts = [
        f"{arm}: spread {np.mean(spreads[arm]):.1f} points, kernels of the first layer grow "
        + ", ".join(f"{value:.3g}×" for value in growth[arm])
        for arm in ARMS
    ]
    return Verdict(outcome, interval, "points", "; ".join(texts))


def grown(results: Results, arm: str, scale: float, seeds: list[int]) -> float:
    """The first layer's kernel norm at the end over that after one step, mean over seeds."""
    ratios = []
    for seed in seeds:
        norms = results.curve(f"{arm} ×{scale:g}", seed, "weights")[1]
        ratios.append(norms[-1]["fc1"]["kernel"] / norms[0]["fc1"]["kernel"])
    return float(np.mean(ratios))


def spectrum(results: Results, arm: str, seed: int, at: int) -> tuple[float, float]:
    """(|log| of the median singular value, log of the 85th over the 15th percentile): means over
    layers, at evaluation `at`."""
    layers = results.curve(f"{arm} Jacobians", seed, "jacobians")[1][at].values()
    medians = [abs(np.log(max(layer["median"], 1e-12))) for layer in layers]
    widths = [np.log(max(layer["high"], 1e-12) / max(layer["low"], 1e-12)) for layer in layers]
    return float(np.mean(medians)), float(np.mean(widths))


def judge_bn_26(results: Results) -> Verdict:
    seeds = results.seeds("plain Jacobians", "bn Jacobians")
    plain, bn = (np.array([spectrum(results, arm, s, -1) for s in seeds]) for arm in ARMS)
    parts = []
    for name, gains in zip(
        ("distance of the median from 1", "spread"), (plain - bn).T, strict=True
    ):
        interval = verdict_interval(gains, parts=2)
        parts.append(Part(name, interval, verdict(interval, margin=None)))
    return verdict_on(parts, "", "after training, plain less BN, in logarithms")


CLAIMS = (
    Claim(
        id="BN-9",
        sentence=(
            "With BN the growth of weights steadies itself, and their initial scale matters less."
        ),
        criterion=(
            "Best less worst final test accuracy over the initial scales ×0.1, ×1, ×10, ×100: "
            "smaller with BN in every seed."
        ),
        paper="more resilient to the parameter scale (no figure)",
        primary=PRIMARY,
        judge=judge_bn_9,
        gate=FOR_FAILURES,
    ),
    Claim(
        id="BN-26",
        sentence="BN brings the singular values of the layers' Jacobians near 1.",
        criterion=(
            "Between standardised inputs of neighbouring layers, after training, in logarithms: "
            "the median is nearer to 1 and the spread smaller with BN; both above 0."
        ),
        paper="a conjecture",
        primary=PRIMARY,
        judge=judge_bn_26,
        gate=FOR_ANY_NET,
    ),
    Claim(
        id="BN-26 at the start",
        sentence="BN brings the singular values of the Jacobians near 1 before training too.",
        paper="a conjecture",
        primary=PRIMARY,
        not_tested=(
            "at the start the initialiser decides the scale of a net without BN, by design near 1: "
            "the comparison is one of initialisers."
        ),
    ),
)

# --- charts --------------------------------------------------------------------------------------


def charts(results: Results) -> dict[str, Chart]:
    """Accuracy against the initial scale, and the growth of the first layer's kernel."""
    accuracy = {
        arm: {
            float(np.log10(s)): [100 * v for v in results.final(f"{arm} ×{s:g}").values()]
            for s in SCALES
        }
        for arm in ARMS
    }
    norms = {}
    for arm in ARMS:
        for scale in SCALES:
            name = f"{arm} ×{scale:g}"
            curves = [results.curve(name, seed, "weights") for seed in results.seeds(name)]
            norms[name] = {
                float(np.log10(step)): [
                    float(np.log10(own[i]["fc1"]["kernel"] / own[0]["fc1"]["kernel"]))
                    for _, own in curves
                    if i < len(own) and np.isfinite(own[i]["fc1"]["kernel"])
                ]
                for i, step in enumerate(curves[0][0])
            }
    return {
        "final accuracy": Chart("log10 of the initial scale", "test accuracy, %", accuracy),
        "growth of the first kernel": Chart(
            "log10 of the step", "log10 of its norm over that after one step", norms
        ),
    }


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 60, "evaluations": 4}),
    "small": Size(seeds=5, edits={"steps": 3_000}, tuned=SMALL),
    "full": Size(seeds=5, edits={"data": "fashion_mnist"}, tuned=FULL),
}

EXPERIMENT = Experiment(
    name="bn_scale",
    title="The scale of the weights",
    question=(
        "Does BN make a net indifferent to the scale of its initial weights, do weights stop "
        "growing, and are the layers' Jacobians better conditioned?"
    ),
    base=BASE,
    baseline="plain ×1",
    variants=variants,
    claims=CLAIMS,
    exact=EXACT,
    charts=charts,
    sizes=SIZES,
    panels={arm: tuple(f"{arm} ×{scale:g}" for scale in SCALES) for arm in ARMS},
    sweep=Sweep(
        arms={"no BN": {}, "BN": {"norm": "batch"}}, rates=(0.001, 0.003, 0.01, 0.03, 0.1), seeds=2
    ),
    any_images={},
    notes=(
        "All arms have one rate, the best without BN at scale 1. Jacobians are of "
        "50 validation images, BN by its moving averages.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
