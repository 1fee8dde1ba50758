"""Independent jobs on a cluster: SLURM job arrays by submitit, or the same on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vggbn.errors import Preempted, UserError, unknown
from vggbn.jobs import pool
from vggbn.jobs.pool import ATTEMPTS, Events, Job
from vggbn.machine import environment

AT_ONCE = 256  # jobs of an array that SLURM may run at a time, where the user does not say
ARRAY = 1000  # jobs of one array: SLURM's own limit, where its administrator has set no other
MOVES = 100  # times that a run may outlast its job's time: it goes on from its last saved step
PATIENCE = 60.0  # seconds that a cancelled process of this machine has to end
POLL = 1.0  # seconds between two looks at what the jobs have left
# What a job asks for where the user does not say. time, timeout_min: minutes, after which it is
# stopped and goes on in a job of its own.
DEFAULTS = {"slurm": {"time": 60, "job_name": "vggbn"}, "local": {"timeout_min": 60 * 24 * 7}}
LOCAL = {"gpus_per_node", "setup", "signal_delay_s", "timeout_min"}
# Of SLURM's: a run is one process; what takes no text; what --jobs says.
NOT_OURS = {"additional_parameters", "array_parallelism", "nodes", "ntasks_per_node", "num_gpus"}
LISTS = ("setup", "teardown", "srun_args")
MINUTES = ("time", "timeout_min")
# States of a job of an earlier command that is worth waiting for.
GOING = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "REQUEUED", "COMPLETING")


def engine(kind: str, settings: Sequence[str], folder: Path, workers: int | None) -> pool.Engine:
    """The engine that submits jobs, so many at a time, and keeps their files in `folder`.

    kind: slurm, or local, which starts processes of this machine. settings: NAME=VALUE, passed on
    to submitit. UserError: an unknown kind or name, no submitit, no SLURM.
    """
    executor = make_executor(kind, settings, folder)
    if kind == "slurm":  # which holds back what is too much by itself
        workers, at_once = workers or AT_ONCE, None
        executor.update_parameters(array_parallelism=workers)
    else:
        workers = at_once = workers or pool.default_workers()
    return pool.Engine(partial(run_jobs, executor=executor, at_once=at_once), workers, here=False)


def make_executor(kind: str, settings: Sequence[str], folder: Path) -> Any:
    """The submitit executor; see `engine` for the arguments and what is refused."""
    if kind not in DEFAULTS:
        raise unknown("cluster", kind, DEFAULTS)
    if find_spec("submitit") is None:
        raise UserError(
            "--cluster needs the package submitit: make install EXTRAS=slurm, or "
            "pip install -c constraints.txt -e '.[slurm]'."
        )
    import submitit

    if kind == "local":
        executor, valid = submitit.LocalExecutor(folder, MOVES), LOCAL
    else:
        try:
            executor = submitit.SlurmExecutor(folder, MOVES)
        except RuntimeError:
            raise UserError(
                "--cluster slurm finds no srun on this machine: start it where SLURM jobs are "
                "submitted, or try --cluster local."
            ) from None
        valid = executor._valid_parameters() - NOT_OURS
    given = dict(_parse(text, valid) for text in settings)
    executor.update_parameters(**(DEFAULTS[kind] | given))
    return executor


def _parse(text: str, valid: set[str]) -> tuple[str, Any]:
    """("time", 60) from "time=60"."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--cluster-set takes name=value, not {text!r}.")
    if name not in valid:
        raise unknown("cluster setting", name, valid)
    if name in MINUTES and not value.isdecimal():
        raise UserError(f"--cluster-set {name} takes a whole number of minutes, not {value!r}.")
    if name in LISTS:
        return name, [value]
    return name, int(value) if value.isdecimal() else value


