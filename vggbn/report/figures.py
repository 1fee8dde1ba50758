"""The report's figures: learning curves, final accuracies, the learning-rate sweep.

Legends are the page's own (html.py), since they must wrap on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vggbn.claims.stats import paired_interval
from vggbn.report.accuracies import Accuracy, accuracy, final_accuracy
from vggbn.report.curves import CROSS, common_range, draw_curve, draw_line, room
from vggbn.report.opening import opening as opening
from vggbn.report.records import Chart, Report, finished
from vggbn.report.svg import FONT, INK, colour, log_axis, new_axes, render, value_axis
from vggbn.report.words import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = 26  # characters of an arm beside its row
DOTS = 20  # points of a line that are still marked one by one


def curves(report: Report, names: Sequence[str]) -> str:
    """Validation accuracy against step: mean over seeds, band from the lowest to the highest."""
    axes = new_axes(height=3.4)
    for i, name in enumerate(names):
        draw_curve(axes, i, report.curves[name])
    value_axis(axes, "validation accuracy, %")
    axes.set_ylim(common_range(report.curves.values()))
    log_axis(axes, "step")
    return render(axes, f"Validation accuracy against step: {', '.join(names)}")


def finals(report: Report) -> str:
    """Final test accuracies: one dot a seed, above them the mean and its interval, if any."""
    values = {name: list(finished(report, name).values()) for name in report.variants}
    drawn = {name: [100 * v for v in seeds] for name, seeds in values.items() if seeds}
    axes = new_axes(height=0.9 + 0.34 * len(drawn))
    for row, (name, accuracies) in enumerate(drawn.items()):
        found = final_accuracy(report, name)
        assert found is not None, "an arm is drawn because some run of it finished"
        _draw_final(axes, row, accuracies, found)
    axes.set_yticks(range(len(drawn)), [short(name, NAME) for name in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlim(room([v for accuracies in drawn.values() for v in accuracies], share=0.25))
    value_axis(axes, "test accuracy, %", along="x")
    return render(axes, "Final test accuracies with 95 % intervals")


def sweep(report: Report) -> str:
    """Accuracy against learning rate for each arm: mean, and lowest to highest seed."""
    axes = new_axes(height=3.4)
    for i, rates in enumerate(report.sweep.values()):
        _draw_sweep(axes, i, rates)
    value_axis(axes, "validation accuracy, %")
    log_axis(axes, "learning rate")
    return render(axes, "Validation accuracy against learning rate")


def chart(chart: Chart) -> str:
    """Lines over a number: mean over seeds, and its 95 % interval as a bar; of what is in % as
    `accuracies` says."""
    axes = new_axes(height=3.4)
    for i, points in enumerate(chart.series.values()):
        xs = sorted(x for x in points if points[x])
        interval_of = accuracy if chart.y.endswith("%") else paired_interval
        intervals = [interval_of(points[x]) for x in xs]
        marker = "o" if len(xs) <= DOTS else ""
        draw_line(axes, i, xs, [interval.mean for interval in intervals], marker=marker)
        for x, interval in zip(xs, intervals, strict=True):
            if interval.n > 1:
                axes.plot([x, x], [interval.low, interval.high], color=colour(i), linewidth=1)
    value_axis(axes, chart.y)
    axes.set_xlabel(chart.x, color=INK, fontsize=FONT)
    if chart.range:
        axes.set_ylim(chart.range)
    return render(axes, f"{chart.y} against {chart.x}: {', '.join(chart.series)}")


def _draw_final(axes: Axes, row: int, accuracies: Sequence[float], found: Accuracy) -> None:
    below, above = row + 0.16, row - 0.1
    rows = [below] * len(accuracies)
    axes.plot(accuracies, rows, "o", color=colour(0), markersize=4, alpha=0.6, markeredgewidth=0)
    if found.is_interval:
        axes.plot([found.low, found.high], [above, above], color=INK, linewidth=1.4)
    axes.plot(found.mean, above, "D", color=INK, markersize=4.5, markeredgewidth=0)


def _draw_sweep(axes: Axes, i: int, rates: Mapping[float, Sequence[float]]) -> None:
    kept = {rate: [100 * v for v in rates[rate] if math.isfinite(v)] for rate in sorted(rates)}
    alive = [rate for rate in kept if kept[rate]]
    draw_line(axes, i, alive, [np.mean(kept[rate]) for rate in alive], marker="o")
    for rate in alive:
        axes.plot([rate, rate], [min(kept[rate]), max(kept[rate])], color=colour(i), linewidth=1)
    lost = [rate for rate in kept if len(kept[rate]) < len(rates[rate])]
    foot = [0.02 + 0.045 * i] * len(lost)  # a fraction of the axes: arms do not hide each other
    axes.plot(lost, foot, color=colour(i), transform=axes.get_xaxis_transform(), **CROSS)
