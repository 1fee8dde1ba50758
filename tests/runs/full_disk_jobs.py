"""What test_full_disk.py does on a small disk: `python -m tests.runs.full_disk_jobs DISK WHAT`."""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.runs.test_survival import ENV, outcome, start
from vggbn.claims import results
from vggbn.runs import saved_steps


def fill(disk: Path) -> Path:
    """Take all the space there is; returns the file that has it."""
    path = disk / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (2**20, 2**10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def finish(job: subprocess.Popen) -> dict:
    _, errors = job.communicate(timeout=600)
    return {"status": job.returncode, "stderr": errors}


def steps(disk: Path) -> dict:
    """The disk is full when a step is to be saved."""
    job = start(disk / "out", "vgg", 0.5)  # time to fill the disk between two steps
    while not (
        folders := [*(disk / "out" / "runs").glob("*/seed0/steps")]
    ) or not saved_steps.steps(folders[0]):
        time.sleep(0.01)
    filler = fill(disk)
    full = finish(job)
    kept = saved_steps.newest(folders[0])
    filler.unlink()
    again = finish(start(disk / "out", "vgg", 300))
    return {"full": full, "kept": kept and kept.step, "again": again, "bits": outcome(disk / "out")}


def end(disk: Path) -> dict:
    """The disk is full when the run ends and has saved no step."""
    job = start(disk / "out", "mlp", 300)
    assert job.stdout
    job.stdout.readline()
    filler = fill(disk)
    full = finish(job)
    found = [path.name for path in (disk / "out" / "runs").glob("*/seed0/run.json")]
    filler.unlink()
    again = finish(start(disk / "out", "mlp", 300))
    return {"full": full, "kept": found, "again": again, "bits": outcome(disk / "out")}


def line(disk: Path) -> dict:
    """The disk is full, or has only a few bytes, when a result is to be written."""
    path, long = disk / "results.jsonl", {"variant": "b", "text": "x" * 5000}
    results.append(path, {"variant": "a"})
    said = []
    for room in (0, 1500):
        filler = fill(disk)
        if room:
            with open(filler, "r+b") as file:
                file.truncate(filler.stat().st_size - room)
        try:
            results.append(path, long)
        except OSError as error:
            said.append([error.strerror, str(error.filename)])
        held = path.read_text()
        filler.unlink()
    results.append(path, {"variant": "c"})
    return {"said": said, "held": held, "after": path.read_text()}


def command(disk: Path) -> dict:
    """The whole command line on a full disk."""
    fill(disk)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bn_ablation", "--size", "smoke", "--out", str(disk)],
        env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {"status": done.returncode, "stderr": done.stderr}


if __name__ == "__main__":
    disk = Path(sys.argv[1])
    print(json.dumps(globals()[sys.argv[2]](disk)))
