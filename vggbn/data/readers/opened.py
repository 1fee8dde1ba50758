"""Opened: a set that a reader has found under its name, and what it hands out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.split import Split
from vggbn.errors import UserError


class UnknownSet(UserError):
    """A reader has no set of this name. known: the names that it has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"The data set {name!r} is unknown.")
        self.known = tuple(known)


@dataclass(frozen=True, eq=False)
class Opened:
    """A set that has been found. A reader is a function (name, data_dir, damaged) -> Opened.

    name: as in a recipe. damaged: "refuse" or "skip", see `load`. classes: names, by label.
    flip: whether a mirror image keeps its label.

    What a kind of set does in its own way is a method here; `load` does what all share.
    """

    name: str
    damaged: str
    classes: tuple[str, ...]
    flip: bool

    pooled: ClassVar[tuple[str, ...]] = ("train",)  # what split="folds" deals anew, as one

    def read(self, *, image_size: int, fit: str, cache_dir: str | None) -> Mapping[str, Split]:
        """Its train and, where it has them, validation and test, decoded and fitted."""
        raise NotImplementedError

    def stream(
        self, split: str, *, image_size: int, fit: str, cache_dir: str | None
    ) -> Mapping[str, LazySplit]:
        """The same parts, encoded. With split="folds" those in `pooled` are one, train.

        Raises UserError for a set that cannot be streamed, which is the default.
        """
        raise UserError(f'{self.name} comes out of a package whole: use loading="memory".')

    def groups(self, parts: Mapping[str, AnySplit]) -> np.ndarray | None:
        """The group of each image of train, int [N], of which none is torn apart when the missing
        parts are drawn; None: each is its own."""
        return None

    def require_classes(
        self, split: str, given: Mapping[str, AnySplit], three: Mapping[str, AnySplit]
    ) -> str:
        """What the note says of classes that a part has no image of; see `classes`.

        given: the parts before what is missing was drawn; three: train, validation and test.
        """
        return ""

    def describe(self, count: int) -> str:
        """What the data are, in the words a results table should use; count: images in all."""
        raise NotImplementedError
