"""Verdicts in plain words: what was found, and why nothing was."""

from __future__ import annotations

import textwrap

from vggbn.claims.stats import Judgement
from vggbn.report.tables import NOTHING, effect_text

SHORT = 120  # characters


def found_in_words(judgement: Judgement) -> str:
    """What was found: "Reproduced: +28.40 [+20.45, +36.36] points, n = 5." """
    verdict = judgement.verdict.capitalize()
    if judgement.exact:
        how = "measured" if judgement.measured else "computed"
        holds = "it holds" if judgement.verdict == "reproduced" else "it does not hold"
        return f"{verdict} ({how}): {judgement.detail or holds}."
    if judgement.verdict == "not tested":
        return f"{verdict}: {reason(judgement).rstrip('.')}."
    effect = effect_text(judgement)
    if effect == NOTHING:
        return f"{verdict}: {short_reason(judgement.detail) or 'no data'}."
    return f"{verdict}: {effect}, n = {judgement.n}."


def reason(judgement: Judgement) -> str:
    """Why it is not tested: without what the judge had found, where a gate refused it."""
    return judgement.detail.split("; ")[0] if judgement.n else judgement.detail


def short_reason(text: str) -> str:
    """The first clause of a reason, cut to about a line."""
    first = text.split("; ")[0].split(". ")[0].removesuffix(".")
    return textwrap.shorten(first, SHORT, placeholder=" …")
