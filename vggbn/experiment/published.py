"""The published results: a report for each file of result lines under results/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from vggbn.claims import results
from vggbn.claims.stats import Judgement
from vggbn.errors import UserError
from vggbn.experiment.checkout import PUBLISHED
from vggbn.experiment.design import Experiment
from vggbn.experiment.exact import ExactExperiment, read_computed
from vggbn.experiment.find import find_experiment
from vggbn.experiment.plan import Plan, make_plan
from vggbn.experiment.summary import build_report
from vggbn.report import Report

OTHER_CODE = (
    "These lines are of other code than today's, which may round differently: "
    "`python -m vggbn same-numbers` says where it differs."
)


def published_reports(folder: Path = PUBLISHED) -> list[Report]:
    """One report for each results.jsonl under <experiment>/<size>-<data>/."""
    return [published_report(path) for path in sorted(folder.glob("*/*/results.jsonl"))]


def published_report(path: Path) -> Report:
    """UserError if the file is empty, damaged, or no run of it belongs to today's recipes."""
    lines = results.read(path)
    setting = results.newest_setting(lines)
    if setting is None:
        raise UserError(f"{path} is empty: delete it or run the experiment again.")
    plan = published_plan(path, lines[-1])
    found, notes = plan.found(setting), []
    if not found.lines():  # nothing that today's code would make: then of one code, which is said
        found, notes = plan.found(setting, partial(_is_of_the_same_code, lines)), [OTHER_CODE]
    if not found.lines():
        seeds = f"its seeds are none of {min(plan.seeds)} … {max(plan.seeds)}."
        why = found.why_left_out() or seeds
        raise UserError(f"no line of {path} is of today's plan: {why} Run the experiment again.")
    report = build_report(plan, found, read_computed(plan.computed_path, plan.experiment.exact))
    return replace(report, notes=[*report.notes, *notes])


def _is_of_the_same_code(lines: list[dict], name: str, line: Mapping) -> bool:
    """Whether the code that made the file's last line made this one: lines of one code compare.

    A file may hold several codes, and each line says which; of a view also that of its protocols.
    """
    views = [each["evaluation"] for each in lines if "evaluation" in each]
    newest = line.get("evaluation") in (None, *views[-1:])
    return newest and line["setting"]["code"] == lines[-1]["setting"]["code"]


def published_plan(path: Path, line: dict) -> Plan:
    """The plan that a line of published results belongs to."""
    experiment = find_experiment(line["experiment"])
    assert isinstance(experiment, Experiment), f"{path} is of an experiment that trains nothing"
    return make_plan(experiment, line["size"], out=path.parents[2], data=line["data"]["name"])


def published_rows(experiment: ExactExperiment, folder: Path = PUBLISHED) -> list[Judgement]:
    """What its computed claims said when they were last published; nothing if never."""
    return read_computed(folder / experiment.name / "computed.json", experiment.claims)
