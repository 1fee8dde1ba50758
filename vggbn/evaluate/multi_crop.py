"""Multi-crop evaluation (VGG 3.2): a grid of crops at every scale; and the central crop alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.pixels.scale import centre_crop, grid_corners, rescale
from vggbn.evaluate.shared import CROPS, prepared, refuse_small_side, standardised_views
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, build


def multi_crop(trained: Trained, split: AnySplit, *, side, mirrored, grid=5) -> np.ndarray:
    """Posteriors p_VNK, float32, averaged over grid x grid crops of the net's size.

    They are spread evenly over each image of `split` rescaled to smallest side `side`; grid=1 is
    the central crop. The views V are the crops and, where `mirrored`, their mirror images: with
    both, 50 crops a scale, and 150 at the paper's three scales.
    """
    net = trained.net
    refuse_small_side(net, side)
    crop = max(net.image[:2])

    def crops(row: int) -> np.ndarray:
        x_HWC = rescale(split.image(row), side)
        if grid == 1:
            return centre_crop(x_HWC, crop)[None]
        height, width, _ = x_HWC.shape
        corners = grid_corners(height, width, crop, grid=grid)
        return np.stack([x_HWC[top : top + crop, left : left + crop] for top, left in corners])

    views = 1 + mirrored
    size = max(1, CROPS // (views * grid * grid))  # of images: one compiled shape
    rows = list(range(len(split)))
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    posteriors = _posteriors(net, mirrored)
    p_VNK = np.empty((views, len(split), net.classes), np.float32)
    for batch, images_NGHWC in prepared(batches, crops, size):
        found = posteriors(trained.variables, images_NGHWC, trained.mean_C, trained.std)
        p_VNK[:, batch] = np.asarray(found)[:, : len(batch)]
    return p_VNK


def centre(trained: Trained, split: AnySplit, *, side, mirrored) -> np.ndarray:
    """Posteriors p_VNK of the central crop of images rescaled to smallest side `side`."""
    return multi_crop(trained, split, side=side, mirrored=mirrored, grid=1)


@lru_cache
def _posteriors(net: Net, mirrored: bool) -> Callable:
    @compiling.jit
    def posteriors(variables, images_NGHWC, mean_C, std):
        crops = images_NGHWC.shape[1]
        images_MHWC = images_NGHWC.reshape(-1, *images_NGHWC.shape[2:])
        x_MHWC = standardised_views(images_MHWC, mean_C, std, mirrored=mirrored)
        logits_MK, _ = build(net).apply(variables, x_MHWC, train=False)
        p_MK = jax.nn.softmax(logits_MK)
        return p_MK.reshape(1 + mirrored, -1, crops, net.classes).mean(2)

    return posteriors
