"""Trees of arrays on disk, by Orbax."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vggbn.errors import UserError

TWICE = 2  # Orbax writes each array, then merges what it has written
FILES = 2**20  # bytes, of all else


def save(path: Path, tree: Any) -> None:
    """Write a pytree of arrays; an older one at `path` is replaced once the new one is whole.

    UserError: it cannot be written there.
    """
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    path, tree = Path(path).absolute(), jax.tree.map(np.asarray, tree)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        require_room(path.parent, jax.tree.leaves(tree))
        with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
            checkpointer.save(path, tree, force=True, custom_metadata={"digest": digest(tree)})
            checkpointer.wait_until_finished()
    except Exception as error:  # many types for a full disk
        raise UserError(
            f"{path} cannot be written ({reason(error)}): free some space or name another --out; "
            "the same command then goes on."
        ) from error


def alone():
    """Orbax's option for the process that trains alone, or the first of several: others save
    nothing, so it waits for none."""
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(active_processes={0})


def quiet_orbax() -> None:
    """Have it log nothing: what it logs it also raises, or is, in its older versions, a warning at
    each restore that is told no target tree."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def require_room(folder: Path, arrays: Iterable[Any]) -> None:
    """OSError, if the disk of `folder` has no room for the arrays.

    Orbax would say so too, but in the end, on pages of the log, and with a part of them written.
    """
    quiet_orbax()
    needed = TWICE * sum(array.nbytes for array in arrays) + FILES
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def reason(error: BaseException) -> str:
    """What the system said, out of a message of Orbax or TensorStore that may be pages long."""
    text = str(error)
    known = ("No space left on device", "Disk quota exceeded", "Permission denied")
    found = [words for words in known if words in text]
    return found[0] if found else (text.strip().splitlines() or [type(error).__name__])[0][:200]


def load(path: Path, like: Any = None) -> Any:
    """The tree at `path`, with the structure, shapes and dtypes of `like` if that is given.

    UserError: nothing there, or damaged, or not the tree that `like` describes.
    """
    import jax
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if not path.is_dir():
        raise UserError(f"no checkpoint at {path}: train the run first.")
    abstract = None if like is None else jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    quiet_orbax()
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
            tree = checkpointer.restore(path, abstract)
            saved = checkpointer.metadata(path).custom_metadata.get("digest")
        if saved not in (None, digest(tree)):  # None: the metadata are lost, not the arrays
            raise ValueError("the arrays are not those that were saved")
        return jax.device_put(tree)
    except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason(error)}); delete it and train the run "
            "again."
        ) from error


def digest(tree: Any) -> str:
    """sha256 over the leaves, in no order: TensorStore does not notice a byte that has changed."""
    import jax
    import numpy as np

    leaves = map(np.asarray, jax.tree.leaves(tree))
    facts = sorted(
        hashlib.sha256(f"{a.dtype}{a.shape}".encode() + a.tobytes()).digest() for a in leaves
    )
    return hashlib.sha256(b"".join(facts)).hexdigest()
