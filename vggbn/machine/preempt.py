"""SIGTERM: what a scheduler sends before it takes the machine away. Training saves, then stops."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from vggbn.errors import on_signal
from vggbn.machine import mesh

_asked = count()  # in every process as often: jax compares these numbers, and wants them one by one


@contextmanager
def note_sigterm() -> Iterator[Callable[[int], bool]]:
    """Within, SIGTERM interrupts nothing: asked(step) tells whether it came.

    Where several processes train together, jax lets all of them stop at the same step: each must
    ask at every step.
    """
    if mesh.processes() > 1:
        from jax.experimental.multihost_utils import reached_preemption_sync_point

        # SIGTERM's handler is jax's own, since `mesh.join`.
        yield lambda step: reached_preemption_sync_point(next(_asked))
        return
    heard = []
    with on_signal(signal.SIGTERM, lambda signum, frame: heard.append(signum)):
        yield lambda step: bool(heard)
