"""BN section 3.3: what the scale of the weights does, with and without BN.

BN-8, exactly: BN(Wu) = BN((aW)u), its Jacobian in u is the same, its gradient in W is 1/a of it.
BN-9: a net started from kernels of 0.1 to 100 times Glorot's, with and without BN. BN-26: singular
values of the layers' Jacobians, before training, from each of these starts, and after it. BN-36:
how gradients grow from layer to layer of a deep net, in theory, before training and after it.

    python -m experiments.bn_scale                                             small, MNIST-5k
    python -m experiments.bn_scale --size full --data-dir DIR                  MNIST
    python -m experiments.bn_scale --size full --data fashion_mnist --data-dir DIR
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial

import numpy as np

from vggbn.claims.parts import Part
from vggbn.claims.results import Results
from vggbn.claims.stats import as_ratio, verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.gate import FOR_ANY_NET, FOR_FAILURES, FOR_STARTS
from vggbn.experiment.judges import verdict_interval, verdict_on
from vggbn.experiment.plan import edited
from vggbn.report import Chart
from vggbn.training.recipe import Recipe

SCALES = (0.1, 1.0, 10.0, 100.0)
ARMS = {"plain": "none", "bn": "batch"}

# What the sweeps chose (sweep.json beside the results): the best rate without BN, of both data sets
# in full.
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


# A net before training, as a run that is told of: one step too small to move a weight.
# It gives BN's moving averages the statistics of a batch.
AT_THE_START = {"steps": 1, "lr": 1e-30}
# The rate: both deep nets of a pilot on MNIST leave chance; at 0.03 the one without BN diverges.
DEEP = {"activation": "relu", "init": "he", "lr": 0.003, "watch": "gradients"}
LAYERS = 40  # of the deep net


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Both nets from every scale; both with their Jacobians watched, before training too; and both
    as deep nets whose gradients are watched."""
    arms = {}
    for arm, norm in ARMS.items():
        start = edited(base, {"norm": norm})
        for scale in SCALES:
            arms[f"{arm} ×{scale:g}"] = edited(start, {"init_scale": scale})
        arms[f"{arm} Jacobians"] = watched = start.but(watch="jacobians")
        for scale in SCALES:
            untouched = edited(watched, {"init_scale": scale, **AT_THE_START})
            arms[f"{arm} ×{scale:g} at the start"] = untouched
        deep = edited(start, {"hidden": LAYERS, **DEEP, **size.options})
        arms |= {f"{arm} deep": deep, f"{arm} deep at the start": edited(deep, AT_THE_START)}
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "mnist"


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


# --- BN-36 in theory: the gradients of random nets ------------------------------------------------

EXPLOSION = np.pi / (np.pi - 1)  # 1.467
UNITS, INPUTS, DRAWS = 600, 100, 3  # of a layer; of a batch; random nets
GAINS = (0.5, 1.0, 2.0)  # times He's standard deviation


