"""BN section 4.1, Figure 1: does BN train a sigmoid net faster and further, on stabler inputs?

The paper's own net and budget: binary 28×28 images, three sigmoid layers of 100 units, batches of
60, 50,000 steps. The paper states neither rate nor initialisation. So both arms are trained at one
rate and initialisation, those that are best without BN, and each at its own best of one grid; rates
of a fifth and of five times show how much hangs on it.

    python -m experiments.bn_mnist                                             small, 10,000 steps
    python -m experiments.bn_mnist --size full --data-dir DIR    Fashion-MNIST, the paper's budget
"""

from __future__ import annotations

import numpy as np

from vggbn.claims.parts import Part
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import as_ratio, verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.judges import verdict_interval, verdict_on
from vggbn.experiment.plan import edited
from vggbn.report import Chart
from vggbn.training.recipe import Recipe

# What the sweeps chose (sweep.json beside the results): initialisation and rate of either net.
SMALL = Tuned({"init": "normal_0.1", "lr": 0.3}, arms={"bn": {"init": "normal_0.01", "lr": 0.003}})
FULL = Tuned({"init": "normal_0.1", "lr": 0.1}, arms={"bn": {"init": "normal_0.1", "lr": 0.3}})

BASE = Recipe(
    model="mlp",
    fc=100,
    activation="sigmoid",
    image_size=28,
    pixels="binary",
    batch=60,
    steps=50_000,
    # Differs: the paper's figure is of the test images; curves here are of validation images, and
    # the test images are seen once, at the end.
    split="fixed",
    l2=0.0,
    dropout=0.0,
    evaluations=60,
    watch="inputs",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Both nets at three rates, and BN at its own best."""
    arms = {}
    for name, start in {"plain": base, "bn": base.but(norm="batch")}.items():
        arms[name] = start
        unwatched = start.but(watch="none")  # Figure 1(b, c) is of the two above
        arms[f"{name} ÷5"] = unwatched.but(lr=base.lr / 5)
        arms[f"{name} ×5"] = unwatched.but(lr=5 * base.lr)
    if size.tuned.arms["bn"] != size.tuned.base:
        best = {"norm": "batch", "watch": "none", **size.tuned.arms["bn"]}
        arms["bn tuned"] = edited(base, best)
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "fashion_mnist"
MARGIN = 0.5  # percentage points
EARLY = 0.2  # of the budget: 10,000 of 50,000 steps


def own_best(results: Results) -> str:
    """The arm of BN at its own best rate."""
    return "bn tuned" if "bn tuned" in results.runs else "bn"


def early(results: Results, variant: str, seed: int) -> float:
    """Validation accuracy after a fifth of the budget, between the two evaluations around it."""
    steps, values = results.curve(variant, seed)
    budget = results.runs[variant][seed]["recipe"]["steps"]
    return float(np.interp(EARLY * budget, steps, values))


def judge_bn_13(results: Results) -> Verdict:
    parts = []
    for rate, arm in {"one rate": "bn", "each its best": own_best(results)}.items():
        seeds = results.seeds("plain", arm)
        final, base = results.final(arm), results.final("plain")
        gaps = {
            "early": [early(results, arm, s) - early(results, "plain", s) for s in seeds],
            "end": [final[s] - base[s] for s in seeds],
        }
        for when, values in gaps.items():
            interval = verdict_interval([100 * value for value in values], parts=4)
            found = verdict(interval, margin=MARGIN)
            parts.append(Part(f"{rate}, {when}", interval, found))
    return verdict_on(parts)


def variation(results: Results, variant: str, seed: int) -> dict[str, np.ndarray]:
    """{median, spread}: the total variation [unit] over training of the inputs' median, and of
    their 85th less their 15th percentile; and each by the unit's first spread ("… relative")."""
    p_TPU = np.array(results.curve(variant, seed, "inputs")[1])
    low, median, high = p_TPU[:, 0], p_TPU[:, 1], p_TPU[:, 2]
    moved = {
        name: np.abs(np.diff(values_TU, axis=0)).sum(0)
        for name, values_TU in {"median": median, "spread": high - low}.items()
    }
    first_U = high[0] - low[0]
    return moved | {f"{name} relative": values_U / first_U for name, values_U in moved.items()}


def judge_bn_14(results: Results) -> Verdict:
    seeds, logs = results.seeds("plain", "bn"), {}
    for seed in seeds:
        plain, bn = (variation(results, arm, seed) for arm in ("plain", "bn"))
        for name in plain:
            logs.setdefault(name, []).append(float(np.log(plain[name].mean() / bn[name].mean())))
    parts = []
    for name in ("median", "spread"):
        interval = verdict_interval(logs[name], parts=2)
        parts.append(Part(name, as_ratio(interval), verdict(interval, margin=None)))
    units = ", ".join(f"{name} {np.exp(np.mean(values)):.2f}" for name, values in logs.items())
    return verdict_on(parts, "ratio", f"total variation without BN over that with it: {units}")


CLAIMS = (
    Claim(
        id="BN-13",
        is_primary=True,
        sentence="With BN the sigmoid net trains faster and ends higher.",
        criterion=(
            "BN's gap in validation accuracy after a fifth of the budget and in final test "
            "accuracy lies above 0, at one rate for both and at each arm's best; no effect inside "
            f"±{MARGIN:g} points."
        ),
        paper="Figure 1(a): BN ahead at 10,000 and at 50,000 steps (no figures)",
        primary=PRIMARY,
        judge=judge_bn_13,
    ),
    Claim(
        id="BN-14",
        is_primary=True,
        sentence="With BN the distribution of a sigmoid's inputs is stabler.",
        criterion=(
            "Total variation over training of the median, and of the 85th less the 15th "
            "percentile, mean over all units of the last hidden layer: without BN over with it, "
            "both above 1. It depends on the unit that percentiles are measured in."
        ),
        paper="Figure 1(b, c): much more stable (no figures)",
        primary=PRIMARY,
        judge=judge_bn_14,
    ),
)

# --- Figure 1 -------------------------------------------------------------------------------------


def charts(results: Results) -> dict[str, Chart]:
    """Figure 1's three panels, and what (b) and (c) say of all units."""
    trained = results.trained()
    if not trained:
        raise MissingRuns("needs runs")
    data = trained[0]["data"]["name"]
    found = {
        "(a) accuracy": Chart(
            "step",
            "validation accuracy, %",
            {
                arm: accuracies(results, arm)
                for arm in dict.fromkeys(("plain", "bn", own_best(results)))
            },
            range=(60 if data == PRIMARY else 70, 100),  # the figure's; wider for harder images
        )
    }
    seed = results.seeds("plain", "bn")[0]
    drawn = {
        panel: percentiles(results, arm, seed, typical_unit(results, arm, seed))
        for panel, arm in {"(b) without BN": "plain", "(c) with BN": "bn"}.items()
    }
    values = [v for lines in drawn.values() for line in lines.values() for (v,) in line.values()]
    for panel, lines in drawn.items():
        found[f"{panel}: inputs to a typical sigmoid"] = Chart(
            "step",
            "input to one unit of the last hidden layer",
            lines,
            range=(min(values), max(values)),  # one for both, as in the figure
        )
    found["all units, the least moved first"] = Chart(
        "unit",
        "total variation of its inputs' median",
        {arm: sorted_variation(results, arm) for arm in ("plain", "bn")},
    )
    return found


def accuracies(results: Results, arm: str) -> dict[float, list[float]]:
    """step -> validation accuracies in % over seeds."""
    curves = [results.curve(arm, seed) for seed in results.seeds(arm)]
    return {step: [100 * values[i] for _, values in curves] for i, step in enumerate(curves[0][0])}


def typical_unit(results: Results, arm: str, seed: int) -> int:
    """The unit whose median moves as much as the middle one's."""
    moved_U = variation(results, arm, seed)["median"]
    return int(np.argsort(moved_U)[len(moved_U) // 2])


def percentiles(results: Results, arm: str, seed: int, unit: int):
    """Each percentile -> step -> its value, for one seed's unit."""
    steps, values = results.curve(arm, seed, "inputs")
    names = ("15th percentile", "median", "85th percentile")
    return {
        name: {step: [record[i][unit]] for step, record in zip(steps, values, strict=True)}
        for i, name in enumerate(names)
    }


def sorted_variation(results: Results, arm: str) -> dict[float, list[float]]:
    """rank -> the total variations of the units of that rank, over seeds."""
    sorted_SU = np.array(
        [np.sort(variation(results, arm, seed)["median"]) for seed in results.seeds(arm)]
    )
    return {rank: list(values_S) for rank, values_S in enumerate(sorted_SU.T, 1)}


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 150, "evaluations": 5}, tuned=SMALL),
    "small": Size(seeds=5, edits={"steps": 10_000}, tuned=SMALL),
    "full": Size(
        seeds=5,
        edits={"data": "fashion_mnist"},
        tuned=FULL,
        sweep_steps=10_000,
        finalists=2,
    ),
}

