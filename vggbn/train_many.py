"""Many (recipe, seed) runs, trained or found by a pool of workers."""

from __future__ import annotations

from collections.abc import Callable

from vggbn import compile_cache, fast, pool, provenance, runs
from vggbn.errors import UserError
from vggbn.loggers import Logged, Logs
from vggbn.progress import Progress
from vggbn.recipe import Recipe, static

Wanted = dict[str, tuple[Recipe, int, runs.Store]]


def train_many(
    wanted: Wanted, workers: int, write: Callable[[str, dict], None], log: Logs | None = None
) -> int:
    """Train or find each run of {name: (recipe, seed, store)}; write(name, record) as it ends.

    `log` is told of every run, also of those that others start from. Returns how many failed.
    UserError from a worker ends the whole; what was written stays.
    """
    if not wanted:
        return 0
    first, _, store = next(iter(wanted.values()))
    compile_cache.tidy(store.cache)
    every = with_ancestors(wanted)
    progress = Progress({name: recipe.steps for name, (recipe, *_) in every.items()}, first.batch)
    named = {name: Logged(name, recipe, seed) for name, (recipe, seed, _) in every.items()}
    log = log or Logs({})

    def report(job, record):
        progress.report(job.name, record)
        log.report(named[job.name], record)

    def finish(job, record):
        if job.name in wanted:
            write(job.name, record)
        progress.finished(job.name, record)
        log.finished(named[job.name], record)

    def fail(job, text):
        progress.failed(job.name, text)
        log.failed(named[job.name], text)

    events = pool.Events(on_report=report, on_result=finish, on_failure=fail)
    pool.run_jobs(_jobs(every), _train, events, workers=workers)
    return progress.close()


def with_ancestors(wanted: Wanted) -> Wanted:
    """`wanted` with the nets that its recipes start from, each before them and only once."""
    named = {(recipe.id, seed): name for name, (recipe, seed, _) in wanted.items()}
    every: Wanted = {}
    for name, (recipe, seed, store) in wanted.items():
        for parent in reversed(recipe.ancestors):
            if (parent.id, seed) not in named:
                named[parent.id, seed] = f"{parent.id} seed {seed}"
                every[named[parent.id, seed]] = (parent, seed, store)
        every[name] = (recipe, seed, store)
    return every


def _jobs(every: Wanted) -> list[pool.Job]:
    """A job a run; a run whose parent is among them waits for it."""
    named = {(recipe.id, seed): name for name, (recipe, seed, _) in every.items()}
    jobs = []
    for name, job in every.items():
        recipe, seed, _ = job
        parent = named.get((recipe.parent.id, seed)) if recipe.parent else None
        after = frozenset([parent] if parent else [])
        jobs.append(pool.Job(name, compile_key(recipe), job, after))
    return jobs


def _train(payload, report) -> dict:
    """One run, in a worker."""
    recipe, seed, store = payload
    fast.run_inline()
    compile_cache.use(store.cache)
    found = runs.find_record(recipe, seed, store)
    return runs.train_run(recipe, seed, store, report) if found is None else found


def compile_key(recipe: Recipe):
    """Equal for recipes that share a compilation on one data set."""
    size = recipe.image_size
    return static(recipe, image=(size, size, 0), classes=0, flip=True)


def worker_setting() -> dict:
    """The setting of a run in a worker: threads differ from this process's.

    On a CPU it is known. Which accelerator jax would take, if any, only a process that starts it
    can tell.
    """
    if not pool.accelerated():
        return provenance.cpu_setting(int(pool.SINGLE_THREAD["NPROC"]))
    answers: list[dict] = []
    events = pool.Events(
        on_report=lambda job, report: None,
        on_result=lambda job, answer: answers.append(answer),
        on_failure=_refuse_device,
    )
    pool.run_jobs([pool.Job("setting", None, None)], _setting, events, workers=1)
    return answers[0]


def _refuse_device(job, text: str) -> None:
    reason = text.strip().splitlines()[-1]
    raise UserError(f"jax does not start in a worker process ({reason}); see JAX_PLATFORMS.")


def _setting(payload, report) -> dict:
    return provenance.setting()
