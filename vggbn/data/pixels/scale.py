"""Images of many scales (VGG 3.1, 3.2): isotropic rescaling to a smallest side, places of crops.

numpy and Pillow, for evaluation and for what is stored; `jitter` does the same inside the jitted
training step.
"""

from __future__ import annotations

import math

import numpy as np

LONGEST = 16 / 9  # of a stored image's two sides, over the smaller
REACH = 2  # of the bicubic filter: pixels on each side, of the coarser of the two grids


def rescaled_size(height: float, width: float, side: int) -> tuple[int, int]:
    """(height, width) after isotropic rescaling to smallest side `side`; the other is rounded."""
    shortest = min(height, width)
    longer = lambda length: max(side, int(length * side / shortest + 0.5))  # noqa: E731
    return (side, longer(width)) if height <= width else (longer(height), side)


def rescale(x_HWC: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, C] rescaled to smallest side `side`, by Pillow's antialiased bicubic."""
    from PIL import Image

    height, width, channels = x_HWC.shape
    size = height, width = rescaled_size(height, width, side)
    if size == x_HWC.shape[:2]:
        return x_HWC
    image = Image.fromarray(x_HWC[..., 0] if channels == 1 else x_HWC)
    found = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return found.reshape(height, width, channels)


def rescale_image(image, side: int, *, extent=None):
    """A Pillow image rescaled to smallest side `side`, the ends beyond 16:9 cut off.

    extent: the (width, height) that the picture fills of an image whose size was rounded up.

    Differs: VGG cuts nothing. Of very long images the frames that all others share would be too
    large; 16:9 keeps all of an ordinary photograph.
    """
    from PIL import Image

    width, height = extent or image.size
    kept_height, kept_width = kept_middle(height, width)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    new_height, new_width = kept_size(height, width, side)
    return image.resize(
        (new_width, new_height),
        Image.Resampling.BICUBIC,
        box=(left, top, left + kept_width, top + kept_height),
    )


def kept_size(height: float, width: float, side: int) -> tuple[int, int]:
    """(height, width) of what `rescale_image` makes of an image of this size."""
    return rescaled_size(*kept_middle(height, width), side)


def kept_middle(height: float, width: float) -> tuple[float, float]:
    """(height, width) of the middle of an image that `rescale_image` keeps."""
    longest = LONGEST * min(height, width)
    return min(height, longest), min(width, longest)


def centre_crop(x_HWC: np.ndarray, crop: int) -> np.ndarray:
    """The central crop x crop pixels, a view; an odd remainder is cut at the end."""
    top, left = ((length - crop) // 2 for length in x_HWC.shape[:2])
    return x_HWC[top : top + crop, left : left + crop]


def grid_corners(height: int, width: int, crop: int, *, grid: int = 5) -> list[tuple[int, int]]:
    """(top, left) of the grid x grid crops of VGG 3.2, spread evenly from corner to corner."""
    tops, lefts = (
        [int(i * (length - crop) / (grid - 1) + 0.5) for i in range(grid)]
        for length in (height, width)
    )
    return [(top, left) for top in tops for left in lefts]


def window_side(source: int, scale_min: int, crop: int) -> int:
    """Side of a window that holds what a crop needs of an image of smallest side `source`."""
    # The longer side is rounded, by half a pixel of at least `crop`: a slightly other ratio.
    ratio = source / scale_min * (1 + 0.5 / crop)
    return math.ceil(crop * ratio + 2 * REACH * max(ratio, 1)) + 2
