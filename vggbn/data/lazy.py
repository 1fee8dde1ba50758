"""Sets that do not fit into memory: images are read and decoded when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from vggbn.data.pixels.decode import decode, fitted_size, no_skipping
from vggbn.data.pixels.scale import centre_crop, rescale
from vggbn.data.progress import progress
from vggbn.data.split import Rows, Split, centre_boxes, feed_boxes, rows_of

LOADINGS = ("memory", "stream")  # decoded once, into memory; or each image whenever it is needed


class Store(Protocol):
    """Encoded images that lie somewhere, by their number."""

    @property
    def listing(self) -> tuple[tuple[str, int], ...]:
        """(name, bytes) of the files they lie in: what tells one set from another."""
        ...

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[Path | bytes]:
        """The encoded images, or the files that hold them. Damaged: one cannot be read."""
        ...

    def name(self, number: int) -> str:
        """What an error calls an image."""
        ...


@dataclass(frozen=True, eq=False)
class Files:
    """A `Store` of files below a folder. names_N: their paths in it, encoded by the file
    system's rules; an array, since a million Path objects fill a gigabyte."""

    root: str
    names_N: np.ndarray
    bytes_N: np.ndarray

    @staticmethod
    def of(root: Path, files: Sequence[Path]) -> Files:
        """These files, all below root."""
        skip = len(os.fsencode(root / "x")) - 1
        names = [os.fsencode(file)[skip:] for file in files]
        sizes = [f.stat().st_size for f in progress(files, len(files), "files")]
        return Files(str(root), np.array(names, np.bytes_), np.array(sizes, np.int64))

    @property
    def listing(self) -> tuple[tuple[str, int], ...]:
        return tuple(
            (os.fsdecode(name), size)
            for name, size in zip(self.names_N.tolist(), self.bytes_N.tolist(), strict=True)
        )

    def __len__(self) -> int:
        return len(self.names_N)

    def read(self, numbers: Sequence[int]) -> list[Path | bytes]:
        return [self._path(number) for number in numbers]

    def name(self, number: int) -> str:
        return str(self._path(number))

    def _path(self, number: int) -> Path:
        return Path(self.root, os.fsdecode(bytes(self.names_N[number])))


@dataclass(frozen=True, eq=False)
class LazySplit:
    """What a `Split` is, without its pixels: they are decoded and fitted when they are asked for.

    rows_N: int64 [N], which images of the store these are; labels_N: int32 [N]. image_size, fit and
    channels are those of `images.decode`. view: (side, crop): the centre crop x crop pixels of
    each image rescaled to smallest side `side`, as `centre_view` has them; None: all of it.
    cache_dir: where pixel statistics are kept, which take long; None: nowhere. boxes_N4: as a
    `Split` has them. An image that cannot be read or decoded raises UserError, which names it, when
    it is met.
    """

    store: Store
    rows_N: np.ndarray
    labels_N: np.ndarray
    image_size: int
    fit: str
    channels: int
    view: tuple[int, int] | None = None
    cache_dir: str | None = None
    boxes_N4: np.ndarray | None = None

    streamed: ClassVar[Literal[True]] = True
    resident: ClassVar = (None, None, None)  # nothing lies on a device: batches bring it

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def one_size(self) -> bool:
        """Whether all images have one size, so that they can be stacked."""
        return self.fit != "whole" or self.view is not None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image; TypeError if they have many sizes."""
        if not self.one_size:
            raise TypeError("images of many sizes have no one shape")
        side = self.view[1] if self.view else self.image_size
        return side, side, self.channels

    def take(self, rows_M: np.ndarray) -> LazySplit:
        """The examples at rows_M (indices or a mask)."""
        rows_N, boxes_M4 = self.rows_N[rows_M], rows_of(self.boxes_N4, rows_M)
        return replace(self, rows_N=rows_N, labels_N=self.labels_N[rows_M], boxes_N4=boxes_M4)

    @no_skipping()
    def encoded(self, rows: Rows) -> list[tuple[Path | bytes, str]]:
        """(encoded image or its file, its name in errors) of these rows, read together."""
        numbers = self.rows_N[rows].tolist()
        return list(zip(self.store.read(numbers), map(self.store.name, numbers), strict=True))

    def image(self, row: int) -> np.ndarray:
        """One image: uint8 [height, width, C]."""
        return self.decoded(*self.encoded([row])[0])

    def images(self, rows: Rows) -> np.ndarray:
        """The images at these rows: uint8 [M, H, W, C]; TypeError if they have many sizes."""
        if not self.one_size:
            raise TypeError("images of many sizes cannot be stacked")
        # Threads: Pillow releases the interpreter lock while it decodes and scales.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                sources, names = zip(*self.encoded(rows), strict=True)
                return np.stack(list(pool.map(self.decoded, sources, names)))
            finally:
                pool.shutdown(cancel_futures=True)

    @no_skipping()
    def size(self, row: int) -> tuple[int, int]:
        """(height, width) of `image(row)`; only the head of the image is decoded."""
        if self.one_size:
            height, width, _ = self.image_shape
            return height, width
        return fitted_size(*self.encoded([row])[0], image_size=self.image_size)

    @no_skipping()
    def decoded(self, source: Path | bytes, name: str) -> np.ndarray:
        """An entry of `encoded` as `image` has it."""
        x_HWC = decode(
            source, name, image_size=self.image_size, fit=self.fit, channels=self.channels
        )
        if self.view is None:
            return x_HWC
        side, crop = self.view
        return np.ascontiguousarray(centre_crop(rescale(x_HWC, side), crop))

    def centred(self, side: int, crop: int) -> LazySplit:
        """The centres of all images, as `Split.centred` has them, still encoded."""
        return replace(self, view=(side, crop), boxes_N4=centre_boxes(self, side, crop))

    def feed(self, sha) -> None:
        """Add to a hash what decides these pixels: names and sizes of files, rows, labels, fit; and
        the boxes.

        No dates: a copy of the files is the same set.
        """
        sha.update(repr(self.store.listing).encode())
        sha.update(repr((self.image_size, self.fit, self.channels, self.view)).encode())
        # '<': the same bytes on every machine.
        sha.update(np.ascontiguousarray(self.rows_N, "<i8").tobytes())
        sha.update(np.ascontiguousarray(self.labels_N, "<i4").tobytes())
        feed_boxes(sha, self.boxes_N4)


AnySplit = Split | LazySplit


@lru_cache(maxsize=4)
def centre_view(split: AnySplit, side: int, crop: int) -> AnySplit:
    """The centres of all images rescaled to smallest side `side`: uint8 [N, crop, crop, C].

    Of a streamed split it is a streamed one.
    """
    return split.centred(side, crop)
