"""The suite's functions, by today's names and the older ones: the only file here that knows any.

A new layout of the house needs a new name in `_ANY`, and seldom more.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

TEST_IMAGES = 40  # of images of many scales: to rescale one takes longer than to pretend a net

# {what is needed: where it is found, in today's tree or in one of history's}
_ANY = {
    "Recipe": ("vggbn.training.recipe:Recipe", "vggbn.recipe:Recipe"),
    "Store": ("vggbn.runs.run:Store", "vggbn.runs:Store"),
    "train_run": ("vggbn.runs.run:train_run", "vggbn.runs:train_run"),
    "compute_posterior": (
        "vggbn.runs.posteriors:compute_posterior",
        "vggbn.posteriors:compute_posterior",
    ),
    "View": ("vggbn.experiment.views:View", "vggbn.views:View"),
    "Look": ("vggbn.experiment.views:Look", "vggbn.views:Look"),
    "record_view": ("vggbn.experiment.views:record", "vggbn.views:record"),
    "UserError": ("vggbn.errors:UserError",),
}


def _find(what: str) -> Any:
    """The first of its places that this tree has."""
    for place in _ANY[what]:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise Lacking(f"it has no {what}")


class Lacking(Exception):
    """The tree has no such thing: what was asked about is not known to it."""


def _steps(before, args) -> int:
    """The step after a program: one that takes many steps is told their number last."""
    count = args[-1] if isinstance(args[-1], np.integer) else 1
    return int(before) + int(count)


def clocks(diverged_at: int | None = None) -> dict[str, Callable]:
    """{leaf of the state: its value after a program}: the numbers by which the loop steers.

    A made up loss is finite, but for step `diverged_at`.
    """

    def diverged(before, args) -> int:
        step = int(args[0].step)
        if diverged_at is not None and _steps(step, args) > diverged_at:
            return diverged_at
        return int(before)

    return {".step": _steps, ".diverged_at": diverged}


def recipe_of(saved: dict[str, Any]) -> Any:
    """The recipe of a result line. Lacking: this tree does not know one of its fields."""
    recipe = _find("Recipe")
    unknown = saved.keys() - {field.name for field in fields(recipe)}
    if unknown:
        raise Lacking(f"it has no recipe field {', '.join(sorted(unknown))}")
    parent = {"parent": recipe_of(saved["parent"])} if saved.get("parent") else {}
    return recipe(**{**saved, **parent})


def store(runs: Path, data_dir: str | None) -> Any:
    """Where the pretended runs lie; what is decoded lies beside them."""
    return _find("Store")(runs, data_dir)


def train(recipe: Any, seed: int, store: Any) -> dict[str, Any]:
    """The record of a run; data that are not at hand raise what `is_mistake` knows."""
    return _find("train_run")(recipe, seed, store)


def look(recipe: Any, seed: int, store: Any, protocol: str, side: int) -> None:
    """Put the posterior beside the run."""
    _find("compute_posterior")(recipe, seed, store, protocol, side)


def view(view: dict[str, Any], recipes: dict[str, Any], seed: int, store: Any) -> dict[str, Any]:
    """The record of a view of a result line, whose nets are trained, or were pretended to be."""
    Look = _find("Look")
    looks = tuple(
        Look(one["net"], tuple(one["sides"]), tuple(one["protocols"])) for one in view["looks"]
    )
    made = _find("View")(looks, view["mirrored"])
    for net, protocol, side in made.parts():
        look(recipes[net], seed, store, protocol, side)
    with _heard(_find("record_view"), "scores") as heard:
        record = _find("record_view")(made, recipes, seed, store)
    return record | {"posterior": [hashlib.sha256(p.tobytes()).hexdigest() for p in heard]}


@contextmanager
def _heard(function: Callable, name: str) -> Iterator[list]:
    """Within, the first arguments of the calls of `name` by what lies beside `function`."""
    module, heard = importlib.import_module(function.__module__), []
    true = getattr(module, name)
    setattr(module, name, lambda first, *more: heard.append(first) or true(first, *more))
    try:
        yield heard
    finally:
        setattr(module, name, true)


def shorten_tests() -> None:
    """Let protocols see the first TEST_IMAGES of images of many scales only."""
    module = importlib.import_module(_find("compute_posterior").__module__)
    load_data = module.load_data

    def shorter(recipe, seed, store):
        dataset = load_data(recipe, seed, store)
        if getattr(recipe, "fit", "") != "whole" or len(dataset.test) <= TEST_IMAGES:
            return dataset
        return replace(dataset, test=dataset.test.take(np.arange(TEST_IMAGES)))

    module.load_data = shorter  # pyright: ignore


def is_mistake(error: BaseException) -> bool:
    """Whether the suite says in a sentence what is missing."""
    return isinstance(error, _find("UserError"))
