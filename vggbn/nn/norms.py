"""The norms by name: NORMS. To add one is one entry; tests/nn/test_norms.py has their contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vggbn.nn.batch_norm import batch_norm, batch_norm_init, fixed_batch_norm, layer_norm
from vggbn.nn.detached import batch_renorm, detached_batch_norm, moving_batch_norm
from vggbn.nn.noisy import noisy_batch_norm
from vggbn.nn.whitening import newton_inverse_root, whiten, whiten_init


class Norm(NamedTuple):
    """`init(channels) -> (params, stats)` and `apply(x, params, stats, *, train, ...)`.

    draws: apply also takes `key`, of what it draws in training (None: nothing is drawn).
    """

    init: Callable
    apply: Callable
    draws: bool = False


BLOCK = 16  # channels that "whiten_groups" whitens together

NORMS: dict[str, Norm] = {
    "batch": Norm(batch_norm_init, batch_norm),
    "batch_fixed": Norm(batch_norm_init, fixed_batch_norm),
    "batch_detached": Norm(batch_norm_init, detached_batch_norm),
    "batch_moving": Norm(batch_norm_init, moving_batch_norm),
    "batch_renorm": Norm(batch_norm_init, batch_renorm),
    "batch_noisy": Norm(batch_norm_init, noisy_batch_norm, draws=True),
    "whiten": Norm(whiten_init, whiten),
    "whiten_groups": Norm(partial(whiten_init, block=BLOCK), partial(whiten, block=BLOCK)),
    "whiten_iterative": Norm(whiten_init, partial(whiten, inverse_root=newton_inverse_root)),
    "layer": Norm(lambda channels: (batch_norm_init(channels)[0], {}), layer_norm),
    "none": Norm(lambda channels: ({}, {}), lambda x, params, stats, *, train, **_: (x, stats)),
}
