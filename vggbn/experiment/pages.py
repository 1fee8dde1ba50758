"""The pages that people read: RESULTS.md, the ledger in short, and docs/results, one an experiment.

Both are made of the published results and of what the claims and docs/papers.md say; nothing is
computed and, until a figure is written, nothing drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vggbn.claims.stats import Judgement
from vggbn.data.readers import embedded_names
from vggbn.experiment import verified
from vggbn.experiment.design import Experiment
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.experiment.ledger import (
    CONTRADICTIONS,
    Entry,
    Row,
    base_id,
    entries,
    experiments,
    judged,
    ledger,
)
from vggbn.experiment.published import published_rows
from vggbn.report import Report, Table, markdown
from vggbn.report.markdown import DIR, Links, bullets, details, md, md_table
from vggbn.report.sentences import short_reason
from vggbn.report.stills import Still
from vggbn.report.tables import NOTHING, effect_text

LEDGER = "RESULTS.md"
FOLDER = PurePosixPath("docs/results")
HEAD = """# Results

A verdict follows from an interval over seeds, by a rule and a margin that were fixed before the
runs: *reproduced*, *partly*, *no effect*, *contradicted*, *inconclusive* (this many seeds cannot
tell) or *not tested* (these runs cannot decide it, for the reason given). Small data supports a
direction, never an ImageNet figure; see [how to read a verdict](README.md#how-to-read-a-verdict)
and [the rules](docs/evidence.md).

Each row leads to the page of its experiment: its curves, its command, all that was found. (P) marks
the few primary claims. `make claims` prints the same with p-values. *Verified*: of how many checks
with new seeds (`make verify CLAIM=BN-16`) how many found [what the reference lets one
expect](docs/evidence.md#check-it-with-seeds-of-your-own); they enter no verdict."""


class Pages(NamedTuple):
    """All pages and their figures, by their path in the checkout."""

    texts: dict[str, str]
    stills: dict[str, Still]


def make_pages(reports: Sequence[Report]) -> Pages:
    """Those of the published reports."""
    by_name: dict[str, list[Report]] = {}
    for report in reports:
        by_name.setdefault(_experiment_of(report), []).append(report)
    checks = verified.tallies(verified.read(verified.PATH))
    rows = ledger(judged(reports), _published_row(reports), checks)
    pages = Pages({LEDGER: ledger_page(rows)}, {})
    for experiment in experiments():
        text, figures = page_of(experiment, by_name.get(experiment.name, []))
        pages.texts[f"{FOLDER / experiment.name}.md"] = text
        pages.stills.update(figures)
    return pages


def command(experiment: str, size: str = "", data: str = "") -> str:
    """What makes an experiment's results, with the place of the data to be filled in."""
    flags = [f"--size {size}"] if size else []
    flags += [f"--data {data}"] if data else []
    flags += [f"--data-dir {DIR}"] if data and data not in embedded_names() else []
    made = f"make exp-{experiment.replace('_', '-')}"
    return f'{made} ARGS="{" ".join(flags)}"' if flags else made


# --- RESULTS.md ----------------------------------------------------------------------------------


def ledger_page(rows: Sequence[Row]) -> str:
    """Every claim by its paper, the questions that people ask first, what is not done last."""
    known = entries()
    done = [row for row in rows if row.state not in ("planned", "not attempted")]
    parts = [markdown.GENERATED, HEAD, "## What people ask", _questions(rows)]
    for paper in dict.fromkeys(entry.paper for entry in known.values()):
        own = [row for row in done if known[base_id(row.id)].paper == paper]
        if own:
            table = _contradictions(own, known) if paper == CONTRADICTIONS else _claims(own)
            parts += [f"## {paper}", table]
    parts += ["## Not done", *_not_done(rows), "## Every experiment", _experiments()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _questions(rows: Sequence[Row]) -> str:
    """The claims that answer each question, with their verdicts."""
    lines = []
    for entry in entries().values():
        own = [row for row in rows if base_id(row.id) == entry.id]
        if entry.asked and own:
            answers = "; ".join(f"{row.id} {_answer(row)}" for row in own)
            places = dict.fromkeys(place for row in own for place in (_place(row), *_others(row)))
            lines.append((md(entry.asked), md(answers), ", ".join(places)))
    return _table(("question", "answer", "curves and command"), lines)


def _answer(row: Row) -> str:
    """The verdict, with the effect if it rests on one."""
    texts = [row.state]
    if row.judgement is not None and row.judgement.n and row.state != "not tested":
        texts = [f"{row.state}, {effect_text(row.judgement)}"]
    for one in row.also:
        found = f"{one.judgement.verdict}, {effect_text(one.judgement)}"
        texts.append(f"{_heading(one.where)}: {found}")
    return "; ".join(texts)


def _others(row: Row) -> list[str]:
    """Links to what other data and sizes say."""
    page = f"{FOLDER / row.experiment}.md"
    return [
        f"[{_heading(one.where)}]({page}#{markdown.anchor(_heading(one.where))})"
        for one in row.also
    ]


def _claims(rows: Sequence[Row]) -> str:
    headers = ("claim", "verdict", "in words", "effect [interval]", "n", "verified", "where")
    return _table(headers, map(_cells, rows))


def _contradictions(rows: Sequence[Row], known: Mapping[str, Entry]) -> str:
    """By the place in the papers: where it can be computed, its page says what was found."""
    headers = ("", "place", "state", "in words", "where")
    return _table(
        headers,
        [(r.id, md(known[r.id].place), r.state, md(r.sentence), _place(r)) for r in rows],
    )


def _cells(row: Row) -> tuple[str, ...]:
    judgement, why = row.judgement, short_reason(row.why)
    words = md(row.sentence) + (f"<br>*Why not:* {md(why)}" if why else "")
    seen = judgement is not None and judgement.n > 0
    return (
        md(row.id) + (" (P)" if row.is_primary else ""),
        row.state,
        words,
        md(effect_text(judgement)) if seen and judgement else NOTHING,
        str(judgement.n) if seen and judgement else NOTHING,
        row.verified or NOTHING,
        _place(row),
    )


def _place(row: Row) -> str:
    """A link to the page, or to the test, where it comes from."""
    if not row.experiment:
        path = row.where.partition("::")[0]
        return f"[test]({path})" if "::" in row.where else NOTHING
    page = f"{FOLDER / row.experiment}.md"
    if row.judgement is None or row.judgement.exact:
        return f"[{row.experiment}]({page})"
    return f"[{row.experiment}]({page}#{markdown.anchor(_heading(row.where))})"


def _not_done(rows: Sequence[Row]) -> list[str]:
    planned = [row for row in rows if row.state == "planned"]
    given_up = [row for row in rows if row.state == "not attempted"]
    begun = [
        f"{md(row.id)}: {md(row.sentence)} ({_place(row)})" for row in planned if row.experiment
    ]
    open_: dict[str, list[str]] = {}
    for row in planned:
        if not row.experiment:
            paper = entries()[row.id].paper
            open_.setdefault(paper, []).append(f"{row.id}: {row.sentence}")
    others = [
        f"{md(paper)}, no experiment yet. {md('; '.join(own))}" for paper, own in open_.items()
    ]
    reasons = [f"{row.id}: {row.sentence} ({row.where})" for row in given_up]
    count = f"Planned: {len(planned)} claims, or parts of them"
    return [
        details(count, bullets([*begun, *others], escaped=True)),
        details(f"Not attempted: {len(given_up)} claims", bullets(reasons)),
    ]


def _experiments() -> str:
    return bullets(
        [f"[{e.name}]({FOLDER / e.name}.md): {md(e.question)}" for e in experiments()],
        escaped=True,
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- docs/results --------------------------------------------------------------------------------


def page_of(
    experiment: Experiment | ExactExperiment, reports: Sequence[Report]
) -> tuple[str, dict[str, Still]]:
    """(the page of an experiment, {path: figure})."""
    links = Links(
        results=f"../../{LEDGER}",
        source=f"../../experiments/{experiment.name}.py",
        figures="figures",
        readme="../../README.md#how-to-read-a-verdict",
    )
    sections = [_section(experiment, report) for report in reports]
    unpublished = _unpublished(experiment, reports)
    title, question = experiment.title, experiment.question
    return markdown.experiment_page(title, question, links, sections, unpublished), {
        str(FOLDER / links.figures / name): still
        for section in sections
        for name, still in section.figures.items()
    }


def _section(experiment: Experiment | ExactExperiment, report: Report) -> markdown.Section:
    size = Path(report.source).name.partition("-")[0]
    stem = f"{experiment.name}-{Path(report.source).name}"
    heading = _heading(report.source)
    how = command(experiment.name, size, report.data)
    return markdown.section_of(report, heading, how, stem)


def _unpublished(experiment: Experiment | ExactExperiment, reports: Sequence[Report]) -> str:
    """What a page says without result lines: what is computed, or what is to be judged."""
    if isinstance(experiment, ExactExperiment):
        rows = published_rows(experiment)
        return markdown.computed_part(command(experiment.name), rows, experiment.notes)
    if reports:
        return ""
    rows = [(claim.id, claim.sentence, claim.criterion) for claim in experiment.claims]
    table = md_table(Table(("claim", "in words", "rule"), rows))
    how = markdown.fenced(command(experiment.name, "full"))
    return "\n\n".join(["No results are published yet.", how, table])


def _experiment_of(report: Report) -> str:
    return Path(report.source).parent.name


def _heading(source: str) -> str:
    """ "full, cifar10" of results/bn_ablation/full-cifar10."""
    size, _, data = Path(source).name.partition("-")
    return f"{size}, {data}"


def _published_row(
    reports: Iterable[Report],
) -> Callable[[ExactClaim, Experiment | ExactExperiment], Judgement | None]:
    """What was published of a computed claim: nothing is computed for a page."""
    found: dict[str, Mapping[str, Judgement]] = {}
    for report in reports:
        exact = {j.claim: j for j in report.judgements if j.exact}
        found[_experiment_of(report)] = {**found.get(_experiment_of(report), {}), **exact}

    def row(claim: ExactClaim, experiment: Experiment | ExactExperiment) -> Judgement | None:
        if isinstance(experiment, ExactExperiment):
            return {j.claim: j for j in published_rows(experiment)}.get(claim.id)
        return found.get(experiment.name, {}).get(claim.id)

    return row
