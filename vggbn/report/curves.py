"""Learning curves on axes: what the report's figures of them share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggbn.report.records import Curve, Report
from vggbn.report.svg import colour, dashes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROSS: dict[str, Any] = {"marker": "x", "markersize": 6, "markeredgewidth": 1.6, "linewidth": 0}


def drawable(curve: Curve) -> bool:
    """Whether any seed has a value to draw."""
    return bool(np.isfinite(matrix(curve)[1]).any())


FLAT = 3.0  # points: a mean that rises by less says nothing that words do not


def panels(report: Report) -> dict[str, list[str]]:
    """The panels that are worth a picture, and of each the arms with a curve.

    One whose arms all stand in larger or earlier panels is left out, as is one with a single flat
    curve.
    """
    found = {
        title: [name for name in names if name in report.curves and drawable(report.curves[name])]
        for title, names in report.panels.items()
    }
    shown: dict[str, list[str]] = {}
    for title in sorted(found, key=lambda title: -len(found[title])):  # stable: the earlier of two
        names = found[title]
        is_new = bool(set(names) - set().union(*shown.values()))
        if is_new and not (len(names) == 1 and _flat(report.curves[names[0]])):
            shown[title] = names
    return {title: shown[title] for title in found if title in shown}


def _flat(curve: Curve) -> bool:
    """Whether no seed rises above where it began."""
    values = matrix(curve)[1]
    return bool(np.nanmax(values) - np.nanmin(values) < FLAT)


def draw_curve(axes: Axes, i: int, curve: Curve, *, solid: bool = False) -> None:
    """Draw the mean as far as all seeds go; a mean beyond would be one over survivors.

    i: the number of the series; solid: without its dashes.
    """
    steps, values = matrix(curve)
    whole = np.isfinite(values).sum(axis=0) == len(values)
    seen = values[:, whole]
    axes.fill_between(
        steps[whole], seen.min(0), seen.max(0), color=colour(i), alpha=0.15, linewidth=0
    )
    draw_line(axes, i, steps[whole], seen.mean(0), solid=solid)
    for seed in values if not whole.all() else ():
        draw_line(axes, i, steps, np.where(_beyond(whole), seed, np.nan), width=0.7, solid=solid)
        known = np.flatnonzero(np.isfinite(seed))
        if known.size and known[-1] < steps.size - 1:
            axes.plot(steps[known[-1]], seed[known[-1]], color=colour(i), **CROSS)


def matrix(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positive steps (t,) and accuracies in % (seeds, t), NaN where a seed has none."""
    steps = np.asarray(curve.steps, dtype=np.float64)
    values = np.full((len(curve.values_by_seed), steps.size), np.nan)
    for row, seed in zip(values, curve.values_by_seed.values(), strict=True):
        known = np.asarray(seed, dtype=np.float64)[: steps.size]
        row[: known.size] = np.where(np.isfinite(known), known, np.nan)
    return steps[steps > 0], 100 * values[:, steps > 0]


def _beyond(whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where seeds are drawn singly: all but the whole part, and its edges so that lines join."""
    return ~(whole & np.append(True, whole[:-1]) & np.append(whole[1:], True))


def common_range(drawn: Iterable[Curve]) -> tuple[float, float]:
    """One range of accuracies for all curves that are to be compared at a glance."""
    values = np.concatenate([matrix(curve)[1].ravel() for curve in drawn])
    return room(values[np.isfinite(values)].tolist(), share=0.04)


def room(values: Sequence[float], share: float) -> tuple[float, float]:
    """Limits with a margin around values in %, not far beyond 0 and 100."""
    low, high = min(values, default=0.0), max(values, default=100.0)
    margin = max(share * (high - low), 0.5)
    return max(low - margin, min(low, 0.0) - 1), min(high + margin, max(high, 100.0) + 1)


def draw_line(
    axes: Axes, i: int, x: ArrayLike, y: ArrayLike, width=1.6, marker="", solid=False
) -> None:
    """A series' line, in its colour and, unless it is to be solid, its dashes."""
    line = axes.plot(x, y, color=colour(i), linewidth=width, marker=marker, markersize=4)[0]
    if dashes(i) and not solid:
        line.set_dashes(dashes(i))
