"""Where the time of one run goes: `python -m benchmarks.profile_run [--size small] [--data NAME]`.

Trains one variant of the ablation twice, each time in a new single-thread worker process as
`--jobs` starts them: first with an empty cache of compiled programs, then with a filled one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from experiments.bn_ablation import EXPERIMENT
from vggbn.errors import Parser, UserError
from vggbn.experiment.plan import make_plan, size_names
from vggbn.jobs import pool
from vggbn.machine import compile_cache, compiling, provenance
from vggbn.runs import run as runs
from vggbn.training.recipe import parse_edit

PARTS = {
    "start": "worker process: Python, imports, first device",
    "load": "loading the data set",
    "compile": "tracing, compiling or loading programs",
    "data": "waiting for data",
    "python": "Python between steps",
    "step": "training steps",
    "evaluation": "learning curve: evaluation and logging",
    "final": "final scores and population statistics",
    "save": "saving the run",
}


def main() -> None:
    """Print the table."""
    parser = Parser(prog="python -m benchmarks.profile_run", description=__doc__)
    parser.add_argument("--size", default="small", choices=size_names(EXPERIMENT))
    parser.add_argument("--data", help="as for the experiment (default: the size's own)")
    parser.add_argument("--data-dir", help="folder of prepared TFDS sets")
    parser.add_argument("--variant", default="bn")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    edits = dict(parse_edit(text) for text in args.set)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plan = make_plan(
            EXPERIMENT, args.size, out=out, data=args.data, edits=edits, only=[args.variant]
        )
        job = plan.variants[args.variant], runs.Store(out / "runs", args.data_dir)
        cold, warm = measured(job), measured(job)
    show(args.variant, cold, warm)


def measured(job) -> dict:
    """The record of the run, trained in a new worker, with seconds for all PARTS."""
    records = []
    began = time.time()
    events = pool.Events(
        on_report=lambda job, report: None,
        on_result=lambda job, record: records.append(record),
        on_failure=_give_up,
    )
    pool.run_jobs([pool.Job("profile", None, (*job, began))], _train, events, workers=1)
    return records[0]


def _give_up(job, text: str) -> None:
    raise UserError(f"the run failed: {text.strip().splitlines()[-1]}")


def _train(payload, report) -> dict:
    """In the worker."""
    recipe, store, began = payload
    compiling.tune_process()
    compile_cache.use(store.cache)
    provenance.setting()  # starts the device
    started = time.time()
    record = runs.train_run(recipe, 0, store, report)
    seconds = record["seconds"]
    seconds |= {"start": started - began, "save": time.time() - started - seconds["all"]}
    return record


def show(variant: str, cold: dict, warm: dict) -> None:
    """Seconds and share of each part, of both runs."""
    setting, steps = warm["setting"], warm["history"][-1]["step"]
    print(f"{variant}, {warm['data']['name']}, {steps} steps of {warm['recipe']['batch']}")
    print(f"{setting['device']}, {setting['threads']} thread(s), jaxlib {setting['jaxlib']}")
    print(f"{'':45s} {'empty cache':>16s} {'filled cache':>16s}")
    totals = [sum(record["seconds"][part] for part in PARTS) for record in (cold, warm)]
    for part, words in PARTS.items():
        cells = [record["seconds"][part] for record in (cold, warm)]
        row = "".join(
            f" {s:8.2f} s {100 * s / total:4.1f} %" for s, total in zip(cells, totals, strict=True)
        )
        print(f"{words:45s}{row}")
    print(f"{'all':45s}" + "".join(f" {total:8.2f} s       " for total in totals).rstrip())
    step = 1e3 * (warm["seconds"]["step"] + warm["seconds"]["python"]) / steps
    print(f"{step:.2f} ms a step; same numbers in both: {same(cold, warm)}")


def same(cold: dict, warm: dict) -> bool:
    """Whether programs from the cache gave the numbers of fresh ones, to the last bit."""
    return all(cold[part] == warm[part] for part in ("history", "final"))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
