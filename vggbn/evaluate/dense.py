"""Dense evaluation (VGG 3.2): the net slid over whole images, its class scores averaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.pixels.scale import rescale, rescaled_size
from vggbn.errors import UserError, unknown
from vggbn.evaluate.shared import CROPS, prepared, refuse_small_side, standardised_views
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, build

AVERAGES = ("scores", "posteriors")


def dense(trained: Trained, split: AnySplit, *, side, mirrored, average="scores") -> np.ndarray:
    """Posteriors p_VNK, float32, of whole images rescaled to smallest side `side`.

    The views V are the image and, where `mirrored`,
    its mirror image. average: what is averaged over the map before it is a posterior, the class
    scores (logits), or the posteriors of its cells.

    The paper has "the class score map … spatially averaged" to get the scores of an image, and
    averages "soft-max class posteriors" over flips, scales and nets. It does not say whether the
    map has passed the softmax; scores, its own word, is the default.

    Differs: the longer side is cut at the centre to a multiple of the net's stride, never below
    `side`: a cell sees those pixels in part only, and images share a few shapes.
    """
    net = trained.net
    if build(net).score_map is None:
        raise UserError(f"{net.model} cannot be slid over larger images: evaluate it on crops.")
    if average not in AVERAGES:
        raise unknown("average", average, AVERAGES)
    refuse_small_side(net, side)
    step, views = stride(net), 1 + mirrored
    posteriors = _posteriors(net, mirrored, average)
    p_VNK = np.empty((views, len(split), net.classes), np.float32)
    for shape, rows in buckets(split, side, step).items():
        size = batch_size(len(rows), largest_batch(net, shape, views))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        image = lambda row, shape=shape: cut(rescale(split.image(row), side), shape)  # noqa: E731
        for batch, images_NHWC in prepared(batches, image, size):
            found = posteriors(trained.variables, images_NHWC, trained.mean_C, trained.std)
            p_VNK[:, batch] = np.asarray(found)[:, : len(batch)]
    return p_VNK


@lru_cache
def stride(net: Net) -> int:
    """Pixels from one cell of the net's score map to the next."""
    height, width, channels = net.image
    model = build(net)
    variables = jax.eval_shape(lambda key: model.init(key, "glorot"), jax.random.key(0))
    more = 256
    x_NHWC = jax.ShapeDtypeStruct((1, height, width + more, channels), jnp.float32)
    return more // (jax.eval_shape(model.score_map, variables, x_NHWC).shape[2] - 1)  # pyright: ignore


def buckets(split: AnySplit, side: int, step: int) -> dict[tuple[int, int], list[int]]:
    """{(height, width) of the evaluated image: the rows of its images, in order}."""
    found: dict[tuple[int, int], list[int]] = {}
    for row in range(len(split)):
        size = rescaled_size(*split.size(row), side)
        height, width = (max(side, length // step * step) for length in size)
        found.setdefault((height, width), []).append(row)
    return found


def cut(x_HWC: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The central part of that (height, width); an odd remainder is cut at the end."""
    top, left = ((n - m) // 2 for n, m in zip(x_HWC.shape, shape, strict=False))
    return x_HWC[top : top + shape[0], left : left + shape[1]]


def largest_batch(net: Net, shape: tuple[int, int], views: int) -> int:
    """The largest power of two of such images with the pixels of at most CROPS crops, or 1."""
    pixels = CROPS * net.image[0] * net.image[1]
    return 1 << (max(1, pixels // (views * shape[0] * shape[1])).bit_length() - 1)


def batch_size(n: int, largest: int) -> int:
    """A power of two up to `largest`: the one by which n images cost least, masked rows included.

    A call counts as much as one image. Of equal ones the larger.
    """
    sizes = [1 << i for i in range(largest.bit_length())]
    return min(reversed(sizes), key=lambda size: -(-n // size) * (size + 1))


@lru_cache
def _posteriors(net: Net, mirrored: bool, average: str) -> Callable:
    @compiling.jit
    def posteriors(variables, images_NHWC, mean_C, std):
        x_NHWC = standardised_views(images_NHWC, mean_C, std, mirrored=mirrored)
        map_NhwK = build(net).score_map(variables, x_NHWC)  # pyright: ignore
        if average == "scores":
            p_NK = jax.nn.softmax(map_NhwK.mean((1, 2)))
        else:
            p_NK = jax.nn.softmax(map_NhwK).mean((1, 2))
        return p_NK.reshape(1 + mirrored, -1, net.classes)

    return posteriors
