"""The report as one self-contained HTML page: inline style and SVG, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType

from vggbn import files
from vggbn.claims.stats import VERDICTS, Judgement
from vggbn.report import curves, effects, figures, svg, tables
from vggbn.report.effects import Effects
from vggbn.report.records import Chart, Report, Table, finished
from vggbn.report.text import banner, chance_note

MARKS: dict[str, str] = dict(zip(VERDICTS, "✓◐=✗?–", strict=True))
CSS = Path(__file__).with_name("page.css")


def write_html(path: str | Path, report: Report) -> None:
    """Write the page to `path`, whole or not at all; missing folders are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write(target, page(report))


def page(report: Report) -> str:
    """The page's text; the same report gives the same bytes."""
    parts = (
        _head(report),
        _verdicts(report.judgements),
        _reading(report),
        _pictures(report),
        *(_section(table.title, _table(table), table.note) for table in report.tables),
        _charts(report.charts),
        _curves(report),
        _finals(report),
        _steps(report),
        _sweep(report),
        _variants(report),
        _facts(report),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n"
        f"<style>\n{CSS.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    warning = f'<p class="banner">{escape(banner(report))}</p>' if report.provisional else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        f'<header><h1>{escape(report.title)}</h1><p class="question">{escape(report.question)}</p>'
        f"{warning}{f'<ul>{notes}</ul>' if notes else ''}</header>"
    )


def _verdicts(judgements: Sequence[Judgement]) -> str:
    if not judgements:
        return ""
    table = tables.verdicts(judgements)
    classes = [
        ["tight", "", "", "tight", "", "", f"verdict {j.verdict.replace(' ', '-')}"]
        for j in judgements
    ]
    marked = [
        (*row[:-1], f"{MARKS[j.verdict]} {row[-1]}")
        for row, j in zip(table.rows, judgements, strict=True)
    ]
    body = _table(Table(table.headers, marked), classes)
    return _section("Verdicts", body, chance_note(judgements))


def _reading(report: Report) -> str:
    words = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in report.reading)
    return _section("Our reading", words) if words else ""


def _charts(charts: Mapping[str, Chart | Effects]) -> str:
    drawn = [_chart(title, chart) for title, chart in charts.items()]
    note = "Line or dot: mean over seeds; bar: 95 % interval (Student's t over seeds)."
    return _section("Charts", f'<div class="panels">{"".join(drawn)}</div>', note) if drawn else ""


def _chart(title: str, drawn: Chart | Effects) -> str:
    if isinstance(drawn, Effects):
        return _figure(effects.draw(drawn), title)
    return _figure(figures.chart(drawn), title, {name: i for i, name in enumerate(drawn.series)})


def _pictures(report: Report) -> str:
    if not report.pictures:
        return ""
    drawn = "".join(
        f"<div>{_figure(picture.drawing, picture.title, picture.legend)}"
        f'<p class="note">{escape(picture.note)}</p></div>'
        for picture in report.pictures
    )
    return _section("Pictures", f'<div class="panels">{drawn}</div>')


def _curves(report: Report) -> str:
    drawn = {title: _drawable(report, names) for title, names in report.panels.items()}
    panels = [_panel(report, title, names) for title, names in drawn.items() if names]
    if not panels:
        return ""
    note = (
        "Line: mean over seeds; band: lowest to highest seed. Where a seed stopped early (×, its "
        "last evaluation) the others go on as thin single lines, since a mean would be one over "
        "survivors."
    )
    return _section("Learning curves", f'<div class="panels">{"".join(panels)}</div>', note)


def _drawable(report: Report, names: Sequence[str]) -> list[str]:
    return [v for v in names if v in report.curves and curves.drawable(report.curves[v])]


def _panel(report: Report, title: str, names: Sequence[str]) -> str:
    labels = {
        f"{name} (n = {len(report.curves[name].values_by_seed)})": i for i, name in enumerate(names)
    }
    return _figure(figures.curves(report, names), title, labels)


def _finals(report: Report) -> str:
    table = tables.finals(report)
    if not table.rows:
        return ""
    note = (
        "Dots: seeds; diamond and bar: mean and 95 % interval (Student's t over seeds), cut off at "
        "the edge of the figure where it is wider. Runs that did not finish are left out, and "
        "named in the last column."
    )
    drawn = any(finished(report, name) for name in report.variants)
    figure = _figure(figures.finals(report)) if drawn else ""
    return _section("Final test accuracy", figure + _table(table), note if drawn else "")


def _steps(report: Report) -> str:
    table = tables.steps(report)
    if not table.rows:
        return ""
    aims = ", ".join(
        f"{100 * value:.2f} % (seed {seed})" for seed, value in sorted(report.targets.items())
    )
    target = f"Target: {aims}. " if aims else ""
    censored = (
        "A run that did not reach the target took at least its budget: its ratio is only a bound "
        "(≥ or ≤), and that side of the interval is open."
    )
    return _section("Steps to the target", _table(table), target + censored)


def _sweep(report: Report) -> str:
    if not report.sweep:
        return ""
    arms = {arm: i for i, arm in enumerate(report.sweep)}
    note = (
        "Line: mean over seeds that finished; bar: lowest to highest seed; × at the foot: at least "
        "one seed diverged at this rate."
    )
    return _section("Learning-rate sweep", _figure(figures.sweep(report), labels=arms), note)


def _variants(report: Report) -> str:
    if report.exact:
        return ""
    recipe = Table(("field", "value"), [(str(k), str(v)) for k, v in report.baseline.items()])
    summary = f"<summary>The baseline, {escape(report.baseline_name)}, in full</summary>"
    details = f"<details>{summary}{_table(recipe)}</details>" if recipe.rows else ""
    return _section("Variants", _table(tables.variants(report)) + details)


def _facts(report: Report) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in report.facts.items()
    )
    return _section("How it was run", f"<dl>{items}</dl>") if items else ""


def _section(title: str, body: str, note: str = "") -> str:
    remark = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{body}{remark}</section>"


def _table(table: Table, classes: Sequence[Sequence[str]] = ()) -> str:
    """A table that scrolls on a phone or, given classes of its cells, turns its rows into cards."""
    head = "".join(f"<th scope=col>{escape(header)}</th>" for header in table.headers)
    plain, kind = [""] * len(table.headers), " class=cards" if classes else ""
    rows = [
        _table_row(table.headers, row, classes[i] if classes else plain)
        for i, row in enumerate(table.rows)
    ]
    return (
        f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _table_row(headers: Sequence[str], row: Sequence[str], classes: Sequence[str]) -> str:
    cells = (
        f'<td class="{kind}" data-label="{escape(header)}">{escape(cell)}</td>'
        for header, cell, kind in zip(headers, row, classes, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def _figure(drawing: str, title: str = "", labels: Mapping[str, int] = MappingProxyType({})) -> str:
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
