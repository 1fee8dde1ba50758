"""The largest batch whose step fits, in few compilations: each takes minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

GRID = 16  # the answer is exact to a 16th of the batch that was refused
BY_LINE = 3  # so many tries; what is left is halved


class Need(NamedTuple):
    """What a program needs on a device, in bytes, and whether the compiler took it."""

    size: int
    fits: bool


class Bounds(NamedTuple):
    """fits: the largest size that does, 0 if none; fails: the next one that was tried."""

    fits: int
    fails: int


def largest(need: Callable[[int], Need], refused: int, needed: int, capacity: int) -> Bounds:
    """How many of a batch's `refused` parts would fit, where all of them need more than there is.

    need(n) compiles a batch of n. Memory is nearly a line in the batch: the next try is where the
    line through the last two (the first: through nothing) meets the capacity.
    """
    step = max(1, 2 ** (refused.bit_length() - 1) // GRID)
    low, high = 0, refused
    points = [(0, 0), (refused, needed)]
    while step:
        untried = range(low + step, high, step)
        if not untried:
            if low:
                break
            step //= 2  # not even one step of the grid fits
            continue
        n = untried[len(untried) // 2]
        if len(points) < 2 + BY_LINE:
            n = _nearest(untried, _crossing(points[-2], points[-1], capacity))
        found = need(n)
        points.append((n, found.size))
        low, high = (n, high) if found.fits else (low, n)
    return Bounds(low, high)


def _crossing(a: tuple[int, int], b: tuple[int, int], capacity: int) -> float:
    """Where the line through two points (n, size) meets the capacity."""
    (n, size), (other, its_size) = a, b
    rise = its_size - size
    return n + (capacity - size) * (other - n) / rise if rise else n


def _nearest(untried: range, n: float) -> int:
    """The largest that is not above n, or the first."""
    return max((m for m in untried if m <= n), default=untried[0])
