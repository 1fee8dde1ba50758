"""Gradient accumulation: a batch in parts, one after another, where it does not fit as a whole.

What is a mean over examples, the loss and its gradient, is the same as for the whole batch. BN sees
each part by itself: its statistics are over batch / parts examples, those of `bn_groups` = parts on
the whole batch. The moving averages take one step a batch: they are linear in the statistics, so
that the mean over the parts of where each would take them is the step with the parts' mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulate(parts: int, one: Callable, *arrays_N) -> tuple[Any, Any]:
    """`one(part, *arrays_n) -> (means, sums)` over all parts: (mean of the means, sum of the sums).

    arrays_N: arrays, or trees of them. means: trees of floats, the means over the part's
    n = N / parts examples; sums: of any numbers. Both keep their dtypes. `one` is traced, with the
    number of the part, int32, for all of them. Part k holds the examples k, k + parts, …: of a
    batch that is shared out over devices each then keeps its own. One part is the call itself.
    TypeError where N is no multiple of `parts`.
    """
    if parts == 1:
        return one(jnp.int32(0), *arrays_N)
    split = lambda a_N: a_N.reshape(-1, parts, *a_N.shape[1:]).swapaxes(0, 1)  # noqa: E731
    each = (jnp.arange(parts), *jax.tree.map(split, arrays_N))

    def add(total, part):
        return jax.tree.map(jnp.add, total, one(*part)), None

    shapes = jax.eval_shape(one, *jax.tree.map(lambda a: a[0], each))
    (means, sums), _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), each)
    return jax.tree.map(lambda total: total / parts, means), sums
