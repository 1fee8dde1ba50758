"""Results: append-only JSON lines, one per (variant, seed), and what claims read from them."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from vggbn import files
from vggbn.claims.looks import judged_seeds
from vggbn.claims.stats import StepsReached, leave_one_out, smoothed, steps_to_target
from vggbn.errors import UserError

Line = dict[str, Any]


def append(path: Path, line: Line) -> None:
    """Add one line, whole or not at all, and force it to disk."""
    files.append(path, json.dumps(line))


FIELDS = frozenset({"variant", "seed", "id", "setting"})  # that each line of runs has


def read(path: Path, fields: Set[str] = FIELDS) -> list[Line]:
    """All whole lines; none if there is no file. UserError names the line that is damaged, or lacks
    one of the fields."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for number, raw in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = json.loads(raw)
            whole = fields <= line.keys()
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            raise UserError(f"{path}, line {number}, is damaged: delete that line and run again.")
        lines.append(line)
    return lines


def _machine(setting: dict) -> tuple:
    """The setting without the code, of which each recipe has its own."""
    return tuple(sorted((name, value) for name, value in setting.items() if name != "code"))


class MissingRuns(Exception):
    """A claim needs a variant, or seeds of it, that have not been run."""


class NotTested(MissingRuns):
    """These runs, however many, cannot decide a claim: the protocol is another one."""


