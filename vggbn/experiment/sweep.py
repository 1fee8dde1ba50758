"""The search for learning rates: every arm gets the same grid, seeds and selection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

from vggbn import files
from vggbn.errors import UserError
from vggbn.experiment.design import Sweep
from vggbn.experiment.plan import Plan, edited
from vggbn.experiment.rates import ByRate, best_rate, beyond, edge_rates, leading, score, tied
from vggbn.jobs import pool
from vggbn.machine import provenance
from vggbn.runs import run as runs
from vggbn.runs.loggers import Logs
from vggbn.runs.many import train_many, worker_setting
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

EXTENSIONS = 3  # of a grid whose best rate is its last


def run_sweep(plan: Plan, store: runs.Store, engine: pool.Engine, log: Logs | None = None) -> int:
    """Train every arm at every rate, write the record beside the results, print the choice.

    An arm whose best rate is the last one of its grid gets rates beyond it. Where the size names
    finalists there is a second round: so many of each arm's best rates, for as long as the arms of
    the experiment are trained (a short run favours low rates).
    """
    sweep, size = _sweep_of(plan), plan.size
    train = partial(train_many, engine=engine, setting=worker_setting(engine), log=log)
    rates = {arm: [f"{rate:g}" for rate in sweep.rates] for arm in sweep.arms}
    found = _search(plan, store, train, rates)
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
    record["tied"] = {arm: tied(by_rate) for arm, by_rate in accuracy.items()}
    _write(plan, record)
    print("\n".join([*_choices(record), str(plan.sweep_path)]))
    return 0


def _choices(record: dict) -> Iterator[str]:
    """What the search chose for each arm, a line each, and what one has to know of it."""
    edges = edge_rates(record)
    for arm, (rate, value) in record["best"].items():
        text = f"{arm}: best rate {rate:g}, validation accuracy {100 * value:.1f} %"
        if ties := record["tied"][arm]:
            text += f"; within its standard error: {', '.join(ties)}"
        if arm in edges:
            text += "; at the edge of all that was tried: no claim rests on it"
        yield text


def _sweep_of(plan: Plan) -> Sweep:
    """The experiment's own. UserError: it has none, or its rates come from another's."""
    sweep = plan.experiment.sweep
    if sweep is None:
        raise UserError(f"{plan.experiment.name} has no rates to search: leave out --sweep.")
    if isinstance(sweep, str):
        raise UserError(f"the rates come from another sweep: python -m experiments.{sweep} --sweep")
    return sweep


def _search(
    plan: Plan, store: runs.Store, train: Callable, rates: dict[str, list[str]]
) -> tuple[dict[str, ByRate], list[dict]] | None:
    """`_round` of the sweep's own length, and again with rates beyond a grid that ends with its
    best, EXTENSIONS times at most."""
    accuracy: dict[str, ByRate] = {}
    records: list[dict] = []
    for _ in range(1 + EXTENSIONS):
        found = _round(plan, store, train, rates, plan.size.sweep_steps)
        if found is None:
            return None
        for arm, by_rate in found[0].items():
            accuracy.setdefault(arm, {}).update(by_rate)
        records += found[1]
        rates = {arm: [rate] for arm, by_rate in accuracy.items() if (rate := beyond(by_rate))}
        if not rates:
            break
    return accuracy, records


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
