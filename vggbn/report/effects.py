"""A figure of effects: a dot with its interval for each change, beside the line of no effect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggbn.claims.stats import Interval
from vggbn.report.svg import INK, colour, log_axis, new_axes, render, value_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Effects:
    """What single changes do. x: the effect in words, with its unit; none: where there is none.

    rows: change -> its interval; ratios are drawn on a logarithmic axis.
    """

    x: str
    rows: Mapping[str, Interval]
    ratios: bool = False

    @property
    def none(self) -> float:
        return 1.0 if self.ratios else 0.0


def draw(effects: Effects) -> str:
    """The figure as an <svg> element. A side that is not known is a bar to the edge."""
    axes = new_axes(height=0.9 + 0.34 * len(effects.rows))
    left, right = limits(effects)
    if effects.ratios:
        log_axis(axes, effects.x)
    value_axis(axes, effects.x, along="x")
    axes.set_xlim(left, right)
    axes.axvline(effects.none, color=INK, linewidth=0.8)
    for row, interval in enumerate(effects.rows.values()):
        _draw_row(axes, row, interval, left, right)
    axes.set_yticks(range(len(effects.rows)), list(effects.rows))
    axes.set_ylim(len(effects.rows) - 0.5, -0.5)
    return render(axes, f"{effects.x}: {', '.join(effects.rows)}")


def _draw_row(axes: Axes, row: int, interval: Interval, left: float, right: float) -> None:
    low, high = max(interval.low, left), min(interval.high, right)
    axes.plot([low, high], [row, row], color=colour(0), linewidth=2)
    axes.plot(interval.mean, row, "o", color=colour(0), markersize=6, markeredgewidth=0)
    for known, x, arrow in ((interval.low, left, "<"), (interval.high, right, ">")):
        if not left <= known <= right:
            axes.plot(x, row, arrow, color=colour(0), markersize=7, clip_on=False)


def limits(effects: Effects) -> tuple[float, float]:
    """From the least to the greatest known number, with room, and no effect inside."""
    scale, back = (math.log, math.exp) if effects.ratios else (float, float)
    ends = [v for i in effects.rows.values() for v in (i.low, i.mean, i.high)]
    known = [scale(v) for v in ends if math.isfinite(v) and (v > 0 or not effects.ratios)]
    low, high = min([*known, scale(effects.none)]), max([*known, scale(effects.none)])
    room = 0.1 * (high - low) or 0.5
    return back(low - room), back(high + room)
