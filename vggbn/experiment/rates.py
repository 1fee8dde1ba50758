"""Which rate of a search is chosen, which tie with it, and where a search ended too early (R9)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vggbn.claims.stats import smoothed
from vggbn.experiment.design import Sweep
from vggbn.experiment.find import find_experiment
from vggbn.experiment.plan import Plan, edited

FACTOR = 2.0  # between the last rate of a grid and one beyond it

ByRate = dict[str, list[float | None]]  # {rate: score of each seed}


def score(record: dict) -> float | None:
    """The best point of the smoothed validation curve; None for a run that diverged."""
    values = smoothed([line["val_accuracy"] for line in record["history"]])
    return None if record["diverged_at"] is not None else float(np.max(values))


def leading(by_rate: ByRate, count: int) -> list[str]:
    """The best rates, the very best first; one with a diverged seed is out, a tie goes down."""
    means = {rate: float(np.mean(v)) for rate, v in by_rate.items() if None not in v}  # type: ignore[arg-type]
    return sorted(means, key=lambda rate: (-means[rate], float(rate)))[:count]


def tied(by_rate: ByRate) -> list[str]:
    """The other rates whose mean lies within one standard error of the best one's mean, best first;
    none where one seed has no error."""
    first, *others = leading(by_rate, len(by_rate)) or [""]
    scores = by_rate.get(first, [])
    if len(scores) < 2:
        return []
    error = float(np.std(scores, ddof=1)) / math.sqrt(len(scores))  # type: ignore[arg-type]
    bar = float(np.mean(scores)) - error  # type: ignore[arg-type]
    return [rate for rate in others if np.mean(by_rate[rate]) >= bar]  # type: ignore[arg-type]


def beyond(by_rate: ByRate) -> str:
    """The rate to try next where the best one is the lowest or the highest that was tried, and
    where all diverged; empty where the best lies inside."""
    rates = sorted(map(float, by_rate))
    best = best_rate(by_rate)[0]
    if math.isnan(best) or best == rates[0]:
        return f"{rates[0] / FACTOR:g}"
    return f"{rates[-1] * FACTOR:g}" if best == rates[-1] else ""


def edge_rates(record: Mapping[str, Any]) -> dict[str, float]:
    """{arm: best rate} of a sweep's record, where that is the lowest or the highest one tried."""
    found = {}
    for arm, by_rate in record["accuracy"].items():
        rates, best = [float(rate) for rate in by_rate], record["best"][arm][0]
        if best in (min(rates), max(rates)):
            found[arm] = best
    return found


def arms_at_edge(plan: Plan, record: Mapping[str, Any] | None) -> dict[str, float]:
    """{arm of the plan: its rate} of those that took such a rate, by what the search edits."""
    sweep = plan.experiment.sweep
    if isinstance(sweep, str):
        sweep = getattr(find_experiment(sweep), "sweep", None)
    if record is None or not isinstance(sweep, Sweep):
        return {}
    fields = {name for edits in sweep.arms.values() for name in edits}
    found = {}
    for arm, rate in edge_rates(record).items():
        searched = edited(plan.base, {**sweep.arms[arm], "lr": rate})
        for name, recipe in plan.variants.items():
            if all(getattr(recipe, f) == getattr(searched, f) for f in (*fields, "lr")):
                found[name] = rate
    return found


def best_rate(by_rate: ByRate) -> tuple[float, float]:
    """(rate, mean score) of the first of `leading`; nan where all diverged."""
    rates = leading(by_rate, 1)
    return (float(rates[0]), float(np.mean(by_rate[rates[0]]))) if rates else (math.nan, math.nan)  # type: ignore[arg-type]
