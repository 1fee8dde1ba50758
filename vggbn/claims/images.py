"""The same images tested twice: the interval and the test that belong to such pairs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from vggbn.claims.stats import Interval, check_level
from vggbn.errors import UserError


def paired_images(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[Interval, float]:
    """(interval of the share that only `a` got right less the share that only `b` did, p).

    a, b: bool (n,), which of the same n images each got right. It speaks of these two nets on
    images like these, never of other trained nets. UserError: not the same images.

    The interval is Agresti and Min's (2005): Wald's after half an image is added to each of the
    four cells. So it has a width where no image tells the two apart, and where few do. p is
    McNemar's by mid-p, two-sided (Fagerland, Lydersen and Laake 2013), which decides as it does.
    """
    ours, theirs = np.asarray(a, bool), np.asarray(b, bool)
    if ours.shape != theirs.shape or ours.ndim != 1 or not ours.size:
        raise UserError("Images can be paired only where both tests saw the same ones.")
    check_level(level)
    from scipy.stats import norm

    n, won, lost = ours.size, int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    centre = (won - lost) / (n + 2)
    spread = math.sqrt(won + lost + 1 - (won - lost) ** 2 / (n + 2)) / (n + 2)
    half = float(norm.ppf((1 + level) / 2)) * spread
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Interval((won - lost) / n, low, high, n, level), mcnemar(won, lost)


def mcnemar(won: int, lost: int) -> float:
    """McNemar's two-sided mid-p of no difference, of the images that tell two nets apart."""
    from scipy.stats import binom

    fewer, all_of_them = min(won, lost), won + lost
    if won == lost:
        return 1.0
    return float(2 * binom.cdf(fewer, all_of_them, 0.5) - binom.pmf(fewer, all_of_them, 0.5))
