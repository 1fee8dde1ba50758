"""What test_survival.py kills: `python -m tests.runs.survival_jobs OUT NET SAVE_EVERY`.

At each evaluation it says the step and waits for a line, or for the end of its input: whoever
started it decides how far it comes, however quick the machine is. With UNSEALED in the environment
it kills itself when that step is on the disk and its checksums are not.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from vggbn.errors import exit_with
from vggbn.machine import compile_cache, compiling
from vggbn.runs import run as runs
from vggbn.runs import saved_steps
from vggbn.training import loop
from vggbn.training.recipe import Recipe

UNSEALED = "SURVIVAL_JOBS_UNSEALED"
SMALL = Recipe(
    data="digits", image_size=8, norm="batch", crop_pad=1, distortion=0.1, schedule="plateau",
)  # fmt: skip
NETS = {
    "mlp": SMALL.but(
        model="mlp", fc=24, lr=0.02, lr_every=3.0, steps=32, evaluations=16, population_batches=2,
    ),
    "longer vgg": SMALL.but(width=1 / 32, fc=16, lr_every=1000.0, steps=1200, evaluations=120),
}  # fmt: skip


def train(out: str | Path, net: str, save_every: float, on_report: Callable) -> None:
    """The run of seed 0 in `out`/runs."""
    store = runs.Store(Path(out) / "runs", save_every=save_every)
    # One step a program, as of large nets: any two can be told apart.
    with patch.dict(loop.TOGETHER, clear=True):
        runs.train_run(NETS[net], 0, store, on_report)


def prepare(out: str | Path) -> None:
    """Make this process what a command's worker is, with the programs of `out`."""
    compiling.tune_process()
    compile_cache.use(runs.Store(Path(out) / "runs").cache)


def tell_and_wait(record: dict) -> None:
    if "val_accuracy" in record:
        print(record["step"], flush=True)
        sys.stdin.readline()


def kill_before_seal(folder: Path) -> None:
    """Instead of the seal of that step."""
    if folder.name == os.environ[UNSEALED]:
        os.kill(os.getpid(), signal.SIGKILL)
    seal(folder)


if __name__ == "__main__":
    out, net, save_every = sys.argv[1:]
    seal = saved_steps._seal
    if UNSEALED in os.environ:
        saved_steps._seal = kill_before_seal
    prepare(out)
    exit_with(lambda: train(out, net, float(save_every), tell_and_wait))
