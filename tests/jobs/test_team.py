"""The runs of an experiment by two processes together, which share each batch: --distributed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.conftest import ROOT
from tests.machine.test_mesh import joining
from tests.runs.test_survival import wait_for_a_step
from vggbn.commands.experiment import main
from vggbn.errors import PREEMPTED
from vggbn.runs import saved_steps

COMMAND = """
experiments.bn_ablation --size smoke --data digits --seeds 1 --only bn --log
--set model=mlp --set fc=24 --set hidden=1 --set steps=120 --set evaluations=40
--set schedule=plateau --set lr_every=1000 --save-every 0
""".split()
SELDOM = ("--save-every", "300")


def start(out: Path, *more: str, together: bool = True) -> list[subprocess.Popen]:
    """Two processes of a device each; or, not together, one process with two devices."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    env["XLA_FLAGS"] += "" if together else " --xla_force_host_platform_device_count=2"
    how = [("--distributed", join) for join in joining(2)] if together else [("--jobs", "0")]
    return [
        subprocess.Popen(
            [sys.executable, "-m", *COMMAND, *more, "--out", str(out), *each],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for each in how
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
    """By two devices of one process: the sum of two numbers has the same bits wherever they are."""
    out = tmp_path_factory.mktemp("team")
    done = finish(start(out, *SELDOM, together=False))
    assert [status for status, _ in done] == [0], done
    return line(out)


def same(found: dict, wanted: dict) -> bool:
    return all(found[key] == wanted[key] for key in ("id", "final", "history", "status"))


def go_on(jobs) -> None:
    """Until the last of them says that it goes on from a saved step."""
    assert any("going on from step" in text for text in jobs[-1].stderr)


def test_killed_and_stopped_again_and_again_it_ends_with_the_same_bits(
    undisturbed, tmp_path, capsys
):
    """The first of two processes is killed, then the second; SIGTERM comes to one of them."""
    reached = -1
    for killed in (0, 1):
        jobs = start(tmp_path)
        folder = wait_for_a_step(tmp_path, after=reached)
        jobs[killed].send_signal(signal.SIGKILL)
        (other,) = finish([jobs[1 - killed]])
        assert other[0] not in (0, PREEMPTED)
        assert "lost one another" in other[1] or "another task died" in other[1], other[1]
        finish([jobs[killed]])
        reached = saved_steps.steps(folder)[-1]
    shutil.copytree(tmp_path / "runs", tmp_path / "one" / "runs")

    jobs = start(tmp_path, *SELDOM)
    go_on(jobs)
    jobs[1].terminate()
    done = finish(jobs)
    assert [status for status, _ in done] == [PREEMPTED, PREEMPTED], done
    step = saved_steps.steps(folder)[-1]
    assert step > reached and all(f"saved at step {step}" in errors for _, errors in done)
    done = finish(start(tmp_path, *SELDOM))
    assert [status for status, _ in done] == [0, 0], done
    found = line(tmp_path)  # the first process alone has written
    assert len(found["resumed"]) == 3 and same(found, undisturbed)
    assert found["setting"]["devices"] == 2 and found["history"][-1]["step"] == 120

    status, errors = goes_on_with_one_process(tmp_path / "one", capsys)
    assert status == 0 and f"going on from step {reached} in" in errors
    assert line(tmp_path / "one")["resumed"][-1]["setting"]["devices"] == 2
    assert line(tmp_path / "one")["final"]["val_accuracy"] == pytest.approx(
        undisturbed["final"]["val_accuracy"], abs=0.3
    )


def goes_on_with_one_process(out: Path, capsys) -> tuple[int, str]:
    """Another number of devices: the same but for rounding. The record says so."""
    with pytest.raises(SystemExit) as ended:
        main(EXPERIMENT, [*COMMAND[1:], "--out", str(out), "--jobs", "0"])
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "given, words",
    [
        (["nonsense"], "--distributed takes"),
        (["127.0.0.1:1,2"], "--distributed takes"),
        (["127.0.0.1:1,1,0", "--jobs", "2"], "leave out --jobs"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, given, words, capsys):
    argv = [*COMMAND[1:], "--out", str(tmp_path), "--distributed", *given]
    with pytest.raises(SystemExit) as ended:
        main(EXPERIMENT, argv)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and words in err
