"""The runs of an experiment by two processes together, which share each batch: --distributed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_mesh import joining
from tests.test_survival import wait_for_a_step
from vggbn.errors import PREEMPTED
from vggbn.runs import saved_steps

COMMAND = """
experiments.bn_ablation --size smoke --data digits --seeds 1 --only bn --log
--set model=mlp --set fc=24 --set steps=384 --set evaluations=10 --set schedule=plateau
--set lr_every=1000 --save-every 0
""".split()


def start(out: Path, *more: str, count: int = 2) -> list[subprocess.Popen]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", *COMMAND, *more, "--out", str(out), *join],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for join in ([("--distributed", *each) for each in joining(count)] if count > 1 else [()])
    ]  # fmt: skip


def finish(jobs, seconds: float = 600) -> list[tuple[int, str]]:
    """(status, stderr) of each, after so many seconds at most."""
    end = time.monotonic() + seconds
    errors = [job.communicate(timeout=max(1, end - time.monotonic()))[1] for job in jobs]
    return [(job.returncode, error) for job, error in zip(jobs, errors, strict=True)]


def line(out: Path) -> dict:
    (path,) = out.glob("bn_ablation/smoke*/results.jsonl")
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    return line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("team")
    done = finish(start(out))
    assert [status for status, _ in done] == [0, 0], done
    return line(out)


def same(found: dict, wanted: dict) -> bool:
    return all(found[key] == wanted[key] for key in ("id", "final", "history", "status"))


def test_the_first_process_writes_and_the_result_says_how_many_devices(undisturbed):
    assert undisturbed["setting"]["devices"] == 2
    assert undisturbed["history"][-1]["step"] == 384


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_of_two_is_killed_the_other_stops_and_the_job_resumes(
    undisturbed, tmp_path, killed
):
    jobs = start(tmp_path)
    wait_for_a_step(tmp_path)
    jobs[killed].send_signal(signal.SIGKILL)
    (other,) = finish([jobs[1 - killed]])
    assert other[0] not in (0, PREEMPTED)
    assert "lost one another" in other[1] or "another task died" in other[1], other[1]
    finish([jobs[killed]])
    done = finish(start(tmp_path))
    assert [status for status, _ in done] == [0, 0], done
    assert line(tmp_path)["resumed"] and same(line(tmp_path), undisturbed)


def test_sigterm_to_one_of_two_stops_both_at_one_step_and_saves(undisturbed, tmp_path):
    jobs = start(tmp_path, "--save-every", "300")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cache" / "locks").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    jobs[1].terminate()
    done = finish(jobs)
    assert [status for status, _ in done] == [PREEMPTED, PREEMPTED], done
    (folder,) = (tmp_path / "runs").glob("*/seed*/steps")
    (step,) = saved_steps.steps(folder)
    assert all(f"saved at step {step}" in errors for _, errors in done)
    assert [status for status, _ in finish(start(tmp_path))] == [0, 0]
    assert same(line(tmp_path), undisturbed)


def test_steps_saved_by_two_processes_are_gone_on_with_by_one(undisturbed, tmp_path):
    """Another number of devices: the same but for rounding. The record says so."""
    jobs = start(tmp_path)
    folder = wait_for_a_step(tmp_path)
    for job in jobs:
        job.kill()
    finish(jobs)
    step = saved_steps.steps(folder)[-1]
    (job,) = start(tmp_path, count=1)
    (done,) = finish([job])
    assert done[0] == 0 and f"going on from step {step} in" in done[1]
    assert line(tmp_path)["resumed"][-1]["setting"]["devices"] == 2
    assert line(tmp_path)["final"]["val_accuracy"] == pytest.approx(
        undisturbed["final"]["val_accuracy"], abs=0.3
    )


@pytest.mark.parametrize(
    "given, words",
    [
        (["nonsense"], "--distributed takes"),
        (["127.0.0.1:1,2"], "--distributed takes"),
        (["127.0.0.1:1,1,0", "--jobs", "2"], "leave out --jobs"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, given, words):
    done = subprocess.run(
        [sys.executable, "-m", *COMMAND, "--out", str(tmp_path), "--distributed", *given],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr
