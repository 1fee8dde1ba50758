"""The picture that a report opens with: accuracy against steps, as in Figure 2 of the BN paper.

The arms' names stand at the ends of their curves, moved apart where they would meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vggbn.report.curves import common_range, draw_curve, drawable, matrix
from vggbn.report.records import Report
from vggbn.report.svg import FONT, INK, colour, new_axes, number_axis, render, value_axis
from vggbn.report.words import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = 30  # characters of an arm beside its curve
MOST = 6  # arms that can be told apart at a glance
LINE = 1.3 * FONT  # points from one name to the next
ROOM = 0.75  # of the steps: a curve that ends before has its name inside the axes


def arms(report: Report) -> list[str]:
    """The arms of the opening picture that have a curve, in their order, so many as fit."""
    known = [name for name in report.opening if name in report.curves]
    return [name for name in known if drawable(report.curves[name])][:MOST]


def opening(report: Report) -> str:
    """The picture as an <svg> element: validation accuracy against steps, mean and band over seeds;
    a dashed line for the mean target, if there is one. Empty where no arm has a curve."""
    names = arms(report)
    if not names:
        return ""
    axes = new_axes(height=3.3)
    for i, name in enumerate(names):
        draw_curve(axes, i, report.curves[name], solid=True)
    value_axis(axes, "validation accuracy, %")
    axes.set_ylim(common_range(report.curves[name] for name in names))
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    number_axis(axes, "training step")
    labels = [(short(name, NAME), colour(i)) for i, name in enumerate(names)]
    ends = [_end(report, name) for name in names]
    if (target := _target(report)) is not None:
        axes.axhline(target, color=INK, linewidth=0.8, dashes=(6, 4), zorder=1)
        labels.append((f"target {target:.1f} %", INK))
        ends.append((axes.get_xlim()[1], target))
    _draw_names(axes, labels, np.array(ends))
    return render(axes, f"Validation accuracy against training steps: {', '.join(names)}")


def caption(report: Report) -> str:
    """What the picture, if there is one, shows: a sentence or two."""
    seeds = [len(report.curves[name].values_by_seed) for name in arms(report)]
    n = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    band = ", band: lowest to highest seed" if max(seeds) > 1 else ""
    text = f"Validation accuracy while training (line: mean of n = {n}{band})."
    if _target(report) is None:
        return text
    whose = f"the best smoothed accuracy of {report.baseline_name} (mean over seeds)"
    if len(set(report.targets.values())) < len(report.targets):  # else each seed has its own
        whose = "fixed beforehand"
    return f"{text} Dashed: the target, {whose}."


def spread(wanted: NDArray[np.float64], gap: float, high: float) -> NDArray[np.float64]:
    """Places (n,) in 0 … `high`, in the order of the wanted ones and at least `gap` apart, that
    move least: isotonic regression on what remains when each has its gap."""
    from scipy.optimize import isotonic_regression

    if not wanted.size:
        return wanted
    order = np.argsort(wanted, kind="stable")
    gaps = gap * np.arange(wanted.size)
    level = isotonic_regression(wanted[order] - gaps).x
    places = np.empty_like(wanted)
    places[order] = np.clip(level, 0, max(high - gaps[-1], 0)) + gaps
    return places


def _target(report: Report) -> float | None:
    return 100 * float(np.mean(list(report.targets.values()))) if report.targets else None


def _end(report: Report, name: str) -> tuple[float, float]:
    """Where the curve ends: its last step with a value, and the mean over those that have one."""
    steps, values = matrix(report.curves[name])
    last = np.flatnonzero(np.isfinite(values).any(axis=0))[-1]
    return float(steps[last]), float(np.nanmean(values[:, last]))


def _draw_names(axes: Axes, names: Sequence[tuple[str, str]], ends: NDArray[np.float64]) -> None:
    """Each (name, colour) beside the end [x, y] of its curve."""
    figure = axes.get_figure(root=True)
    assert figure is not None, "axes are drawn on a figure"
    figure.draw_without_rendering()  # sets the height of the axes
    height = axes.get_window_extent().height * 72 / figure.dpi
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    early = ends[:, 0] < ROOM * ends[:, 0].max()
    for group in (np.flatnonzero(early), np.flatnonzero(~early)):
        heights = (ends[group, 1] - low) / (high - low) * height
        for i, place in zip(map(int, group), spread(heights, LINE, height) / height, strict=True):
            left = ends[i, 0] / right + 0.05 if early[i] else 1.03
            _draw_name(axes, *names[i], ends[i], (left, float(place)))


def _draw_name(axes: Axes, name: str, colour: str, end, place: tuple[float, float]) -> None:
    """A name at `place`, a fraction of the axes, and a thin line to `end`, in data."""
    axes.annotate(
        name, end, xytext=place, textcoords="axes fraction", va="center", color=colour,
        fontsize=FONT, annotation_clip=False, arrowprops={
            "arrowstyle": "-", "color": colour, "linewidth": 0.7, "relpos": (0, 0.5),
            "shrinkA": 1, "shrinkB": 1,
        },
    )  # fmt: skip
