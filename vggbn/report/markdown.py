"""Results as Markdown that a forge shows: the page of an experiment, and the parts of any page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from vggbn.claims.stats import Judgement
from vggbn.report import curves, effects, figures, opening, stills, tables
from vggbn.report.accuracies import NOTE
from vggbn.report.effects import Effects
from vggbn.report.records import Chart, Report, Table
from vggbn.report.sentences import found_in_words
from vggbn.report.stills import Still
from vggbn.report.tables import NOTHING
from vggbn.report.text import banner, chance_note

DIR = "DIR"  # in a command, what the reader has to fill in
GENERATED = "<!-- Written by `make report` from results/; do not edit. -->"


@dataclass(frozen=True)
class Section:
    """One size on one data set: its heading, the command that makes it, what it found.

    figures: {name of its file: drawing} of the opening picture, the charts and the panels.
    """

    heading: str
    command: str
    report: Report
    opening: Mapping[str, Still] = field(default_factory=dict)
    charts: Mapping[str, Still] = field(default_factory=dict)
    panels: Mapping[str, Still] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Still]:
        return {**self.opening, **self.charts, **self.panels}


class Links(NamedTuple):
    """Where a page's links lead, seen from its folder."""

    results: str
    source: str
    figures: str
    readme: str


def section_of(report: Report, heading: str, command: str, stem: str) -> Section:
    """The section of a report; the names of its figures begin with `stem`."""
    drawn = _drawn(report)
    stamp = stills.digest_of(drawn)
    first = opening.arms(drawn)
    return Section(
        heading,
        command,
        report,
        opening={f"{stem}.svg": _opening(drawn, stamp)} if first else {},
        charts={
            f"{stem}-chart-{i}.svg": _chart(title, chart)
            for i, (title, chart) in enumerate(report.charts.items(), 1)
        },
        panels={
            f"{stem}-panel-{i}.svg": _panel(drawn, stamp, title, names)
            for i, (title, names) in enumerate(curves.panels(report).items(), 1)
            if names != first
        },
    )


def experiment_page(
    title: str, question: str, links: Links, sections: Sequence[Section], computed: str = ""
) -> str:
    """The page of an experiment: `computed` is its part on claims that need no run."""
    known = [GENERATED, f"# {md(title)}", md(question)]
    known.append(
        f"[All results]({links.results}) · [how to read a verdict]({links.readme}) · "
        f"[the experiment's file]({links.source})"
    )
    if len(sections) > 1:
        known.append("On: " + " · ".join(f"[{s.heading}](#{anchor(s.heading)})" for s in sections))
    known += [computed, *(section_text(section, links.figures) for section in sections)]
    return "\n\n".join(part for part in known if part) + "\n"


def computed_part(command: str, judgements: Sequence[Judgement], notes: Sequence[str]) -> str:
    """What claims say that are computed, and the command that computes them."""
    rows = [
        (j.claim, j.verdict, j.sentence, j.detail, j.criterion, j.paper or NOTHING)
        for j in judgements
    ]
    headers = ("claim", "verdict", "in words", "computed", "rule", "paper")
    return _joined(fenced(command), bullets(notes), md_table(Table(headers, rows)))


# --- a section -----------------------------------------------------------------------------------


def section_text(section: Section, folder: str) -> str:
    """Its Markdown; folder: where its figures lie, seen from the page."""
    report = section.report
    return _joined(
        f"## {md(section.heading)}",
        fenced(section.command),
        f"**{banner(report)}**" if report.provisional else "",
        *(_image(still, f"{folder}/{name}") for name, still in section.opening.items()),
        opening.caption(report) if section.opening else "",
        "### In words" if report.judgements else "",
        bullets(_sentences(report.judgements), escaped=True),
        "### Our reading" if report.reading else "",
        *map(md, report.reading),
        _verdicts(report),
        *(md_section(table.title, table, table.note) for table in report.tables),
        *(
            f"### {md(still.title)}\n\n{_image(still, f'{folder}/{name}')}"
            for name, still in section.charts.items()
        ),
        "### Details",
        bullets(report.notes),
        details("How each claim was judged", md_table(tables.rules(report.judgements))),
        details(
            "More learning curves",
            *(
                f"**{md(still.title)}**\n\n{_image(still, f'{folder}/{name}')}"
                for name, still in section.panels.items()
            ),
        ),
        details("Final test accuracy", *_finals(report)),
        details("Steps to the target", *_steps(report)),
        details("The arms, as edits of the baseline", md_table(tables.variants(report))),
        details("How it was run", bullets([f"{k}: {v}" for k, v in report.facts.items()])),
    )


