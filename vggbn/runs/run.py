"""A trained run lives once, by recipe id and seed: `get_run` trains it or finds it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vggbn import data, files
from vggbn.data import readers
from vggbn.data.splits import stratified
from vggbn.errors import UserError
from vggbn.evaluate import Trained, evaluate
from vggbn.identity import identity
from vggbn.identity.definitions import Package
from vggbn.identity.equalities import same_numbers
from vggbn.identity.reach import Reach
from vggbn.machine import compiling, mesh, provenance
from vggbn.machine.clock import Clock
from vggbn.models import Net, build
from vggbn.models.inherit import inherit
from vggbn.runs import arrays as checkpoint
from vggbn.runs.keeper import keep_run, lock_run
from vggbn.runs.place import Place, Store
from vggbn.runs.record import find_own_record, read_record
from vggbn.training import loop
from vggbn.training.recipe import Recipe, static
from vggbn.training.step import TrainState, init_state
from vggbn.training.task import Task

Report = Callable[[dict], None]


class Run(NamedTuple):
    """A run on disk: its record, and its net as every protocol of `evaluate` takes it."""

    record: dict[str, Any]
    trained: Trained


def get_run(
    recipe: Recipe, seed: int, store: Store, on_report: Report = lambda record: None
) -> Run:
    """The run of this recipe and seed by today's code on this device, trained if need be."""
    train_run(recipe, seed, store, on_report)
    return mesh.agree_on(lambda: load_run(store.folder(recipe, seed)))


def load_run(folder: Path) -> Run:
    """The run saved in `folder`. UserError: no run there, or its files are damaged."""
    record, path = read_record(folder), Path(folder) / "weights"
    weights = checkpoint.load(path)
    try:
        # "stats": as it was called before.
        stats = weights["batch_stats" if "batch_stats" in weights else "stats"]
        variables = {"params": weights["params"], "batch_stats": stats}
        net = _net_of(record, channels=len(weights["mean"]))
        trained = Trained(net, variables, weights["mean"], weights["std"])
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{path} holds no weights of a run; train the run again.") from None
    _refuse_other_weights(trained, path)
    return Run(record, trained)


def _net_of(record: dict[str, Any], channels: int) -> Net:
    """The net that a record's recipe is trained as."""
    recipe = Recipe.from_dict(record["recipe"])
    image = (recipe.image_size, recipe.image_size, channels)
    return static(recipe, image=image, classes=record["data"]["classes"], flip=False).net


def _refuse_other_weights(trained: Trained, path: Path) -> None:
    """UserError, if the weights are not of the shapes of their recipe's net."""
    init = build(trained.net).init
    own = jax.eval_shape(lambda key: init(key, "glorot"), jax.random.key(0))
    found, expected = (
        jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (trained.variables, own)
    )
    if found != expected:
        raise UserError(f"the weights in {path} are not those of its recipe; train the run again.")


# What a run chooses from besides the tables of its recipe's fields.
TABLES = {f"{readers.__name__}.READERS": lambda recipe: readers.reader_of(recipe.data)}


def code(recipe: Recipe) -> str:
    """The identity of what today's code computes of this recipe: the "code" of its setting."""
    return identity.identity(compute, recipe, TABLES) + ("" if compiling.ENABLED else " plain")


def reach_of(recipe: Recipe, source: dict[str, str] | None = None) -> Reach:
    """The definitions of today, or of another source of the package, that `code` tells apart."""
    package = Package(__name__.partition(".")[0], source) if source else None
    return identity.reach_of(compute, recipe, TABLES, package=package)


def find_record(
    recipe: Recipe, seed: int, store: Store, setting: dict | None = None
) -> dict | None:
    """The record of a finished run made by today's code in this setting (jaxlib, device, threads).

    setting: None is that of this process, which starts jax; then process 0 looks, for all.
    """
    if setting:
        return _find_record(Place(recipe, seed, store), setting)
    setting = provenance.setting()
    return mesh.agree_on(lambda: _find_record(Place(recipe, seed, store), setting))


def _find_record(place: Place, setting: dict) -> dict | None:
    record = find_own_record(place)
    if record is None or provenance.machine(record["setting"]) != setting:
        return None
    same = same_numbers(record["setting"]["code"], code(place.recipe), place.recipe.id)
    return record if same else None


def train_run(
    recipe: Recipe, seed: int, store: Store, on_report: Report = lambda record: None
) -> dict:
    """Train, evaluate and save one run, or find it; returns its record, which is its run.json.

    on_report hears of every evaluation, and between them of the step and the loss about once a
    second. A run that was stopped goes on from its last saved step. Preempted: SIGTERM came, and
    the step is saved.
    """
    place = Place(recipe, seed, store)
    with lock_run(place):
        return find_record(*place) or _train_run(place, on_report)


def _train_run(place: Place, on_report: Report) -> dict:
    parent = get_run(*place.parent) if place.parent else None
    setting = {"code": code(place.recipe), **provenance.setting()}
    clock = Clock("load")
    with keep_run(place, setting, on_report) as keeper:
        task, fit, outcome = compute(
            *place,
            parent,
            clock,
            resume=keeper.resume,
            on_evaluation=on_report,
            on_step=keeper.save_due,
        )
        record = {
            "id": place.recipe.id,
            "seed": place.seed,
            "recipe": asdict(place.recipe),
            **outcome,
            "history": fit.history,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(fit.state.params)),
            "data": _data_facts(task.dataset),
            "setting": setting,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": _seconds(fit.seconds, clock.stop()),
            **keeper.interruptions(),
        }
        if mesh.process() == 0:
            _save(place.folder, record, loop.trained(task, fit.state.variables))
        keeper.finish()
    return record


