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
from tests.support.once import made_once
from vggbn.errors import PREEMPTED
from vggbn.runs import arrays as checkpoint
from vggbn.runs import saved_steps

ENV = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}


def start(out: Path, net: str, save_every: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runs.survival_jobs", str(out), net, str(save_every)],
        cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


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
            _, errors = (job := start(out, net, 300)).communicate(timeout=600)
            assert job.returncode == 0, errors

        return outcome(made_once(tmp_path_factory, net, make))

    return of


def kill_again_and_again(
    out: Path, net: str, times: int, save_every: float, rng: random.Random
) -> int:
    """Start the run anew until it ends; kill -9 it `times` times, each at a random moment: some
    steps and some milliseconds after it has come to life, or while it starts; the first time when a
    step is saved. Returns the kills."""
    kills = 0
    while True:
        job = start(out, net, save_every)
        assert job.stdout and job.stderr
        if kills < times:
            if not kills:
                wait_for_a_step(out)
                time.sleep(rng.uniform(0, 0.05))
            elif rng.random() < 0.2:
                time.sleep(rng.uniform(0, 3))
            else:
                for _ in range(rng.randint(1, max(1, 30 // times))):
                    job.stdout.readline()
                time.sleep(rng.uniform(0, 0.05))
            if job.poll() is None:
                job.send_signal(signal.SIGKILL)
                kills += 1
        _, errors = job.communicate(timeout=600)
        if job.returncode == 0:
            return kills
        assert job.returncode == -signal.SIGKILL, errors


@pytest.mark.parametrize(
    "net, times, save_every",
    [("vgg", 3, 0.2), ("mlp", 1, 0.2)]
    # To save a step takes longer than 0.05 s: it saves without a break.
    + [pytest.param("longer vgg", 50, 0.05, marks=pytest.mark.slow)],
)
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    undisturbed, tmp_path, net, times, save_every
):
    wanted = undisturbed(net)
    rng = random.Random(times)
    assert kill_again_and_again(tmp_path, net, times, save_every, rng) == times
    assert outcome(tmp_path) == wanted
    (record,) = (tmp_path / "runs").glob("*/seed0/run.json")
    assert json.loads(record.read_text())["resumed"]


def test_sigterm_saves_and_exits_with_a_status_of_its_own(undisturbed, tmp_path):
    wanted = undisturbed("vgg")
    job = start(tmp_path, "vgg", 300)  # nothing else saves it
    assert job.stdout
    for _ in range(15):
        job.stdout.readline()
    job.terminate()
    _, errors = job.communicate(timeout=600)
    assert job.returncode == PREEMPTED == 75
    (folder,) = (tmp_path / "runs").glob("*/seed0/steps")
    (step,) = saved_steps.steps(folder)
    assert f"Stopped by SIGTERM, saved at step {step}." in errors
    _, errors = (job := start(tmp_path, "vgg", 300)).communicate(timeout=600)
    assert job.returncode == 0 and f"going on from step {step} in" in errors
    assert outcome(tmp_path) == wanted


# --- the command line, with its workers ----------------------------------------------------------

COMMAND = """
experiments.bn_ablation --size smoke --data digits --seeds 1 --only bn --jobs 1
--set model=mlp --set fc=24 --set steps=2560 --set evaluations=10 --set schedule=plateau
--set lr_every=1000 --save-every 0
""".split()


def command(out: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *COMMAND, "--out", str(out), *more],
        cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_a_step(out: Path, after: int = -1) -> Path:
    """Until some step beyond `after` is saved: its folder."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        for folder in (out / "runs").glob("*/seed*/steps"):
            if max(saved_steps.steps(folder), default=-1) > after:
                return folder
        time.sleep(0.01)
    raise AssertionError("no step was saved")


def line(out: Path) -> dict:
    (path,) = out.glob("bn_ablation/smoke*/results.jsonl")
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    return line


def test_a_command_that_is_stopped_goes_on_where_it_was(tmp_path):
    """By Ctrl-C, then by SIGTERM, then killed; then it may end."""
    reached = -1
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, PREEMPTED), (signal.SIGKILL, -9)):
        job = command(tmp_path)
        folder = wait_for_a_step(tmp_path, after=reached)
        job.send_signal(number)
        _, errors = job.communicate(timeout=600)
        assert job.returncode == status, errors
        assert not list(tmp_path.glob("bn_ablation/smoke*/results.jsonl"))
        assert not list((tmp_path / "runs").glob("*/seed*/run.json"))
        if number != signal.SIGKILL:
            assert "Traceback" not in errors and "the same command goes on" in errors
        reached = saved_steps.steps(folder)[-1]
    job = command(tmp_path)
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 0, errors
    resumed = [each["step"] for each in line(tmp_path)["resumed"]]
    assert 64 <= resumed[0] < resumed[1] < resumed[2] and resumed == sorted(resumed)


# --- the best step -------------------------------------------------------------------------------


def test_the_best_step_stays_and_can_be_evaluated(tmp_path):
    job = start(tmp_path, "mlp", 0.0)
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 0, errors
    (folder,) = (tmp_path / "runs").glob("*/seed0")
    history = json.loads((folder / "run.json").read_text())["history"]
    wanted = max(record["val_accuracy"] for record in history)
    (step,) = saved_steps.steps(folder / "steps")
    assert next(r for r in history if r["step"] == step)["val_accuracy"] == wanted
    done = subprocess.run(
        [sys.executable, "-m", "vggbn", "evaluate", str(folder), "digits", "--split", "validation",
         "--best", "--csv", str(tmp_path / "p.csv")],
        cwd=ROOT, env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"the weights of step {step}," in done.stdout
    assert f"top-1              {100 * wanted:6.2f} %" in done.stdout
