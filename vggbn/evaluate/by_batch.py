"""A net with BN tested by the test batches' own statistics, which BN 3.1 advises against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.permutation import permutation
from vggbn.errors import UserError
from vggbn.evaluate.shared import standardised_views
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, build

_KEY = 7  # of the permutation that deals the test images


def by_batch(trained: Trained, split: AnySplit, *, side, mirrored) -> np.ndarray:
    """Posteriors p_VNK, float32, each batch of `side` images normalised by itself.

    The images are dealt into batches at random, always in the same way; the last batch is filled
    up with images of the first ones. The views V are the images and, where `mirrored`, their
    mirror images, normalised apart.
    """
    if not split.one_size:
        raise UserError("images of many scales have no batches: test them by crops or densely.")
    if not 1 <= side <= len(split):
        raise UserError(f"a batch of {side} does not fit {len(split)} test images.")
    posteriors = _posteriors(replace(trained.net, bn_groups=1), mirrored)
    order_N = permutation(len(split), _KEY)
    p_VNK = np.empty((1 + mirrored, len(split), trained.net.classes), np.float32)
    for start in range(0, len(split), side):
        rows = np.take(order_N, np.arange(start, start + side), mode="wrap")
        images_NHWC = split.images(rows)
        found = posteriors(trained.variables, images_NHWC, trained.mean_C, trained.std)
        found = np.asarray(found)
        new = len(order_N[start : start + side])
        p_VNK[:, rows[:new]] = found[:, :new]
    return p_VNK


@lru_cache
def _posteriors(net: Net, mirrored: bool) -> Callable:
    @compiling.jit
    def posteriors(variables, images_NHWC, mean_C, std):
        x_NHWC = standardised_views(images_NHWC, mean_C, std, mirrored=mirrored)
        batches = jnp.split(x_NHWC, 1 + mirrored)
        logits = [build(net).apply(variables, x, train=True)[0] for x in batches]
        return jax.nn.softmax(jnp.stack(logits))

    return posteriors
