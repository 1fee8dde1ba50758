"""The search for learning rates: every arm gets the same grid, seeds and selection."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from vggbn import files
from vggbn.claims.stats import smoothed
from vggbn.errors import UserError
from vggbn.experiment.design import Sweep
from vggbn.experiment.plan import Plan, edited
from vggbn.jobs import pool
from vggbn.machine import provenance
from vggbn.runs import run as runs
from vggbn.runs.loggers import Logs
from vggbn.runs.many import train_many, worker_setting
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe


def run_sweep(plan: Plan, store: runs.Store, engine: pool.Engine, log: Logs | None = None) -> int:
    """Train every arm at every rate, write the record beside the results, print the choice.

    Where the size names finalists there is a second round: so many of each arm's best rates, for
    as long as the arms of the experiment are trained (a short run favours low rates).
    """
    sweep, size = _sweep_of(plan), plan.size
    train = partial(train_many, engine=engine, setting=worker_setting(engine), log=log)
    rates = {arm: [f"{rate:g}" for rate in sweep.rates] for arm in sweep.arms}
    found = _round(plan, store, train, rates, size.sweep_steps)
    if found is None:
        return 1
    accuracy, records = found
    record = {
        "experiment": plan.experiment.name,
        "size": plan.size_name,
        "selection": "highest mean over seeds of the best smoothed validation accuracy",
        "accuracy": accuracy,
        **_shared(records),
    }
    if size.finalists:
        rates = {arm: leading(by_rate, size.finalists) for arm, by_rate in accuracy.items()}
        found = _round(plan, store, train, rates, None)
        if found is None:
            return 1
        accuracy, records = found
        record["finals"] = {"accuracy": accuracy, "steps": records[0]["recipe"]["steps"]}
    record["best"] = {arm: best_rate(by_rate) for arm, by_rate in accuracy.items()}
    _write(plan, record)
    for arm, (rate, value) in record["best"].items():
        print(f"{arm}: best rate {rate:g}, validation accuracy {100 * value:.1f} %")
    print(plan.sweep_path)
    return 0


def _sweep_of(plan: Plan) -> Sweep:
    """The experiment's own. UserError: it has none, or its rates come from another's."""
    sweep = plan.experiment.sweep
    if sweep is None:
        raise UserError(f"{plan.experiment.name} has no rates to search: leave out --sweep.")
    if isinstance(sweep, str):
        raise UserError(f"the rates come from another sweep: python -m experiments.{sweep} --sweep")
    return sweep


ByRate = dict[str, list[float | None]]  # {rate: score of each seed}


def _round(
    plan: Plan, store: runs.Store, train: Callable, rates: dict[str, list[str]], steps: int | None
) -> tuple[dict[str, ByRate], list[dict]] | None:
    """({arm: {rate: scores}}, records) of these rates after so many steps; None if one failed."""
    cells = {
        f"{arm}, rate {rate}, seed {seed}": (arm, rate, seed)
        for arm, of_arm in rates.items()
        for rate in of_arm
        for seed in range(plan.size.sweep_seeds or _sweep_of(plan).seeds)
    }
    wanted = {
        name: Place(_recipe(plan, arm, float(rate), steps), seed, store)
        for name, (arm, rate, seed) in cells.items()
    }
    records: dict[str, dict] = {}
    if train(wanted, write=records.__setitem__):
        return None
    accuracy: dict[str, ByRate] = {arm: {} for arm in rates}
    for name, (arm, rate, _) in cells.items():
        accuracy[arm].setdefault(rate, []).append(score(records[name]))
    return accuracy, list(records.values())


def _recipe(plan: Plan, arm: str, rate: float, steps: int | None) -> Recipe:
    """steps None: as many as the experiment's own arms; never more than those."""
    steps = min(steps or plan.base.steps, plan.base.steps)
    return edited(plan.base, {**_sweep_of(plan).arms[arm], "steps": steps, "lr": rate})


def score(record: dict) -> float | None:
    """The best point of the smoothed validation curve; None for a run that diverged."""
    values = smoothed([line["val_accuracy"] for line in record["history"]])
    return None if record["diverged_at"] is not None else float(np.max(values))


def leading(by_rate: ByRate, count: int) -> list[str]:
    """The best rates, the very best first; one with a diverged seed is out, a tie goes down."""
    means = {rate: float(np.mean(v)) for rate, v in by_rate.items() if None not in v}  # type: ignore[arg-type]
    return sorted(means, key=lambda rate: (-means[rate], float(rate)))[:count]


def best_rate(by_rate: ByRate) -> tuple[float, float]:
    """(rate, mean score) of the first of `leading`; nan where all diverged."""
    rates = leading(by_rate, 1)
    return (float(rates[0]), float(np.mean(by_rate[rates[0]]))) if rates else (math.nan, math.nan)  # type: ignore[arg-type]


def _shared(records: list[dict]) -> dict:
    images = sum(r["history"][-1]["step"] * r["recipe"]["batch"] for r in records)
    return {
        "images_per_second": round(images / sum(r["seconds"]["all"] for r in records), 1),
        "steps": records[0]["recipe"]["steps"],
        "data": records[0]["data"],
        "setting": provenance.machine(records[0]["setting"]),
        "versions": records[0]["versions"],
        "commit": records[0]["commit"],
    }


def _write(plan: Plan, record: dict) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    files.write(plan.sweep_path, json.dumps(record, indent=1) + "\n")
