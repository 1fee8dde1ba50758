"""What checks with new seeds have found: one committed line each, which enters no verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggbn import files
from vggbn.claims import results
from vggbn.experiment.checkout import PUBLISHED
from vggbn.experiment.design import Experiment
from vggbn.experiment.find import find_experiment
from vggbn.experiment.small_form import small_form

PATH = PUBLISHED / "verified.jsonl"
FIELDS = frozenset({"claim", "experiment", "ids", "inside"})

Line = Mapping[str, Any]


def append(line: Line, path: Path) -> None:
    """Add what one check has found: claim, experiment, ids of its recipes, inside, and the rest."""
    files.append(path, json.dumps(line, ensure_ascii=False))


def read(path: Path) -> list[Line]:
    """All checks. UserError names the line that is damaged."""
    return list(results.read(path, FIELDS))


def tallies(lines: list[Line]) -> dict[str, str]:
    """{claim: "2 of 3"}: how many checks lay inside their prediction interval, of all that were of
    the claim's recipes as they are today."""
    inside: dict[str, list[bool]] = {}
    for line in lines:
        if _is_of_today(line):
            inside.setdefault(line["claim"], []).append(line["inside"])
    return {claim: f"{sum(each)} of {len(each)}" for claim, each in inside.items()}


def _is_of_today(line: Line) -> bool:
    experiment = find_experiment(line["experiment"])
    assert isinstance(experiment, Experiment), "one that is computed trains nothing"
    claims = (claim for claim in experiment.claims if claim.id == line["claim"])
    claim = next((claim for claim in claims if claim.effects is not None), None)
    return claim is not None and small_form(claim, experiment).ids() == line["ids"]