def run_jobs(
    jobs: list[Job], work: Callable, events: Events, *, executor, at_once: int | None
) -> None:
    """Do every job, as pool.run_jobs; what a job reports must be JSON.

    at_once: submit so many at most, which share the accelerators of one machine; None: all.
    Jobs that are ready go to SLURM together, as an array; those that wait for others follow in a
    later one. Jobs that an earlier command has submitted and left are waited for, not submitted
    again. Ctrl-C, SIGTERM and an error that ends the whole cancel the jobs; when this process is
    killed they go on.
    """
    pending, flights = list(jobs), []
    attempts: Counter[str] = Counter()
    try:
        while pending or flights:
            ready = _ready(pending, flights)
            if at_once is not None:
                ready = ready[: at_once - len(flights)]
            flights += _submit(ready, work, executor, shared=at_once not in (None, 1))
            pending = [job for job in pending if job not in ready]
            for flight in list(flights):
                over = flight.theirs.done()
                for value in flight.news():
                    events.on_report(flight.job, value)
                if over:
                    flights.remove(flight)
                    _land(flight, events, pending, attempts)
            if flights:
                time.sleep(POLL)
    except (KeyboardInterrupt, Preempted, UserError, OSError):
        _cancel(flights, wait=at_once is not None)
        raise


@dataclass
class _Flight:
    """A job that has been submitted, and how much of its reports has been read, in bytes."""

    job: Job
    theirs: Any  # submitit's
    stem: Path
    read: int = 0

    def news(self) -> list[Any]:
        """What it has reported since the last time; a line that is being written has to wait."""
        try:
            with open(self.stem.with_suffix(".reports"), "rb") as file:
                file.seek(self.read)
                raw = file.read()
        except FileNotFoundError:
            return []
        whole = raw[: raw.rfind(b"\n") + 1]
        self.read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def forget(self) -> None:
        """Remove what a later command would find it by."""
        for suffix in (".job", ".reports"):
            self.stem.with_suffix(suffix).unlink(missing_ok=True)


def _ready(pending: list[Job], flights: list[_Flight]) -> list[Job]:
    unfinished = {job.name for job in pending} | {flight.job.name for flight in flights}
    return [job for job in pending if not job.after & unfinished]


def _submit(jobs: list[Job], work: Callable, executor, *, shared: bool) -> list[_Flight]:
    """All that are not under way already, as one array."""
    stems = [_stem(job, work, executor) for job in jobs]
    under_way = _under_way(stems, executor)
    new = [(job, stem) for job, stem in zip(jobs, stems, strict=True) if stem not in under_way]
    tasks = []
    for job, stem in new:
        reports = stem.with_suffix(".reports")
        reports.unlink(missing_ok=True)
        tasks.append(Task(job, work, reports, shared))
    for (_, stem), theirs in zip(new, _submit_tasks(tasks, executor), strict=True):
        under_way[stem] = theirs
        stem.with_suffix(".job").write_text(theirs.job_id)
    return [_Flight(job, under_way[stem], stem) for job, stem in zip(jobs, stems, strict=True)]


def _stem(job: Job, work: Callable, executor) -> Path:
    """Where a job's files are: the same for the same work, in every process."""
    text = f"{job.name}: {work.__module__}.{work.__qualname__}({job.payload!r})"
    return executor.folder / hashlib.sha256(text.encode()).hexdigest()[:16]


def _under_way(stems: list[Path], executor) -> dict[Path, Any]:
    """The jobs that an earlier command submitted and that still wait or run."""
    left = {}
    for stem in stems:
        with suppress(FileNotFoundError):
            number = stem.with_suffix(".job").read_text()
            left[stem] = executor.job_class(executor.folder, number)
    # Their states only now: submitit asks SLURM of all that it knows of, and not again at once.
    return {stem: theirs for stem, theirs in left.items() if theirs.state.split()[0] in GOING}


