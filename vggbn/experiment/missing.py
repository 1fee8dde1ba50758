"""What is missing of a plan: its runs trained, its views computed, a line appended for each."""

from __future__ import annotations

from collections.abc import Callable

from vggbn.claims import results
from vggbn.experiment.plan import Plan
from vggbn.experiment.view_many import view_many
from vggbn.jobs import pool
from vggbn.runs import loggers
from vggbn.runs.many import train_many
from vggbn.runs.place import Place, Store


def train_missing(
    plan: Plan,
    store: Store,
    missing: list[tuple[str, int]],
    engine: pool.Engine,
    setting: dict,
    log: loggers.Logs | None = None,
) -> int:
    """Train (or find) each run and append its line; returns how many failed."""
    wanted = {
        f"{name} seed {seed}": Place(plan.variants[name], seed, store) for name, seed in missing
    }
    variant = {f"{name} seed {seed}": name for name, seed in missing}
    return train_many(wanted, engine, _writer(plan, variant), setting=setting, log=log)


def view_missing(
    plan: Plan, store: Store, missing: list[tuple[str, int]], engine: pool.Engine
) -> int:
    """Test the trained nets by each missing view and append its line; returns how many failed."""
    wanted = {f"{name} seed {seed}": (plan.views[name], seed) for name, seed in missing}
    variant = {f"{name} seed {seed}": name for name, seed in missing}
    return view_many(wanted, plan.variants, store, engine, _writer(plan, variant))


def _writer(plan: Plan, variant: dict[str, str]) -> Callable[[str, dict], None]:
    """write(name, record) for the lines of the runs that are named so."""

    def write(name: str, record: dict) -> None:
        head = {
            "experiment": plan.experiment.name,
            "size": plan.size_name,
            "variant": variant[name],
        }
        results.append(plan.results_path, head | record)

    return write
