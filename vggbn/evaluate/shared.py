"""What the protocols of many views share: rescaled images, made by threads while the net computes,
and the mirror image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax.numpy as jnp
import numpy as np

from vggbn.data.pixels.augment import standardise
from vggbn.errors import UserError
from vggbn.models import Net

# A batch has at most as many pixels, in all of its views, as so many of the net's crops.
CROPS = 250
R = TypeVar("R", bound=Sequence[int])  # the rows of a batch
THREADS = min(8, os.cpu_count() or 1)


def refuse_small_side(net: Net, side: int) -> None:
    """No crop lies in an image whose smallest side is below the net's."""
    crop = max(net.image[:2])
    if side < crop:
        raise UserError(
            f"side={side} is smaller than the net's crop of {crop} pixels: "
            f"evaluate at a side of at least {crop}."
        )


def standardised_views(images_NHWC, mean_C, std, *, mirrored: bool):
    """uint8 [N, H, W, C] -> float32 [V·N, H, W, C]: all images, then, if so, all mirror images."""
    x_NHWC = standardise(images_NHWC, mean_C, std)
    return jnp.concatenate([x_NHWC, x_NHWC[:, :, ::-1]]) if mirrored else x_NHWC


def prepared(
    batches: Iterable[R], prepare: Callable[[int], np.ndarray], size: int
) -> Iterator[tuple[R, np.ndarray]]:
    """(rows, what `prepare` makes of each, stacked) of every batch: `size` entries, the last ones 0
    where the batch has fewer rows. The next batch is prepared while the caller has this one.
    """

    def submit(rows):
        out = []
        share = -(-len(rows) // (2 * THREADS))  # a thread's turn: some images, not one
        for start in range(0, len(rows), share):
            part = rows[start : start + share]
            out.append(pool.submit(lambda part=part: [prepare(row) for row in part]))
        return rows, out

    def stacked(rows, parts):
        arrays = [array for part in parts for array in part.result()]
        found = np.zeros((size, *arrays[0].shape), arrays[0].dtype)
        np.stack(arrays, out=found[: len(arrays)])
        return rows, found

    with ThreadPoolExecutor(THREADS) as pool:
        ahead = None
        for rows in batches:
            behind, ahead = ahead, submit(rows)
            if behind:
                yield stacked(*behind)
        if ahead:
            yield stacked(*ahead)
