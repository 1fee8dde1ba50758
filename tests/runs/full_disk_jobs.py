"""What test_full_disk.py does on a small disk: `python -m tests.runs.full_disk_jobs DISK`."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.bn_ablation import EXPERIMENT
from tests.runs.survival_jobs import prepare, train
from tests.runs.test_survival import outcome
from vggbn.claims import results
from vggbn.commands.experiment import main
from vggbn.errors import exit_with
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


def ending(work: Callable[[], int | None]) -> dict:
    """How a command ends that does this work."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            exit_with(work)
        except SystemExit as end:
            return {"status": end.code, "stderr": errors.getvalue()}


def steps(disk: Path) -> dict:
    """The disk is full when a step is to be saved, and some are."""
    out, kept = disk / "out", []

    def fill_after_a_step(record: dict) -> None:
        for folder in (out / "runs").glob("*/seed0/steps"):
            if saved_steps.steps(folder) and not (disk / "filler").exists():
                fill(disk)

    full = ending(lambda: train(out, "mlp", 0.0, fill_after_a_step))
    for folder in (out / "runs").glob("*/seed0/steps"):
        kept.append(saved_steps.newest(folder).step)
    (disk / "filler").unlink()
    again = ending(lambda: train(out, "mlp", 300, print))
    return {"full": full, "kept": kept, "again": again, "bits": outcome(out)}


def end(disk: Path) -> dict:
    """The disk is full when the run ends and has saved no step."""
    out = disk / "other"
    full = ending(lambda: train(out, "mlp", 300, lambda record: fill(disk)))
    found = [path.name for path in (out / "runs").glob("*/seed0/run.json")]
    (disk / "filler").unlink()
    again = ending(lambda: train(out, "mlp", 300, print))
    return {"full": full, "kept": found, "again": again, "bits": outcome(out)}


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
    filler = fill(disk)
    argv = ["--size", "smoke", "--data", "digits", "--jobs", "1", "--out", str(disk)]
    found = ending(lambda: main(EXPERIMENT, argv))
    filler.unlink()
    return found


if __name__ == "__main__":
    disk = Path(sys.argv[1])
    prepare(disk)
    print(json.dumps({what.__name__: what(disk) for what in (steps, end, line, command)}))