class Results:
    """The runs of one experiment, by variant and seed, of which pairs may be formed.

    A line counts if its id is the id in `ids` and today's code made it: made(variant, line) says
    so (None: any did). The runs of one seed are compared with one another, so they must share the
    setting (jaxlib, device, threads); another seed may come from another machine. Where a seed was
    begun on several, the setting with the most runs of it holds it, `setting` itself at a tie.
    Variants outside of `core` (None: there are none) are no part of a claim and form such a set of
    their own. `target`: the accuracy that speeds are measured to (None: see `targets`). `left_out`
    says how many lines of the file do not count, and why: {reason: number};
    `of_other_code` are those of the recipes that count; `asked` are the arms that somebody wanted.
    """

    def __init__(
        self,
        lines: Iterable[Line],
        ids: Mapping[str, str],
        setting: dict,
        core: Collection[str] | None = None,
        made: Callable[[str, Line], bool] | None = None,
        target: float | None = None,
    ):
        self.variants, self.left_out = list(ids), Counter()
        self.of_other_code: list[Line] = []
        self.target = target
        self.asked: set[str] = set()
        self._judged = False
        self._core = set(ids if core is None else core)
        self._here = _machine(setting)
        self.runs: dict[str, dict[int, Line]] = {name: {} for name in ids}
        # {(is core, seed): {setting: {variant: line}}}
        self._blocks: dict[tuple[bool, int], dict[tuple, dict[str, Line]]] = {}
        for line in lines:
            name = line["variant"]
            if ids.get(name) != line["id"]:
                self.left_out["of other recipes"] += 1
            elif made and not made(name, line):
                self.left_out["of other code"] += 1
                self.of_other_code.append(line)
            else:
                block = self._blocks.setdefault((name in self._core, line["seed"]), {})
                held = block.setdefault(_machine(line["setting"]), {})
                self.left_out["run again"] += name in held
                held[name] = line
        for (_, seed), block in self._blocks.items():
            holder = self._holder(block)
            for name, line in block[holder].items():
                self.runs[name][seed] = line
            others = sum(map(len, block.values())) - len(block[holder])
            self.left_out["of seeds that another machine has more of"] += others
        self.left_out = +self.left_out  # without those of which there are none
        self._refuse_mixed_data()

    def for_verdict(self) -> Results:
        """The same runs as a judge sees them: of all seeds those of the last look, nobody asked."""
        seen = copy.copy(self)
        seen.asked, seen._judged = set(), True
        return seen

    def why_left_out(self) -> str:
        """A sentence: how many lines do not count, and why; empty where all do."""
        if not self.left_out:
            return ""
        reasons = [f"{count} {reason}" for reason, count in self.left_out.most_common()]
        count = self.left_out.total()
        lines = "1 line was" if count == 1 else f"{count} lines were"
        return f"{lines} left out: {', '.join(reasons)}."

    def missing(self, seeds: Iterable[int]) -> list[tuple[str, int]]:
        """(variant, seed) to be run in `setting`, core first, seed by seed."""
        seeds = list(seeds)
        return [
            (name, seed)
            for core in (True, False)
            for seed in seeds
            for name in self.lacking(self._of(core, self.variants), seed)
        ]

    def lacking(self, names: Iterable[str], seed: int) -> list[str]:
        """The variants to be run in `setting`, that these may be compared with one another.

        A seed that another setting holds in part is begun anew, with all that it holds there: half
        of it could not be paired, and who has less of a seed does not hold it.
        """
        names, wanted = list(names), []
        for core in (True, False):
            mine = self._of(core, names)
            block = self._blocks.get((core, seed), {})
            if not block:
                wanted += mine
                continue
            holder = self._holder(block)
            if not set(mine) <= block[holder].keys():
                held = set(mine) if holder == self._here else {*mine, *block[holder]}
                done = block.get(self._here, {})
                wanted += [n for n in self.variants if n in held and n not in done]
        return wanted

    def _holder(self, block: Mapping[tuple, Mapping[str, Line]]) -> tuple:
        """The setting that holds a seed."""
        return max(block, key=lambda where: (len(block[where]), where == self._here))

    def _of(self, core: bool, names: Iterable[str]) -> list[str]:
        return [name for name in names if (name in self._core) == core]

    def _refuse_mixed_data(self) -> None:
        """One seed of every variant must have seen the same arrays."""
        digests: dict[int, set[str]] = {}
        for seeds in self.runs.values():
            for seed, line in seeds.items():
                digests.setdefault(seed, set()).add(line["data"]["digest"])
        if any(len(found) > 1 for found in digests.values()):
            raise UserError(
                "these results were made from different data under one name: "
                "give the new data its own --out."
            )

    def __contains__(self, job: tuple[str, int]) -> bool:
        variant, seed = job
        return seed in self.runs.get(variant, {})

    def lines(self) -> list[Line]:
        return [line for seeds in self.runs.values() for line in seeds.values()]

    def trained(self) -> list[Line]:
        """The lines of training runs, not those of views."""
        return [line for line in self.lines() if "view" not in line]

    def seeds(self, *variants: str) -> list[int]:
        """The seeds that all `variants` have, in one setting; for a verdict those of the last look.
        MissingRuns if there are none."""
        if not variants:
            raise MissingRuns("none of its arms is in this plan")
        self.asked.update(variants)
        sets = [set(self.runs.get(variant, ())) for variant in variants]
        shared = [s for s in sorted(set.intersection(*sets)) if self._paired(s, variants)]
        if not shared:
            raise MissingRuns(f"needs runs of {', '.join(variants)}")
        return judged_seeds(shared) if self._judged else shared

    def _paired(self, seed: int, variants: Iterable[str]) -> bool:
        first, *others = (_machine(self.runs[variant][seed]["setting"]) for variant in variants)
        return all(other == first for other in others)

    def final(self, variant: str, score: str = "test_accuracy") -> dict[int, float]:
        """A final score by seed, as a fraction of 1. MissingRuns if the variant is not run here."""
        if variant not in self.runs:
            raise MissingRuns(f"needs runs of {variant}")
        self.asked.add(variant)
        return {seed: line["final"][score] for seed, line in sorted(self.runs[variant].items())}

    def curve(self, variant: str, seed: int, name: str = "val_accuracy"):
        """(steps, values) of one learning curve."""
        history = self.runs[variant][seed]["history"]
        return [r["step"] for r in history], [r[name] for r in history]

    def best(self, variant: str, seed: int) -> float:
        """The best point of the smoothed validation curve."""
        values = smoothed(self.curve(variant, seed)[1])
        return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan

    def targets(self, baseline: str) -> dict[int, float]:
        """For each seed the accuracy to reach: `target`, or else the mean over the OTHER seeds of
        the baseline's best."""
        if self.target is not None:
            return dict.fromkeys(self.seeds(baseline), self.target)
        best = {seed: self.best(baseline, seed) for seed in self.seeds(baseline)}
        if len(best) < 2 or not all(map(math.isfinite, best.values())):
            raise MissingRuns(f"needs two seeds of {baseline}, all of which learn")
        return leave_one_out(best)

    def to_target(self, variant: str, targets: Mapping[int, float]) -> dict[int, StepsReached]:
        """Steps to each seed's target, censored at the budget."""
        reached = {}
        for seed, target in targets.items():
            if (variant, seed) in self:
                steps, values = self.curve(variant, seed)
                budget = self.runs[variant][seed]["recipe"]["steps"]
                reached[seed] = steps_to_target(steps, values, target, budget)
        return reached


def newest_setting(lines: list[Line]) -> dict | None:
    """The setting of the last line: what a published file was made in."""
    return lines[-1]["setting"] if lines else None
