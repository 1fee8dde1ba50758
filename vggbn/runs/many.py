"""Many (recipe, seed) runs, trained or found by the workers of an engine."""

from __future__ import annotations

import sys
from collections.abc import Callable

from vggbn.errors import UserError
from vggbn.jobs import here, pool
from vggbn.machine import compile_cache, compiling, environment, provenance
from vggbn.runs import run as runs
from vggbn.runs.loggers import Logged, Logs
from vggbn.runs.place import Place
from vggbn.runs.progress import Progress
from vggbn.training.recipe import Recipe, static

Wanted = dict[str, Place]
STARTED = {"started": True}  # what a worker says before a run's first report


def train_many(
    wanted: Wanted,
    engine: pool.Engine,
    write: Callable[[str, dict], None],
    *,
    setting: dict | None = None,
    log: Logs | None = None,
) -> int:
    """Train or find each run of {name: place}; write(name, record) as it ends.

    setting: that of the engine's workers, so that what they have finished is found without one.
    `log` is told of every run, also of those that others start from. Returns how many failed.
    UserError from a worker ends the whole; what was written stays.
    """
    if not wanted:
        return 0
    compile_cache.tidy(next(iter(wanted.values())).store.cache)
    found = _found(wanted, setting)
    every = with_ancestors({name: run for name, run in wanted.items() if name not in found})
    listener = _Listener(wanted | every, engine.run is not here.run_jobs, log or Logs({}))
    strays = 0

    def finish(name, record):
        nonlocal strays
        strays += setting is not None and provenance.machine(record["setting"]) != setting
        if name in wanted:
            write(name, record)
        listener.finished(name, record)

    events = pool.Events(
        listener.reported, lambda job, record: finish(job.name, record), listener.failed
    )
    try:
        for name, record in found.items():
            finish(name, record)
        engine.run(_jobs(every), _train, events)
    finally:
        failures = listener.progress.close()
    if strays:
        print(
            f"{strays} of these runs are of another device or version than the first job, and pair "
            "with none of the others: ask for one kind of node (--cluster-set constraint=...).",
            file=sys.stderr,
        )
    return failures


class _Listener:
    """Tells the table of runs and the log what becomes of each run."""

    def __init__(self, every: Wanted, live: bool, log: Logs):
        steps = {name: place.recipe.steps for name, place in every.items()}
        batch = next(iter(every.values())).recipe.batch
        self.progress = Progress(steps, batch, live=live)
        self._log = log
        self._named = {name: Logged(name, p.recipe, p.seed) for name, p in every.items()}

    def reported(self, job: pool.Job, record: dict) -> None:
        if record == STARTED:
            self.progress.started(job.name)
            return
        self.progress.report(job.name, record)
        self._log.report(self._named[job.name], record)

    def finished(self, name: str, record: dict) -> None:
        self.progress.finished(name, record)
        self._log.finished(self._named[name], record)

    def failed(self, job: pool.Job, text: str) -> None:
        self.progress.failed(job.name, text)
        self._log.failed(self._named[job.name], text)


def _found(wanted: Wanted, setting: dict | None) -> dict[str, dict]:
    """{name: record} of the runs that were finished in this setting; None finds nothing."""
    if setting is None:
        return {}
    records = {name: runs.find_record(*run, setting) for name, run in wanted.items()}
    return {name: record for name, record in records.items() if record is not None}


def with_ancestors(wanted: Wanted) -> Wanted:
    """`wanted` with the nets that its recipes start from, each before them and only once."""
    named = {place.key: name for name, place in wanted.items()}
    every: Wanted = {}
    for name, place in wanted.items():
        for recipe in reversed(place.recipe.ancestors):
            parent = place._replace(recipe=recipe)
            if parent.key not in named:
                named[parent.key] = f"{recipe.id} seed {place.seed}"
                every[named[parent.key]] = parent
        every[name] = place
    return every


def _jobs(every: Wanted) -> list[pool.Job]:
    """A job a run; a run whose parent is among them waits for it."""
    named = {place.key: name for name, place in every.items()}
    jobs = []
    for name, place in every.items():
        parent = named.get(place.parent.key) if place.parent else None
        after = frozenset([parent] if parent else [])
        jobs.append(pool.Job(name, compile_key(place.recipe), place, after))
    return jobs


def _train(place: Place, report) -> dict:
    """One run, in a worker."""
    compiling.tune_process()
    compile_cache.use(place.store.cache)
    report(STARTED)
    return runs.train_run(*place, report)


def compile_key(recipe: Recipe):
    """Equal for recipes that share a compilation on one data set."""
    size = recipe.image_size
    return static(recipe, image=(size, size, 0), classes=0, flip=True)


def worker_setting(engine: pool.Engine) -> dict:
    """The setting of a run in a worker of the engine: threads differ from this process's.

    On this machine's CPU it is known. Which accelerator jax would take, if any, only a process that
    starts it can tell; and of a cluster, only a job there.
    """
    if engine.threads and not environment.accelerated():
        return provenance.cpu_setting(engine.threads)
    answers: list[dict] = []
    events = pool.Events(
        on_report=lambda job, report: None,
        on_result=lambda job, answer: answers.append(answer),
        on_failure=_refuse_device,
    )
    engine.run([pool.Job("setting", None, None)], _setting, events)
    return answers[0]


def _refuse_device(job, text: str) -> None:
    reason = text.strip().splitlines()[-1]
    raise UserError(f"jax does not start in a worker process ({reason}); see JAX_PLATFORMS.")


def _setting(payload, report) -> dict:
    return provenance.setting()
