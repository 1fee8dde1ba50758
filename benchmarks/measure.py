"""A race: the contestants of one net take turns (A B A B), each in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks.cases import CONTESTANTS, Case, flop
from vggbn.machine.environment import SINGLE_THREAD

ROOT = Path(__file__).resolve().parents[1]
# Side of the measured matrix product, and products a trial: 0.1 to 1 s, beyond every cache.
GEMM = {"cpu": (2048, 1), "cuda": (8192, 20)}
FLOAT32_LOSSES = (1e-4, 1e-3)  # relative tolerances before and after the first update
COARSE_LOSSES = (2e-2, 5e-2)  # with bf16 or TF32 products


class Mode(NamedTuple):
    """How many processes of a contestant run at once, and the threads of each."""

    processes: int
    threads: int


class Failed(Exception):
    """A contestant cannot take part; the text says why."""


class Team:
    """The processes of one contestant, and what was measured of it so far."""

    def __init__(self, case: Case, name: str, device: str, mode: Mode):
        self.case, self.name, self.device, self.mode = case, name, device, mode
        self.members: list[subprocess.Popen] = []
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        self.images_per_s: list[float] = []

    def start(self) -> None:
        """Build the net and take two steps, of which the first compiles."""
        case = json.dumps(asdict(self.case))
        command = [sys.executable, "-m", "benchmarks.worker", case, self.name, self.device]
        for _ in range(self.mode.processes):
            child = subprocess.Popen(
                [*command, str(self.mode.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                cwd=ROOT,
                env=environment(self.mode.threads),
            )
            self.members.append(child)
        self.started = self._ask("start")

    def calibrate(self, seconds: float) -> None:
        """Choose the steps of a turn, at least one, from a shorter one that also warms up."""
        steps = max(1, round(seconds / 4 / max(answer["step_s"] for answer in self.started)))
        took = max(answer["seconds"] for answer in self._ask("steps", n=steps))
        self.steps = max(1, round(seconds * steps / took))

    def turn(self) -> None:
        """Train, all members at once, and note the sum of their images/s."""
        images = self.steps * self.case.batch
        answers = self._ask("steps", n=self.steps)
        self.images_per_s.append(round(sum(images / a["seconds"] for a in answers), 3))

    def finish(self) -> None:
        """Ask for the memory, then for the GEMM rate, which needs memory of its own."""
        self.peak = sum(answer["peak"] for answer in self._ask("memory"))
        n, times = GEMM[self.device]
        self.gemm = sum(answer["gflops"] for answer in self._ask("gemm", n=n, times=times))

    def _ask(self, do: str, **request) -> list[dict]:
        """The members' answers to one request, which all work on at the same time."""
        with suppress(BrokenPipeError):  # a dead member answers nothing, see below
            for member in self.members:
                print(json.dumps({"do": do, **request}), file=member.stdin, flush=True)
        answers = [member.stdout.readline() for member in self.members]  # pyright: ignore
        if not all(answers):
            raise Failed(self._last_words())
        return [json.loads(answer) for answer in answers]

    def _last_words(self) -> str:
        status = self.members[-1].wait() if len(self.members) == 1 else None
        if status is not None and status < 0:
            return f"its process was killed by signal {-status}"
        self.log.seek(0)
        return ([line.strip() for line in self.log if line.strip()] or ["its process ended"])[-1]

    def close(self) -> None:
        """End the processes."""
        for member in self.members:
            member.kill()
            with suppress(BrokenPipeError):
                member.communicate()
        self.log.close()


def environment(threads: int) -> dict[str, str]:
    """A child's: so many threads, no memory taken in advance, nothing compiled found in a cache."""
    ours = SINGLE_THREAD if threads == 1 else {"NPROC": str(threads)}
    flags = f"{os.environ.get('XLA_FLAGS', '')} {ours.get('XLA_FLAGS', '')}".strip()
    flags_of_jax = {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # Without frames left out an exception is the last line that a child writes.
    jax = ours | flags_of_jax | {"JAX_TRACEBACK_FILTERING": "off"}
    torch = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return os.environ | jax | torch | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}


def restart(module: str, marker: str, threads: int) -> None:
    """Replace this process by one of so many threads, which libraries read when they start.

    `marker` is set in its environment, to the threads.
    """
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    os.execve(sys.executable, command, environment(threads) | {marker: str(threads)})


def race(
    case: Case,
    names: list[str],
    *,
    device: str,
    mode: Mode,
    rounds: int,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict], dict[str, str]]:
    """(what was measured of each contestant, {contestant: why it could not take part}).

    A turn has as many steps as fit into `seconds`, and at least one. `say` is told what goes on.
    """
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        teams = [Team(case, name, device, mode) for name in names]
        for team in teams:
            stack.callback(team.close)

        def each(what: str, visit: Callable[[Team], None]) -> None:
            for team in [team for team in teams if team.name not in failures]:
                say(f"{team.name}: {what}")
                try:
                    visit(team)
                except Failed as failure:
                    failures[team.name] = str(failure)

        each("first steps", Team.start)
        each("warm-up", lambda team: team.calibrate(seconds))
        for number in range(1, rounds + 1):
            each(f"round {number} of {rounds}", Team.turn)
        each("GEMM", Team.finish)
    return _measured([team for team in teams if team.name not in failures]), failures


def _measured(teams: list[Team]) -> list[dict]:
    precision = {team.name: CONTESTANTS[team.name].precision for team in teams}
    peak_rate: dict[str, float] = {}  # the best GEMM that any contestant has, by precision
    for team in teams:
        kind = precision[team.name]
        peak_rate[kind] = max(peak_rate.get(kind, 0), team.gemm)
    return [
        {
            "contestant": team.name,
            "precision": precision[team.name],
            "parameters": team.started[0]["parameters"],
            "losses": team.started[0]["losses"],
            "images_per_s": team.images_per_s,
            "first_step_s": round(max(answer["first_s"] for answer in team.started), 3),
            "peak_mb": round(team.peak / 1e6),
            "gemm_gflops": round(peak_rate[precision[team.name]], 1),
            "gflop_per_image": flop(team.case) / team.case.batch / 1e9,
        }
        for team in teams
    ]


def differences(measured: list[dict], device: str) -> list[str]:
    """Why the contestants are not the same net: none when all is well."""
    found = []
    first, *others = measured
    for other in others:
        pair = f"{first['contestant']} and {other['contestant']}"
        if first["parameters"] != other["parameters"]:
            found.append(f"{pair}: {first['parameters']} and {other['parameters']} parameters")
        exact = device == "cpu" and {first["precision"], other["precision"]} == {"float32"}
        tolerances = FLOAT32_LOSSES if exact else COARSE_LOSSES
        for a, b, tolerance in zip(first["losses"], other["losses"], tolerances, strict=True):
            if not abs(a - b) <= tolerance * abs(a):
                found.append(f"{pair}: losses {a:.6g} and {b:.6g}")
    return found
