"""Dataset: three disjoint splits of one set."""

from __future__ import annotations

from dataclasses import dataclass

from vggbn.data.lazy import AnySplit


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits. Models are chosen on `validation`; `test` is read once, at the end.

    Either all lie in memory (`Split`) or all are streamed (`lazy.LazySplit`).

    flip: True where a mirror image keeps its label.
    binary: True where every pixel is 0 or 255, and a net is to see 0 or 1 (`binarise`).
    note: what the data are, in the words a results table should use.
    digest: `digest_of(train, validation, test)`.
    """

    name: str
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    classes: tuple[str, ...]
    flip: bool
    note: str
    digest: str
    binary: bool = False

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded when they are asked for, not held in memory."""
        return self.train.streamed
