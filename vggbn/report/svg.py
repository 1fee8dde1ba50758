"""Empty axes, series styles, and figures as inline SVG elements that take the page's colours.

Colours are drawn as placeholders and then replaced by CSS variables, so one picture serves light
and dark pages; a series is also told apart by its dashes. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 8  # before they repeat
DASHES = ((), (6, 2), (2, 1.5), (7, 2, 2, 2))  # in line widths
INK, FAINT = "#010101", "#020202"  # placeholders of text and of grid lines
WIDTH = 4.6  # inches, drawn on a page at 80 to 115 px each: text of 11 px on a phone
FONT = 9.5


def colour(series: int) -> str:
    """The placeholder of a series' colour."""
    return f"#0101{series % COLOURS + 16:02x}"


def css_colour(series: int) -> str:
    """The page's name of a series' colour."""
    return f"var(--s{series % COLOURS})"


def dashes(series: int) -> tuple[float, ...]:
    """A series' dash pattern, in line widths; empty for a solid line."""
    return DASHES[(series + series // COLOURS) % len(DASHES)]


def new_axes(height: float) -> Axes:
    """Axes of a figure of the common width and of `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=FONT, length=0)
    axes.set_axisbelow(True)
    return axes


def value_axis(axes: Axes, label: str, along: str = "y") -> None:
    """Label the axis of the values and draw its grid."""
    axes.set(**{f"{along}label": label})
    getattr(axes, f"{along}axis").label.set(color=INK, fontsize=FONT)
    axes.grid(visible=True, axis="x" if along == "x" else "y", color=FAINT, linewidth=0.6)


def log_axis(axes: Axes, label: str) -> None:
    """Make x logarithmic, with plain numbers; what is drawn has set its limits."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    number_axis(axes, label)


def number_axis(axes: Axes, label: str) -> None:
    """Label x, whose ticks are numbers."""
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.set_xlabel(label, color=INK, fontsize=FONT)


def log_ticks(low: float, high: float) -> list[float]:
    """The ticks of a logarithmic axis from `low` to `high`: the most whose labels stay apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits, every in ((range(1, 10), 1), ((1, 2, 5), 1), *(((1,), n) for n in range(1, 9))):
        at = [digit * 10.0**decade for decade in decades[::every] for digit in digits]
        ticks = [tick for tick in at if low <= tick <= high]
        if _apart(ticks, high / low):
            return ticks
    return []


def _apart(ticks: Sequence[float], span: float) -> bool:
    """Whether the labels of a logarithmic axis over the ratio `span` do not touch."""
    points = 72 * (WIDTH - 0.8) / math.log(span)  # of the axes' width, for a factor of e
    return all(
        points * math.log(b / a) > 0.65 * FONT * (len(_plain(a)) + len(_plain(b)) + 2) / 2
        for a, b in pairwise(ticks)
    )


def _plain(value: float) -> str:
    return f"{value:,.6g}"


def render(axes: Axes, label: str) -> str:
    """The axes' figure as an <svg> element; `label` describes it to those who cannot see it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    # The salt keeps ids equal from run to run, and apart between the figures of a page.
    settings: Any = {"svg.hashsalt": label, "svg.fonttype": "none", "text.parse_math": False}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts for it
        FigureCanvasSVG(axes.get_figure(root=True)).print_svg(buffer, metadata={"Date": None})
    return _themed(_inline(buffer.getvalue(), label))


def _inline(document: str, label: str) -> str:
    """The <svg> element of an SVG file, without its metadata, fixed size and unused ids."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", element)  # m…, p…: markers, clips
    box = " ".join(re.findall(r'viewBox="[^"]*"', element)[:1])
    opening = f'<svg {box} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg\b[^>]*>", lambda _: opening, element, count=1)


def _themed(element: str) -> str:
    """Placeholder colours as CSS variables."""
    element = element.replace(INK, "var(--ink)").replace(FAINT, "var(--line)")
    return re.sub(r"#0101(1[0-9a-f])\b", lambda m: css_colour(int(m[1], 16) - 16), element)
