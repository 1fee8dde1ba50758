"""Training batches of images that do not fit into memory, each a pure function of (seed, step).

Built on grain: its threads and worker processes decode ahead, and since every batch is a function
of its step, neither their number nor where a run was resumed changes a pixel.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggbn.data.batches import batch_indices
from vggbn.data.lazy import LazySplit
from vggbn.data.permutation import uniform
from vggbn.data.pixels.decode import as_array, no_skipping, open_image
from vggbn.data.pixels.scale import REACH, rescaled_size
from vggbn.errors import UserError

_KEY = 11  # of the draws of scale and place
_AHEAD = 2  # batches that lie ready, besides those in work


class Batches(Iterator):
    """An iterator over (images uint8 [B, H, W, C], labels int32 [B]) and a context manager.

    Closing it ends its threads and processes; it may be closed early and more than once.
    """

    def __init__(self, iterator) -> None:
        self._iterator = iterator

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        return next(self._iterator)

    def close(self) -> None:
        """No batch is asked for any more."""
        self._iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def training_batches(
    split: LazySplit,
    *,
    seed: int,
    batch: int,
    shuffle: str,
    first: int,
    stop: int,
    crop: int,
    scales: tuple[int, int] | None = None,
    workers: int = 0,
    threads: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Batches:
    """The batches of steps first to stop - 1: uint8 [batch / P, crop, crop, C], int32 [batch / P].

    seed, batch, shuffle: which images make the batch of a step (`batch_indices`).
    scales: (scale_min, scale_max), for fit="whole": each image is rescaled to a smallest side S,
        uniform between them and both included, and cropped at random (VGG 3.1), both drawn from
        (seed, step, place in the batch). None: images as they were fitted, `crop` their side.
    workers: processes that decode; 0: threads of this one. threads: of each process; 0: so many
        that all cores are busy. Neither changes what comes out. A daemonic process, which may have
        no children, takes threads for workers.
    part: (p, P): of P equal parts of each batch, in order, the p-th.
    Raises UserError here for what does not fit, and in the iteration for an image that cannot be
    decoded, named.
    """
    _check(split, batch, crop, scales, part)
    batch_indices(seed, 0, n=len(split), batch=batch, shuffle=shuffle)  # refuses what cannot be
    steps = _Steps(split, seed, batch, shuffle, first, stop, crop, scales, part)
    if multiprocessing.current_process().daemon:
        workers = 0
    return Batches(_pipeline(steps, workers, threads or _share_of_cores(workers)))


def _check(split: LazySplit, batch: int, crop: int, scales, part: tuple[int, int]) -> None:
    if batch % part[1]:
        raise UserError(
            f"A batch of {batch} cannot be shared evenly by {part[1]} processes: choose another."
        )
    if scales is None and (not split.one_size or crop != split.image_size):
        raise ValueError("whole images need scales; others are not cropped")
    if scales is not None and (split.one_size or not crop <= scales[0] <= scales[1]):
        raise ValueError('scales are for fit="whole": crop <= scale_min <= scale_max')


def _share_of_cores(workers: int) -> int:
    cores = os.cpu_count() or 1
    return max(1, cores // max(1, workers))


def _pipeline(steps: _Steps, workers: int, threads: int):
    """grain's iterator over the steps, in order."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads one when it starts workers
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + _AHEAD)
    batches = grain.MapDataset.source(steps).to_iter_dataset(options)
    if workers:
        each = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_AHEAD)
        batches = batches.mp_prefetch(each, worker_init_fn=_start_worker)
    return iter(batches)


def _start_worker(number: int, count: int) -> None:
    """Ctrl-C is the parent's affair; a worker whose parent was killed ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, eq=False)
class _Steps:
    """grain's random-access source; item t is this process's part of step first + t's batch."""

    split: LazySplit
    seed: int
    batch: int
    shuffle: str
    first: int
    stop: int
    crop: int
    scales: tuple[int, int] | None
    part: tuple[int, int]

    def __len__(self) -> int:
        return self.stop - self.first

    @no_skipping()
    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        split, step = self.split, self.first + int(index)
        share = self.batch // self.part[1]
        places = range(self.part[0] * share, (self.part[0] + 1) * share)
        n, kind = len(split), self.shuffle
        rows_B = batch_indices(self.seed, step, n=n, batch=self.batch, shuffle=kind)[places]
        images_BHWC = np.empty((share, self.crop, self.crop, split.channels), np.uint8)
        for image, place, source in zip(images_BHWC, places, split.encoded(rows_B), strict=True):
            image[:] = self._image(step, place, *source)
        return images_BHWC, split.labels_N[rows_B]

    def _image(self, step: int, place: int, source: Path | bytes, name: str) -> np.ndarray:
        if self.scales is None:
            return self.split.decoded(source, name)
        draw_3 = _draws(self.seed, step, self.batch)[place]
        low, high = self.scales
        side = low + int(draw_3[0] * (high - low + 1))
        channels = self.split.channels
        return scale_crop(
            source, name, side=side, place_2=draw_3[1:], crop=self.crop, channels=channels
        )


@lru_cache(maxsize=64)
def _draws(seed: int, step: int, batch: int) -> np.ndarray:
    """What decides scale, row and column of each image of a batch: [batch, 3], in [0, 1)."""
    return uniform(3 * batch, _KEY, seed, step).reshape(batch, 3)


def scale_crop(source: Path | bytes, name: str, *, side: int, place_2, crop: int, channels: int):
    """crop x crop pixels of an encoded image rescaled to smallest side `side`: uint8, C channels.

    place_2: in [0, 1), of the places that the crop's upper left corner can take, rows and columns.
    Only the crop's pixels are computed: those of the whole image rescaled by Pillow's antialiased
    bicubic filter and then cropped. One value in a thousand is off by one, since Pillow takes the
    place of a box as float32.

    Differs: of an image in memory a step rescales the stored copy, whose smallest side is
    source_side and whose ends beyond 16:9 were cut off; this is the image itself, as in VGG.
    """
    from PIL import Image

    image, extent = open_image(source, name, channels=channels, side=side)
    width, height = extent or image.size
    rescaled_height, rescaled_width = rescaled_size(height, width, side)
    place_row, place_column = place_2
    rows = _span(place_row, crop, rescaled_height, height)
    columns = _span(place_column, crop, rescaled_width, width)
    # Cut first: Pillow chooses the order of its passes, and with it the rounding, by the shape of
    # the image, not of the box.
    image = image.crop((columns.first, rows.first, columns.last, rows.last))
    box = (columns.start, rows.start, columns.stop, rows.stop)
    return as_array(image.resize((crop, crop), Image.Resampling.BICUBIC, box=box))


class _Span(NamedTuple):
    """Where a crop lies in its image along one axis: the pixels first to last - 1 hold all that its
    filter reaches, and in them it lies from start to stop."""

    first: int
    last: int
    start: float
    stop: float


def _span(place: float, crop: int, rescaled: int, length: float) -> _Span:
    """rescaled, length: of the image's side, after and before."""
    ratio = length / rescaled
    corner = int(place * (rescaled - crop + 1))
    start, stop = corner * ratio, (corner + crop) * ratio
    reach = REACH * max(ratio, 1) + 1
    first, last = max(0, int(start - reach)), min(math.ceil(length), math.ceil(stop + reach))
    return _Span(first, last, start - first, stop - first)
