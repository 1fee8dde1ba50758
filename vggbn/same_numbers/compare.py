"""Two answers about one run: equal, or what differs first."""

from __future__ import annotations

from functools import partial
from typing import Any

# What a record tells of numbers; the rest tells of who made them, and when.
NUMBERS = (
    "id", "status", "diverged_at", "end_lr", "parameters", "data", "history", "final", "correct",
    "posterior", "state", "diverged",
)  # fmt: skip


def difference(old: dict, new: dict, graphs: tuple[dict, dict]) -> str:
    """Why the old run's numbers are not the new one's; empty where all of them are.

    A record may tell more than it did. graphs: {program: operations} of the old tree, the new one.
    """
    for found, whose in ((old, "the old code"), (new, "today's code")):
        if "missing" in found:
            return f"not compared, {whose} says: {found['missing']}"
        if "absent" in found:
            return f"not known to {whose}: {found['absent']}"
    where = _unequal(old["record"], new["record"])
    if not where:
        return ""
    return _program(old, new, graphs) or _told(old, new) or f"{where} of the record"


def _unequal(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first field whose number is another."""
    for name in NUMBERS:
        inside = _unequal if name == "diverged" else partial(_at, name)
        if name in old and (found := inside(old[name], new.get(name, {}))):
            return found
    return ""


def _at(path: str, old: Any, new: Any) -> str:
    """The path of the first difference; what is new in a dict is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{path}.{name}", value, new.get(name)) for name, value in old.items()]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{path}[{i}]", *both) for i, both in enumerate(zip(old, new, strict=True))]
    else:
        return "" if old == new or (old != old and new != new) else path
    return next(filter(None, (_at(*pair) for pair in pairs)), "")


def _program(old: dict, new: dict, graphs: tuple[dict, dict]) -> str:
    """The first program that is another, and its first operation that is."""
    known = {digest for digests in new["programs"].values() for digest in digests}
    lost = [(n, d) for n, digests in old["programs"].items() for d in digests if d not in known]
    if not lost:
        return ""
    name, digest = lost[0]
    theirs = {d for digests in old["programs"].values() for d in digests}
    fresh = [(n, d) for n, digests in new["programs"].items() for d in digests if d not in theirs]
    if not fresh:
        return f"program {name}: not there any more"
    match = next((d for n, d in fresh if n == name), fresh[0][1])
    return f"program {name}: {_operation(graphs[0][digest], graphs[1][match])}"


def _operation(old: list[list[str]], new: list[list[str]]) -> str:
    before, after = {op for op, _ in old}, {op for op, _ in new}
    lost = next((text for op, text in old if op not in after), "nothing")
    fresh = next((text for op, text in new if op not in before), "nothing")
    if (lost, fresh) == ("nothing", "nothing"):
        return "the same operations of other inputs"
    return f"{_short(lost)} became {_short(fresh)}"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _told(old: dict, new: dict) -> str:
    """The first argument of a program that was another, and in which call."""
    for path, (checksum, calls, changes) in old["told"].items():
        there = new["told"].get(path)
        if there is None or there[:2] == [checksum, calls]:
            continue
        pairs = zip(changes, there[2], strict=False)
        call = next((min(a[0], b[0]) for a, b in pairs if a != b), None)
        when = "later than its first changes" if call is None else f"from call {call} on"
        return f"what is told to {path}, {when}"
    return ""
