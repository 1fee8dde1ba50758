"""A disk that is full: the last good step and every whole result stay, and one sentence says so."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.runs.test_survival import ENV, undisturbed  # noqa: F401  a fixture

IN_A_SMALL_DISK = (
    'mount -t tmpfs -o size=24m tmpfs "$1" && exec "$2" -m tests.runs.full_disk_jobs "$1"'
)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """What tests.runs.full_disk_jobs finds on a disk of 24 MB of its own."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        reason = "no small disk: this system lets no user mount one (unshare --map-root-user)"
        (pytest.fail if os.environ.get("CI", "").lower() in {"1", "true"} else pytest.skip)(reason)
    disk = str(tmp_path_factory.mktemp("disk"))
    done = subprocess.run(
        [*alone, "sh", "-c", IN_A_SMALL_DISK, "sh", disk, sys.executable],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_one_sentence(ending: dict) -> None:
    assert ending["status"] == 2, ending
    said = re.findall(r"error: [^\n]*No space left on device", ending["stderr"])
    assert len(said) == 1 and ending["stderr"].count("\n") == 1, ending["stderr"]


def test_saving_a_step(found, undisturbed):  # noqa: F811
    found = found["steps"]
    (kept,) = found["kept"]
    assert_one_sentence(found["full"])
    assert f"from step {kept}, which is whole" in found["full"]["stderr"]
    assert found["again"]["status"] == 0
    assert f"going on from step {kept} " in found["again"]["stderr"]
    assert found["bits"] == json.loads(json.dumps(undisturbed("mlp")))


def test_saving_the_trained_net(found, undisturbed):  # noqa: F811
    found = found["end"]
    assert_one_sentence(found["full"])
    assert found["kept"] == []  # a run.json promises that its weights are there
    assert found["again"]["status"] == 0
    assert found["bits"] == json.loads(json.dumps(undisturbed("mlp")))


def test_writing_a_result_leaves_no_torn_line(found):
    found = found["line"]
    (said, *_), path = found["said"], found["said"][0][1]
    assert len(found["said"]) == 2 and said[0] == "No space left on device"
    assert path.endswith("results.jsonl")
    assert found["held"] == '{"variant": "a"}\n'
    assert found["after"] == '{"variant": "a"}\n{"variant": "c"}\n'


def test_the_command_line(found):
    assert_one_sentence(found["command"])
