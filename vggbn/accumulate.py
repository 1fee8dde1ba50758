"""Gradient accumulation: a batch in parts, one after another, where it does not fit as a whole.

What is summed over examples, the loss and its gradient, is the same as for the whole batch. BN sees
each part by itself: its statistics are over batch / parts examples, those of `bn_groups` = parts on
the whole batch, and the moving averages take one step a batch, with the mean over the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def accumulated(parts: int, one: Callable, *arrays_N) -> tuple[Any, Any]:
    """`one(part, *arrays_n) -> (means, sums)`, over all parts: (mean of means, sum of sums).

    Part k holds the examples k, k + parts, …: of a batch that is shared out over devices each then
    keeps its own.
    """
    split = [a_N.reshape(-1, parts, *a_N.shape[1:]).swapaxes(0, 1) for a_N in arrays_N]
    each = lambda part, arrays: one(part, *arrays)  # noqa: E731
    shapes = jax.eval_shape(each, jnp.int32(0), [a[0] for a in split])
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(total, part):
        return jax.tree.map(jnp.add, total, each(*part)), None

    (means, sums), _ = jax.lax.scan(body, start, (jnp.arange(parts), split))
    return jax.tree.map(lambda total: total / parts, means), sums


def moved(old: Any, new: Any, decay) -> Any:
    """The moving averages after one step, of which `new` is the batch's own: decay weighs `old`."""
    return jax.tree.map(lambda a, b: (decay * a + (1 - decay) * b).astype(a.dtype), old, new)
