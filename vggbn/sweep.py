"""The search for learning rates: every arm gets the same grid, seeds and selection."""

from __future__ import annotations

import json
import math
import os

import numpy as np

from vggbn import runs
from vggbn.experiment import Plan, edited
from vggbn.recipe import Recipe
from vggbn.stats import smoothed
from vggbn.train_many import train_many


def run_sweep(plan: Plan, store: runs.Store, workers: int) -> int:
    """Train every arm at every rate, write the record beside the results, print the choice."""
    sweep = plan.experiment.sweep
    cells = {
        f"{arm}, rate {rate:g}, seed {seed}": (arm, rate, seed)
        for arm in sweep.arms
        for rate in sweep.rates
        for seed in range(plan.scale.sweep_seeds or sweep.seeds)
    }
    wanted = {
        name: (_recipe(plan, arm, rate), seed, store) for name, (arm, rate, seed) in cells.items()
    }
    records: dict[str, dict] = {}
    if failures := train_many(wanted, workers, records.__setitem__):
        return 1 if failures else 0
    accuracy: dict[str, dict[str, list[float | None]]] = {arm: {} for arm in sweep.arms}
    for name, (arm, rate, _) in cells.items():
        accuracy[arm].setdefault(f"{rate:g}", []).append(score(records[name]))
    record = {
        "experiment": plan.experiment.name,
        "size": plan.size,
        "selection": "highest mean over seeds of the best smoothed validation accuracy",
        "accuracy": accuracy,
        "best": {arm: best_rate(by_rate) for arm, by_rate in accuracy.items()},
        **_shared(list(records.values())),
    }
    _write(plan, record)
    for arm, (rate, value) in record["best"].items():
        print(f"{arm}: best rate {rate:g}, validation accuracy {100 * value:.1f} %")
    print(plan.sweep_path)
    return 0


def _recipe(plan: Plan, arm: str, rate: float) -> Recipe:
    steps = min(plan.scale.sweep_steps or plan.base.steps, plan.base.steps)
    return edited(plan.base, {**plan.experiment.sweep.arms[arm], "steps": steps, "lr": rate})


def score(record: dict) -> float | None:
    """The best point of the smoothed validation curve; None for a run that diverged."""
    values = smoothed([line["val_accuracy"] for line in record["history"]])
    return None if record["diverged_at"] is not None else float(np.max(values))


def best_rate(by_rate: dict[str, list[float | None]]) -> tuple[float, float]:
    """(rate, mean score) of the best rate; a rate with a diverged seed is out, a tie goes down."""
    means = {float(r): np.mean(v) for r, v in by_rate.items() if None not in v}  # type: ignore[arg-type]
    rate = min(means, key=lambda r: (-means[r], r), default=math.nan)
    return rate, float(means.get(rate, math.nan))


def _shared(records: list[dict]) -> dict:
    images = sum(r["history"][-1]["step"] * r["recipe"]["batch"] for r in records)
    return {
        "images_per_second": round(images / sum(r["seconds"]["all"] for r in records), 1),
        "steps": records[0]["recipe"]["steps"],
        "data": records[0]["data"],
        "setting": records[0]["setting"],
        "versions": records[0]["versions"],
        "commit": records[0]["commit"],
    }


def _write(plan: Plan, record: dict) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    part = plan.sweep_path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, plan.sweep_path)
