"""The report as plain text: the terminal's verdict table, and notes that every page has."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vggbn.claims.stats import PUBLISHED_SEEDS, Judgement
from vggbn.report import tables
from vggbn.report.records import Report

COLOURS = {  # of a terminal, by its escape codes
    "reproduced": 32, "partly": 32, "contradicted": 31, "inconclusive": 33, "not tested": 33,
}  # fmt: skip


def verdict_table(judgements: Sequence[Judgement], width: int = 110, *, colour=False) -> str:
    """The verdicts as aligned text, the claims' words wrapped to a terminal of `width` columns;
    what was not judged in one line; colour: with a terminal's colours."""
    judged = [j for j in judgements if is_judged(j)]
    rows = [(j.claim, j.verdict, tables.effect_text(j), _n_text(j)) for j in judged]
    lines = []
    if rows:
        head = ("claim", "verdict", "effect [interval]", "n")
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines.append(_row(head, widths, "in words", width))
        for row, j in zip(rows, judged, strict=True):
            code = COLOURS.get(j.verdict) if colour else None
            lines.append(_row(row, widths, _words(j), width, code))
    if any(j.provisional for j in judged):
        lines.append(f"* provisional: fewer than {PUBLISHED_SEEDS} paired seeds")
    lines += textwrap.wrap(unjudged_line(judgements), width, subsequent_indent="  ")
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


def is_judged(judgement: Judgement) -> bool:
    """Whether something was found of the claim: computed, or with seeds behind it."""
    return judgement.exact or judgement.n > 0


def unjudged_line(judgements: Sequence[Judgement]) -> str:
    """One line that names the claims nothing was found of, and why; empty without any."""
    left = [j for j in judgements if not is_judged(j)]
    reasons = {
        "runs are missing": [j.claim for j in left if j.verdict != "not tested"],
        "this protocol cannot test it": [j.claim for j in left if j.verdict == "not tested"],
    }
    texts = [f"{', '.join(claims)} ({why})" for why, claims in reasons.items() if claims]
    return f"Not judged: {'; '.join(texts)}" if texts else ""


def _n_text(judgement: Judgement) -> str:
    return tables.n_text(judgement) + ("*" if judgement.provisional else "")


def _words(judgement: Judgement) -> str:
    return (
        f"{judgement.sentence} (paper: {judgement.paper})"
        if judgement.paper
        else judgement.sentence
    )


BESIDE = 30  # columns that words need beside a row; with fewer they stand below it


def _row(
    cells: Sequence[str], widths: Sequence[int], words: str, width: int, code: int | None = None
) -> str:
    """One claim's lines, its verdict (the second cell) in the colour of `code`."""
    padded = [cell.ljust(w) for cell, w in zip(cells, widths, strict=True)]
    indent = sum(widths) + 2 * len(widths)
    if code is not None:
        padded[1] = f"\033[{code}m{padded[1]}\033[0m"
    start = "  ".join(padded)
    if width - indent < BESIDE:
        below = textwrap.wrap(words, width, initial_indent="    ", subsequent_indent="    ")
        return "\n".join([start.rstrip(), *below])
    lines = textwrap.wrap(words, width - indent) or [""]
    return f"{start}  {(chr(10) + ' ' * indent).join(lines)}".rstrip()
