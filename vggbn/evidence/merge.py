"""Result lines that were made elsewhere, added to those that are here; none twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vggbn.claims import results
from vggbn.errors import UserError


def merge_lines(source: Path, target: Path) -> dict[str, int]:
    """Append the lines below `source` that `target` lacks; {experiment/size-data: how many}.

    Two lines are the same run if recipe, seed and setting are the same. UserError: no lines there.
    """
    paths = sorted(source.glob("*/*/results.jsonl"))
    if not paths:
        raise UserError(
            f"{source} has no result lines: name the folder that holds EXPERIMENT/SIZE-DATA/"
            "results.jsonl."
        )
    lines = {path: results.read(path) for path in paths}  # all readable, before any is written
    return {
        path.parent.relative_to(source).as_posix(): _append(
            lines[path], target / path.relative_to(source)
        )
        for path in paths
    }


def _append(lines: list[results.Line], path: Path) -> int:
    """Add those that are not there; how many."""
    there = {_key(line) for line in results.read(path)}
    before = len(there)
    for line in lines:
        if (key := _key(line)) not in there:
            there.add(key)
            results.append(path, line)
    return len(there) - before


def _key(line: Mapping[str, Any]) -> str:
    """What a run is known by: all that a number may depend on."""
    known = ("variant", "id", "seed", "setting", "evaluation")
    return json.dumps([line.get(name) for name in known], sort_keys=True)
