"""An experiment: a baseline, the named edits that make its variants, the claims to be judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vggbn import recipe as recipes
from vggbn import results
from vggbn.data.embedded import EMBEDDED
from vggbn.errors import UserError, unknown
from vggbn.exact import ExactClaim
from vggbn.recipe import Recipe
from vggbn.report import Chart, Curve, Report, Table
from vggbn.results import MissingRuns, Results
from vggbn.stats import Interval, Judgement
from vggbn.views import View

PUBLISHED = Path(__file__).parents[1] / "results"  # the committed results of this checkout

Verdict = tuple[str, Interval, str, str]  # (verdict, interval, its unit, one line of detail)


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and the rule that judges it, both fixed before its results exist.

    primary is the data set whose verdict counts; `judge` may raise MissingRuns.
    """

    id: str
    sentence: str
    criterion: str
    paper: str
    primary: str
    judge: Callable[[Results], Verdict]

    def judged(self, results: Results) -> Judgement:
        """The claim's row in the verdict table."""
        try:
            verdict, interval, unit, detail = self.judge(results)
        except MissingRuns as missing:
            verdict, unit, detail = "inconclusive", "", f"not judged: {missing}"
            interval = Interval(math.nan, math.nan, math.nan, 0)
        return Judgement(
            claim=self.id,
            sentence=self.sentence,
            criterion=self.criterion,
            paper=self.paper,
            verdict=verdict,
            n=interval.n,
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            unit=unit,
            detail=detail,
            primary=self.primary,
        )


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run: edits of BASE, seeds 0 … n-1, the arms (None: all).

    tuned holds what the sweep chose: edits of BASE ("lr", "init") and "bn_lr". Arms outside
    `core` (None: there are none) get the edits `others`, unless the user edits the same field, and
    run last; the sweep's runs have `sweep_steps` and `sweep_seeds` (None: as all), and `finalists`
    of each arm's rates a second round at the arms' own length (0: no such round). The size
    "full-cifar10" replaces "full" on cifar10.
    """

    seeds: int
    edits: Mapping[str, Any]
    tuned: Mapping[str, Any]
    arms: tuple[str, ...] | None = None
    core: tuple[str, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    sweep_steps: int | None = None
    sweep_seeds: int | None = None
    finalists: int = 0

    def is_core(self, arm: str) -> bool:
        """Whether the arm runs with the first ones, for as long as they."""
        return self.core is None or arm in self.core


@dataclass(frozen=True)
class Sweep:
    """The search that the learning rates come from: every arm × every rate × every seed.

    The best rate of an arm has the highest mean of the best smoothed validation accuracy.
    """

    arms: Mapping[str, Mapping[str, Any]]
    rates: tuple[float, ...]
    seeds: int


# The embedded sets have their own sizes; any other is shrunk to CIFAR's.
ANY_IMAGES = {"image_size": 32, "fit": "resize"}


@dataclass(frozen=True)
class Experiment:
    """What one file of `experiments/` hands to the runner.

    variants(base, tuned) -> {name: recipe}; `baseline` names the one that all others are edits of
    and whose best accuracy is the target of the table of steps. views(variants) are the ways to
    test them, arms that are not trained; `sweep` may be the name of the experiment whose sweep
    chose the rates; tables and charts are laid out as the paper's. any_images:
    the edits of the baseline for a data set that has no size of its own. gallery: show what the
    last arm's first seed sees of some images. exact: claims that need no run.
    """

    name: str
    title: str
    question: str
    base: Recipe
    baseline: str
    variants: Callable[[Recipe, Mapping[str, Any]], dict[str, Recipe]]
    claims: tuple[Claim, ...]
    sizes: Mapping[str, Size]
    panels: Mapping[str, tuple[str, ...]]
    sweep: Sweep | str
    notes: tuple[str, ...] = ()
    views: Callable[[Mapping[str, Recipe]], dict[str, View]] = lambda variants: {}
    tables: Callable[[Results], list[Table]] = lambda results: []
    charts: Callable[[Results], dict[str, Chart]] = lambda results: {}
    any_images: Mapping[str, Any] = field(default_factory=lambda: ANY_IMAGES)
    gallery: bool = False
    exact: tuple[ExactClaim, ...] = ()


class Plan(NamedTuple):
    """One experiment at one size on one data set: what is to be run, and where results go."""

    experiment: Experiment
    size: str
    base: Recipe
    variants: dict[str, Recipe]
    seeds: range
    folder: Path
    scale: Size
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

    def found(self, setting: dict, evaluation: str | None = None) -> Results:
        """What the results file holds of this plan; see Results for setting and evaluation."""
        core = {name for name in self.ids() if self.scale.is_core(name)}
        return Results(results.read(self.results_path), self.ids(), setting, core, evaluation)


def make_plan(
    experiment: Experiment,
    size: str,
    *,
    out: Path,
    data: str | None = None,
    edits: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    only: list[str] | None = None,
) -> Plan:
    """Resolve the recipes of a size on a data set, with the user's own edits of the baseline."""
    if size not in size_names(experiment):
        raise unknown("size", size, size_names(experiment))
    chosen = experiment.sizes.get(f"{size}-{data}", experiment.sizes[size])
    tuned = {k: v for k, v in chosen.tuned.items() if k in recipes.FIELDS}
    base = edited(experiment.base, {**chosen.edits, **tuned})
    if data and data != base.data:
        images = {} if data in EMBEDDED else experiment.any_images
        base = edited(base, {**images, "data": data})
    base = edited(base, edits or {})
    others = {k: v for k, v in chosen.others.items() if k not in (edits or {})}
    variants = {
        name: recipe if chosen.is_core(name) else edited(recipe, others)
        for name, recipe in _variants(experiment, base, chosen.tuned, edits or {}).items()
    }
    names = _names(only, chosen.arms, variants)
    n = chosen.seeds if seeds is None else seeds
    if n < 1:
        raise UserError(f"--seeds must be 1 or more, not {n}.")
    folder = out / experiment.name / f"{size}-{label(base, experiment, edits)}"
    chosen_variants = {name: variants[name] for name in names}
    views = {
        name: view
        for name, view in experiment.views(variants).items()
        if all(look.net in chosen_variants for look in view.looks)
    }
    return Plan(experiment, size, base, chosen_variants, range(n), folder, chosen, views)


