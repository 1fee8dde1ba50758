"""Empty axes, series styles, and figures as inline SVG elements that take the page's colours.

Colours are drawn as placeholders and then replaced by CSS variables, so one picture serves light
and dark pages; a series is also told apart by its dashes. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 8  # before they repeat
DASHES = ((), (6, 2), (2, 1.5), (7, 2, 2, 2))  # in line widths
INK, FAINT = "#010101", "#020202"  # placeholders of text and of grid lines
WIDTH = 5.2  # inches, drawn on a page at 70 to 110 px each
FONT = 9


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
    """Make x logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label, color=INK, fontsize=FONT)


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
