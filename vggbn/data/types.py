"""The two records every part of the suite passes around."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    images_NHWC: uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB).
    labels_N: int32 [N], an index into `Dataset.classes`.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray

    def __post_init__(self) -> None:
        if self.images_NHWC.dtype != np.uint8 or self.images_NHWC.ndim != 4:
            raise TypeError("images_NHWC must be uint8 with four axes")
        if self.labels_N.dtype != np.int32 or self.labels_N.shape != self.images_NHWC.shape[:1]:
            raise TypeError("labels_N must be int32, one for each image")

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, rows_M: np.ndarray) -> "Split":
        """The examples at rows_M (indices or a mask), copied."""
        return Split(self.images_NHWC[rows_M], self.labels_N[rows_M])


def concatenate(splits: Iterable[Split]) -> Split:
    """All examples of several splits, in order."""
    splits = tuple(splits)
    return Split(
        np.concatenate([s.images_NHWC for s in splits]),
        np.concatenate([s.labels_N for s in splits]),
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits. Models are chosen on `validation`; `test` is read once, at the end.

    flip: True where a mirror image keeps its label.
    note: what the data are, in the words a results table should use.
    digest: `digest_of(train, validation, test)`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    flip: bool
    note: str
    digest: str


def digest_of(*splits: Split) -> str:
    """The first 16 hex digits of a sha256 over shapes, labels and pixels of the splits."""
    sha = hashlib.sha256()
    for split in splits:
        sha.update(repr(split.images_NHWC.shape).encode())
        # '<i4': the same bytes on every machine.
        sha.update(np.ascontiguousarray(split.labels_N, "<i4").tobytes())
        sha.update(np.ascontiguousarray(split.images_NHWC).data)
    return sha.hexdigest()[:16]
