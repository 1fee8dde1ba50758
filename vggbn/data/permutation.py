"""Permutations that stay the same in every version of numpy."""

import numpy as np


def permutation(n: int, *key: int) -> np.ndarray:
    """A permutation of range(n), int64 [n], given by n and the non-negative ints of key alone.

    numpy keeps the stream of a bit generator stable, but not that of
    `Generator.permutation`: so we sort raw 64-bit draws.
    """
    draws_N = np.random.PCG64(np.random.SeedSequence(key)).random_raw(n)
    return np.argsort(draws_N, kind="stable")
