"""Killed, stopped, or on a full disk, a run loses nothing: it ends with the bits it would have."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.runs import survival_jobs
from tests.support.once import made_once
from vggbn.errors import PREEMPTED, exit_with
from vggbn.runs import arrays as checkpoint
from vggbn.runs import saved_steps

ENV = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}


def start(out: Path, net: str, save_every: float, **environment: str) -> subprocess.Popen:
    """The run, which waits at its first evaluation."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runs.survival_jobs", str(out), net, str(save_every)],
        cwd=ROOT, env=ENV | environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def let_pass(job: subprocess.Popen, evaluations: int) -> None:
    """Let it go on past so many, until it says that it is at the last of them."""
    assert job.stdin and job.stdout
    job.stdin.write("\n" * evaluations)
    job.stdin.flush()
    for _ in range(evaluations):
        assert job.stdout.readline(), job.communicate()[1]


def finish(job: subprocess.Popen) -> tuple[int, str]:
    """(status, stderr) at the end of a run that need not wait any longer."""
    _, errors = job.communicate(timeout=600)
    return job.returncode, errors


def outcome(out: Path) -> tuple:
    """All that a run ends with and that does not depend on the clock."""
    (folder,) = (out / "runs").glob("*/seed0")
    record = json.loads((folder / "run.json").read_text())
    weights = checkpoint.digest(checkpoint.load(folder / "weights"))
    return weights, record["final"], record["history"], record["status"]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The outcome of a run that nothing happens to."""

    def of(net: str):
        def make(out: Path) -> None:
            survival_jobs.train(out, net, 300, lambda record: None)

        return outcome(made_once(tmp_path_factory, net, make))

    return of


def wait_for_a_step(out: Path, after: int = -1) -> Path:
    """Until some step beyond `after` is saved: its folder."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        for folder in (out / "runs").glob("*/seed*/steps"):
            if max(saved_steps.steps(folder), default=-1) > after:
                return folder
        time.sleep(0.01)
    raise AssertionError("no step was saved")


def kill(out: Path, net: str, times: int) -> None:
    """Start the run anew and kill -9 it, so often, each time at a random moment: some evaluations
    and some milliseconds after it has come to life, or while it starts; the first time when a step
    is saved. It saves every step, without a break."""
    rng = random.Random(times)
    for number in range(times):
        job = start(out, net, 0.0)
        if number and rng.random() < 0.2:
            time.sleep(rng.uniform(0, 3))
        else:
            let_pass(job, rng.randint(1, max(1, 8 // times)))
            if not number:
                wait_for_a_step(out)
            time.sleep(rng.uniform(0, 0.05))
        job.send_signal(signal.SIGKILL)
        status, errors = finish(job)
        assert status == -signal.SIGKILL, errors


def kill_before_seal(out: Path, net: str, step: int) -> None:
    """Start the run; it is killed when this step is on the disk, but not its checksums."""
    status, errors = finish(start(out, net, 0.0, **{survival_jobs.UNSEALED: str(step)}))
    assert status == -signal.SIGKILL, errors


def terminate(out: Path, net: str, evaluations: int, capsys) -> int:
    """Go on with the run, and get SIGTERM at one of its evaluations: the step that it saves."""
    left = iter(range(evaluations - 1, -1, -1))

    def count(record: dict) -> None:
        if "val_accuracy" in record and not next(left, True):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        exit_with(lambda: survival_jobs.train(out, net, 300, count))
    assert ended.value.code == PREEMPTED == 75
    (folder,) = (out / "runs").glob("*/seed0/steps")
    step = saved_steps.steps(folder)[-1]
    assert f"Stopped by SIGTERM, saved at step {step}." in capsys.readouterr().err
    return step


def assert_it_ends_so(out: Path, net: str, wanted: tuple, capsys) -> list[int]:
    """The run goes on to its end; returns the steps that it went on from."""
    survival_jobs.train(out, net, 300, lambda record: None)
    assert outcome(out) == wanted
    (record,) = (out / "runs").glob("*/seed0/run.json")
    resumed = [each["step"] for each in json.loads(record.read_text())["resumed"]]
    assert f"going on from step {resumed[-1]} in" in capsys.readouterr().err
    return resumed


def test_killed_and_stopped_it_ends_with_the_same_bits(undisturbed, tmp_path, capsys):
    """SIGTERM saves, and exits with a status of its own."""
    kill_before_seal(tmp_path, "mlp", 15)
    step = terminate(tmp_path, "mlp", 3, capsys)
    resumed = assert_it_ends_so(tmp_path, "mlp", undisturbed("mlp"), capsys)
    assert resumed == [14, step] and step > 14


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(undisturbed, tmp_path, capsys):
    kill(tmp_path, "longer vgg", 50)
    step = terminate(tmp_path, "longer vgg", 2, capsys)
    resumed = assert_it_ends_so(tmp_path, "longer vgg", undisturbed("longer vgg"), capsys)
    assert resumed == sorted(set(resumed)) and resumed[-1] == step
