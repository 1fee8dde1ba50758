"""The report as one self-contained HTML page: inline style and SVG, no script, nothing fetched.

What was found comes first: a picture, a sentence a claim, the verdicts. All else is folded away.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from vggbn import files
from vggbn.report import curves, effects, figures, findings, tables
from vggbn.report.accuracies import NOTE
from vggbn.report.effects import Effects
from vggbn.report.elements import bullets, definitions, figure, fold, remark, section, table
from vggbn.report.opening import caption
from vggbn.report.records import Chart, Report, Table, finished
from vggbn.report.text import banner
from vggbn.report.words import counted

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
        _opening(report),
        _found(report),
        _effects(report),
        fold("Our reading", "".join(f"<p>{escape(p)}</p>" for p in report.reading), is_open=True),
        _pictures(report),
        *_tables(report),
        _charts(report),
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
    made = f"<code>{escape(report.command)}</code>" if report.command else ""
    newest = f"newest result of {escape(report.newest)}" if report.newest else ""
    source = ", ".join(part for part in (made, newest) if part)
    warning = f'<p class="banner">{escape(banner(report))}</p>' if report.provisional else ""
    return (
        f'<header><h1>{escape(report.title)}</h1><p class="question">{escape(report.question)}</p>'
        f"{f'<p class=note>{source}</p>' if source else ''}{warning}</header>"
    )


def _opening(report: Report) -> str:
    drawing = figures.opening(report)
    if not drawing:
        return ""
    return f'<div class="opening">{figure(drawing)}{remark(caption(report))}</div>'


def _found(report: Report) -> str:
    if not report.judgements:
        return ""
    said = findings.sentences(report.judgements)
    return (section("What was found", said) if said else "") + section(
        "Verdicts", findings.verdicts(report.judgements)
    )


def _charts(report: Report) -> str:
    drawn = [
        figure(figures.chart(chart), title, {name: i for i, name in enumerate(chart.series)})
        for title, chart in report.charts.items()
        if isinstance(chart, Chart)
    ]
    note = (
        "Line: mean over seeds; bar: 95 % interval (Student's t over seeds); of what is in %, "
        f"where there is one, else lowest to highest. {NOTE}"
    )
    return fold(counted(len(drawn), "chart"), _side_by_side(drawn), note)


def _tables(report: Report) -> list[str]:
    """The experiment's own, open where they stand beside figures of effects."""
    is_open = any(isinstance(chart, Effects) for chart in report.charts.values())
    return [fold(t.title, table(t), t.note, is_open=is_open) for t in report.tables]


def _effects(report: Report) -> str:
    """What single changes do, as figures; the table beside them stands open too."""
    drawn = [
        figure(effects.draw(chart), title)
        for title, chart in report.charts.items()
        if isinstance(chart, Effects)
    ]
    note = "Dot: mean over seeds; bar: 95 % interval, with an arrow where that side is not known."
    return section("Effects", _side_by_side(drawn), note) if drawn else ""


def _pictures(report: Report) -> str:
    drawn = [
        f"<div>{figure(picture.drawing, picture.title, picture.legend)}{remark(picture.note)}</div>"
        for picture in report.pictures
    ]
    return fold(counted(len(drawn), "picture"), _side_by_side(drawn), is_open=not report.opening)


def _curves(report: Report) -> str:
    panels = [
        figure(
            figures.curves(report, names),
            title,
            {f"{v} (n = {len(report.curves[v].values_by_seed)})": i for i, v in enumerate(names)},
        )
        for title, names in curves.panels(report).items()
    ]
    note = (
        "Line: mean over seeds; band: lowest to highest seed. Where a seed stopped early (×, its "
        "last evaluation) the others go on as thin single lines, since a mean would be one over "
        "survivors. Panels that show no arm of their own are left out."
    )
    return fold("Learning curves: " + counted(len(panels), "panel"), _side_by_side(panels), note)


def _finals(report: Report) -> str:
    content = tables.finals(report)
    drawn = any(finished(report, name) for name in report.variants)
    picture = figure(figures.finals(report)) if drawn else ""
    note = (
        f"Dots: seeds; diamond and bar: mean and 95 % interval, where it has one. {NOTE} Runs that "
        "did not finish are left out, and named in the last column."
    )
    summary = f"Final test accuracy of {counted(len(content.rows), 'arm')}"
    return fold(summary, picture + table(content), note if drawn else "")


def _steps(report: Report) -> str:
    seeds: dict[str, list[str]] = {}
    for seed, value in sorted(report.targets.items()):
        seeds.setdefault(f"{100 * value:.2f} %", []).append(str(seed))
    aims = ", ".join(f"{value} (seed {' '.join(those)})" for value, those in seeds.items())
    target = f"Target, of the smoothed validation accuracy: {aims}. " if aims else ""
    censored = (
        "A run that did not reach the target took at least its budget (>): its ratio is only a "
        "bound (≥ or ≤), and that side of the interval is open."
    )
    return fold("Steps to the target", table(tables.steps(report)), target + censored)


def _sweep(report: Report) -> str:
    if not report.sweep:
        return ""
    arms = {arm: i for i, arm in enumerate(report.sweep)}
    note = (
        "Line: mean over seeds that finished; bar: lowest to highest seed; × at the foot: at least "
        "one seed diverged at this rate."
    )
    return fold("Learning-rate sweep", figure(figures.sweep(report), labels=arms), note)


def _variants(report: Report) -> str:
    if report.exact:
        return ""
    recipe = Table(("field", "value"), [(str(k), str(v)) for k, v in report.baseline.items()])
    full = fold(f"The baseline, {report.baseline_name}, in full", table(recipe))
    summary = f"Variants: {counted(len(report.variants), 'arm')} as edits of the baseline"
    return fold(summary, table(tables.variants(report)) + full)


def _facts(report: Report) -> str:
    body = bullets(report.notes) + definitions({k: str(v) for k, v in report.facts.items()})
    return fold("How it was run: data, versions, hardware", body)


def _side_by_side(drawn: list[str]) -> str:
    return f'<div class="panels">{"".join(drawn)}</div>' if drawn else ""
