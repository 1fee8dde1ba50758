"""Accuracies over seeds: a mean, and an interval that never leaves 0 to 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vggbn.claims.stats import PUBLISHED_SEEDS, paired_interval
from vggbn.report.records import Report, finished, mishaps

CLOSE = 10.0  # points that seeds may differ by: beyond, some trained and some did not
NOTE = (
    f"The 95 % interval is Student's t over seeds. It supposes a bell: with fewer than "
    f"{PUBLISHED_SEEDS} seeds, seeds that all score the same or differ by more than {CLOSE:g} "
    "points, a run that did not finish, or an end beyond 0 or 100 % there is none, and the lowest "
    "and the highest seed say how far they spread."
)


class Accuracy(NamedTuple):
    """Mean and bounds in %; is_interval: by Student's t, else the lowest and the highest seed."""

    mean: float
    low: float
    high: float
    n: int
    is_interval: bool


def accuracy(percentages: Sequence[float], *, whole: bool = True) -> Accuracy:
    """What seeds with these accuracies, at least one, say of their mean; whole: all finished."""
    found = paired_interval(percentages)
    lowest, highest = min(percentages), max(percentages)
    enough = whole and found.n >= PUBLISHED_SEEDS and 0 < highest - lowest <= CLOSE
    if enough and found.low >= 0 and found.high <= 100:
        return Accuracy(found.mean, found.low, found.high, found.n, True)
    return Accuracy(found.mean, lowest, highest, found.n, False)


def final_accuracy(report: Report, variant: str) -> Accuracy | None:
    """That of a variant's final test accuracies; None where no run finished."""
    values = [100 * value for value in finished(report, variant).values()]
    return accuracy(values, whole=not mishaps(report, variant)) if values else None
