"""boxes.csv: where the object lies in the images of a folder, at most one box an image.

The file lies beside the class folders, or beside train/. Its first line is

    file,x0,y0,x1,y1,width,height

and each further line is of one image. file: its path inside the folder, written with /. x0, y0: the
upper left corner of the box; x1, y1: the lower right one. All count pixels from the upper left
corner of the image as it is shown, x to the right and y down; they lie between pixels, so that
0,0,width,height is all of it. width, height: the image's, by which a box of another copy of the
image is found out. An image without a line has no box.
"""

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggbn.data.pixels.boxes import fit_box
from vggbn.data.pixels.decode import Damaged, shown_size
from vggbn.data.progress import progress
from vggbn.errors import UserError

NAME = "boxes.csv"
_FIELDS = ("file", "x0", "y0", "x1", "y1", "width", "height")


class Box(NamedTuple):
    """A box (top, left, bottom, right) and the (height, width) of the image it is drawn on."""

    edges: tuple[float, float, float, float]
    size: tuple[float, float]


def read_boxes(root: Path, files: Iterable[Path]) -> dict[Path, Box]:
    """The boxes of these files, which lie below root; {} when there is no boxes.csv.

    Raises UserError, naming the line, for one that is no box of one of the images. Of an image that
    cannot be read the size is not looked at: that is refused, or skipped, when it is decoded.
    """
    path, known = root / NAME, set(files)
    if not path.is_file():
        return {}
    found: dict[Path, Box] = {}
    # utf-8-sig: spreadsheets begin a file with a mark. surrogateescape: any name of a file.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
        lines = csv.DictReader(text)
        if lines.fieldnames != list(_FIELDS):
            raise UserError(f"{path} must begin with the line {','.join(_FIELDS)}: add it.")
        for line in lines:
            file, where = root / str(line["file"]), f"line {lines.line_num} of {path}"
            if file not in known:
                raise UserError(f"{where} names no image of the folder: mend or remove it.")
            if file in found:
                raise UserError(f"{where} is a second box of {line['file']}: keep one of them.")
            found[file] = _box(line, where)
    for file, box in progress(found.items(), len(found), NAME):
        _refuse_other_size(file, box, path)
    return found


def _box(line: Mapping, where: str) -> Box:
    """UserError: it is empty, or not inside of its image."""
    try:
        left, top, right, bottom, width, height = (float(line[field]) for field in _FIELDS[1:])
        inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    except (TypeError, ValueError):  # a cell that is missing or no number
        inside = False
    if None in line or not inside:
        raise UserError(
            f"{where} is no box inside of its image: six numbers are needed after the name, "
            "0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height."
        )
    return Box((top, left, bottom, right), (height, width))


def _refuse_other_size(file: Path, box: Box, path: Path) -> None:
    with suppress(Damaged):
        height, width = shown_size(file, str(file))
        if (height, width) != box.size:
            raise UserError(
                f"{path} has a box of {file} on an image of {box.size[1]:g}x{box.size[0]:g}, and "
                f"it is {width}x{height}: the box was drawn on another copy, so scale it."
            )


def fitted_boxes(
    files: Iterable[Path], boxes: Mapping[Path, Box], *, image_size: int, fit: str
) -> np.ndarray | None:
    """Each file's box in its image when that is fitted, float32 [N, 4], NaN for one without; None
    where there are no boxes at all."""
    if not boxes:
        return None
    how = {"image_size": image_size, "fit": fit}
    none = np.full(4, np.nan, np.float32)
    return np.stack([fit_box(*boxes[f], **how) if f in boxes else none for f in files])  # pyright: ignore
