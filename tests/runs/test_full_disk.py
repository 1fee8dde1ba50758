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
    'mount -t tmpfs -o size=24m tmpfs "$1" && exec "$2" -m tests.runs.full_disk_jobs "$1" "$3"'
)


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(what): what tests.runs.full_disk_jobs finds on a disk of 24 MB of its own."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        reason = "no small disk: this system lets no user mount one (unshare --map-root-user)"
        (pytest.fail if os.environ.get("CI", "").lower() in {"1", "true"} else pytest.skip)(reason)

    def run(what: str) -> dict:
        done = subprocess.run(
            [*alone, "sh", "-c", IN_A_SMALL_DISK, "sh", str(tmp_path), sys.executable, what],
            cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def assert_one_sentence(found: dict) -> None:
    """And no traceback of ours. Threads of TensorStore that were writing may add their noise."""
    assert found["status"] == 2, found
    said = re.findall(r"error: [^\n]*No space left on device", found["stderr"])
    assert len(said) == 1 and "/vggbn/" not in found["stderr"], found["stderr"]


def test_saving_a_step(small_disk, undisturbed):  # noqa: F811
    found = small_disk("steps")
    assert_one_sentence(found["full"])
    assert f"from step {found['kept']}, which is whole" in found["full"]["stderr"]
    assert found["again"]["status"] == 0
    assert f"going on from step {found['kept']} " in found["again"]["stderr"]
    assert found["bits"] == json.loads(json.dumps(undisturbed("vgg")))


def test_saving_the_trained_net(small_disk, undisturbed):  # noqa: F811
    found = small_disk("end")
    assert_one_sentence(found["full"])
    assert found["kept"] == []  # a run.json promises that its weights are there
    assert found["again"]["status"] == 0
    assert found["bits"] == json.loads(json.dumps(undisturbed("mlp")))


def test_writing_a_result_leaves_no_torn_line(small_disk):
    found = small_disk("line")
    (said, *_), path = found["said"], found["said"][0][1]
    assert len(found["said"]) == 2 and said[0] == "No space left on device"
    assert path.endswith("results.jsonl")
    assert found["held"] == '{"variant": "a"}\n'
    assert found["after"] == '{"variant": "a"}\n{"variant": "c"}\n'


def test_the_command_line(small_disk):
    found = small_disk("command")
    assert found["status"] == 2 and found["stderr"].count("\n") == 1, found
    assert "No space left on device" in found["stderr"]