def growth_of_random_nets(*, bn: bool, gain: float = 1.0) -> float:
    """By what factor a layer the squared gradient in the sums Wu grows towards the input: geometric
    mean over the second half of the layers of random ReLU nets, and over DRAWS of these.

    The gradient is of a random linear function of what the last layer puts out.
    """
    import jax
    import jax.numpy as jnp

    from vggbn.nn.batch_norm import batch_norm, batch_norm_init

    params, stats = batch_norm_init(UNITS)

    def output(added_LNU, x_NU, kernels_LUU, weights_NU):
        def layer(x_NU, given):
            kernel_UU, added_NU = given
            sums_NU = x_NU @ kernel_UU + added_NU
            if bn:
                sums_NU, _ = batch_norm(sums_NU, params, stats, train=True)
            return jax.nn.relu(sums_NU), None

        x_NU, _ = jax.lax.scan(layer, x_NU, (kernels_LUU, added_LNU))
        return (x_NU * weights_NU).sum()

    gradient, logs = jax.jit(jax.grad(output)), []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        normal = partial(rng.standard_normal, dtype=np.float32)
        kernels_LUU = np.float32(gain * np.sqrt(2 / UNITS)) * normal((LAYERS, UNITS, UNITS))
        x_NU, weights_NU = normal((2, INPUTS, UNITS))
        zeros_LNU = jnp.zeros((LAYERS, INPUTS, UNITS))
        found = np.asarray(gradient(zeros_LNU, x_NU, kernels_LUU, weights_NU), np.float64)
        squared_L = (found**2).sum((1, 2))[LAYERS // 2 :]
        logs.append(np.log(squared_L[0] / squared_L[-1]) / (len(squared_L) - 1))
    return float(np.exp(np.mean(logs)))


def check_growth() -> tuple[bool, str]:
    """BN's factor is the closed form whatever the weights; without BN the weights decide it."""
    with_bn = {gain: growth_of_random_nets(bn=True, gain=gain) for gain in GAINS}
    plain = growth_of_random_nets(bn=False)
    holds = all(abs(factor / EXPLOSION - 1) < 0.02 for factor in with_bn.values())
    text = ", ".join(f"{factor:.3f} from {gain:g} times" for gain, factor in with_bn.items())
    return holds and abs(plain - 1) < 0.02, (
        f"a layer, with BN {text} He's deviation; {EXPLOSION:.3f} in theory; without BN {plain:.3f}"
    )


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
    ExactClaim(
        id="BN-36 in theory",
        sentence=(
            "From layer to layer of a random ReLU net the squared gradient grows by π/(π − 1) with "
            "BN, whatever the variance of the weights, and not at all without it from He's."
        ),
        criterion=(
            f"Random nets of {LAYERS} layers of {UNITS} units, {INPUTS} random inputs, kernels of "
            "He's deviation, half of it and twice it: over the second half of the layers within "
            f"2 % of {EXPLOSION:.3f} with BN, and within 2 % of 1 without it, from He's."
        ),
        paper="Yang et al. 2019, in the limit of wide nets and large batches",
        check=check_growth,
        measured=True,
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


def spectrum(results: Results, name: str, seed: int) -> tuple[float, float]:
    """(|log| of the median singular value, log of the 85th over the 15th percentile): means over
    layers, at the last evaluation."""
    layers = results.curve(name, seed, "jacobians")[1][-1].values()
    medians = [abs(np.log(max(layer["median"], 1e-12))) for layer in layers]
    widths = [np.log(max(layer["high"], 1e-12) / max(layer["low"], 1e-12)) for layer in layers]
    return float(np.mean(medians)), float(np.mean(widths))


MEASURES = ("distance of the median from 1", "spread")


def judge_spectra(results: Results, arms: Mapping[str, str], words: str) -> Verdict:
    """Whether BN does better on both MEASURES in each of {name: what follows "plain " and "bn "}.

    Each measure of each is a part of the claim.
    """
    parts = []
    for name, rest in arms.items():
        plain, bn = (f"{arm} {rest}" for arm in ARMS)
        seeds = results.seeds(plain, bn)
        gains = [np.subtract(spectrum(results, plain, s), spectrum(results, bn, s)) for s in seeds]
        for measure, values in zip(MEASURES, np.transpose(gains), strict=True):
            interval = verdict_interval(values, parts=len(MEASURES) * len(arms))
            found = verdict(interval, margin=None)
            parts.append(Part(f"{name}{measure}", interval, found))
    return verdict_on(parts, "", f"{words}, plain less BN, in logarithms")


def judge_bn_26(results: Results) -> Verdict:
    return judge_spectra(results, {"": "Jacobians"}, "after training")


def judge_bn_26_at_the_start(results: Results) -> Verdict:
    starts = {f"×{scale:g} ": f"×{scale:g} at the start" for scale in SCALES}
    return judge_spectra(results, starts, "before training")


def growth_of_gradients(results: Results, name: str, seed: int) -> float:
    """log of the factor by which the squared gradient of a kernel grows from layer to layer towards
    the input: mean over the hidden layers of one shape, at the last evaluation."""
    norms = results.curve(name, seed, "gradients")[1][-1]
    layers = results.runs[name][seed]["recipe"]["hidden"]
    first, last = norms["fc2"], norms[f"fc{layers}"]
    return float(2 * np.log(first / last) / (layers - 2))


def judge_growth(results: Results, rest: str) -> Verdict:
    """Whether it is larger with BN in the arms whose names end like this."""
    plain, bn = (f"{arm} {rest}" for arm in ARMS)
    seeds = results.seeds(plain, bn)
    growths = {a: [growth_of_gradients(results, a, seed) for seed in seeds] for a in (plain, bn)}
    interval = verdict_interval(np.subtract(growths[bn], growths[plain]))
    means = {arm: float(np.exp(np.mean(logs))) for arm, logs in growths.items()}
    words = ", ".join(f"{arm} {mean:.3f}" for arm, mean in means.items())
    outcome = verdict(interval, margin=None)
    return Verdict(outcome, as_ratio(interval), "ratio", f"a layer: {words}")


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
    ),
    Claim(
        id="BN-26 at the start",
        sentence="BN brings the singular values of the Jacobians near 1 before training too.",
        criterion=(
            "The same before the first step, from kernels of 0.1, 1, 10 and 100 times Glorot's, "
            "each by itself, since without BN the start decides: median and spread, eight parts, "
            "all above 0."
        ),
        paper="a conjecture",
        primary=PRIMARY,
        judge=judge_bn_26_at_the_start,
        gate=FOR_STARTS,
    ),
    Claim(
        id="BN-36 at the start",
        sentence="BN makes the gradients of a deep net grow from layer to layer.",
        criterion=(
            f"{LAYERS} ReLU layers from He's kernels, before the first step: the factor a layer by "
            "which the squared gradient of a kernel grows towards the input, with BN over without "
            "it, is above 1."
        ),
        paper="Yang et al. 2019: π/(π − 1) = 1.467, and 1 without BN",
        primary=PRIMARY,
        judge=partial(judge_growth, rest="deep at the start"),
        gate=FOR_STARTS,
    ),
    Claim(
        id="BN-36 after training",
        sentence="After training too the gradients of a deep net grow with BN.",
        criterion="The same after the last step, of nets that have left chance.",
        paper="nothing is said of trained nets",
        primary=PRIMARY,
        judge=partial(judge_growth, rest="deep"),
        gate=FOR_ANY_NET,
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

# options: of the deep net. Seeds below 100 were a pilot's, or are published.
FULL_SIZE = Size(seeds=5, first_seed=100, options={"steps": 10_000}, tuned=FULL)
SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 60, "evaluations": 4}, options={"hidden": 4}),
    "small": Size(seeds=5, edits={"steps": 3_000}, options={"steps": 1_000}, tuned=SMALL),
    "full": replace(FULL_SIZE, edits={"data": "mnist"}),
    "full-fashion_mnist": replace(FULL_SIZE, edits={"data": "fashion_mnist"}),
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
        "All arms but the deep ones have one rate, the best without BN at scale 1. Jacobians are "
        "of 50 validation images, BN by its moving averages; gradients of 500, BN by their own "
        "statistics.",
        "Arms “at the start” take one step of rate 1e-30, which moves no weight.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
