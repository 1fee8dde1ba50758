"""BN section 3.2: is Wu + b more Gaussian than u, and does BN belong before the non-linearity?

How Gaussian the input u of every layer and its sum Wu + b are, in VGG-A with BN before and behind
the non-linearity and without BN; and what each placement scores.

    python -m experiments.bn_placement                                             small, MNIST-5k
    python -m experiments.bn_placement --size full --data-dir DIR                  CIFAR-10
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vggbn.claims.results import Results
from vggbn.claims.stats import verdict
from vggbn.commands.experiment import main
from vggbn.evaluate.watch import EDGES
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.gate import FOR_ANY_NET
from vggbn.experiment.judges import judge_gaps, verdict_interval
from vggbn.experiment.plan import edited
from vggbn.report import Chart, Table
from vggbn.training.recipe import Recipe

MEASURES = ("skewness", "kurtosis", "negentropy", "zeros")

# What the sweeps chose (sweep.json beside the results): rates of either placement and without BN.
SMALL = Tuned({"lr": 0.003}, arms={"behind": {"lr": 0.03}, "plain": {"lr": 0.01}})
FULL = Tuned({"lr": 0.003}, arms={"behind": {"lr": 0.003}, "plain": {"lr": 0.003}})

BASE = Recipe(
    model="vgg_a",
    width=1 / 8,
    fc=128,
    norm="batch",
    norm_fc=True,
    batch=32,
    dropout=0.0,
    l2=5e-4,
    crop_pad=2,
    flip=True,  # where the labels allow it
    schedule="exponential",
    lr_factor=0.1,
    split="fixed",
    evaluations=8,
    watch="gaussianity",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """BN before the non-linearity, as in the paper, and behind it; no BN; and with sigmoids."""
    behind = {"norm_after": True, **size.tuned.arms["behind"]}
    arms = {"before": base, "behind": edited(base, behind)}
    arms["no BN"] = edited(base, {"norm": "none", **size.tuned.arms["plain"]})
    sigmoid = base.but(activation="sigmoid")
    return arms | {
        "before, sigmoid": sigmoid,
        "behind, sigmoid": edited(sigmoid, behind),
    }


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "cifar10"
MARGIN = 1.0  # points


def shapes(results: Results, arm: str, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """{layer: {u, sum: {measure: value}}} at the end, without the first layer, whose u is the
    image."""
    last = results.curve(arm, seed, "gaussianity")[1][-1]
    return {layer: both for i, (layer, both) in enumerate(last.items()) if i}


def closer(results: Results, arm: str, seed: int, measure: str = "negentropy") -> float:
    """The share of layers whose Wu + b is nearer to a Gaussian than their u."""
    layers = shapes(results, arm, seed).values()
    return sum(both["sum"][measure] < both["u"][measure] for both in layers) / len(layers)


def judge_bn_27(results: Results) -> Verdict:
    seeds = results.seeds("before")
    interval = verdict_interval([closer(results, "before", s) - 0.5 for s in seeds])
    outcome = verdict(interval, margin=None)
    texts = []
    for arm in ("before", "behind", "no BN"):
        shares = [closer(results, arm, s) for s in results.seeds(arm)]
        texts.append(f"{arm} {100 * sum(shares) / len(shares):.0f} %")
    detail = "layers whose Wu + b has less negentropy than u: " + ", ".join(texts)
    return Verdict(outcome, interval, "share of layers above one half", detail)


CLAIMS = (
    Claim(
        id="BN-27",
        sentence="Wu + b is more Gaussian than u, the output of another non-linearity.",
        criterion=(
            "In the trained net with BN: the share of layers (without the first) whose Wu + b has "
            "less negentropy than their u, less one half: above 0."
        ),
        paper="more symmetric, non-sparse, “more Gaussian” (no figure)",
        primary=PRIMARY,
        judge=judge_bn_27,
        gate=FOR_ANY_NET,
    ),
    Claim(
        id="BN-27 accuracy",
        sentence="BN before the non-linearity scores better than behind it.",
        criterion=f"Final test accuracy: paired gap above 0; no effect inside ±{MARGIN:g} point.",
        paper="an argument (no figure)",
        primary=PRIMARY,
        judge=judge_gaps([("before", "behind")], ("before", "behind"), margin=MARGIN),
    ),
)

# --- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """One table an arm: every layer's four measures of u and of Wu + b, mean over seeds."""
    headers = ("layer", *(f"{m} of {what}" for m in MEASURES for what in ("u", "Wu + b")))
    return [
        Table(headers, rows(results, arm), f"How Gaussian: {arm}", NOTE)
        for arm in results.variants
        if results.runs[arm]
    ]


NOTE = "Means over units and seeds of |skewness|, |excess kurtosis|, negentropy, share of zeros."


def rows(results: Results, arm: str) -> list[tuple[str, ...]]:
    """A row a layer."""
    found = [shapes(results, arm, seed) for seed in results.seeds(arm)]
    return [
        (
            layer,
            *(
                f"{sum(one[layer][what][m] for one in found) / len(found):.2f}"
                for m in MEASURES
                for what in ("u", "sum")
            ),
        )
        for layer in found[0]
    ]


def charts(results: Results) -> dict[str, Chart]:
    """The distributions of u and of Wu + b of every arm's middle and last hidden layer."""
    found = {}
    for arm in results.variants:
        layers = [shapes(results, arm, seed) for seed in results.runs[arm]]
        if layers:
            names = list(layers[0])
            for name in (names[len(names) // 2], names[-1]):
                found[f"{arm}: {name}"] = distribution([one[name] for one in layers])
    return found


def distribution(shapes_S: Sequence[Mapping]) -> Chart:
    """The densities of one layer, a value a seed, beside the Gaussian's."""
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    series = {
        text: {x: [one[what]["density"][i] for one in shapes_S] for i, x in enumerate(middles)}
        for what, text in {"u": "u", "sum": "Wu + b"}.items()
    }
    gaussian = {x: [float(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))] for x in middles}
    return Chart("standardised value", "density", series | {"Gaussian": gaussian})


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(
        seeds=2,
        edits={"steps": 20, "lr_every": 12, "evaluations": 2},
        tuned=SMALL,
        arms=("before", "behind", "no BN"),
    ),
    "small": Size(seeds=3, edits={"steps": 600, "lr_every": 360}, tuned=SMALL),
    "full": Size(
        seeds=5,
        edits={
            "data": "cifar10",
            "image_size": 32,
            "crop_pad": 4,
            "steps": 8_438,
            "lr_every": 5_000,
        },
        tuned=FULL,
        sweep_steps=2_110,
        sweep_seeds=1,
    ),
}

EXPERIMENT = Experiment(
    name="bn_placement",
    title="Where BN stands",
    question=(
        "Are the sums Wu + b more Gaussian than the outputs of non-linearities, and is BN better "
        "before the non-linearity than behind it?"
    ),
    base=BASE,
    baseline="before",
    variants=variants,
    claims=CLAIMS,
    tables=tables,
    charts=charts,
    sizes=SIZES,
    panels={
        "ReLU": ("before", "behind", "no BN"),
        "sigmoid": ("before, sigmoid", "behind, sigmoid"),
    },
    sweep=Sweep(
        arms={"before": {}, "behind": {"norm_after": True}, "no BN": {"norm": "none"}},
        rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        seeds=2,
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
