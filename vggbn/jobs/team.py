"""Runs trained one after another by all processes of a job together: `pool.run_jobs`' other way.

Process 0 has the plan, the results and the saved steps. The others only do, at its word, the same
work on their part of each batch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax

from vggbn.errors import UserError, said
from vggbn.jobs.pool import Engine, Events, Job
from vggbn.machine import environment, mesh


class Team:
    """Process 0's hold on the others."""

    def __init__(self):
        self._working = False

    @property
    def engine(self) -> Engine:
        """What does jobs by all processes, one at a time."""
        return Engine(self.run_jobs, workers=1, here=False)

    def run_jobs(self, jobs: list[Job], work: Callable, events: Events) -> None:
        """Do every job, here and in the processes that `follow`; in the given order."""
        for job in jobs:
            mesh.agree_on(lambda job=job: (work, job.payload))
            report = lambda record, job=job: events.on_report(job, record)  # noqa: E731
            self._working = True
            result = _together(work, job.payload, report)
            self._working = False
            events.on_result(job, result)

    def dismiss(self) -> None:
        """Let the others end, unless they are in the middle of a job: it ends for all at once."""
        if not self._working:
            mesh.agree_on(lambda: None)


def join(how: str) -> None:
    """`mesh.join`, with the precision that a pool's workers have."""
    if environment.accelerated() and not environment.FLOAT32.keys() & os.environ.keys():
        jax.config.update("jax_default_matmul_precision", *environment.FLOAT32.values())
    mesh.join(how)


def follow() -> None:
    """Do what process 0 does, until it dismisses this one. UserError: as there."""
    nothing: Callable[[], Any] = lambda: None  # noqa: E731  what to do, process 0 says
    while (job := mesh.agree_on(nothing)) is not None:
        work, payload = job
        _together(work, payload, lambda record: None)


def _together(work: Callable, payload, report: Callable):
    try:
        return work(payload, report)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        _leave(
            f"the processes of the job have lost one another ({reason}): start the same command "
            "again, and it goes on from the last saved step."
        )
    except UserError as error:
        _leave(str(error))
    except OSError as error:
        _leave(said(error))


def _leave(sentence: str) -> NoReturn:
    """End at once: jax would first wait for the others, who in the middle of a step wait for this
    process."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)
