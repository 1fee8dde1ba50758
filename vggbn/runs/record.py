"""A run's record, RUN/run.json: read by one function, which trusts nothing that stands in it."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Any

from vggbn.errors import UserError
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

NUMBER = (int, float)
MEASURED = ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
# What a record of any version holds, enough to use its net: a name and what its value is, as
# `misfit` reads it.
READABLE = {
    "recipe": {"data": str, "model": str},
    "seed": int,
    "data": {"name": str, "classes": int},
}
# What a finished run's record promises: results, tables, logs and views read these. Some names are
# missing that earlier versions did not write.
PROMISED = {
    "id": str,
    "status": str,
    "diverged_at": (int, type(None)),
    "end_lr": NUMBER,
    "final": {
        **dict.fromkeys(("val_accuracy", "test_accuracy", "test_top5"), NUMBER),
        "test_loss": (*NUMBER, type(None)),
        "test_n": int,
        "test_accuracy_population": NUMBER,
    },
    "history": [{"step": int} | dict.fromkeys(MEASURED, NUMBER)],
    "parameters": int,
    "data": {
        **dict.fromkeys(("note", "digest"), str),
        **dict.fromkeys(("train", "validation", "test"), int),
    },
    "setting": {},
    "versions": {},
    "commit": str,
    "finished": str,
    "seconds": {"all": NUMBER, "compile": NUMBER},
}


def read_record(folder: Path) -> dict[str, Any]:
    """The record in `folder`, of which READABLE and a valid recipe are certain.

    UserError: there is none, or it is not one.
    """
    path = Path(folder) / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _refuse_misfit(record)
    except FileNotFoundError:
        raise UserError(f"no run at {folder}: give a folder that holds run.json.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise UserError(f"{path} cannot be read ({reason}); train the run again.") from None
    return record


def find_own_record(place: Place) -> dict[str, Any] | None:
    """The record at this place, if it is whole, and of a finished run of its recipe and seed."""
    try:
        record = read_record(place.folder)
    except UserError:
        return None
    if misfit(record, PROMISED) or (record["id"], record["seed"]) != place.key:
        return None
    return record if Recipe.from_dict(record["recipe"]) == place.recipe else None


def _refuse_misfit(record: Any) -> None:
    """ValueError, if READABLE does not describe it or its recipe is none."""
    wrong = misfit(record, READABLE)
    if not wrong and record["seed"] < 0:
        wrong = f"seed is {record['seed']}"
    if wrong:
        raise ValueError(wrong)
    where, recipe = "recipe", record["recipe"]
    while recipe.get("parent") is not None:
        where, recipe = f"{where}.parent", recipe["parent"]
        if wrong := misfit(recipe, READABLE["recipe"], where):
            raise ValueError(wrong)
    try:
        Recipe.from_dict(record["recipe"])
    except UserError as error:
        raise ValueError(f"its recipe: {error}") from None


def misfit(value: Any, shape: Any, where: str = "") -> str:
    """The first place at which a value of JSON is not of this shape, in words; empty: it is.

    shape: {name: shape} is an object with these names and maybe more, [shape] a list of at least
    one such, all else a type or types. True and False are no numbers.
    """
    if isinstance(shape, dict):
        return _misfit_of_object(value, shape, where)
    if isinstance(shape, list):
        return _misfit_of_list(value, shape[0], where)
    fits = isinstance(value, shape) and not isinstance(value, bool)
    return "" if fits else f"{where} is {reprlib.repr(value)}"


def _misfit_of_object(value: Any, shape: dict, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where or 'it'} is no object"
    for name, inner in shape.items():
        place = f"{where}.{name}" if where else name
        if name not in value:
            return f"{place} is missing"
        if wrong := misfit(value[name], inner, place):
            return wrong
    return ""


def _misfit_of_list(value: Any, shape: Any, where: str) -> str:
    if not isinstance(value, list):
        return f"{where} is no list"
    if not value:
        return f"{where} is empty"
    found = (misfit(item, shape, f"{where}[{i}]") for i, item in enumerate(value))
    return next(filter(None, found), "")
