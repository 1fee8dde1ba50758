"""Boxes around objects, carried along while their images are fitted, rescaled and cropped.

A box is float32 [4]: top, left, bottom, right, in pixels from the upper left corner of its image.
The numbers lie between pixels: 0, 0, height, width is all of an image. NaN: an image without a box.
"""

from collections.abc import Sequence

import numpy as np

from vggbn.data.pixels.scale import kept_middle, kept_size, rescaled_size


def fit_box(box_4, size: tuple[int, int], *, image_size: int, fit: str) -> np.ndarray:
    """The box in what `fit_image` makes of an image of (height, width) `size`."""
    if fit == "pad":
        corner = [-((image_size - length) // 2) for length in size]
        return _moved(box_4, (1, 1), corner, (image_size, image_size))
    if fit == "whole":
        inside, fitted = kept_middle(*size), kept_size(*size, image_size)
    else:
        inside, fitted = (min(size), min(size)), (image_size, image_size)
    ratio = np.divide(fitted, inside)
    return _moved(box_4, ratio, np.subtract(size, inside) / 2 * ratio, fitted)


def centre_box(box_4, size: tuple[int, int], *, side: int, crop: int) -> np.ndarray:
    """The box in the central crop x crop pixels of an image of (height, width) `size` that was
    rescaled to smallest side `side`."""
    rescaled = rescaled_size(*size, side)
    corner = [(length - crop) // 2 for length in rescaled]
    return _moved(box_4, np.divide(rescaled, size), corner, (crop, crop))


def _moved(
    box_4, ratio_2: Sequence[float] | np.ndarray, corner_2, size: tuple[int, int]
) -> np.ndarray:
    """The box times ratio, as a window of (height, width) `size` with this upper left corner shows
    it: cut off at its edges, NaN where nothing is left."""
    edges_22 = np.reshape(box_4, (2, 2)) * ratio_2 - corner_2
    edges_22 = np.clip(edges_22, 0, size)
    seen = (edges_22[1] > edges_22[0]).all()
    return np.asarray(edges_22.ravel() if seen else np.full(4, np.nan), np.float32)
