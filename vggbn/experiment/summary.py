"""What the results of a plan say: verdicts, and everything that its report shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Judgement
from vggbn.experiment.checkout import in_checkout
from vggbn.experiment.plan import Plan, read_sweep, variant_edits
from vggbn.experiment.rates import arms_at_edge
from vggbn.report import Curve, Report
from vggbn.report.words import counted
from vggbn.training import recipe as recipes


def judge(plan: Plan, results: Results) -> list[Judgement]:
    """A row for every claim that runs decide."""
    at_edge = arms_at_edge(plan, read_sweep(plan))
    return [claim.judged(results, plan.baseline, at_edge) for claim in plan.experiment.claims]


def build_report(plan: Plan, results: Results, computed: Iterable[Judgement] = ()) -> Report:
    """Everything the report shows, from the results alone, and the rows of computed claims."""
    runs = {name: results.runs[name] for name in plan.variants if results.runs[name]}
    try:
        targets = results.targets(plan.baseline)
    except MissingRuns:
        targets = {}
    panels = {
        title: [name for name in names if name in runs]
        for title, names in _panels(plan).items()
        if any(name in runs for name in names)
    }
    return Report(
        title=f"{plan.experiment.title} ({plan.size_name}, {plan.base.data})",
        question=plan.experiment.question,
        baseline_name=plan.baseline,
        baseline=recipes.field_values(plan.base),
        variants=variant_edits(plan),
        judgements=[*computed, *judge(plan, results)],
        notes=_notes(plan, results),
        curves={name: _curve(results, name) for name in runs},
        panels=panels,
        opening=[name for name in _opening(plan) if name in runs],
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
        command=_command(plan),
        newest=max((line.get("finished", "") for line in results.lines()), default="")[:10],
    )


def _panels(plan: Plan) -> Mapping[str, Iterable[str]]:
    """The experiment's own, or one of all its arms."""
    return plan.experiment.panels or {"all arms": tuple(plan.variants)}


def _opening(plan: Plan) -> Iterable[str]:
    """The arms of the opening picture: the experiment's own, or its first panel's."""
    return plan.experiment.opening or next(iter(_panels(plan).values()))


def _command(plan: Plan) -> str:
    """The command line that trains what the plan has, of its size's arms and seeds."""
    words = ["python -m", f"experiments.{plan.experiment.name}", "--size", plan.size_name]
    words += ["--data", plan.base.data]
    if len(plan.seeds) != plan.size.seeds:
        words += ["--seeds", str(len(plan.seeds))]
    _, *edits = plan.folder.name.split(",")
    return " ".join([*words, *(f"--set {edit}" for edit in edits)])


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
    if plan.size.core is not None:
        notes.append(_budgets(plan))
    planned = len(plan.seeds) * len(plan.variants)
    if len(lines) < planned:
        notes.append(f"{len(lines)} of {planned} planned runs are in; the rest are yet to be run.")
    notes += _sweep_note(plan)
    if results.why_left_out():
        notes.append(results.why_left_out())
    return notes


def _sweep_note(plan: Plan) -> list[str]:
    """Where the rates come from, if not from one sweep of the arms' own length on this data."""
    record = read_sweep(plan)
    if plan.experiment.sweep is None:
        return ["The learning rates are the experiment's own: none were searched."]
    if record is None and not in_checkout():
        return [
            "Whether the learning rates were tuned on this data at this size is not known here: "
            "the records of sweeps lie in results/ of a checkout, not in an installed package."
        ]
    if record is None:
        return [
            "The learning rates were not searched on this data at this size: "
            f"experiments/{plan.experiment.name}.py has them from other data or another size."
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
        steps[plan.size.is_core(name)].add(recipe.steps)
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
    return f"{setting['device']}, {counted(setting['threads'], 'thread')} a run"


def _each(texts: Iterable[str], between: str = "; ") -> str:
    return between.join(sorted(set(texts)))
