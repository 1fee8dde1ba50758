"""Split: images in memory and their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vggbn.data.pixels.boxes import centre_box
from vggbn.data.pixels.scale import centre_crop, rescale

Rows = Sequence[int] | np.ndarray | slice


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    images_NHWC: uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB).
    labels_N: int32 [N], an index into `Dataset.classes`.
    sizes_N2: int32 [N, 2], the (height, width) of images of many sizes: each lies in the upper left
        of its H x W frame, and the rest of the frame is 0. None: every image fills its frame.
    boxes_N4: float32 [N, 4], where each image's object lies, (top, left, bottom, right) in pixels
        of `image(row)`, NaN where an image has no box (see `pixels.boxes`). None: a set without.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    sizes_N2: np.ndarray | None = None
    boxes_N4: np.ndarray | None = None

    streamed: ClassVar[Literal[False]] = False  # images are held, not decoded when asked for

    def __post_init__(self) -> None:
        if self.images_NHWC.dtype != np.uint8 or self.images_NHWC.ndim != 4:
            raise TypeError("images_NHWC must be uint8 with four axes")
        if self.labels_N.dtype != np.int32 or self.labels_N.shape != self.images_NHWC.shape[:1]:
            raise TypeError("labels_N must be int32, one for each image")
        sizes, boxes = self.sizes_N2, self.boxes_N4
        if sizes is not None and (sizes.dtype != np.int32 or sizes.shape != (len(self), 2)):
            raise TypeError("sizes_N2 must be int32, a pair for each image")
        if boxes is not None and (boxes.dtype != np.float32 or boxes.shape != (len(self), 4)):
            raise TypeError("boxes_N4 must be float32, four for each image")

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
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of what `images` stacks."""
        _, height, width, channels = self.images_NHWC.shape
        return height, width, channels

    @property
    def resident(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What can lie on a device for all of training: images, labels and sizes."""
        return self.images_NHWC, self.labels_N, self.sizes_N2

    def take(self, rows_M: np.ndarray) -> Split:
        """The examples at rows_M (indices or a mask), copied."""
        sizes_M2, boxes_M4 = rows_of(self.sizes_N2, rows_M), rows_of(self.boxes_N4, rows_M)
        return Split(self.images_NHWC[rows_M], self.labels_N[rows_M], sizes_M2, boxes_M4)

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
        boxes_N4 = centre_boxes(self, side, crop)
        return Split(np.stack(crops), self.labels_N, boxes_N4=boxes_N4)

    def feed(self, sha) -> None:
        """Add shape, labels, sizes, boxes and pixels to a hash."""
        sha.update(repr(self.images_NHWC.shape).encode())
        # '<i4': the same bytes on every machine.
        sha.update(np.ascontiguousarray(self.labels_N, "<i4").tobytes())
        if self.sizes_N2 is not None:
            sha.update(np.ascontiguousarray(self.sizes_N2, "<i4").tobytes())
        feed_boxes(sha, self.boxes_N4)
        sha.update(np.ascontiguousarray(self.images_NHWC).data)


def rows_of(array: np.ndarray | None, rows: Rows) -> np.ndarray | None:
    """These rows of an array that may be missing."""
    return None if array is None else array[rows]


def centre_boxes(split, side: int, crop: int) -> np.ndarray | None:
    """The boxes of a split, of any kind, in `split.centred(side, crop)`."""
    if split.boxes_N4 is None:
        return None
    boxes_N4 = split.boxes_N4.copy()
    for row in np.flatnonzero(~np.isnan(boxes_N4[:, 0])):
        boxes_N4[row] = centre_box(boxes_N4[row], split.size(row), side=side, crop=crop)
    return boxes_N4


def feed_boxes(sha, boxes_N4: np.ndarray | None) -> None:
    """Add boxes to a hash; without any, it stays what it is."""
    if boxes_N4 is not None:
        sha.update(b"boxes" + np.ascontiguousarray(boxes_N4, "<f4").tobytes())


def concatenate(splits: Iterable[Split]) -> Split:
    """All examples of several splits, in order; all have one frame, or all have sizes."""
    splits = tuple(splits)
    labels_N = np.concatenate([s.labels_N for s in splits])
    boxes_N4 = _all_boxes(splits)
    sizes = [s.sizes_N2 for s in splits if s.sizes_N2 is not None]
    if not sizes:
        images_NHWC = np.concatenate([s.images_NHWC for s in splits])
        return Split(images_NHWC, labels_N, boxes_N4=boxes_N4)
    frame = np.max([s.images_NHWC.shape[1:3] for s in splits], axis=0)
    images_NHWC = np.zeros((len(labels_N), *frame, splits[0].images_NHWC.shape[3]), np.uint8)
    start = 0
    for split in splits:
        n, height, width, _ = split.images_NHWC.shape
        images_NHWC[start : start + n, :height, :width] = split.images_NHWC
        start += n
    return Split(images_NHWC, labels_N, np.concatenate(sizes), boxes_N4)


def _all_boxes(splits: Sequence[Split]) -> np.ndarray | None:
    """One row an image, NaN for those of a split without boxes; None where no split has any."""
    if all(split.boxes_N4 is None for split in splits):
        return None
    none = np.float32(np.nan)
    return np.concatenate(
        [np.full((len(s), 4), none) if s.boxes_N4 is None else s.boxes_N4 for s in splits]
    )


def digest_of(*splits) -> str:
    """The first 16 hex digits of a sha256 over what each split, of any kind, says of itself
    (`feed`)."""
    sha = hashlib.sha256()
    for split in splits:
        split.feed(sha)
    return sha.hexdigest()[:16]
