"""Single view: every example once, in fixed-size batches, as sums that are divided once (D6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit, LazySplit
from vggbn.data.pixels.augment import standardise
from vggbn.evaluate.shared import prepared
from vggbn.machine import compiling, mesh
from vggbn.models import MODELS
from vggbn.nn.layers import cross_entropy

# One compiled shape; the last batch is padded and masked. On a CPU more images of 32×32
# leave the caches, and with fewer small ones the calls themselves cost too much.
BATCH = 250


def evaluate(fixed, params, stats, split: AnySplit, mean_C, std) -> dict[str, float]:
    """{accuracy, top5, loss, correct, n} over the whole split. Loss is the mean cross-entropy.

    fixed is the run's Static (its model and net); mean_C and std are those of its training set.
    """
    sums, net = np.zeros(4), mesh.replicate((params, stats))
    for batch in padded_batches(split):
        shared = [mesh.share_out(array, axis=0) for array in batch]
        sums += np.asarray(_sums(fixed.model, fixed.net)(*net, *shared, mean_C, std), np.float64)
    correct, top5, loss, n = map(float, sums)
    assert n == len(split), f"evaluated {n:.0f} of {len(split)} examples"
    return {
        "accuracy": correct / n,
        "top5": top5 / n,
        "loss": loss / n,
        "correct": int(correct),
        "n": int(n),
    }


def predict(fixed, params, stats, split: AnySplit, mean_C, std) -> np.ndarray:
    """Softmax probabilities [len(split), classes], float32, in the split's order."""
    probability, net = _probabilities(fixed.model, fixed.net), mesh.replicate((params, stats))
    parts = [
        np.asarray(probability(*net, mesh.share_out(images_NHWC, axis=0), mean_C, std))[mask_N]
        for images_NHWC, _, mask_N in padded_batches(split)
    ]
    return np.concatenate(parts)


def padded_batches(split: AnySplit) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(images, labels, mask) of so many rows each; rows outside the mask are padding."""
    n, size = len(split), _size()
    batches = [range(start, min(start + size, n)) for start in range(0, n, size)]
    for rows, images_NHWC in _padded_images(split, batches, size):
        labels_N = np.pad(split.labels_N[rows.start : rows.stop], (0, size - len(rows)))
        yield images_NHWC, labels_N, np.arange(size) < len(rows)


def _size() -> int:
    """BATCH, or the next number that the devices can share out evenly."""
    return -(-BATCH // mesh.devices()) * mesh.devices()


def _padded_images(
    split: AnySplit, batches: list[range], size: int
) -> Iterator[tuple[range, np.ndarray]]:
    """(rows, their images and zeros); streamed ones are decoded while the net has the last ones."""
    if isinstance(split, LazySplit):
        yield from prepared(batches, split.image, size)
        return
    for rows in batches:
        images_NHWC = split.images(slice(rows.start, rows.stop))
        yield rows, np.pad(images_NHWC, ((0, size - len(rows)), (0, 0), (0, 0), (0, 0)))


def _logits(model, net, params, stats, images_NHWC, mean_C, std):
    x_NHWC = standardise(images_NHWC, mean_C, std)
    return MODELS[model](net).apply(params, stats, x_NHWC, train=False)[0]


@lru_cache
def _sums(model: str, net) -> Callable:
    @compiling.jit
    def sums(params, stats, images_NHWC, labels_N, mask_N, mean_C, std):
        logits_NK = _logits(model, net, params, stats, images_NHWC, mean_C, std)
        own_N = jnp.take_along_axis(logits_NK, labels_N[:, None], axis=1)
        # Ties count against the net, and NaN logits are always wrong: a constant net is not right.
        rank_N = (~(logits_NK < own_N)).sum(axis=1) - 1
        rank_N = jnp.where(jnp.isnan(own_N[:, 0]), logits_NK.shape[1] + 5, rank_N)
        loss_N = cross_entropy(logits_NK, labels_N)
        per_example = (rank_N < 1, rank_N < 5, loss_N, jnp.ones_like(loss_N))
        found = jnp.stack([jnp.where(mask_N, value, 0.0).sum() for value in per_example])
        return mesh.keep_replicated(found)

    return sums


@lru_cache
def _probabilities(model: str, net) -> Callable:
    @compiling.jit
    def probabilities(params, stats, images_NHWC, mean_C, std):
        logits_NK = _logits(model, net, params, stats, images_NHWC, mean_C, std)
        return mesh.keep_replicated(jax.nn.softmax(logits_NK))

    return probabilities
