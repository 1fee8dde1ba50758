"""Many views: the posteriors they need, computed by the workers of an engine, then averaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from vggbn.experiment.view_progress import ViewProgress
from vggbn.experiment.views import View, record
from vggbn.jobs import here, pool
from vggbn.machine import compile_cache, compiling
from vggbn.runs import run as runs
from vggbn.runs.many import compile_key
from vggbn.runs.place import Place
from vggbn.runs.posteriors import compute_posterior, find_posterior
from vggbn.training.recipe import Recipe

Part = tuple[str, int]  # protocol, side


def view_many(
    wanted: Mapping[str, tuple[View, int]],
    recipes: Mapping[str, Recipe],
    store: runs.Store,
    engine: pool.Engine,
    write: Callable[[str, dict], None],
) -> int:
    """Compute or find each (view, seed) of `wanted`; write(name, record), in its order.

    Returns how many nets failed; the views of such a net are left out.
    """
    names = {recipe.id: name for name, recipe in reversed(list(recipes.items()))}
    lost = _compute(_missing(wanted, recipes, store), names, store, engine)
    for name, (view, seed) in wanted.items():
        if not any((recipes[look.net].id, seed) in lost for look in view.looks):
            write(name, record(view, recipes, seed, store))
    return len(lost)


def _missing(wanted, recipes, store) -> dict[tuple[str, int], tuple[Recipe, list[Part]]]:
    """{(recipe id, seed): (recipe, what of it is not there yet)}."""
    missing: dict[tuple[str, int], tuple[Recipe, list[Part]]] = {}
    asked = {
        (recipes[net].id, seed, protocol, side): recipes[net]
        for view, seed in wanted.values()
        for net, protocol, side in view.parts()
    }
    for (name, seed, *part), recipe in asked.items():
        if find_posterior(recipe, seed, store, *part) is None:
            missing.setdefault((name, seed), (recipe, []))[1].append(tuple(part))
    return missing


def _compute(missing, names, store: runs.Store, engine: pool.Engine) -> set[tuple[str, int]]:
    """Run the jobs, a line each; returns the (recipe id, seed) of those that failed.

    names: {recipe id: the arm's name}.
    """
    if not missing:
        return set()
    lost, progress = set(), ViewProgress(len(missing), live=engine.run is not here.run_jobs)

    def failed(job, text: str) -> None:
        lost.add(job.payload[0].key)
        progress.finished(job.name, f"FAILED\n{text}")

    events = pool.Events(
        on_report=lambda job, part: progress.report(job.name, part),
        on_result=lambda job, text: progress.finished(job.name, text),
        on_failure=failed,
    )
    jobs = [
        pool.Job(
            f"{names[key[0]]} seed {key[1]}",
            compile_key(recipe),
            (Place(recipe, key[1], store), parts),
        )
        for key, (recipe, parts) in missing.items()
    ]
    try:
        engine.run(jobs, _work, events)
    finally:
        progress.close()
    return lost


def _work(payload, report) -> str:
    """All that is missing of one net, in a worker."""
    place, parts = payload
    compiling.tune_process()
    compile_cache.use(place.store.cache)
    began = time.perf_counter()
    for protocol, side in parts:
        report(f"{protocol} at {side}")
        compute_posterior(place.recipe, place.seed, place.store, protocol, side)
    names = ", ".join(f"{protocol} at {side}" for protocol, side in parts)
    return f"{names} in {time.perf_counter() - began:.0f} s"
