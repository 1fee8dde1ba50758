"""Independent jobs, one after another in this process: for a debugger, which sees into the step."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from vggbn.errors import Preempted, UserError
from vggbn.jobs.pool import Engine, Events, Job
from vggbn.machine import provenance


def run_jobs(jobs: list[Job], work: Callable, events: Events) -> None:
    """Do every job in order; one that another waits for (`after`) stands before it.

    An error of one is told as its failure; what the user can put right, and a stop, end all.
    """
    for job in jobs:
        try:
            result = work(job.payload, lambda value, job=job: events.on_report(job, value))
        except (UserError, Preempted, OSError):
            raise
        except Exception:
            events.on_failure(job, traceback.format_exc())
        else:
            events.on_result(job, result)


def engine() -> Engine:
    """The engine that is this module: all threads of this process for one run at a time."""
    return Engine(run_jobs, workers=1, here=True, threads=provenance.threads())
