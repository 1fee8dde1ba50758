"""Pieces of the report's page as HTML text: folds, tables, figures. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from types import MappingProxyType

from vggbn.report import svg
from vggbn.report.records import Table

WIDE = 2  # columns: a table of more becomes cards on a phone


def section(title: str, body: str, note: str = "") -> str:
    """A part of the page that is always seen."""
    return f"<section><h2>{escape(title)}</h2>{body}{remark(note)}</section>"


def fold(summary: str, body: str, note: str = "", *, is_open: bool = False) -> str:
    """A part of the page behind its summary; empty without a body."""
    if not body:
        return ""
    start = "<details open>" if is_open else "<details>"
    return f"{start}<summary>{escape(summary)}</summary>{body}{remark(note)}</details>"


def remark(note: str) -> str:
    """A small paragraph; empty without words."""
    return f'<p class="note">{escape(note)}</p>' if note else ""


def bullets(items) -> str:
    """A list; empty without items."""
    found = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>{found}</ul>" if found else ""


def definitions(pairs: Mapping[str, str]) -> str:
    """Names and what is to be said of each; those without words are left out."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items() if value
    )
    return f"<dl>{items}</dl>" if items else ""


def table(content: Table) -> str:
    """A table; on a phone the rows of a wide one are cards. Empty without rows."""
    if not content.rows:
        return ""
    head = "".join(f"<th scope=col>{escape(header)}</th>" for header in content.headers)
    rows = "".join(_row(content, row) for row in content.rows)
    kind = " class=cards" if len(content.headers) > WIDE else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(content: Table, row) -> str:
    cells = (
        f'<td data-label="{escape(header)}">{escape(cell)}</td>'
        for header, cell in zip(content.headers, row, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def figure(drawing: str, title: str = "", labels: Mapping[str, int] = MappingProxyType({})) -> str:
    """A drawing with its heading and legend, label -> number of the series."""
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    keys = "".join(f"<li>{_key(i)}{escape(label)}</li>" for label, i in labels.items())
    return f"<figure>{heading}{drawing}{f'<ul class=legend>{keys}</ul>' if keys else ''}</figure>"


def _key(i: int) -> str:
    """The line sample of series i in a legend."""
    width = 1.6
    dash = " ".join(f"{width * part:g}" for part in svg.dashes(i)) or "none"
    style = f"stroke:{svg.css_colour(i)};stroke-width:{width};stroke-dasharray:{dash}"
    return f'<svg viewBox="0 0 32 10" aria-hidden="true"><path d="M0 5H32" style="{style}"/></svg>'
