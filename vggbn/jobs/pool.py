"""Independent jobs in single-thread worker processes, one a core.

Small nets do not fill two cores, and one thread a run makes its numbers the same on every number
of cores. A worker that dies is replaced and its job done again, once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from vggbn.errors import PREEMPTED, Preempted, UserError, ignore_late_callbacks, on_signal, said
from vggbn.machine import environment

ATTEMPTS = 2
GRACE = 25  # seconds that a worker has to save its run: schedulers give 30
AHEAD = 8  # so many jobs for each worker may be taken out of turn


class OutOfTime(Exception):
    """The time that jobs were given is over; each that was under way could save what it had."""


class Job(NamedTuple):
    """kind: jobs of one kind share a compilation, so a worker stays with a kind while it can.

    With compiled programs on disk another kind still costs their tracing and loading.
    after: names of jobs that must be over, done or failed, before this one starts.
    """

    name: str
    kind: Hashable
    payload: Any
    after: frozenset[str] = frozenset()


class Engine(NamedTuple):
    """What does jobs, in `run(jobs, work, events)`, so many `workers` of them at a time.

    here: by processes of this machine, on the device that this one would take. threads: of such a
    process, where it computes on the CPU, so that its setting is known without asking one; None:
    each must be asked.
    """

    run: Callable[[list[Job], Callable, Events], None]
    workers: int
    here: bool
    threads: int | None = None


class Events(NamedTuple):
    """What the parent is told: a progress report, a result, a failure (its text)."""

    on_report: Callable[[Job, Any], None]
    on_result: Callable[[Job, Any], None]
    on_failure: Callable[[Job, str], None]


MayStart = Callable[[Job, list[Job]], bool]


def at_any_time(job: Job, busy: list[Job]) -> bool:
    """A job may be begun beside any others."""
    return True


def default_workers() -> int:
    """One a core on CPU; one in all where an accelerator would have to be shared."""
    return 1 if environment.accelerated() else os.cpu_count() or 1


def run_jobs(
    jobs: list[Job],
    work: Callable,
    events: Events,
    *,
    workers: int,
    until: float | None = None,
    may_start: MayStart = at_any_time,
) -> None:
    """Do every job: `work(payload, report)` runs in a worker; `report(x)` reaches on_report.

    until: OutOfTime when time.monotonic() gets there. may_start(job, busy): whether this job may be
    begun beside those; asked again after every report, and answered yes where nothing is busy.
    """
    pending, crew = list(jobs), []
    attempts: Counter[str] = Counter()
    with _heeded_stop() as heed:
        try:
            crew = [_Worker(work, workers > 1) for _ in range(min(workers, len(jobs)))]
            while pending or any(worker.job for worker in crew):
                for worker in crew:
                    job = None if worker.job else _next_job(pending, worker, crew, may_start)
                    if job is not None:
                        worker.start(job)
                for worker in _ready(crew, until):
                    _hear(worker, events, pending, attempts)
                    heed()
        finally:
            for worker in crew:
                worker.process.terminate()  # all at once: each saves its run
            for worker in crew:
                worker.stop()


def local(workers: int, **limits: Any) -> Engine:
    """The engine that is this module; limits: until and may_start of `run_jobs`."""
    threads = int(environment.SINGLE_THREAD["NPROC"])
    run = partial(run_jobs, workers=workers, **limits)
    return Engine(run, workers, here=True, threads=threads)


@contextmanager
def _heeded_stop():
    """Gives `heed()`, which raises again what Ctrl-C or SIGTERM has raised since.

    Python drops the exception where it meets a finaliser or a callback of the garbage collector
    (jax has one): the run would go on as if nobody had asked.
    """
    asked: list[BaseException] = []

    def interrupted(signum, frame):
        asked.append(KeyboardInterrupt())
        raise asked[-1]

    def terminated(signum, frame):
        asked.append(Preempted("Stopped by SIGTERM."))
        raise asked[-1]

    def heed():
        if asked:
            raise asked[-1]

    with on_signal(signal.SIGINT, interrupted), on_signal(signal.SIGTERM, terminated):
        yield heed


class _Worker:
    """One child process and the job it has in hand; shared: other workers use its accelerator."""

    def __init__(self, work: Callable, shared: bool):
        self.work, self.job, self.kinds, self.shared = work, None, set(), shared
        self._spawn()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_child, args=(theirs, self.work), daemon=True)
        with environment.override(environment.worker_settings(self.shared)), _no_interrupt():
            self.process.start()
        theirs.close()

    def start(self, job: Job) -> None:
        self.job = job
        self.kinds.add(job.kind)
        with suppress(OSError):  # it died while idle: `_hear` sees the end of the pipe
            self.connection.send(job.payload)

    def renew(self) -> None:
        self.stop()
        self.job, self.kinds = None, set()
        self._spawn()

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextmanager
def _no_interrupt():
    """A child started in here never sees Ctrl-C, not even while it imports."""
    resource_tracker.ensure_running()  # its own start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _next_job(
    pending: list[Job], worker: _Worker, crew: list[_Worker], may_start: MayStart = at_any_time
) -> Job | None:
    """A job of a kind this worker has compiled, else of one nobody has, else of the most common.

    Of the next few jobs only: who stops a long experiment wants its first seeds whole. None if all
    that are left wait for others.
    """
    busy = [other.job for other in crew if other.job]
    unfinished = {job.name for job in [*pending, *busy]}
    few = [job for job in pending if not job.after & unfinished][: AHEAD * len(crew)]
    few = [job for job in few if may_start(job, busy)]
    if not few:
        return None
    taken = {kind for other in crew if other is not worker for kind in other.kinds}
    left = Counter(job.kind for job in few)
    best = max(few, key=lambda j: (j.kind in worker.kinds, j.kind not in taken, left[j.kind]))
    pending.remove(best)
    return best


def _ready(crew: list[_Worker], until: float | None):
    """The workers that have something to say. OutOfTime: that it is, before one has."""
    busy = {worker.connection: worker for worker in crew if worker.job}
    left = None if until is None else max(0.0, until - time.monotonic())
    found = [busy[connection] for connection in wait(list(busy), left)]  # pyright: ignore
    if until is not None and time.monotonic() >= until:
        raise OutOfTime
    return found


def _hear(worker: _Worker, events: Events, pending: list[Job], attempts: Counter) -> None:
    job = worker.job
    assert job is not None, "an idle worker has nothing to say"
    try:
        kind, value = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.renew()
        attempts[job.name] += 1
        if attempts[job.name] < ATTEMPTS:
            pending.insert(0, job)
        else:
            events.on_failure(job, f"its process died {ATTEMPTS} times (out of memory, or killed).")
        return
    if kind == "report":
        events.on_report(job, value)
        return
    worker.job = None
    if kind == "user error":
        raise UserError(value)
    (events.on_result if kind == "result" else events.on_failure)(job, value)


def _child(connection, work: Callable) -> None:
    """The worker's loop. Ctrl-C is the parent's affair; SIGTERM ends work that has not its own way
    to stop, and a parent that is killed takes the worker along."""
    ignore_late_callbacks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(PREEMPTED))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            payload = connection.recv()
        except EOFError:
            return
        try:
            answer = "result", work(payload, lambda value: connection.send(("report", value)))
        except UserError as error:
            answer = "user error", str(error)
        except OSError as error:
            answer = "user error", said(error)
        except Preempted:
            os._exit(PREEMPTED)  # what it had is saved; the parent is going too
        except Exception:
            answer = "failure", traceback.format_exc()
        try:
            connection.send(answer)
        except OSError:  # the parent was killed: nobody waits
            return


def _die_with_parent() -> None:
    """Else a killed command's worker would train on, beside the one that goes on with its run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
