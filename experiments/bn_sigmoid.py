"""BN section 4.2.2: do deep sigmoid nets train only with BN?

Fully connected sigmoid nets of 3 to 12 hidden layers. Without BN every depth gets a grid of rates
and two initialisations, Glorot's and four times it (Glorot & Bengio's own advice for sigmoids);
with BN one rate and one initialisation for all.

    python -m experiments.bn_sigmoid                                             small, MNIST-5k
    python -m experiments.bn_sigmoid --size full --data-dir DIR                  Fashion-MNIST
"""

from __future__ import annotations

import math

from vggbn.claims.results import Results
from vggbn.claims.stats import Interval
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Verdict
from vggbn.experiment.gate import FOR_FAILURES
from vggbn.experiment.judges import verdict_interval
from vggbn.report import Chart, Table
from vggbn.training.recipe import Recipe

DEPTHS = (3, 6, 9, 12)
RATES = (0.01, 0.03, 0.1, 0.3)
STARTS = {"Glorot": 1.0, "Glorot ×4": 4.0}
RATE = 0.1  # with BN, not searched

BASE = Recipe(
    model="mlp",
    fc=100,
    activation="sigmoid",
    norm="batch",
    init="glorot",
    hidden=DEPTHS[0],
    image_size=28,
    batch=60,
    steps=20_000,
    lr=RATE,
    l2=0.0,
    dropout=0.0,
    split="fixed",
)


def cell(depth: int, start: str, rate: float) -> str:
    """The name of an arm without BN."""
    return f"{depth} layers, {start}, rate {rate:g}"


def bn(depth: int) -> str:
    """The name of the arm with BN."""
    return f"{depth} layers, BN"


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """At each depth BN, and the whole grid without it."""
    arms = {}
    for depth in DEPTHS:
        deep = base if depth == base.hidden else base.but(hidden=depth)
        arms[bn(depth)] = deep
        for start, scale in STARTS.items():
            for rate in RATES:
                edits = {"norm": "none", "init_scale": scale, "lr": rate}
                plain = {k: v for k, v in edits.items() if v != getattr(deep, k)}
                arms[cell(depth, start, rate)] = deep.but(**plain)
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "fashion_mnist"


def cells(depth: int) -> list[str]:
    """The arms without BN of a depth."""
    return [cell(depth, start, rate) for start in STARTS for rate in RATES]


def above_chance(line: dict) -> bool:
    """Trained without diverging to at least twice the accuracy of chance."""
    accuracy = line["final"]["test_accuracy"]
    return line["diverged_at"] is None and accuracy >= 2 / line["data"]["classes"]


def compared(results: Results, depth: int) -> tuple[Interval, bool, bool]:
    """(BN less the best cell without it, in points by seed; whether every cell is at chance in
    every seed; whether BN is above chance in every seed)."""
    seeds = results.seeds(bn(depth), *cells(depth))
    with_bn = results.final(bn(depth))
    plain = {name: results.final(name) for name in cells(depth)}
    # Of each seed the best cell, chosen on the test images: the most that can be said for it.
    gaps = [100 * (with_bn[s] - max(own[s] for own in plain.values())) for s in seeds]
    lost = not any(above_chance(results.runs[name][s]) for name in plain for s in seeds)
    trains = all(above_chance(results.runs[bn(depth)][s]) for s in seeds)
    return verdict_interval(gaps), lost, trains


def judge_bn_19(results: Results) -> Verdict:
    found = {depth: compared(results, depth) for depth in DEPTHS}
    shown = [d for d, (gap, lost, trains) in found.items() if lost and trains and gap.low > 0]
    decides = shown[0] if shown else DEPTHS[-1]
    outcome = "reproduced" if shown else "inconclusive"
    texts = [
        f"{d} layers: {gap.mean:+.1f}" + (", no cell without BN trains" if lost else "")
        for d, (gap, lost, _) in found.items()
    ]
    if not shown:
        texts.append(f"no such depth up to {DEPTHS[-1]} layers was found")
    return Verdict(outcome, found[decides][0], "points", "; ".join(texts))


CLAIMS = (
    Claim(
        id="BN-19",
        sentence="Deep sigmoid nets train only with BN.",
        criterion=(
            "There is a depth at which no rate and initialisation of the grid without BN gets any "
            "seed to twice the accuracy of chance, and BN gets all there. No finite list of depths "
            "contradicts that there is one."
        ),
        paper="69.8 % against less than 0.1 % (Inception with sigmoids)",
        primary=PRIMARY,
        judge=judge_bn_19,
        gate=FOR_FAILURES,
    ),
)

# --- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """Mean test accuracy of every cell."""
    headers = ("hidden layers", "BN", *(f"{s}, rate {r:g}" for s in STARTS for r in RATES))
    rows = [
        (str(depth), *(accuracy_text(results, name) for name in (bn(depth), *cells(depth))))
        for depth in DEPTHS
    ]
    return [Table(headers, rows, "Test accuracy, %", "Mean over seeds; chance is 10 %.")]


def accuracy_text(results: Results, name: str) -> str:
    """The mean over seeds in %, and how many of them diverged."""
    runs = results.runs.get(name, {})
    if not runs:
        return "–"
    mean = 100 * sum(results.final(name).values()) / len(runs)
    broken = sum(line["diverged_at"] is not None for line in runs.values())
    return f"{mean:.1f}" + (f" ({broken} diverged)" if broken else "")


def charts(results: Results) -> dict[str, Chart]:
    """Accuracy against depth: BN, and the best cell without it in each seed."""
    series = {"BN": {}, "best without BN": {}}
    for depth in DEPTHS:
        seeds = results.seeds(bn(depth), *cells(depth))
        own = results.final(bn(depth))
        best = [max(results.final(name)[s] for name in cells(depth)) for s in seeds]
        series["BN"][depth] = [100 * own[s] for s in seeds]
        series["best without BN"][depth] = [100 * value for value in best if math.isfinite(value)]
    return {"depth": Chart("hidden sigmoid layers", "test accuracy, %", series, (0, 100))}


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 60, "evaluations": 3}),
    "small": Size(seeds=3, edits={"steps": 2_000}),
    "full": Size(seeds=5, edits={"data": "fashion_mnist"}),
}

EXPERIMENT = Experiment(
    name="bn_sigmoid",
    title="Deep sigmoid nets",
    question="How deep can a sigmoid net be and still train, with and without BN?",
    base=BASE,
    baseline=bn(DEPTHS[0]),
    variants=variants,
    claims=CLAIMS,
    tables=tables,
    charts=charts,
    sizes=SIZES,
    panels={f"{depth} layers": (bn(depth), *cells(depth)) for depth in DEPTHS},
    opening=tuple(
        name
        for depth in (DEPTHS[0], DEPTHS[-1])
        for name in (bn(depth), cell(depth, "Glorot ×4", RATE))
    ),
    sweep=Sweep(arms={"BN": {}}, rates=(0.03, 0.1, 0.3), seeds=2),
    any_images={},
    notes=(
        "The grid of rates and initialisations is for the nets without BN alone; those with BN get "
        f"rate {RATE:g}, unsearched.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
