"""The arms of bn_ablation: the changes of BN 4.2.1 to a net, alone, together and left out.

What leaving each of four changes out of all of them costs is laid out here as a table and a figure.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from statistics import fmean
from typing import Any

from vggbn.claims.results import NotTested, Results
from vggbn.claims.stats import Interval, as_ratio, log_ratio_interval, paired_interval
from vggbn.experiment.design import Size
from vggbn.experiment.judges import accuracy_text, gap
from vggbn.report import Effects, Table, points_text, ratio_text
from vggbn.training.recipe import Recipe

Change = Callable[[Recipe], dict[str, Any]]

# The seven changes of section 4.2.1, as edits of a recipe.
CHANGES: dict[str, Change] = {
    "lr_x5": lambda r: {"lr": 5 * r.lr},
    "no_dropout": lambda r: {"dropout": 0.0},
    "l2_5th": lambda r: {"l2": r.l2 / 5},
    "decay_x6": lambda r: {"lr_every": r.lr_every / 6},
    "no_lrn": lambda r: {"model": "vgg_a"},
    "shuffle": lambda r: {"shuffle": "fresh"},
    "colour_3rd": lambda r: {"distortion": r.distortion / 3},
}


def changed(recipe: Recipe, *names: str) -> Recipe:
    """The recipe with these of the seven changes."""
    return recipe.but(**{k: v for name in names for k, v in CHANGES[name](recipe).items()})


# The changes that are taken out of "all" one at a time, and what that leaves.
LEFT_OUT = {
    "lr_x5": "higher rate",
    "no_dropout": "no dropout",
    "decay": "faster decay",
    "no_lrn": "no LRN",
}


def figure_2(base: Recipe, part: int) -> dict[str, Recipe]:
    """The arms of Figure 2, and those of "all changes" less one at a time.

    Arms called …/3 have a third of the budget (`part` is 3), as the paper's accelerated nets peaked
    long before its baseline did; the schedule is compressed as much, so that "faster decay" is a
    whole schedule and not the end of learning.
    """
    # Differs: the paper's decay is 6 times faster, and its nets peak in a fifth of the steps.
    bn = base.but(norm="batch")
    arms = {"base": base, "bn": bn}
    for factor in (5, 30):
        for arm in ("base", "bn"):
            arms[f"{arm}+lr_x{factor}"] = arms[arm].but(lr=factor * base.lr)
    slow = bn.but(steps=round(base.steps / part), evaluations=round(base.evaluations / part))
    compressed = {"lr_every": base.lr_every / part}
    changes = {name: change(slow) for name, change in CHANGES.items() if name != "decay_x6"}
    changes["decay"] = compressed
    every = {field: value for edits in changes.values() for field, value in edits.items()}
    arms[f"bn/{part}"] = slow.but(**compressed)
    arms[f"bn+all/{part}"] = slow.but(**every)
    for name in LEFT_OUT:
        kept = {field: value for field, value in every.items() if field not in changes[name]}
        arms[f"bn+all-{name}/{part}"] = slow.but(**kept)
    return arms


def factorial(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Each change alone and left out, with and without BN, all in one budget."""
    arms = {}
    for arm, start in {"base": base, "bn": base.but(norm="batch")}.items():
        every = changed(start, *CHANGES)
        arms[arm] = start
        arms[f"{arm}+lr_x30"] = start.but(lr=30 * start.lr)
        arms[f"{arm}+constant"] = start.but(schedule="constant")
        for name in CHANGES:
            others = (other for other in CHANGES if other != name)
            arms[f"{arm}+{name}"] = changed(start, name)
            arms[f"{arm}+all-{name}"] = changed(start, *others)
        arms[f"{arm}+all"] = every  # at ×5, as BN-x5
        arms[f"{arm}+all+sigmoid"] = every.but(activation="sigmoid")
    arms["bn+all+lr_x30"] = arms["bn+all"].but(lr=30 * base.lr)
    # VGG 3.1: "variance 10^-2", read as the standard deviation and as the variance.
    arms["base+std_0.01"] = base.but(init="normal_0.01")
    arms["base+std_0.1"] = base.but(init="normal_0.1")
    arms["bn+l2_x5"] = arms["bn"].but(l2=5 * base.l2)
    arms["bn+l2_0"] = arms["bn"].but(l2=0.0)
    if (rate := size.tuned.arms["bn"]["lr"]) != size.tuned.base["lr"]:
        arms["bn+tuned"] = arms["bn"].but(lr=rate)
    return arms


