"""A page's drawings as SVG files, for pages that are no HTML of ours, such as Markdown on a forge.

An <img> knows none of the page's colours and none of its legends: so a file has the light page's
colours, a ground of its own, which is legible on any page, and its legend below the drawing. In its
comment stands a digest of what it was drawn from. matplotlib's versions differ in bytes, the digest
does not: by it a file that is out of date is found without drawing anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from vggbn.identity.definitions import key_of
from vggbn.identity.identity import this_package
from vggbn.identity.reach import reach
from vggbn.report.effects import Effects
from vggbn.report.records import Chart, Report
from vggbn.report.svg import FONT, css_colour, dashes

CSS = Path(__file__).with_name("page.css")
WIDTH = 720  # pixels of a file on a page that has room
MARGIN = 8  # around the drawing, in its own units; the legend's too
ROW, SAMPLE, GLYPH = 14, 24, 0.56  # of a legend: height, line sample, mean width of a letter in em
LETTERS = "font-family: system-ui, sans-serif"


class Still(NamedTuple):
    """A drawing that is to be a file: its title, what it was drawn from, and how it is drawn."""

    title: str
    digest: str
    draw: Callable[[], str]
    legend: Mapping[str, int]

    def text(self) -> str:
        """The file: an SVG of explicit colours, the same for the same matplotlib."""
        return _file(self.draw(), self.legend, self.digest)


def still(
    title: str, draw: partial[str], drawn_from: Any, legend: Mapping[str, int] | None = None
) -> Still:
    """The drawing `draw()`, a figure with its arguments, of which `drawn_from` says what counts;
    legend: words -> number of the series."""
    code = reach(this_package(), [key_of(draw.func), key_of(_file)], {}).digest
    return Still(title, digest_of([code, title, drawn_from, legend or {}]), draw, legend or {})


def digest_of(values: Any) -> str:
    """Of plain values and records, their numbers to six digits: sums of other processors may
    differ beyond."""
    text = json.dumps(_plain(values), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_in(path: Path) -> str:
    """What a file says it was drawn from; empty where it is none of ours."""
    try:
        found = re.search(r"<!-- drawn from (\w+) -->", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def _plain(value: Any) -> Any:
    """The value as JSON holds it, in the order it is drawn in."""
    if isinstance(value, Report | Chart | Effects):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return [[str(key), _plain(each)] for key, each in value.items()]
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return f"{float(value):.6g}"


# --- the file ------------------------------------------------------------------------------------


def _file(element: str, legend: Mapping[str, int], digest: str) -> str:
    """The <svg> element of `svg.render` as a file, with its legend and a ground."""
    opening, _, inside = element.partition(">")
    label = re.search(r'aria-label="([^"]*)"', opening)
    box = re.search(r'viewBox="([^"]*)"', opening)
    assert box, "an element of svg.render says how large it is"
    width, height = (float(part) for part in box[1].split()[2:])
    key, below = _legend(legend, width, height + MARGIN)
    whole_width, whole_height = width + 2 * MARGIN, height + below + 2 * MARGIN
    body = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{-MARGIN} {-MARGIN} {whole_width:g} {whole_height:g}" '
        f'width="{WIDTH}" height="{WIDTH * whole_height / whole_width:.0f}" role="img" '
        f'aria-label="{label[1] if label else ""}">\n<!-- drawn from {digest} -->\n'
        f'<rect x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" rx="4" '
        'fill="var(--page)"/>\n'
        f"{_compact(inside.rstrip().removesuffix('</svg>'))}\n{key}</svg>\n"
    )
    return re.sub(r"var\((--\w+)\)", lambda match: palette()[match[1]], body)


def _legend(legend: Mapping[str, int], width: float, top: float) -> tuple[str, float]:
    """(the samples and words in rows below the drawing, their height)."""
    items, x, row = [], 0.0, 0
    for words, series in legend.items():
        wide = SAMPLE + len(words) * GLYPH * FONT + ROW
        if x and x + wide > width:
            x, row = 0.0, row + 1
        y = top + ROW * (row + 0.5)
        dash = " ".join(f"{1.6 * part:g}" for part in dashes(series)) or "none"
        items.append(
            f'<path d="M{x:.1f} {y:.1f}h{SAMPLE - 6}" stroke="{css_colour(series)}" '
            f'stroke-width="1.6" stroke-dasharray="{dash}"/><text x="{x + SAMPLE:.1f}" '
            f'y="{y + FONT / 3:.1f}" style="font-size: {FONT}px; {LETTERS}" fill="var(--ink)">'
            f"{escape(words)}</text>\n"
        )
        x += wide
    return "".join(items), ROW * (row + 1) + MARGIN if items else 0.0


def _compact(text: str) -> str:
    """Coordinates to a tenth of a unit, paths on one line, one short list of fonts, no layout."""
    text = re.sub(r"font-family: [^;\"]*", LETTERS, text)
    text = "\n".join(line for each in text.splitlines() if (line := each.strip()))
    return re.sub(r'\b(d|x|y|points|transform)="([^"]*)"', _rounded, text)


def _rounded(attribute: re.Match) -> str:
    value = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", attribute[2])
    return f'{attribute[1]}="{" ".join(value.split())}"'


@cache
def palette() -> dict[str, str]:
    """{name: colour} of the light page."""
    found = re.search(r":root\s*\{(.*?)\}", CSS.read_text(encoding="utf-8"), re.DOTALL)
    assert found, "page.css begins with the colours of the light page"
    return dict(re.findall(r"(--\w+):\s*(#\w+)", found[1]))
