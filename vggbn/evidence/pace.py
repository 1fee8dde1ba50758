"""How long runs take on this machine, as the result lines that were made here tell."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from vggbn.claims.results import Line, read
from vggbn.evidence.agenda import Block
from vggbn.experiment.plan import Plan
from vggbn.machine import provenance

SHARED = ("device", "threads")  # of a setting, where the same steps take the same time


class Pace:
    """Seconds of the runs of one plan, here; None of what no line tells.

    An arm that was never trained here is as fast as the plan's others for its images.
    """

    def __init__(self, plan: Plan, setting: dict):
        self.plan, self._setting = plan, setting
        self.update()

    def update(self) -> None:
        """Read the lines again."""
        lines = [line for line in read(self.plan.results_path) if self._is_of_here(line)]
        ids = {id: name for name, id in self.plan.ids().items()}
        mine = [line for line in lines if line["id"] in ids]
        self._own = _medians((ids[line["id"]], line["seconds"]["all"]) for line in mine)
        trained = [line for line in mine if "view" not in line]
        rates = [line["seconds"]["all"] / _images(line["recipe"]) for line in trained]
        self._image = statistics.median(rates) if rates else None

    def seconds(self, block: Block) -> list[float] | None:
        """Of each run and view that the block needs."""
        known = [seconds for name in block.arms if (seconds := self._arm(name)) is not None]
        # Views are a small part, and the first of them is met where its nets are known.
        views = [self._own.get(name, 0.0) for name in block.views]
        return [*known, *views] if len(known) == len(block.arms) else None

    def _arm(self, name: str) -> float | None:
        if name in self._own:
            return self._own[name]
        recipe = self.plan.variants[name]
        return None if self._image is None else self._image * recipe.steps * recipe.batch

    def _is_of_here(self, line: Line) -> bool:
        there = provenance.machine(line["setting"])
        return all(there.get(name) == self._setting.get(name) for name in SHARED)


def _images(recipe: dict) -> int:
    return recipe["steps"] * recipe["batch"]


def _medians(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """{name: the median of its values}."""
    values: dict[str, list[float]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: statistics.median(own) for name, own in values.items()}
