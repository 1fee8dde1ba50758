"""The runs of an experiment by two processes together, which share each batch: --distributed."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.conftest import ROOT
from tests.jobs.team_jobs import SAYS
from tests.machine.test_mesh import joining
from tests.runs.test_survival import wait_for_a_step
from vggbn.commands.experiment import main
from vggbn.errors import PREEMPTED
from vggbn.runs import saved_steps

COMMAND = """
--size smoke --data digits --seeds 1 --only bn --log ask
--set model=mlp --set image_size=8 --set fc=24 --set hidden=1 --set steps=24 --set evaluations=24
--set population_batches=2 --set schedule=plateau --set lr_every=1000
""".split()
OFTEN, SELDOM = ("--save-every", "0"), ("--save-every", "300")


def start(*argv: str, devices: int = 1) -> subprocess.Popen:
    """A process of tests.jobs.team_jobs."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.team_jobs", *argv], cwd=ROOT, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def start_two(out: Path, *more: str) -> list[subprocess.Popen]:
    """The experiment by two processes of a device each, until the first is at an evaluation."""
    command = [*COMMAND, *more, "--out", str(out), "--distributed"]
    jobs = [start(*command, join) for join in joining(2)]
    wait_for_an_evaluation(jobs[0])
    return jobs


def wait_for_an_evaluation(job: subprocess.Popen) -> None:
    """Until it asks."""
    assert any(text.startswith(SAYS) for text in job.stdout), job.communicate()[1]  # type: ignore


def let_pass(job: subprocess.Popen) -> None:
    """Let it go on from one evaluation."""
    job.stdin.write("\n")  # type: ignore
    job.stdin.flush()  # type: ignore


def finish(jobs: list[subprocess.Popen], seconds: float = 600) -> list[tuple[int, str]]:
    """(status, stderr) of each, in so many seconds at most; none waits for a line any longer."""
    end = time.monotonic() + seconds
    errors = [job.communicate(timeout=max(1, end - time.monotonic()))[1] for job in jobs]
    return [(job.returncode, error) for job, error in zip(jobs, errors, strict=True)]


def line(out: Path) -> dict:
    (path,) = out.glob("bn_ablation/smoke*/results.jsonl")
    (line,) = [json.loads(text) for text in path.read_text().splitlines()]
    return line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """By two devices of one process: the sum of two numbers has the same bits wherever they are."""
    out = tmp_path_factory.mktemp("team")
    job = start(*COMMAND, *SELDOM, "--out", str(out), "--jobs", "0", devices=2)
    done = finish([job])
    assert [status for status, _ in done] == [0], done
    return line(out)


def same(found: dict, wanted: dict) -> bool:
    return all(found[key] == wanted[key] for key in ("id", "final", "history", "status"))


def assert_alone(ended: tuple[int, str]) -> None:
    """So ends a process whose other one was killed."""
    status, errors = ended
    assert status not in (0, PREEMPTED)
    assert "lost one another" in errors or "another task died" in errors, errors


def stop(jobs: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """SIGTERM to the second. Both stop when jax has told both, which takes it a second or more: the
    first goes on past an evaluation at a time, and is given ever longer for that."""
    jobs[1].terminate()
    patience = 0.1
    while jobs[0].poll() is None:
        let_pass(jobs[0])
        with suppress(subprocess.TimeoutExpired):
            jobs[0].wait(patience)
        patience *= 2
    return finish(jobs)


def test_stopped_it_ends_with_the_same_bits(undisturbed, tmp_path):
    """SIGTERM comes to one of two processes."""
    done = stop(start_two(tmp_path, *SELDOM))
    assert [status for status, _ in done] == [PREEMPTED, PREEMPTED], done
    (folder,) = (tmp_path / "runs").glob("*/seed*/steps")
    step = saved_steps.steps(folder)[-1]
    assert all(f"saved at step {step}" in errors for _, errors in done)
    done = finish(start_two(tmp_path, *SELDOM))
    assert [status for status, _ in done] == [0, 0], done
    found = line(tmp_path)  # the first process alone has written
    assert [each["step"] for each in found["resumed"]] == [step]
    assert same(found, undisturbed)
    assert found["setting"]["devices"] == 2 and found["history"][-1]["step"] == 24


@pytest.mark.slow
def test_killed_and_stopped_it_ends_with_the_same_bits(undisturbed, tmp_path, monkeypatch, capsys):
    """One of two processes is killed; SIGTERM comes to one of them; one process goes on alone."""
    jobs = start_two(tmp_path, *OFTEN)
    let_pass(jobs[0])
    folder = wait_for_a_step(tmp_path)
    jobs[1].kill()
    (first, _) = finish(jobs)
    assert_alone(first)
    reached = saved_steps.steps(folder)[-1]
    shutil.copytree(tmp_path / "runs", tmp_path / "one" / "runs")

    done = stop(start_two(tmp_path, *SELDOM))
    assert [status for status, _ in done] == [PREEMPTED, PREEMPTED], done
    step = saved_steps.steps(folder)[-1]
    assert step > reached and all(f"saved at step {step}" in errors for _, errors in done)
    done = finish(start_two(tmp_path, *SELDOM))
    assert [status for status, _ in done] == [0, 0], done
    found = line(tmp_path)  # the first process alone has written
    assert [each["step"] for each in found["resumed"]] == [reached, step]
    assert same(found, undisturbed)
    assert found["setting"]["devices"] == 2 and found["history"][-1]["step"] == 24

    status, errors = goes_on_with_one_process(tmp_path / "one", monkeypatch, capsys)
    assert status == 0 and f"going on from step {reached} in" in errors
    assert line(tmp_path / "one")["resumed"][-1]["setting"]["devices"] == 2
    assert line(tmp_path / "one")["final"]["val_accuracy"] == pytest.approx(
        undisturbed["final"]["val_accuracy"], abs=0.3
    )


def goes_on_with_one_process(out: Path, monkeypatch, capsys) -> tuple[int, str]:
    """Another number of devices: the same but for rounding. The record says so."""
    monkeypatch.setattr("vggbn.commands.experiment.write_html", lambda path, report: None)
    argv = [*COMMAND, "--out", str(out), "--jobs", "0", "--log"]
    with pytest.raises(SystemExit) as ended:
        main(EXPERIMENT, argv)
    return ended.value.code, capsys.readouterr().err


def test_a_process_ends_when_the_first_is_killed():
    jobs = [start("--together", join) for join in joining(2)]
    wait_for_an_evaluation(jobs[0])
    jobs[0].kill()
    (_, second) = finish(jobs)
    assert_alone(second)


@pytest.mark.parametrize(
    "given, words",
    [
        (["nonsense"], "--distributed takes"),
        (["127.0.0.1:1,2"], "--distributed takes"),
        (["127.0.0.1:1,1,0", "--jobs", "2"], "leave out --jobs"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, given, words, capsys):
    argv = [*COMMAND, "--log", "--out", str(tmp_path), "--distributed", *given]
    with pytest.raises(SystemExit) as ended:
        main(EXPERIMENT, argv)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and words in err
