"""What the hidden layers of a net take and make, seen through the taps of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from vggbn.data.pixels.augment import standardise
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, build


def activations(trained: Trained, images_NHWC, *, train=False) -> Mapping:
    """{(layer, what): float array [N, ..., units]} of uint8 images, in the order of the layers.

    what is "u", "sum" or "input" (`Model`). train: normalise by these images' own statistics.
    """
    hear = _heard(trained.net, train)
    heard = hear(trained.variables, images_NHWC, trained.mean_C, trained.std)
    return {(layer, what): np.asarray(heard[i, layer, what]) for i, layer, what in sorted(heard)}


@lru_cache
def _heard(net: Net, train: bool) -> Callable:
    @compiling.jit
    def heard(variables, images_NHWC, mean_C, std):
        found = {}  # numbered: a jitted function returns a dict sorted by its keys
        build(net).apply(
            variables,
            standardise(images_NHWC, mean_C, std),
            train=train,
            tap=lambda layer, what, x: found.update({(len(found), layer, what): x}),
        )
        return found

    return heard