def size_names(experiment: Experiment) -> list[str]:
    """What --size takes: not the sizes made for one data set."""
    return [name for name in experiment.sizes if "-" not in name]


def _variants(experiment, base, tuned, edits) -> dict[str, Recipe]:
    """The experiment's own; an edit of the user's may have made one of them impossible."""
    try:
        return experiment.variants(base, tuned)
    except UserError as error:
        text = " ".join(f"{k}={v}" for k, v in edits.items())
        raise UserError(f"with --set {text} an arm of {experiment.name} is lost: {error}") from None


def edited(base: Recipe, edits: Mapping[str, Any]) -> Recipe:
    """`but`, leaving out what is so already."""
    known = {k: v for k, v in edits.items() if k not in recipes.FIELDS or getattr(base, k) != v}
    return base.but(**known)


def label(base: Recipe, experiment: Experiment, edits: Mapping[str, Any] | None) -> str:
    """The data set as part of a file name, with the user's edits: other numbers, other folder."""
    name = base.data
    if name.startswith("folder:"):
        name = Path(name.removeprefix("folder:").rstrip("/")).name
    extra = [f"{k}={v}" for k, v in sorted((edits or {}).items())]
    return ",".join([name, *extra]).replace("/", "_")


def _names(only, arms, variants) -> list[str]:
    names = list(only or arms or variants)
    for name in names:
        if name not in variants:
            raise unknown("variant", name, variants)
    return names


def variant_edits(plan: Plan) -> dict[str, dict[str, tuple[Any, Any]]]:
    """{variant: {field: (baseline's value, its value)}}: the printed table is the diff."""
    before = recipes.shown(plan.base)
    return {
        name: {k: (before[k], v) for k, v in recipes.diff(plan.base, recipe).items()}
        for name, recipe in plan.variants.items()
    }


def judge(plan: Plan, results: Results) -> list[Judgement]:
    """A row for every claim that runs decide."""
    return [claim.judged(results) for claim in plan.experiment.claims]


def build_report(plan: Plan, results: Results, computed: Iterable[Judgement] = ()) -> Report:
    """Everything the report shows, from the results alone, and the rows of computed claims."""
    runs = {name: results.runs[name] for name in plan.variants if results.runs[name]}
    try:
        targets = results.targets(plan.experiment.baseline)
    except MissingRuns:
        targets = {}
    return Report(
        title=f"{plan.experiment.title} ({plan.size}, {plan.base.data})",
        question=plan.experiment.question,
        baseline_name=plan.experiment.baseline,
        baseline=recipes.shown(plan.base),
        variants=variant_edits(plan),
        judgements=[*computed, *judge(plan, results)],
        notes=_notes(plan, results),
        curves={name: _curve(results, name) for name in runs},
        panels={
            title: [name for name in names if name in runs]
            for title, names in plan.experiment.panels.items()
            if any(name in runs for name in names)
        },
        finals={name: results.final(name) for name in runs},
        statuses={name: {s: line["status"] for s, line in r.items()} for name, r in runs.items()},
        end_lr={name: next(iter(r.values()))["end_lr"] for name, r in runs.items()},
        to_target={name: results.to_target(name, targets) for name in runs},
        targets=targets,
        sweep=_sweep_curves(plan),
        tables=_shown(plan.experiment.tables, results, []),
        charts=_shown(plan.experiment.charts, results, {}),
        facts=_facts(plan, results),
        reading=read_words(plan.folder / "reading.md"),
        data=plan.base.data,
        source=f"results/{plan.experiment.name}/{plan.folder.name}",
    )


