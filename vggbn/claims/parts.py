"""A claim of several parts: what is known of each, and what follows for the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vggbn.claims.stats import Interval
from vggbn.errors import UserError


class Part(NamedTuple):
    """One statement of a claim, its interval and the verdict that follows from it.

    p: of the statement's own test, where it is another than of no effect. unit: of the interval,
    where it is another than the claim's.
    """

    name: str
    interval: Interval
    verdict: str
    p: float = math.nan
    unit: str | None = None

    def text(self, form: str) -> str:
        """Such as "early +1.20 [+0.31, +2.09]", its numbers by a format."""
        i = self.interval
        return f"{self.name} {i.mean:{form}} [{i.low:{form}}, {i.high:{form}}]"


def whole(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that says all of its parts.

    Reproduced, contradicted or without effect only where every part is; partly where some parts are
    reproduced and others are not; inconclusive else. So a claim of k parts is not contradicted by
    the worst of k intervals, which with no effect at all would lie below 0 in many cases.
    """
    if not verdicts:
        raise UserError("A claim has at least one part.")
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "partly" if "reproduced" in verdicts else "inconclusive"


def part_level(level: float, parts: int) -> float:
    """The level of each part's interval at which all `parts` together keep `level` (Bonferroni)."""
    return 1 - (1 - level) / parts
