"""Where runs lie on disk: a `Store` has them all, a `Place` is that of one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vggbn.training.recipe import Recipe


class Store(NamedTuple):
    """Where runs live and data come from; what of it decides no number.

    save_every: seconds between two saved steps of a run. workers: processes that decode a streamed
    set for a run (0: threads of its own process).
    """

    runs: Path
    data_dir: str | None = None
    save_every: float = 300.0
    workers: int = 0

    @property
    def cache(self) -> Path:
        """What can be made again: decoded data and compiled programs."""
        return self.runs.parent / "cache"

    def folder(self, recipe: Recipe, seed: int) -> Path:
        return self.runs / recipe.id / f"seed{seed}"


class Place(NamedTuple):
    """One run: what is trained, from which seed, and the store it lies in."""

    recipe: Recipe
    seed: int
    store: Store

    @property
    def folder(self) -> Path:
        return self.store.folder(self.recipe, self.seed)

    @property
    def key(self) -> tuple[str, int]:
        """What tells two runs of one store apart."""
        return self.recipe.id, self.seed

    @property
    def parent(self) -> Place | None:
        """The run that this one starts from."""
        parent = self.recipe.parent
        return self._replace(recipe=parent) if parent else None
