"""The report as plain text: the terminal's verdict table, and notes that every page has."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vggbn.claims.stats import PUBLISHED_SEEDS, Judgement
from vggbn.report import tables
from vggbn.report.records import Report


def verdict_table(judgements: Sequence[Judgement], width: int = 110) -> str:
    """The verdicts as aligned text, the claims' words wrapped to a terminal of `width` columns."""
    rows = [("claim", "verdict", "effect [interval]", "n")]
    rows += [(j.claim, j.verdict, tables.effect_text(j), _n_text(j)) for j in judgements]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = ["in words", *(_words(j) for j in judgements)]
    lines = [_row(row, widths, text, width) for row, text in zip(rows, words, strict=True)]
    if any(j.provisional for j in judgements):
        lines.append(f"* provisional: fewer than {PUBLISHED_SEEDS} paired seeds")
    return "\n".join(lines)


def banner(report: Report) -> str:
    """The warning over results of too few seeds."""
    return (
        f"Provisional, n = {report.n}: a published verdict needs at least {PUBLISHED_SEEDS} seeds."
    )


def chance_note(judgements: Sequence[Judgement]) -> str:
    """How many of the intervals are expected to miss the truth by chance alone."""
    if all(j.exact for j in judgements):
        return "Exact claims are computed: there is no chance in them, and no interval."
    count = sum(j.n > 0 for j in judgements)
    if not count:
        return "No claim has an interval."
    levels = sorted({j.level for j in judgements if j.n > 0})
    shown = ", ".join(f"{100 * level:.2f}".rstrip("0").rstrip(".") for level in levels)
    having = "1 claim has" if count == 1 else f"{count} claims have"
    return (
        f"{having} an interval, the one that judged ({shown} %: higher than 95, for seeds are "
        "looked at when there are 5, 10 and 20, and a claim may have parts). Of those that are not "
        "primary some may be wrong by chance: nothing corrects for their number."
    )


def _n_text(judgement: Judgement) -> str:
    return tables.n_text(judgement) + ("*" if judgement.provisional else "")


def _words(judgement: Judgement) -> str:
    return (
        f"{judgement.sentence} (paper: {judgement.paper})"
        if judgement.paper
        else judgement.sentence
    )


def _row(cells: Sequence[str], widths: Sequence[int], words: str, width: int) -> str:
    start = "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + "  "
    room = max(24, width - len(start))
    lines = textwrap.wrap(words, room) or [""]
    return ("\n" + " " * len(start)).join(lines).join((start, "")).rstrip()
