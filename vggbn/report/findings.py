"""What was found of each claim, as HTML: a sentence and a row, or why it was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vggbn.claims.stats import VERDICTS, Judgement
from vggbn.report import tables
from vggbn.report.elements import definitions, fold, remark
from vggbn.report.text import chance_note, is_judged, unjudged_line

MARKS: dict[str, str] = dict(zip(VERDICTS, "✓◐=✗?–", strict=True))


def sentences(judgements: Sequence[Judgement]) -> str:
    """A sentence for each claim that was judged, its verdict first."""
    items = "".join(
        f"<li>{_mark(j)} <strong>{escape(j.claim)}:</strong> {escape(j.sentence)}</li>\n"
        for j in judgements
        if is_judged(j)
    )
    return f'<ul class="claims">{items}</ul>' if items else ""


def verdicts(judgements: Sequence[Judgement]) -> str:
    """Claim, verdict and effect, with the rest folded below each; then what was not judged."""
    rows = "".join(_rows(j) for j in judgements if is_judged(j))
    head = "<tr><th scope=col>claim</th><th scope=col>verdict</th><th scope=col>ours</th></tr>"
    table = f'<table class="verdicts"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    shown = table + remark(chance_note(judgements)) if rows else ""
    return shown + _unjudged([j for j in judgements if not is_judged(j)])


def _mark(j: Judgement) -> str:
    """The verdict's mark and word, which no line break parts."""
    kind = j.verdict.replace(" ", "-")
    return f'<span class="verdict {kind}">{MARKS[j.verdict]} {escape(j.verdict)}</span>'


def _rows(j: Judgement) -> str:
    provisional = " (provisional)" if j.provisional else ""
    n = "" if j.exact else f", n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{j.n}{provisional}"
    details = definitions(
        {
            "claim": j.sentence,
            "paper": j.paper,
            "criterion": j.criterion,
            "primary data": j.primary,
            "detail": j.detail,
            "seeds": tables.power_text(j),
        }
    )
    more = fold("paper, criterion, what weakens it", details)
    return (
        f"<tr><td>{escape(j.claim)}{'<small>primary</small>' if j.is_primary else ''}</td>"
        f"<td>{_mark(j)}</td><td>{escape(tables.effect_text(j) + n)}</td></tr>\n"
        f"<tr class=more><td colspan=3>{more}</td></tr>\n"
    )


def _unjudged(judgements: Sequence[Judgement]) -> str:
    """One line that names the claims, and behind it why."""
    reasons = {
        j.claim: f"{j.sentence} Why: {j.detail}" if j.detail else j.sentence for j in judgements
    }
    line = unjudged_line(judgements)
    return fold(line, definitions(reasons)) if line else ""
