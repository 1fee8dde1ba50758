"""Decoding one image and fitting it to a square, or whole to a smallest side: Pillow everywhere, so
pixels do not depend on which other libraries happen to be installed."""

import io
import os
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vggbn.data.pixels.scale import kept_size, rescale_image
from vggbn.errors import UserError

FITS = ("resize", "pad", "whole")
DAMAGED = ("refuse", "skip")  # what becomes of what is `Damaged`
PREPARE_AGAIN = "prepare the set again"  # the remedy for records
_ORIENTATION = 0x0112  # the EXIF tag
_WIDTH, _HEIGHT = 256, 257  # those of a TIFF, which say how it is stored
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width


class Damaged(UserError):
    """A flaw of the data that damaged="skip" passes over: what it is, and what would mend it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}, or go on without it by --set damaged=skip."

    def refuse_or_tell(self, damaged: str) -> None:
        """Raise it, or with damaged="skip" only say so on stderr."""
        if damaged != "skip":
            raise self
        print(f"skipped: {self.problem}", file=sys.stderr)


@contextmanager
def no_skipping():
    """Within, what is `Damaged` is refused without offering damaged="skip": a stream has none."""
    try:
        yield
    except Damaged as flaw:
        raise UserError(f"{flaw.problem}: {flaw.remedy}.") from flaw


def empty_images(n: int, *, image_size: int, channels: int) -> np.ndarray:
    """Room for n images, uint8 [n, image_size, image_size, channels].

    Raises UserError when they fill more than half of the memory: splitting copies them once.
    """
    shape = (n, image_size, image_size, channels)
    _require_memory(shape)
    return np.empty(shape, np.uint8)


def stack(rows: Iterable[np.ndarray], n: int, *, image_size: int, fit: str, channels: int):
    """(images uint8 [N, H, W, C], sizes int32 [N, 2] or None) of N <= n decoded images.

    With fit="whole" H and W are those of the largest, and the rest of each frame is 0. Raises
    UserError, as soon as it is plain, when the frames fill more than half of the memory.
    """
    if fit != "whole":
        images_NHWC = empty_images(n, image_size=image_size, channels=channels)
        count = 0
        for x_HWC in rows:
            images_NHWC[count] = x_HWC
            count += 1
        return images_NHWC[:count], None
    kept, frame_2 = [], np.zeros(2, int)
    for x_HWC in rows:
        kept.append(x_HWC)
        frame_2 = np.maximum(frame_2, x_HWC.shape[:2])
        _require_memory((n, *frame_2, channels))
    sizes_N2 = np.array([x_HWC.shape[:2] for x_HWC in kept], np.int32).reshape(-1, 2)
    images_NHWC = np.zeros((len(kept), *frame_2, channels), np.uint8)
    for row, x_HWC in enumerate(kept):
        images_NHWC[row, : x_HWC.shape[0], : x_HWC.shape[1]] = x_HWC
    return images_NHWC, sizes_N2


def _require_memory(shape: tuple[int, ...]) -> None:
    """Raise UserError when uint8 images of a shape [N, H, W, C] fill more than half of it."""
    needed, memory = np.prod(shape, dtype=np.float64), _memory()
    if needed > memory / 2:
        n, height, width, channels = shape
        raise UserError(
            f"{n:,} images of {height}x{width}x{channels} take {needed / 1e9:.1f} GB, "
            f"more than half of the {memory / 1e9:.1f} GB of memory: decode them as they are used, "
            "by --set loading=stream, or choose a smaller image_size."
        )


def _memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def decode(source: Path | bytes, what: str, *, image_size: int, fit: str, channels: int):
    """One encoded image, a file or the bytes of a record, as a uint8 array.

    Its shape is [image_size, image_size, channels], or, with fit="whole", [height, width, channels]
    of which image_size is the smaller.

    EXIF rotation is applied; CMYK, RGBA (alpha dropped), grey and palette images become RGB, or
    grey where channels is 1. `what` names the image in errors. Raises Damaged for one that is
    no image or is damaged, UserError for one that cannot be fitted.
    """
    side = None if fit == "pad" else image_size
    image, extent = open_image(source, what, channels=channels, side=side)
    return as_array(fit_image(image, what, image_size=image_size, fit=fit, extent=extent))


def open_image(source: Path | bytes, what: str, *, channels: int, side: int | None):
    """(upright Pillow image, RGB or grey; the (width, height) that its picture fills or None).

    side: the smallest side that is wanted of it, None: all pixels. A JPEG file is decoded to half
    its size or less while twice that side is left; the size is then the exact one, rounded up.
    """
    from PIL import ImageOps

    with _open(source, what) as opened:
        extent = None if side is None else _draft(opened, side)
        ImageOps.exif_transpose(opened, in_place=True)
        image = _convert(opened, channels)
        image.load()
    return image, extent


@contextmanager
def _open(source: Path | bytes, what: str):
    """The image file; whatever goes wrong with it is Damaged."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            yield opened
    # Pillow's plugins raise nearly anything on damaged bytes.
    except Exception as error:
        remedy = PREPARE_AGAIN if isinstance(source, bytes) else "replace or remove it"
        raise Damaged(f"{what} cannot be read as an image ({error})", remedy) from error