EXPERIMENT = Experiment(
    name="bn_mnist",
    title="The paper's MNIST net",
    question=(
        "Figure 1: does a sigmoid net train faster and end higher with BN, and are the inputs of "
        "its sigmoids stabler?"
    ),
    base=BASE,
    baseline="plain",
    variants=variants,
    claims=CLAIMS,
    charts=charts,
    sizes=SIZES,
    panels={
        "without BN": ("plain ÷5", "plain", "plain ×5"),
        "with BN": ("bn ÷5", "bn", "bn ×5", "bn tuned"),
        "both": ("plain", "bn", "bn tuned"),
    },
    sweep=Sweep(
        arms={
            "no BN, std 0.1": {"init": "normal_0.1"},
            "no BN, std 0.01": {"init": "normal_0.01"},
            "BN, std 0.1": {"init": "normal_0.1", "norm": "batch"},
            "BN, std 0.01": {"init": "normal_0.01", "norm": "batch"},
        },
        rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        seeds=2,
    ),
    any_images={},
    notes=(
        "Percentiles are of the inputs to all units of the last hidden layer for the first 500 "
        "validation images, at every point of the curve, BN by its moving averages.",
    ),
    opening=("plain", "bn", "bn tuned"),
)

if __name__ == "__main__":
    main(EXPERIMENT)
