"""Trees of arrays compared: to the bit, or by the largest deviation of a leaf."""

import jax
import numpy as np


def assert_same(ours, expected) -> None:
    """Bit by bit, with dtypes and shapes, the same tree."""
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def deviation(found, wanted) -> float:
    """The largest of all leaves, each relative to its largest value."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3) for a, b in pairs)
