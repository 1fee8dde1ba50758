"""What test_survival.py kills: `python -m tests.runs.survival_jobs OUT NET SAVE_EVERY`."""

import sys
from pathlib import Path

from vggbn.errors import exit_with
from vggbn.machine import compile_cache, compiling
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe

SMALL = Recipe(data="digits", image_size=8, schedule="plateau", lr_every=1000.0, evaluations=40)
NETS = {
    "mlp": SMALL.but(model="mlp", fc=24, norm="batch", steps=2560, lr=0.02),
    "vgg": SMALL.but(width=1 / 32, fc=16, norm="batch", crop_pad=1, distortion=0.1, steps=160),
}
NETS["longer vgg"] = NETS["vgg"].but(steps=1200, evaluations=120)


def main(out: str, net: str, save_every: str) -> int:
    store = runs.Store(Path(out) / "runs", save_every=float(save_every))
    compiling.tune_process()
    compile_cache.use(store.cache)
    runs.train_run(NETS[net], 0, store, lambda record: print(record["step"], flush=True))
    return 0


if __name__ == "__main__":
    exit_with(lambda: main(*sys.argv[1:]))
