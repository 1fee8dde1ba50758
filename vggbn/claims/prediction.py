"""Where further seeds should lie, from those that there are: prediction intervals."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from vggbn.claims.stats import Interval, check_level, paired_interval
from vggbn.errors import UserError

LEVEL = 0.95


def prediction_interval(values: ArrayLike, new: int, level: float = LEVEL) -> Interval:
    """Where the mean of `new` further values lies in `level` of all cases, from n values, (n,).

    Mean ± t(n − 1) s √(1/n + 1/new), s their standard deviation: of normal values (Hahn 1970,
    Statistical intervals for a normal population). UserError: `new` below 1, a value that is not
    finite, or values that do not differ, which do not tell how far others may lie.
    """
    if new < 1:
        raise UserError(f"A prediction is of 1 or more new values, not {new}.")
    mean = paired_interval(values, level)
    half = mean.high - mean.mean
    if not 0 < half < math.inf:
        raise UserError(f"{mean.n} values that do not differ tell nothing of how far others lie.")
    wider = half * math.sqrt(1 + mean.n / new)  # t s √(1/n) of the mean alone, and the new ones'
    return Interval(mean.mean, mean.mean - wider, mean.mean + wider, mean.n, level)


def prediction_counts(shown: int, n: int, new: int, level: float = LEVEL) -> list[int]:
    """How many of `new` further seeds may show what `shown` of n did: in `level` of all cases at
    least, whatever the share of all seeds that do.

    Those counts that Fisher's exact two-sided test does not tell from `shown` of n. UserError: no
    count of n seeds, or no new ones.
    """
    check_level(level)
    if new < 1 or not (n > 0 and 0 <= shown <= n):
        raise UserError(f"{shown} of {n} seeds say nothing of {new} new ones.")
    from scipy.stats import fisher_exact

    tables = ([[shown, n - shown], [count, new - count]] for count in range(new + 1))
    p = [float(fisher_exact(table).pvalue) for table in tables]  # type: ignore[union-attr]
    return [count for count, each in enumerate(p) if each >= 1 - level]