def _shown(make: Callable[[Results], Any], results: Results, nothing: Any) -> Any:
    """What `make` makes of the results; nothing while runs that it needs are missing."""
    try:
        return make(results)
    except MissingRuns:
        return nothing


def _curve(results: Results, variant: str) -> Curve:
    curves = {seed: results.curve(variant, seed) for seed in sorted(results.runs[variant])}
    longest = max((steps for steps, _ in curves.values()), key=len)
    return Curve(longest, {seed: values for seed, (_, values) in curves.items()})


def _sweep_curves(plan: Plan) -> dict[str, dict[float, list[float]]]:
    record = read_sweep(plan)
    if record is None:
        return {}
    return {
        arm: {
            float(rate): [math.nan if v is None else v for v in values]
            for rate, values in r.items()
        }
        for arm, r in record["accuracy"].items()
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


def read_words(path: Path) -> list[str]:
    """The paragraphs of a text that lies beside published results; none without one."""
    if not path.exists():
        return []
    return [part.strip() for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]


def _notes(plan: Plan, results: Results) -> list[str]:
    notes = list(plan.experiment.notes)
    lines = results.trained()
    if lines:
        data = lines[0]["data"]
        notes.insert(0, f"Data: {data['note']}; {_sizes(data)}.")
    if plan.scale.core is not None:
        notes.append(_budgets(plan))
    planned = len(plan.seeds) * len(plan.variants)
    if len(lines) < planned:
        notes.append(f"{len(lines)} of {planned} planned runs are in; the rest are yet to be run.")
    notes += _sweep_note(plan)
    if results.left_out:
        notes.append(f"{results.left_out} lines made by other code or recipes were left out.")
    return notes


def _sweep_note(plan: Plan) -> list[str]:
    """Where the rates come from, if not from one sweep of the arms' own length on this data."""
    record = read_sweep(plan)
    if record is None:
        return [
            "The learning rates were not tuned on this data at this size: they are the defaults of "
            f"experiments/{plan.experiment.name}.py."
        ]
    if "finals" in record:
        finalists = max(len(by_rate) for by_rate in record["finals"]["accuracy"].values())
        return [
            f"The learning rates were searched with {record['steps']:,} steps; each arm's best "
            f"{finalists} were trained again for {record['finals']['steps']:,}, which decided."
        ]
    return []


def _budgets(plan: Plan) -> str:
    """Which arms were trained for how long, where not all were trained alike."""
    steps = {True: set(), False: set()}
    for name, recipe in plan.variants.items():
        steps[plan.scale.is_core(name)].add(recipe.steps)
    core, others = (", ".join(f"{n:,}" for n in sorted(steps[c])) for c in (True, False))
    return (
        f"The arms that claims read were trained for {core} steps, the others for {others}: their "
        "final scores compare among themselves."
    )


def _sizes(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{data[part]:,} {part}" for part in ("train", "validation", "test"))


def _facts(plan: Plan, results: Results) -> dict[str, str]:
    lines = results.trained()
    if not lines:
        return {}
    seconds = sum(line["seconds"]["all"] for line in lines)
    settings = [line["setting"] for line in lines]
    images = sum(line["history"][-1]["step"] * line["recipe"]["batch"] for line in lines)
    return {
        "runs": f"{len(lines)} ({len(plan.variants)} variants)",
        "training images": f"{images:,}",
        "process time": f"{seconds / 60:.1f} min, of it compiling "
        f"{sum(line['seconds']['compile'] for line in lines) / 60:.1f} min",
        "hardware": _each(map(_hardware, settings)),
        "versions": _each(", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in lines),
        "commits": _each((line["commit"] or "?" for line in lines), ", "),
        "code digest": _each(s["code"] for s in settings),
        "data digests": _each((line["data"]["digest"] for line in lines), ", "),
    }


def _hardware(setting: Mapping[str, Any]) -> str:
    if "products" in setting:
        return f"{setting['device']}, precision of products: {setting['products']}"
    return f"{setting['device']}, {setting['threads']} thread(s) a run"


def _each(texts: Iterable[str], between: str = "; ") -> str:
    return between.join(sorted(set(texts)))