# --- what leaving a change out costs --------------------------------------------------------------


def whole_arm(results: Results) -> str:
    """The arm of all changes in a budget of its own. NotTested: this size has them in another."""
    found = [name for name in results.variants if name.startswith("bn+all/")]
    if not found:
        raise NotTested(DESTROYED)
    return found[0]


DESTROYED = (
    "in the baseline's budget a schedule that decays six times as fast ends at a millionth of its "
    "rate: the arms that it makes lose 15 to 28 points. It needs a budget of its own."
)


def compared_arms(results: Results) -> dict[str, str]:
    """{words: arm}: what `bn+all` is compared with."""
    part = whole_arm(results).rpartition("/")[2]
    left_out = {f"all but {words}": f"bn+all-{name}/{part}" for name, words in LEFT_OUT.items()}
    return {
        "neither BN nor any change": "base",
        "BN alone": "bn",
        f"BN alone, in 1/{part} of the budget": f"bn/{part}",
        **left_out,
    }


def points_lost(results: Results, arm: str) -> Interval:
    """By how many points of test accuracy an arm stays behind all changes, over seeds."""
    return paired_interval(gap(results, whole_arm(results), arm))


def times_more_steps(results: Results, arm: str) -> Interval:
    """How many times the steps of all changes an arm takes to the target, over seeds."""
    whole = whole_arm(results)
    targets = {s: t for s, t in results.targets("base").items() if s in results.seeds(whole, arm)}
    slow, fast = (results.to_target(name, targets) for name in (arm, whole))
    return as_ratio(log_ratio_interval([slow[s] for s in targets], [fast[s] for s in targets]))


def tables(results: Results) -> list[Table]:
    """What BN, and each of four changes, gives: accuracy at the end, and steps to the target."""
    whole = whole_arm(results)
    rows = [("BN and all changes", whole, *_facts(results, whole), "–", "–")]
    for words, arm in compared_arms(results).items():
        lost, more = points_lost(results, arm), times_more_steps(results, arm)
        rows.append((words, arm, *_facts(results, arm), points_text(lost), ratio_text(more)))
    target = 100 * next(iter(results.targets("base").values()))
    headers = (
        "net",
        "arm",
        "test accuracy, %",
        f"steps to {target:.1f} %",
        "points behind all changes [95 %]",
        "times as many steps as all changes [95 %]",
    )
    note = (
        "Paired over seeds. Steps are the geometric mean; ≥ where some seeds do not get there "
        "within their budget, and how many do is said."
    )
    return [Table(headers, rows, "What each change gives", note)]


def charts(results: Results) -> dict[str, Effects]:
    """The same as a figure: what is lost where a change is left out."""
    arms = compared_arms(results)
    return {
        "Steps to the target, against BN with all changes": Effects(
            "times the steps",
            {words: times_more_steps(results, arm) for words, arm in arms.items()},
            ratios=True,
        ),
        "Test accuracy, against BN with all changes": Effects(
            "points behind",
            {words: points_lost(results, arm) for words, arm in arms.items()},
        ),
    }


def _facts(results: Results, arm: str) -> tuple[str, str]:
    """Test accuracy and steps of one arm."""
    reached = list(results.to_target(arm, results.targets("base")).values())
    n = sum(ok for _, ok in reached)
    steps = exp(fmean(log(steps) for steps, _ in reached))
    text = f"{steps:.0f}"
    if n < len(reached):
        text = f"≥ {text} ({n} of {len(reached)} reach it)"
    return accuracy_text(results, arm), text
