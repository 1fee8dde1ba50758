"""Data parallelism: the batch is shared out over all devices, all else lies on each of them (D3).

A mean over a batch, BN's or the loss's, is then over the whole batch: how many devices there are
changes rounding only (VGG section 3.1: "the same result as one"). On one device nothing here does
anything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vggbn.errors import UserError

AXIS = "data"
Tree = TypeVar("Tree")


@lru_cache
def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), (AXIS,))


def devices() -> int:
    """How many devices share a batch."""
    return len(jax.devices())


def replicate(tree: Tree) -> Tree:
    """The arrays on every device."""
    return tree if devices() == 1 else jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def share_out(rows: Any) -> Any:
    """The last axis of `rows`, [..., batch], cut into a part for each device.

    UserError where the parts would not be equal.
    """
    if devices() == 1:
        return rows
    if rows.shape[-1] % devices():
        raise UserError(
            f"A batch of {rows.shape[-1]} cannot be shared out evenly over {devices()} devices: "
            "choose a multiple."
        )
    spec = PartitionSpec(*[None] * (rows.ndim - 1), AXIS)
    return jax.device_put(rows, NamedSharding(_mesh(), spec))


def keep_replicated(tree: Tree) -> Tree:
    """Inside a jitted step: what it returns lies on every device again."""
    if devices() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(_mesh(), PartitionSpec()))
