"""Split: images in memory and their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vggbn.data.pixels.scale import centre_crop, rescale

Rows = Sequence[int] | np.ndarray | slice


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    images_NHWC: uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB).
    labels_N: int32 [N], an index into `Dataset.classes`.
    sizes_N2: int32 [N, 2], the (height, width) of images of many sizes: each lies in the upper left
        of its H x W frame, and the rest of the frame is 0. None: every image fills its frame.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    sizes_N2: np.ndarray | None = None

    streamed: ClassVar[Literal[False]] = False  # images are held, not decoded when asked for

    def __post_init__(self) -> None:
        if self.images_NHWC.dtype != np.uint8 or self.images_NHWC.ndim != 4:
            raise TypeError("images_NHWC must be uint8 with four axes")
        if self.labels_N.dtype != np.int32 or self.labels_N.shape != self.images_NHWC.shape[:1]:
            raise TypeError("labels_N must be int32, one for each image")
        sizes = self.sizes_N2
        if sizes is not None and (sizes.dtype != np.int32 or sizes.shape != (len(self), 2)):
            raise TypeError("sizes_N2 must be int32, a pair for each image")

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.images_NHWC.shape[3]

    @property
    def one_size(self) -> bool:
        """Whether every image fills its frame."""
        return self.sizes_N2 is None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of what `images` stacks."""
        return self.images_NHWC.shape[1:]

    @property
    def resident(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What can lie on a device for all of training: images, labels and sizes."""
        return self.images_NHWC, self.labels_N, self.sizes_N2

    def take(self, rows_M: np.ndarray) -> Split:
        """The examples at rows_M (indices or a mask), copied."""
        sizes_M2 = None if self.sizes_N2 is None else self.sizes_N2[rows_M]
        return Split(self.images_NHWC[rows_M], self.labels_N[rows_M], sizes_M2)

    def image(self, row: int) -> np.ndarray:
        """One image without its frame: uint8 [height, width, C], a view."""
        x_HWC = self.images_NHWC[row]
        return (
            x_HWC
            if self.sizes_N2 is None
            else x_HWC[: self.sizes_N2[row, 0], : self.sizes_N2[row, 1]]
        )

    def images(self, rows: Rows) -> np.ndarray:
        """The images at these rows in their frames: uint8 [M, H, W, C]; of a slice a view."""
        return self.images_NHWC[rows]

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) of `image(row)`."""
        height, width, _ = self.image(row).shape
        return height, width

    def centred(self, side: int, crop: int) -> Split:
        """The centres, crop x crop pixels, of all images rescaled to smallest side `side`."""
        crops = [centre_crop(rescale(self.image(row), side), crop) for row in range(len(self))]
        return Split(np.stack(crops), self.labels_N)

    def feed(self, sha) -> None:
        """Add shape, labels, sizes and pixels to a hash."""
        sha.update(repr(self.images_NHWC.shape).encode())
        # '<i4': the same bytes on every machine.
        sha.update(np.ascontiguousarray(self.labels_N, "<i4").tobytes())
        if self.sizes_N2 is not None:
            sha.update(np.ascontiguousarray(self.sizes_N2, "<i4").tobytes())
        sha.update(np.ascontiguousarray(self.images_NHWC).data)


def concatenate(splits: Iterable[Split]) -> Split:
    """All examples of several splits, in order; all have one frame, or all have sizes."""
    splits = tuple(splits)
    labels_N = np.concatenate([s.labels_N for s in splits])
    sizes = [s.sizes_N2 for s in splits if s.sizes_N2 is not None]
    if not sizes:
        return Split(np.concatenate([s.images_NHWC for s in splits]), labels_N)
    frame = np.max([s.images_NHWC.shape[1:3] for s in splits], axis=0)
    images_NHWC = np.zeros((len(labels_N), *frame, splits[0].images_NHWC.shape[3]), np.uint8)
    start = 0
    for split in splits:
        n, height, width, _ = split.images_NHWC.shape
        images_NHWC[start : start + n, :height, :width] = split.images_NHWC
        start += n
    return Split(images_NHWC, labels_N, np.concatenate(sizes))


def digest_of(*splits) -> str:
    """The first 16 hex digits of a sha256 over what each split, of any kind, says of itself
    (`feed`)."""
    sha = hashlib.sha256()
    for split in splits:
        split.feed(sha)
    return sha.hexdigest()[:16]
