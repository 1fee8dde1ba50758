"""When seeds are looked at: three times, at numbers named beforehand, each look at a higher level.

Who adds seeds until an interval excludes 0 finds an effect where there is none in far more than a
twentieth of all cases: 12 % with looks at 5, 10 and 20 of 95 % each. With LEVEL at each of them it
is 5 % together.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOKS = (5, 10, 20)  # paired seeds
LEVEL = 0.982  # of the interval at each look
ALPHA = 0.05  # of all looks together


def judged_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds that a verdict rests on: the first 5, 10 or 20 of them, as many as there are.

    Seeds beyond a look wait for the next. With fewer than the first look asks for, all of them: the
    verdict is provisional.
    """
    ordered = sorted(seeds)
    reached = [n for n in LOOKS if n <= len(ordered)]
    return ordered[: reached[-1]] if reached else ordered


def adjusted(p: float) -> float:
    """The p of one look as a p of all planned looks: it rejects at ALPHA where LEVEL does."""
    return min(1.0, p * ALPHA / (1 - LEVEL))
