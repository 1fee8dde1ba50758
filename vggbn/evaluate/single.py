"""Single view: every example once, in fixed-size batches, as sums that are divided once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.pixels.augment import standardise
from vggbn.evaluate.rank import finite_rank_N, rank_N
from vggbn.evaluate.shared import prepared
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling, mesh
from vggbn.models import Net, build
from vggbn.nn.layers import cross_entropy

# One compiled shape; the last batch is padded and masked. On a CPU more images of 32×32
# leave the caches, and with fewer small ones the calls themselves cost too much.
BATCH = 250


def evaluate(trained: Trained, split: AnySplit) -> dict[str, float]:
    """{accuracy, top5, loss, correct, n} over the whole split. Loss is the mean cross-entropy; what
    is right is what `rank_N` says of the logits.

    """
    sums, variables = np.zeros(4), mesh.replicate(trained.variables)
    for batch in padded_batches(split):
        shared = [mesh.share_out(array, axis=0) for array in batch]
        found = _sums(trained.net)(variables, *shared, trained.mean_C, trained.std)
        found = np.array(found, np.float64)
        if not np.isfinite(found[2]):  # the loss of an image whose softmax is not finite
            found[:2] = _ranked(trained, variables, *batch)
        sums += found
    correct, top5, loss, n = map(float, sums)
    assert n == len(split), f"evaluated {n:.0f} of {len(split)} examples"
    return {
        "accuracy": correct / n,
        "top5": top5 / n,
        "loss": loss / n,
        "correct": int(correct),
        "n": int(n),
    }


def _ranked(trained: Trained, variables, images_NHWC, labels_N, mask_N) -> tuple[int, int]:
    """How many images of a batch are right in top-1 and top-5, whatever their logits are."""
    shared = mesh.share_out(images_NHWC, axis=0)
    logits_NK, _ = _outputs(trained.net)(variables, shared, trained.mean_C, trained.std)
    ranks_N = rank_N(np.asarray(logits_NK)[mask_N], labels_N[mask_N])
    return int((ranks_N < 1).sum()), int((ranks_N < 5).sum())


def predict(trained: Trained, split: AnySplit) -> np.ndarray:
    """Softmax probabilities [len(split), classes], float32, in the split's order."""
    return outputs(trained, split).p_NK


class Outputs(NamedTuple):
    """What a net says of images: logits and their softmax, float32 [N, classes]."""

    logits_NK: np.ndarray
    p_NK: np.ndarray


def outputs(trained: Trained, split: AnySplit) -> Outputs:
    """The net's logits and posteriors of the whole split, in its order."""
    of_batch, variables = _outputs(trained.net), mesh.replicate(trained.variables)
    parts = []
    for images_NHWC, _, mask_N in padded_batches(split):
        shared = mesh.share_out(images_NHWC, axis=0)
        found = of_batch(variables, shared, trained.mean_C, trained.std)
        parts.append([np.asarray(array_NK)[mask_N] for array_NK in found])
    return Outputs(*map(np.concatenate, zip(*parts, strict=True)))


def padded_batches(split: AnySplit) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(images, labels, mask) of so many rows each; rows outside the mask are padding."""
    n, size = len(split), batch_size()
    batches = [range(start, min(start + size, n)) for start in range(0, n, size)]
    for rows, images_NHWC in _padded_images(split, batches, size):
        labels_N = np.pad(split.labels_N[rows.start : rows.stop], (0, size - len(rows)))
        yield images_NHWC, labels_N, np.arange(size) < len(rows)


def batch_size() -> int:
    """BATCH, or the next number that the devices can share out evenly."""
    return -(-BATCH // mesh.devices()) * mesh.devices()


def _padded_images(
    split: AnySplit, batches: list[range], size: int
) -> Iterator[tuple[range, np.ndarray]]:
    """(rows, their images and zeros); streamed ones are decoded while the net has the last ones."""
    if split.streamed:
        yield from prepared(batches, split.image, size)
        return
    for rows in batches:
        images_NHWC = split.images(slice(rows.start, rows.stop))
        yield rows, np.pad(images_NHWC, ((0, size - len(rows)), (0, 0), (0, 0), (0, 0)))


def _logits(net, variables, images_NHWC, mean_C, std):
    x_NHWC = standardise(images_NHWC, mean_C, std)
    return build(net).apply(variables, x_NHWC, train=False)[0]


def make_sums(net: Net) -> Callable:
    """sums(variables, images, labels, mask, mean_C, std) -> [right, in top-5, loss, images] of a
    batch, to be jitted."""

    def sums(variables, images_NHWC, labels_N, mask_N, mean_C, std):
        logits_NK = _logits(net, variables, images_NHWC, mean_C, std)
        ranks_N = finite_rank_N(logits_NK, labels_N)
        loss_N = cross_entropy(logits_NK, labels_N)
        per_example = (ranks_N < 1, ranks_N < 5, loss_N, jnp.ones_like(loss_N))
        found = jnp.stack([jnp.where(mask_N, value, 0.0).sum() for value in per_example])
        return mesh.keep_replicated(found)

    return sums


@lru_cache
def _sums(net: Net) -> Callable:
    return compiling.jit(make_sums(net))


@lru_cache
def _outputs(net: Net) -> Callable:
    @compiling.jit
    def both(variables, images_NHWC, mean_C, std):
        logits_NK = _logits(net, variables, images_NHWC, mean_C, std)
        return mesh.keep_replicated((logits_NK, jax.nn.softmax(logits_NK)))

    return both