def compute(
    recipe: Recipe,
    seed: int,
    store: Store,
    parent: Run | None,
    clock: Clock,
    *,
    resume: Callable[[loop.Reached], loop.Reached] = lambda start: start,
    on_evaluation: Report = lambda record: None,
    on_step: Callable[[int, loop.Reached], None] = lambda step, reached: None,
) -> tuple[Task, loop.Fit, dict]:
    """All that decides a run's numbers, and nothing else: what it reaches is the run's identity.

    Returns (task, what `loop.fit` returned, the record's scores). resume(start): where the run goes
    on; on_evaluation, on_step: see `loop.fit`. Saving and telling are the caller's.
    """
    task = Task.of(recipe, seed, load_data(recipe, seed, store))
    start = resume(loop.Reached(_start(task, parent), [], (0, 0.0, 0)))
    clock.to("fit")
    fit = loop.fit(
        task,
        **start._asdict(),
        on_evaluation=on_evaluation,
        on_step=on_step,
        workers=store.workers,
    )
    clock.to("final")
    return task, fit, _outcome(task, fit)


def _start(task: Task, parent: Run | None) -> TrainState:
    """Step 0: new weights, the parent's in their place."""
    state = init_state(task.recipe, task.program, task.seed)
    if parent is None:
        return state
    how = task.recipe.inherit
    return state.replace(**inherit(how, state.variables, parent.trained.variables))


def _seconds(fit: dict[str, float], run: dict[str, float]) -> dict[str, float]:
    """Those of `fit`, with loading and final scores; `compile` is that of the whole run."""
    parts = fit | {name: run[name] for name in ("load", "final", "compile")} | {"all": run["total"]}
    return {name: round(value, 3) for name, value in parts.items()}


def load_data(recipe: Recipe, seed: int, store: Store) -> data.Dataset:
    """The recipe's data set, cut for this seed where the recipe's split depends on it."""
    fold = seed if recipe.split == "folds" else 0
    side = recipe.source_side or recipe.image_size
    choices = (
        recipe.split, fold, recipe.damaged, recipe.pixels, recipe.train_size, recipe.loading,
    )  # fmt: skip
    return _load(recipe.data, side, recipe.fit, *choices, store)


@lru_cache(maxsize=1)
def _load(
    name, image_size, fit, split, seed, damaged, pixels, train_size, loading, store
) -> data.Dataset:
    return data.load(
        name,
        image_size=image_size,
        fit=fit,
        split=split,
        seed=seed,
        damaged=damaged,
        pixels=pixels,
        train_size=train_size,
        loading=loading,
        data_dir=store.data_dir,
        cache_dir=str(store.cache),
    )


def _outcome(task: Task, fit: loop.Fit) -> dict:
    """status, diverged_at, end_lr, final scores; a diverged run scores what it ended with."""
    diverged_at = int(fit.state.diverged_at)
    scores = _final_scores(task, fit.state)
    return {
        "status": "ok" if diverged_at < 0 else f"diverged at step {diverged_at}",
        "diverged_at": None if diverged_at < 0 else diverged_at,
        "end_lr": fit.history[-1]["lr"],
        "final": scores,
    }


def _final_scores(task: Task, state: TrainState) -> dict:
    """Training images, validation and test with the moving averages, and test with Algorithm 2's
    statistics."""
    dataset = task.dataset
    population = loop.population_stats(task, state)

    def scores(batch_stats, split):
        net = loop.trained(task, {"params": state.params, "batch_stats": batch_stats})
        return evaluate(net, loop.single_view(task.recipe, split))

    fitted = scores(state.batch_stats, _some(dataset.train))
    validation = scores(state.batch_stats, dataset.validation)
    test = scores(state.batch_stats, dataset.test)
    return {
        "train_accuracy": fitted["accuracy"],
        "val_accuracy": validation["accuracy"],
        "test_accuracy": test["accuracy"],
        "test_top5": test["top5"],
        "test_loss": test["loss"] if math.isfinite(test["loss"]) else None,
        "test_n": test["n"],
        "test_accuracy_population": scores(population, dataset.test)["accuracy"],
    }


FITTED = 2000  # training images that the final score of the fit is taken on


def _some(train: data.AnySplit) -> data.AnySplit:
    return stratified(train, FITTED) if len(train) > FITTED else train


def _data_facts(dataset: data.Dataset) -> dict:
    sizes = {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}
    counts_K = np.bincount(dataset.train.labels_N, minlength=len(dataset.classes))
    return {"name": dataset.name, "note": dataset.note, "digest": dataset.digest, **sizes} | {
        "classes": len(dataset.classes),
        "majority": round(float(counts_K.max() / counts_K.sum()), 4),
    }


def _save(folder: Path, record: dict, trained: Trained) -> None:
    """Weights first, then the record: a run.json promises that its weights are there."""
    (folder / "run.json").unlink(missing_ok=True)
    pixels = {"mean": np.asarray(trained.mean_C), "std": np.float32(trained.std)}
    weights = trained.variables | pixels
    checkpoint.save(folder / "weights", weights)
    files.write(folder / "run.json", json.dumps(record, allow_nan=True) + "\n")
