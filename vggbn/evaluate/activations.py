"""What the hidden layers of a net take and make, seen through the taps of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from vggbn.data.pixels.augment import standardise
from vggbn.machine import compiling
from vggbn.models import MODELS


def activations(fixed, params, stats, images_NHWC, mean_C, std, *, train=False) -> Mapping:
    """{(layer, what): float array [N, ..., units]} of uint8 images, in the order of the layers.

    what is "u", "sum" or "input" (`Model`). train: normalise by these images' own statistics.
    """
    heard = _heard(fixed.model, fixed.net, train)(params, stats, images_NHWC, mean_C, std)
    return {(layer, what): np.asarray(heard[i, layer, what]) for i, layer, what in sorted(heard)}


@lru_cache
def _heard(model: str, net, train: bool) -> Callable:
    @compiling.jit
    def heard(params, stats, images_NHWC, mean_C, std):
        found = {}  # numbered: a jitted function returns a dict sorted by its keys
        MODELS[model](net).apply(
            params,
            stats,
            standardise(images_NHWC, mean_C, std),
            train=train,
            tap=lambda layer, what, x: found.update({(len(found), layer, what): x}),
        )
        return found

    return heard
