"""Canvas: digits of MNIST-5k at a known scale and place on a larger canvas, among clutter.

In the manner of MNIST-Large-Scale (Jansson & Lindeberg 2020) and of cluttered MNIST (Mnih et al.
2014): objects of many sizes for multi-scale training, dense evaluation and localisation. Drawn on
the fly, the same on every machine.
"""

from typing import NamedTuple

import numpy as np

from vggbn.data.permutation import uniform
from vggbn.data.readers.embedded import DIGITS, Embedded, read_mnist5k
from vggbn.data.split import Split

SIDE = 96
SMALLEST, LARGEST = 0.3, 0.8  # the digit's longer side over the canvas's, log-uniform
PIECES, PIECE, DIM = 6, 9, 0.6  # of clutter: how many, their side in a digit's pixels, brightness
_KEY = 5


class Canvas(NamedTuple):
    """images_NHWC: uint8 [N, 96, 96, 1]; boxes_N4: int32, tight (top, left, bottom, right)."""

    images_NHWC: np.ndarray
    boxes_N4: np.ndarray


def open_canvas(name: str, data_dir: str | None, damaged: str) -> Embedded:
    """The digits of MNIST-5k on larger canvases, uint8 [5000, 96, 96, 1]."""
    digits = read_mnist5k()
    whole = Split(draw(digits).images_NHWC, digits.labels_N)
    note = "MNIST, 5,000 of its 70,000 images, at many scales on a cluttered canvas"
    return Embedded(name, damaged, DIGITS, False, whole, note)


def draw(digits: Split) -> Canvas:
    """One canvas for each digit, uint8 [28, 28, 1], which it shows whole.

    The box's centre lies in the middle half of what its size leaves free; clutter lies anywhere
    and is dimmer, and neither hides the digit.
    """
    n = len(digits)
    draws_ND = uniform(n * (3 + 5 * PIECES), _KEY).reshape(n, -1)
    images_NHWC = np.zeros((n, SIDE, SIDE, 1), np.uint8)
    boxes_N4 = np.zeros((n, 4), np.int32)
    for row, draws_D in enumerate(draws_ND):
        x_HW = images_NHWC[row, ..., 0]
        glyph = _scaled_glyph(digits.images_NHWC[row, ..., 0], draws_D[0])
        for piece_D in draws_D[3:].reshape(PIECES, 5):
            _clutter(x_HW, digits, piece_D)
        boxes_N4[row] = _place(x_HW, glyph, 0.25 + 0.5 * draws_D[1:3])
    return Canvas(images_NHWC, boxes_N4)


def _scaled_glyph(x_HW: np.ndarray, draw: float) -> np.ndarray:
    """The digit without its margins, its longer side a share of the canvas's."""
    rows, columns = np.flatnonzero(x_HW.any(1)), np.flatnonzero(x_HW.any(0))
    glyph = x_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longer = SIDE * SMALLEST * (LARGEST / SMALLEST) ** draw
    return _resized(glyph, longer / max(glyph.shape))


def _clutter(x_HW: np.ndarray, digits: Split, draws_5: np.ndarray) -> None:
    """A piece of some digit's middle, 1.5 to 3 times as large, anywhere on the canvas."""
    which, corner, scale, *place_2 = draws_5
    start = 6 + int(corner * (28 - 12 - PIECE + 1))
    digit = digits.images_NHWC[int(which * len(digits)), ..., 0]
    piece = _resized(digit[start : start + PIECE, start : start + PIECE], 1.5 + 1.5 * scale)
    _place(x_HW, (DIM * piece).astype(np.uint8), np.array(place_2))


def _place(x_HW: np.ndarray, part: np.ndarray, share_2: np.ndarray) -> tuple[int, int, int, int]:
    """Draw `part` over x_HW, the brighter pixel wins; returns its box."""
    height, width = part.shape
    top, left = (share_2 * (np.array(x_HW.shape) - part.shape + 1)).astype(int)
    window = x_HW[top : top + height, left : left + width]
    np.maximum(window, part, out=window)
    return top, left, top + height, left + width


def _resized(x_HW: np.ndarray, scale: float) -> np.ndarray:
    from PIL import Image

    height, width = (max(1, round(side * scale)) for side in x_HW.shape)
    return np.asarray(Image.fromarray(x_HW).resize((width, height), Image.Resampling.BICUBIC))
