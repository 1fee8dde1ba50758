"""One experiment at one size on one data set: its recipes, its seeds, where its results go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vggbn.claims import results
from vggbn.claims.results import Line, Results
from vggbn.data.readers import embedded_names, path_of
from vggbn.errors import UserError, unknown
from vggbn.experiment.checkout import PUBLISHED
from vggbn.experiment.design import Experiment, Size
from vggbn.experiment.views import View, is_of_today
from vggbn.identity.equalities import same_numbers
from vggbn.runs.run import code
from vggbn.training import recipe as recipes
from vggbn.training.recipe import Recipe

FRESH = 1_000_000  # seeds above it are those of `verify`, which enter no verdict


class Plan(NamedTuple):
    """One experiment at one size on one data set: what is to be run, and where results go."""

    experiment: Experiment
    size_name: str
    size: Size
    base: Recipe
    baseline: str
    variants: dict[str, Recipe]
    seeds: range
    folder: Path
    views: dict[str, View]

    @property
    def results_path(self) -> Path:
        return self.folder / "results.jsonl"

    @property
    def computed_path(self) -> Path:
        return self.folder / "computed.json"

    @property
    def sweep_path(self) -> Path:
        return self.folder / "sweep.json"

    def ids(self) -> dict[str, str]:
        trained = {name: recipe.id for name, recipe in self.variants.items()}
        return trained | {name: view.id(self.variants) for name, view in self.views.items()}

    def found(
        self, setting: dict, counts: Callable[[str, Mapping[str, Any]], bool] | None = None
    ) -> Results:
        """What the results file holds of this plan; see Results.

        counts(name, line): whether the line is of the code that is asked for (None: of today's).
        """
        every, first = results.read(self.results_path), self.size.first_seed
        return self.of_lines([x for x in every if first <= x["seed"] <= FRESH], setting, counts)

    def of_lines(
        self,
        lines: Iterable[Line],
        setting: dict,
        counts: Callable[[str, Mapping[str, Any]], bool] | None = None,
    ) -> Results:
        """The same of these lines, whatever their seeds."""
        core = {name for name in self.ids() if self.size.is_core(name)}
        counts = counts or _once(self.is_of_today)
        return Results(lines, self.ids(), setting, core, counts, self.size.target)

    def is_of_today(self, name: str, line: Mapping[str, Any]) -> bool:
        """Whether today's code, or code that makes the same numbers, made this line."""
        if name in self.views:
            return is_of_today(self.views[name], self.variants, line)
        recipe = self.variants[name]
        return same_numbers(line["setting"]["code"], code(recipe), recipe.id)


Counts = Callable[[str, Mapping[str, Any]], bool]


def _once(counts: Counts) -> Counts:
    """The same, asked once for all lines of an arm that one code made."""
    known: dict[tuple, bool] = {}

    def asked(name: str, line: Mapping[str, Any]) -> bool:
        key = name, line["setting"]["code"], line.get("evaluation")
        if key not in known:
            known[key] = counts(name, line)
        return known[key]

    return asked


def make_plan(
    experiment: Experiment,
    size_name: str,
    *,
    out: Path,
    data: str | None = None,
    edits: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    only: list[str] | None = None,
) -> Plan:
    """Resolve the recipes of a size on a data set, with the user's own edits of the baseline."""
    if size_name not in size_names(experiment):
        raise unknown("size", size_name, size_names(experiment))
    size, base, variants = _resolve(experiment, size_name, data, edits or {})
    names = _names(only, size.arms, variants)
    n = size.seeds if seeds is None else seeds
    if n < 1:
        raise UserError(f"--seeds must be 1 or more, not {n}.")
    _refuse_idle_edits(experiment, size_name, data, edits or {}, variants, names)
    folder = out / experiment.name / f"{size_name}-{label(base, experiment, edits)}"
    chosen_variants = {name: variants[name] for name in names}
    views = {
        name: view
        for name, view in experiment.views(variants).items()
        if all(look.net in chosen_variants for look in view.looks)
    }
    return Plan(
        experiment=experiment,
        size_name=size_name,
        size=size,
        base=base,
        baseline=experiment.baseline or next(iter(variants)),
        variants=chosen_variants,
        seeds=range(size.first_seed, size.first_seed + n),
        folder=folder,
        views=views,
    )


def size_names(experiment: Experiment) -> list[str]:
    """What --size takes: not the sizes made for one data set."""
    return [name for name in experiment.sizes if "-" not in name]


def _resolve(
    experiment: Experiment, size_name: str, data: str | None, edits: Mapping[str, Any]
) -> tuple[Size, Recipe, dict[str, Recipe]]:
    """The size, the baseline and all arms, on this data and with these edits."""
    size = experiment.sizes.get(f"{size_name}-{data}", experiment.sizes[size_name])
    base = own = edited(experiment.base, {**size.edits, **size.tuned.base})
    if data and data != base.data:
        images = {} if data in embedded_names() else experiment.any_images
        base = edited(base, {**images, "data": data})
    base = edited(base, edits)
    if base != own:  # a pilot's target is of this recipe and its data alone
        size = replace(size, target=None)
    others = {k: v for k, v in size.others.items() if k not in edits}
    variants = {
        name: recipe if size.is_core(name) else edited(recipe, others)
        for name, recipe in _variants(experiment, base, size, edits).items()
    }
    return size, base, variants


def _refuse_idle_edits(
    experiment: Experiment,
    size_name: str,
    data: str | None,
    edits: Mapping[str, Any],
    variants: Mapping[str, Recipe],
    names: Sequence[str],
) -> None:
    """UserError: an edit of the baseline without which the arms to be trained would be the same."""
    for field, value in edits.items():
        rest = {k: v for k, v in edits.items() if k != field}
        try:
            _, base, without = _resolve(experiment, size_name, data, rest)
        except UserError:  # the edits need each other
            continue
        is_new = getattr(base, field) != value  # to say what is so already is no mistake
        if is_new and all(without.get(name) == variants[name] for name in names):
            raise UserError(
                f"--set {field}={value} changes nothing of what would be trained: "
                f"{', '.join(names)}. Leave it out, or choose other arms with --only."
            )


def _variants(experiment, base, size, edits) -> dict[str, Recipe]:
    """The experiment's own; an edit of the user's may have made one of them impossible."""
    try:
        return experiment.variants(base, size)
    except UserError as error:
        text = " ".join(f"{k}={v}" for k, v in edits.items())
        why = f"with --set {text} " if text else ""
        raise UserError(f"{why}an arm of {experiment.name} is lost: {error}") from None


def edited(base: Recipe, edits: Mapping[str, Any]) -> Recipe:
    """`but`, leaving out what is so already."""
    known = {k: v for k, v in edits.items() if k not in recipes.FIELDS or getattr(base, k) != v}
    return base.but(**known)


def label(base: Recipe, experiment: Experiment, edits: Mapping[str, Any] | None) -> str:
    """The data set as part of a file name, with the user's edits: other numbers, other folder."""
    extra = [f"{k}={v}" for k, v in sorted((edits or {}).items())]
    return ",".join([data_label(base.data), *extra]).replace("/", "_")


def data_label(name: str) -> str:
    """A data set's name without the place where it lies: photos of folder:some/photos/."""
    path = path_of(name)
    return name if path is None else Path(path.rstrip("/")).name


def _names(only, arms, variants) -> list[str]:
    names = list(only or arms or variants)
    for name in names:
        if name not in variants:
            raise unknown("variant", name, variants)
    return names


def variant_edits(plan: Plan) -> dict[str, dict[str, tuple[Any, Any]]]:
    """{variant: {field: (baseline's value, its value)}}: the printed table is the diff."""
    before = recipes.field_values(plan.base)
    return {
        name: {k: (before[k], v) for k, v in recipes.diff(plan.base, recipe).items()}
        for name, recipe in plan.variants.items()
    }


def read_sweep(plan: Plan) -> dict | None:
    """The record of the sweep for this size and data set: the user's own, else the published."""
    own, name = plan.experiment.sweep, plan.experiment.name
    name = own if isinstance(own, str) else name
    mine, file = plan.folder.parents[1] / name / plan.folder.name, plan.sweep_path.name
    for path in (mine / file, PUBLISHED / name / plan.folder.name / file):
        if path.exists():
            return json.loads(path.read_text())
    return None
