"""What a number of seeds can see: the smallest effect, and the number that an effect needs."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from vggbn.claims.stats import Interval, Judgement, check_level, student_half
from vggbn.errors import UserError

POWER = 0.8  # how often an effect of the size in question is to be found
MOST = 1_000  # no seeds in such a number will ever be run


def smallest_effect(spread: float, n: int, level: float = 0.95, power: float = POWER) -> float:
    """The mean difference that Student's interval of n differences tells from 0 in `power` of all
    samples, where they have the standard deviation `spread`; infinite for n < 2.

    The unit is that of `spread`. UserError: a level or power outside 0 … 1, a negative spread.
    """
    check_level(level)
    check_level(power)
    if not spread >= 0:
        raise UserError(f"A spread is 0 or more, not {spread}.")
    if n < 2:
        return math.inf
    return spread * _in_spreads(n, level, power)


def seeds_needed(spread: float, effect: float, level: float = 0.95, power: float = POWER) -> float:
    """The least number of seeds that sees `effect`; infinite beyond MOST."""
    low, high = 1, MOST
    if smallest_effect(spread, high, level, power) > abs(effect):
        return math.inf
    while high - low > 1:  # the smallest effect falls with n
        middle = (low + high) // 2
        if smallest_effect(spread, middle, level, power) > abs(effect):
            low = middle
        else:
            high = middle
    return high


def spread_of(judgement: Judgement) -> float:
    """The standard deviation over seeds behind a judgement's Student interval, of a ratio in
    logarithms; NaN where no such interval judged."""
    n, level = judgement.n, judgement.level
    interval = Interval(judgement.effect, judgement.low, judgement.high, n, level)
    _, half = student_half(interval, judgement.unit)
    if math.isnan(half):
        return math.nan
    from scipy.stats import t

    return half * math.sqrt(n) / float(t.ppf((1 + level) / 2, n - 1))


@cache
def _in_spreads(n: int, level: float, power: float) -> float:
    """The smallest effect of n differences whose standard deviation is 1.

    By the noncentral t distribution; that the interval lies on the wrong side is left out, which
    takes at most (1 - level) / 2 from the power.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    bound, freedom = t.ppf((1 + level) / 2, n - 1), n - 1

    def shortfall(shift: float) -> float:
        return float(nct.sf(bound, freedom, shift)) - power

    shift: Any = brentq(shortfall, 0.0, 5.0 * bound)  # its stub knows more kinds of answer
    return float(shift) / math.sqrt(n)