def fitted_size(source: Path | bytes, what: str, *, image_size: int) -> tuple[int, int]:
    """(height, width) of what `decode` makes of an image with fit="whole", from its head alone."""
    with _open(source, what) as opened:
        width, height = _draft(opened, image_size) or _upright_size(opened)
    if (width, height) == (image_size, image_size):
        return image_size, image_size
    return kept_size(height, width, image_size)


def shown_size(source: Path | bytes, what: str) -> tuple[int, int]:
    """(height, width) of an encoded image as it is shown, upright, from its head alone."""
    with _open(source, what) as opened:
        width, height = _upright_size(opened)
    return height, width


def _upright_size(opened) -> tuple[int, int]:
    """(width, height) after EXIF rotation, of an image of which only the head was read."""
    width, height = opened.size
    if opened.format == "TIFF":  # whose size newer versions of Pillow have turned already
        width, height = opened.tag_v2[_WIDTH], opened.tag_v2[_HEIGHT]
    turned = opened.getexif().get(_ORIENTATION, 1) in _TURNED
    return (height, width) if turned else (width, height)


def fit_image(image, what: str, *, image_size: int, fit: str, extent=None):
    """A Pillow image fitted to image_size x image_size, or to a smallest side of image_size.

    "resize": the smallest side is scaled to image_size with Pillow's bicubic filter (antialiased)
        and the centre square kept, in one operation that does not round the longer side.
    "pad": centred, unscaled, on black.
    "whole": the smallest side is scaled to image_size and nothing is cut off (`rescale_image`),
        but for the ends of an image longer than 16:9.
    An image that has the size already comes back untouched. extent: the (width, height) that
    the picture really fills of an image whose size was rounded up.
    """
    if image.size == (image_size, image_size):
        return image
    if fit == "pad":
        return _pad(image, what, image_size)
    if fit == "whole":
        return rescale_image(image, image_size, extent=extent)
    width, height = extent or image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (image_size, image_size), _bicubic(), box=(left, top, left + side, top + side)
    )


def fit_arrays(images_NHWC: np.ndarray, what: str, *, image_size: int, fit: str) -> np.ndarray:
    """`fit_image` for decoded images of one size: uint8 [N, H, W, C] -> uint8 [N, h, w, C]."""
    from PIL import Image

    if images_NHWC.shape[1:3] == (image_size, image_size):
        return images_NHWC
    grey = images_NHWC.shape[3] == 1
    fitted = (
        fit_image(Image.fromarray(x[..., 0] if grey else x), what, image_size=image_size, fit=fit)
        for x in images_NHWC
    )
    return np.stack([as_array(image) for image in fitted])


def _bicubic():
    from PIL import Image

    return Image.Resampling.BICUBIC


def _draft(image, image_size: int) -> tuple[float, float] | None:
    """Let the JPEG decoder shrink by 2, 4 or 8 while at least twice the wanted size is left.

    Bicubic does the rest: twice as fast for 400 pixels to 64. Returns the exact (width, height)
    the picture then fills: its size is that, rounded up. None: not shrunk.
    """
    scale = 2 * image_size / min(image.size)
    upright = image.getexif().get(_ORIENTATION, 1) == 1  # else the rounded sides change places
    if image.format != "JPEG" or scale >= 1 or not upright:
        return None
    shrunk = image.draft(None, tuple(int(np.ceil(side * scale)) for side in image.size))
    return shrunk[1][2:] if shrunk else None


def _convert(image, channels: int):
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255
        from PIL import Image

        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, not 8 or 16 bits")
    return image if image.mode == mode else image.convert(mode)


def _pad(image, what: str, image_size: int):
    from PIL import Image

    width, height = image.size
    if max(width, height) > image_size:
        raise UserError(
            f"{what} is {width}x{height}, larger than image_size={image_size}: "
            'use fit="resize" or a larger image_size.'
        )
    canvas = Image.new(image.mode, (image_size, image_size))
    canvas.paste(image, ((image_size - width) // 2, (image_size - height) // 2))
    return canvas


def as_array(image) -> np.ndarray:
    """A Pillow image, RGB or grey, as uint8 [height, width, C]."""
    x_HWC = np.asarray(image)
    return x_HWC if x_HWC.ndim == 3 else x_HWC[..., None]
