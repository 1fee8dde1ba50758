"""Several jobs on one accelerator: how many, found while they work; and NVIDIA's daemon for them.

Small nets are bound by launches, so that one run leaves most of a GPU idle. One job compiles a kind
of program first, and the others take it from the cache: five that tune the same convolutions at
once lose as long as one of them takes, each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from vggbn.errors import UserError
from vggbn.jobs.pool import Engine, Events, Job, run_jobs
from vggbn.machine import environment

TRIAL = 8.0  # seconds that a number of jobs is tried for
GAIN = 1.1  # times as much must twice as many get done to stay
ROOM = 0.9  # of the accelerator's memory may be taken
MPS = "nvidia-cuda-mps-control"

Memory = Callable[[], tuple[float, float] | None]  # (used, all), None where nobody tells


class Sharing:
    """How many jobs may work at once: twice as many as before while they get more done.

    most: never more; images(job): those of a step of it; settled: `most` from the start. Reports
    have a "step" once a job's program is compiled.
    """

    def __init__(
        self,
        most: int,
        memory: Memory,
        images: Callable[[Job], int],
        clock: Callable[[], float] = time.monotonic,
        *,
        settled: bool = False,
    ):
        self.most, self.settled = most, settled
        self.allowed = most if settled else 1
        self._memory, self._images, self._clock = memory, images, clock
        self._compiled: set[Hashable] = set()
        self._steps: dict[str, int] = {}  # of the jobs that are stepping
        self._best = (0, 0.0)  # jobs, images a second
        self._since: tuple[float, float] | None = None  # when the trial began, images until then
        self._made = 0.0

    def may_start(self, job: Job, busy: list[Job]) -> bool:
        """Whether there is room for one more, and nobody compiles the same just now."""
        if not busy:
            return True
        is_compiling = job.kind not in self._compiled and any(b.kind == job.kind for b in busy)
        return len(busy) < self.allowed and not is_compiling

    def heard(self, job: Job, report: Any) -> None:
        """A job's report."""
        if not isinstance(report, dict) or "step" not in report:
            return
        self._compiled.add(job.kind)
        before = self._steps.get(job.name)
        self._steps[job.name] = report["step"]
        if before is None:  # it has just begun to step
            self._since = None
        else:
            self._made += max(0, report["step"] - before) * self._images(job)
        if not self.settled:
            self._try()

    def ended(self, job: Job) -> None:
        """A job is over; a trial begins anew with the one that takes its place."""
        self._compiled.add(job.kind)
        self._steps.pop(job.name, None)
        self._since = None

    def _try(self) -> None:
        """Judge a trial that is over; begin one where all that may work are stepping."""
        now = self._clock()
        if len(self._steps) < self.allowed:
            return
        if self._since is None:
            self._since = now, self._made
        began, made = self._since
        if now - began < TRIAL:
            return
        rate = (self._made - made) / (now - began)
        if rate > GAIN * self._best[1]:
            self._best = self.allowed, rate
            more = min(2 * self.allowed, self.most, self._fitting())
            self.settled = more <= self.allowed
            self.allowed = max(more, self.allowed)
        else:
            self.allowed, self.settled = self._best[0], True
        self._since = None

    def _fitting(self) -> int:
        """So many have room in the memory, if each takes what those that work now take."""
        if (memory := self._memory()) is None or not memory[0]:
            return self.most
        used, whole = memory
        return int(ROOM * whole / (used / len(self._steps)))


def engine(sharing: Sharing, until: float | None) -> Engine:
    """The pool, whose workers share the accelerator."""
    return Engine(partial(_run_jobs, sharing=sharing, until=until), sharing.most, here=True)


def _run_jobs(
    jobs: list[Job], work: Callable, events: Events, *, sharing: Sharing, until: float | None
) -> None:
    def told(tell: Callable[[Job, Any], None], note: Callable) -> Callable[[Job, Any], None]:
        def hear(job: Job, value: Any) -> None:
            note(job, value)
            tell(job, value)

        return hear

    def ended(job: Job, value: Any) -> None:
        sharing.ended(job)

    heard = Events(
        told(events.on_report, sharing.heard),
        told(events.on_result, ended),
        told(events.on_failure, ended),
    )
    run_jobs(
        jobs, work, heard, workers=sharing.most, until=until, may_start=sharing.may_start
    )  # fmt: skip


def gpu_memory() -> tuple[float, float] | None:
    """(used, all) MiB of the first NVIDIA GPU; None where its driver does not tell."""
    command = [
        "nvidia-smi",
        "--query-gpu=memory.used,memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        used, whole = done.stdout.splitlines()[0].split(",")
        return float(used), float(whole)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


@contextmanager
def mps() -> Iterator[None]:
    """Within, NVIDIA's multi-process service runs: kernels of several processes share a GPU at one
    time, not in turns. UserError: there is none, or it does not start."""
    if shutil.which(MPS) is None:
        raise UserError(f"--mps needs {MPS}, which comes with NVIDIA's driver: leave it out.")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        names = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
        with environment.override(dict.fromkeys(names, folder)):
            started = subprocess.run([MPS, "-d"], capture_output=True, text=True, check=False)
            if started.returncode:
                why = " ".join((started.stderr or started.stdout).split())
                raise UserError(f"{MPS} does not start ({why}): leave out --mps.")
            try:
                yield
            finally:
                subprocess.run([MPS], input="quit\n", text=True, capture_output=True, check=False)


def most_processes() -> int:
    """So many may use the accelerator: each has to feed it, and a TPU belongs to one."""
    return 1 if find_spec("libtpu") else os.cpu_count() or 1
