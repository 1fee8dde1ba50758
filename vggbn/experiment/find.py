"""Experiments by their names: the modules of the package `experiments` that hold an EXPERIMENT."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from vggbn.errors import UserError, unknown

if TYPE_CHECKING:
    from vggbn.experiment.design import Experiment
    from vggbn.experiment.exact import ExactExperiment

PACKAGE = "experiments"


def find_experiment(name: str) -> Experiment | ExactExperiment:
    """What experiments/NAME.py hands to its runner; bn-ablation is bn_ablation. UserError: there is
    none."""
    module = name.replace("-", "_")
    if module not in (names := experiment_names()):
        raise unknown("experiment", name, names)
    return import_module(f"{PACKAGE}.{module}").EXPERIMENT


def experiment_names() -> list[str]:
    """All of them, in the order of their names; nothing is imported. UserError: there are none."""
    return list(_sources())


def questions() -> dict[str, str]:
    """{experiment: what it asks}, the first line of its file; nothing is imported."""
    trees = {name: ast.parse(source) for name, source in _sources().items()}
    return {name: (ast.get_docstring(tree) or "").split("\n")[0] for name, tree in trees.items()}


def _sources() -> dict[str, str]:
    """{name: text of its file}."""
    try:
        folders = [Path(folder) for folder in import_module(PACKAGE).__path__]
    except ModuleNotFoundError:
        folders = []
    files = sorted(path for folder in folders for path in folder.glob("[a-z]*.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    found = {name: text for name, text in texts.items() if "\nEXPERIMENT = " in text}
    if not found:
        where = f"{folders[0]} holds no experiments of ours" if folders else "there is none here"
        raise UserError(f"the package `{PACKAGE}` is needed, and {where}: run it in a checkout.")
    return found