def fenced(command: str) -> str:
    """A command as a block of code."""
    where = f"\n\n{DIR}: where the prepared set, or the folder of images, lies."
    return f"```\n{command}\n```" + (where if DIR in command else "")


def _sentences(judgements: Sequence[Judgement]) -> list[str]:
    return [f"**{md(j.claim)}** {md(j.sentence)} *{md(found_in_words(j))}*" for j in judgements]


def _verdicts(report: Report) -> str:
    table = md_section("Verdicts", tables.verdicts(report.judgements))
    return _joined(table, md(chance_note(report.judgements))) if table else ""


def _finals(report: Report) -> tuple[str, ...]:
    table = tables.finals(report)
    return (md_table(table), md(NOTE)) if table.rows else ()


def _steps(report: Report) -> tuple[str, ...]:
    table = tables.steps(report)
    aims = sorted(100 * value for value in report.targets.values())
    target = f"Target: {aims[0]:.2f} to {aims[-1]:.2f} %. " if aims else ""
    note = (
        f"{target}>: not reached within the arm's budget; its ratio is then a bound (≥ or ≤), and "
        "that side of the interval is open."
    )
    return (md_table(table), md(note)) if table.rows else ()


# --- drawings ------------------------------------------------------------------------------------


def _drawn(report: Report) -> Report:
    """What learning curves are drawn from, and nothing else: a file is out of date by it alone."""
    return Report(
        title="",
        question="",
        baseline_name=report.baseline_name,
        baseline={},
        variants={},
        curves=report.curves,
        targets=report.targets,
        opening=report.opening,
    )


def _opening(drawn: Report, stamp: str) -> Still:
    title = "Validation accuracy against training steps"
    return stills.still(title, partial(figures.opening, drawn), stamp)


def _chart(title: str, chart: Chart | Effects) -> Still:
    if isinstance(chart, Effects):
        return stills.still(title, partial(effects.draw, chart), chart)
    return stills.still(title, partial(figures.chart, chart), chart, _numbered(chart.series))


def _panel(drawn: Report, stamp: str, title: str, names: Sequence[str]) -> Still:
    draw = partial(figures.curves, drawn, names)
    return stills.still(title, draw, [stamp, names], _numbered(names))


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """A legend: each name with the number of its series."""
    return {name: i for i, name in enumerate(names)}


def _image(still: Still, path: str) -> str:
    return f"![{md(still.title)}]({path})"


# --- the parts of any page -----------------------------------------------------------------------


def md_section(title: str, table: Table, note: str = "") -> str:
    """A heading, a table and its note; nothing of a table without rows."""
    return _joined(f"### {md(title)}", md_table(table), md(note)) if table.rows else ""


def md_table(table: Table) -> str:
    """A table of plain text; nothing of one without rows."""
    cells = [[md(cell) for cell in row] for row in (table.headers, *table.rows)]
    cells.insert(1, ["---"] * len(table.headers))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) if table.rows else ""


def details(title: str, *parts: str) -> str:
    """Parts that are folded away under a title; nothing if there are none."""
    inside = _joined(*parts)
    return f"<details>\n<summary>{md(title)}</summary>\n\n{inside}\n\n</details>" if inside else ""


def bullets(items: Sequence[str], *, escaped: bool = False) -> str:
    """A list; its items are plain text, unless they are `escaped` already."""
    return "\n".join(f"- {item if escaped else md(item)}" for item in items)


def anchor(heading: str) -> str:
    """What forges call a heading in a link."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def md(text: str) -> str:
    """Text that neither breaks a Markdown table nor is taken as HTML."""
    one_line = " ".join(text.split())
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
