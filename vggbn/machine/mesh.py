"""Data parallelism: the batch is shared out over all devices, all else lies on each of them.

A mean over a batch, BN's or the loss's, is then over the whole batch: how many devices there are,
and in how many processes, changes rounding only (VGG section 3.1: "the same result as one"). On one
device nothing here does anything.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vggbn.errors import UserError

AXIS = "data"
HEARTBEAT = 30  # seconds without a sign of life after which a process is taken for dead
Tree = TypeVar("Tree")
Value = TypeVar("Value")


def join(how: str) -> None:
    """Make this process one of a job's, which share each batch. Before jax starts.

    how: "auto" (jax finds the others by SLURM, Open MPI, Kubernetes or Cloud TPU), or
    "ADDRESS:PORT,PROCESSES,INDEX" of the first process, the number of them and this one's.
    UserError: not so, or the others do not come.
    """
    told = {}
    if how != "auto":
        try:
            address, count, index = how.split(",")
            told = {
                "coordinator_address": address,
                "num_processes": int(count),
                "process_id": int(index),
            }
        except ValueError:
            raise UserError(
                f'--distributed takes "auto" or ADDRESS:PORT,PROCESSES,INDEX, not {how!r}.'
            ) from None
    try:
        jax.distributed.initialize(**told, **_patience())  # pyright: ignore
    except (ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"the processes of the job do not find one another ({reason}): see docs/running.md, "
            "or name them: --distributed ADDRESS:PORT,PROCESSES,INDEX."
        ) from error


def _patience() -> dict[str, int]:
    """How long a process waits for the others, to `jax.distributed.initialize`; jax 0.7 does not
    let one say how long at the end."""
    known = inspect.signature(jax.distributed.initialize).parameters
    names = ("heartbeat_timeout_seconds", "shutdown_timeout_seconds")
    return {name: HEARTBEAT for name in names if name in known}


@lru_cache
def _mesh() -> Mesh:
    """All devices, those of a process side by side: its part of a batch is in one piece."""
    return Mesh(np.array(sorted(jax.devices(), key=lambda d: (d.process_index, d.id))), (AXIS,))


def devices() -> int:
    """How many devices, of all processes, share a batch."""
    return len(jax.devices())


def processes() -> int:
    """How many processes share a batch."""
    return jax.process_count()


def process() -> int:
    """This process's number: it holds that part of each batch. Process 0 alone writes files."""
    return jax.process_index()


def everywhere() -> NamedSharding:
    """The placement of what lies on every device."""
    return NamedSharding(_mesh(), PartitionSpec())


def by_example(ndim: int, axis: int = 0) -> NamedSharding:
    """The placement of an array with `ndim` axes, one of them cut into a part for each device."""
    spec: list[str | None] = [None] * ndim
    spec[axis] = AXIS
    return NamedSharding(_mesh(), PartitionSpec(*spec))


def replicate(tree: Tree) -> Tree:
    """The arrays, the same in every process, on every device."""
    if devices() == 1:
        return jax.device_put(tree)
    if processes() == 1:
        return jax.device_put(tree, everywhere())
    return jax.tree.map(_replicated, tree)


def share_out(rows: Any, axis: int = -1) -> Any:
    """`rows`, the same in every process, its batch axis cut into a part for each device.

    UserError where the parts would not be equal.
    """
    if devices() == 1:
        return rows
    refuse_uneven(rows.shape[axis])
    return _from_all(np.asarray(rows), by_example(rows.ndim, axis % rows.ndim))


def join_parts(part: Any) -> Any:
    """A whole batch of which each process holds its own part, [batch / processes, ...], on its way
    to the devices."""
    if devices() == 1:
        return jax.device_put(part)
    refuse_uneven(len(part) * processes())
    return jax.make_array_from_process_local_data(by_example(part.ndim), part)


def refuse_uneven(examples: int, what: str = "batch") -> None:
    """UserError for so many examples, a batch or what `what` says, that the devices cannot share
    out evenly."""
    if examples % devices():
        raise UserError(
            f"A {what} of {examples} cannot be shared out evenly over {devices()} devices: "
            "choose a multiple."
        )


def _replicated(leaf):
    if isinstance(leaf, jax.Array) and leaf.sharding == everywhere():
        return leaf
    # device_put would compare the processes' values, byte by byte, over the network.
    return _from_all(np.asarray(leaf), everywhere())


def _from_all(array: np.ndarray, sharding: NamedSharding):
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def keep_replicated(tree: Tree) -> Tree:
    """Inside a jitted step: what it returns lies on every device again."""
    if devices() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, everywhere())


def agree_on(make: Callable[[], Value]) -> Value:
    """What `make` returns, or the UserError that it raises, in process 0; the others only hear."""
    if processes() == 1:
        return make()
    answer = _hear(_attempt(make) if process() == 0 else None)
    if isinstance(answer, UserError):
        raise answer
    return answer


def _attempt(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except UserError as error:
        return error


def _hear(said: Any) -> Any:
    """What process 0 says, any value that can be pickled, in every process."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    raw = np.frombuffer(pickle.dumps(said), np.uint8) if process() == 0 else np.zeros(0, np.uint8)
    size = int(broadcast_one_to_all(np.int32(len(raw))))
    heard = broadcast_one_to_all(raw if process() == 0 else np.zeros(size, np.uint8))
    return pickle.loads(np.asarray(heard, np.uint8).tobytes())
