"""Permutations and uniform numbers that stay the same in every version of numpy."""

import numpy as np


def permutation(n: int, *key: int) -> np.ndarray:
    """A permutation of range(n), int64 [n], given by n and the non-negative ints of key alone.

    numpy keeps the stream of a bit generator stable, but not that of
    `Generator.permutation`: so we sort raw 64-bit draws.
    """
    return np.argsort(_raw(n, key), kind="stable")


def uniform(n: int, *key: int) -> np.ndarray:
    """n numbers in [0, 1), float64, given by the non-negative ints of key alone."""
    return (_raw(n, key) >> np.uint64(11)) * 2.0**-53


def _raw(n: int, key: tuple[int, ...]) -> np.ndarray:
    return np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)
