"""Runs trained one after another by all processes of a job together: `pool.run_jobs`' other way.

Process 0 has the plan, the results and the saved steps. The others only do, at its word, the same
work on their part of each batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from vggbn import mesh
from vggbn.errors import UserError
from vggbn.pool import Events, Job


def run_jobs(jobs: list[Job], work: Callable, events: Events, *, workers: int) -> None:
    """Do every job, here and in the processes that `follow`; in the given order."""
    assert mesh.process() == 0 and workers == 1
    for job in jobs:
        mesh.agreed(lambda job=job: (work, job.payload))
        report = lambda record, job=job: events.on_report(job, record)  # noqa: E731
        events.on_result(job, _together(work, job.payload, report))


def follow() -> None:
    """Do what process 0 does, until it dismisses this one. UserError: as there."""
    while (job := mesh.agreed(lambda: None)) is not None:
        work, payload = job
        _together(work, payload, lambda record: None)


def dismiss() -> None:
    """Let the processes that `follow` end."""
    mesh.agreed(lambda: None)


def _together(work: Callable, payload, report: Callable):
    try:
        return work(payload, report)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"the processes of the job have lost one another ({str(error).splitlines()[0][:200]}): "
            "start the same command again, and it goes on from the last saved step."
        ) from error
