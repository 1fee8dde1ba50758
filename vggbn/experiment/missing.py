"""What is missing of a plan: its runs trained, its views computed, a line appended for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vggbn.claims import results
from vggbn.experiment.plan import Plan
from vggbn.experiment.view_many import view_many
from vggbn.jobs import pool
from vggbn.runs import loggers
from vggbn.runs.many import train_many
from vggbn.runs.place import Place, Store

Add = Callable[[results.Line], None]


def train_missing(
    plan: Plan,
    store: Store,
    missing: list[tuple[str, int]],
    engine: pool.Engine,
    setting: dict,
    log: loggers.Logs | None = None,
    add: Add | None = None,
) -> int:
    """Train (or find) each run and hand its line to `add` (None: append it to the plan's results);
    returns how many failed."""
    wanted = {
        f"{name} seed {seed}": Place(plan.variants[name], seed, store) for name, seed in missing
    }
    variant = {f"{name} seed {seed}": name for name, seed in missing}
    return train_many(wanted, engine, _writer(plan, variant, add), setting=setting, log=log)


def view_missing(
    plan: Plan, store: Store, missing: list[tuple[str, int]], engine: pool.Engine
) -> int:
    """Test the trained nets by each missing view and append its line; returns how many failed."""
    wanted = {f"{name} seed {seed}": (plan.views[name], seed) for name, seed in missing}
    variant = {f"{name} seed {seed}": name for name, seed in missing}
    return view_many(wanted, plan.variants, store, engine, _writer(plan, variant))


def _writer(
    plan: Plan, variant: dict[str, str], add: Add | None = None
) -> Callable[[str, dict], None]:
    """write(name, record) for the lines of the runs that are named so."""
    add = add or partial(results.append, plan.results_path)

    def write(name: str, record: dict) -> None:
        head = {
            "experiment": plan.experiment.name,
            "size": plan.size_name,
            "variant": variant[name],
        }
        add(head | record)

    return write