def _submit_tasks(tasks: list[Task], executor) -> list[Any]:
    """submitit's jobs. UserError: SLURM refuses them, with its own words."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        arrays = [tasks[i : i + ARRAY] for i in range(0, len(tasks), ARRAY)]
        with _hearing_ctrl_c():
            return [theirs for array in arrays for theirs in executor.submit_array(array)]
    except (FailedJobError, FailedSubmissionError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"SLURM refuses the jobs ({words}): see --cluster-set.") from None


@contextmanager
def _hearing_ctrl_c() -> Iterator[None]:
    """What is started inside hears Ctrl-C, by which submitit cancels jobs of this machine: a shell
    has it ignored in what it starts in the background, and that is inherited."""
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if is_ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _land(flight: _Flight, events: Events, pending: list[Job], attempts: Counter) -> None:
    """Tell of a job that is over. One that left no answer, as when it was killed, is done again."""
    from submitit.core.utils import UncompletedJobError

    job, theirs = flight.job, flight.theirs
    flight.forget()
    try:
        kind, value = theirs.result()
    except UncompletedJobError:
        attempts[job.name] += 1
        if attempts[job.name] < ATTEMPTS:
            pending.insert(0, job)
        else:
            text = f"it left no answer {ATTEMPTS} times (out of memory, or killed): see "
            events.on_failure(job, f"{text}{theirs.paths.stderr}.")
        return
    # On one machine a later job may get the same number, which is that of a process.
    for path in (theirs.paths.result_pickle, theirs.paths.submitted_pickle):
        path.unlink(missing_ok=True)
    if kind == "user error":
        raise UserError(value)
    if kind == "preempted":  # should SLURM queue it again too, that one finds no task, and ends
        pending.insert(0, job)
        return
    (events.on_result if kind == "result" else events.on_failure)(job, value)


def _cancel(flights: list[_Flight], *, wait: bool) -> None:
    """wait: till they are gone; after PATIENCE they are killed. SLURM takes its time, and needs
    nobody."""
    for flight in flights:
        flight.theirs.cancel(check=False)
        flight.forget()
    until = time.monotonic() + PATIENCE
    for flight in flights if wait else ():
        while not flight.theirs.done():  # which also reaps it
            if time.monotonic() > until:
                flight.theirs._process.kill()
            time.sleep(0.05)
    if flights:
        print(f"\nSubmitted jobs that are cancelled: {len(flights)}.", file=sys.stderr)


class Task:
    """A job as a node gets it: its answer is ("result" | "failure" | "user error", value), or
    ("preempted", ...) where SIGTERM came first.

    It is done there by a pool of one worker, which has that pool's environment and is given time to
    save what it has when the job is stopped. shared: other jobs use the same accelerator.
    """

    def __init__(self, job: Job, work: Callable, reports: Path, shared: bool):
        # A pickle in the pickle: only the worker shall import what it needs, jax above all.
        self.name, self.call = job.name, pickle.dumps((work, job.payload))
        self.reports, self.shared = reports, shared

    def __call__(self) -> tuple[str, Any]:
        if self.shared:
            for name, value in environment.SHARED.items():
                os.environ.setdefault(name, value)
        answers = []
        events = Events(
            lambda job, value: self._report(value),
            lambda job, value: answers.append(("result", value)),
            lambda job, text: answers.append(("failure", text)),
        )
        try:
            pool.run_jobs([Job(self.name, None, self.call)], _call, events, workers=1)
        except UserError as error:
            return "user error", str(error)
        except Preempted as stop:
            return "preempted", str(stop)
        return answers[0]

    def _report(self, value: Any) -> None:
        with open(self.reports, "a", encoding="utf-8") as file:
            file.write(json.dumps(value, default=float) + "\n")

    def checkpoint(self):
        """What submitit queues again when the job's time is over or its node is wanted back."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _call(call: bytes, report: Callable[[Any], None]) -> Any:
    """A job's work, in the worker on the node."""
    # SLURM signals every process of a job; what this one means is the affair of submitit's.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    work, payload = pickle.loads(call)
    return work(payload, report)
