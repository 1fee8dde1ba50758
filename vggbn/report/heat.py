"""A heat map in shades of the page's first colour, as paths: it scales, and follows the theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vggbn.report.svg import colour, dashes, new_axes, render, value_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD = (0.99, 0.95, 0.9, 0.75, 0.5, 0.25)  # shares of the map's sum, one shade each


def heat_map(map_HW: ArrayLike, pixel: float, squares: Mapping[int, float], label: str) -> str:
    """A map [H, W] >= 0 around its centre in shades, the darker the larger the values.

    The shades hold `HELD` of the map's sum, each by its largest values. `pixel` is the side of a
    value; `squares` gives outlines around the centre, number of the series -> side.
    """
    values = np.asarray(map_HW, dtype=np.float64)
    axes = new_axes(height=4.6)
    y, x = (pixel * (np.arange(n) - (n - 1) / 2) for n in values.shape)
    shades = [(colour(0), 0.1 + 0.8 * i / len(HELD)) for i in range(len(HELD))]
    axes.contourf(x, y, values, levels=[*levels(values), np.inf], colors=shades)
    for series, side in squares.items():
        _outline(axes, series, side / 2)
    axes.set_aspect("equal")
    axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]))
    value_axis(axes, "pixels from the centre", along="x")
    axes.grid(visible=False)
    return render(axes, label)


def levels(values: NDArray[np.float64]) -> list[float]:
    """The lowest of the largest values that hold each share of `HELD`; they increase."""
    falling = np.sort(values, axis=None)[::-1]
    share = np.cumsum(falling) / falling.sum()
    found = [float(falling[np.searchsorted(share, held)]) for held in HELD]
    return [level + i * float(np.spacing(falling[0])) for i, level in enumerate(found)]  # no ties


def _outline(axes: Axes, series: int, half: float) -> None:
    """A square around the centre, of twice the side `half`."""
    x, y = [-half, half, half, -half, -half], [-half, -half, half, half, -half]
    line = axes.plot(x, y, color=colour(series), linewidth=1.6)[0]
    if dashes(series):
        line.set_dashes(dashes(series))
