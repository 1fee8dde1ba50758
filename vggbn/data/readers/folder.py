"""A user's own images.

PATH/train/CLASS/IMAGE, with validation/ and test/ beside train/ or without them; or, with no
train/ at all, PATH/CLASS/IMAGE. PATH/boxes.csv, if there is one, says where objects lie (`boxes`).
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggbn.data import cache
from vggbn.data.classes import present, require_classes
from vggbn.data.duplicates import near_duplicates
from vggbn.data.lazy import AnySplit, Files, LazySplit
from vggbn.data.pixels.decode import Damaged, decode, stack
from vggbn.data.progress import progress
from vggbn.data.readers.boxes import NAME, Box, fitted_boxes, read_boxes
from vggbn.data.readers.listing import Listing, list_folder
from vggbn.data.readers.opened import Opened
from vggbn.data.split import Split
from vggbn.data.splits import PARTS
from vggbn.errors import UserError


def open_folder(name: str, data_dir: str | None, damaged: str) -> "Folder":
    """List the folder of a name KIND:PATH; PATH may lie under data_dir."""
    listed = list_folder(_found(name.partition(":")[2], data_dir), damaged)
    boxes = read_boxes(listed.root, [*listed.files, *listed.lost])
    return Folder(name, damaged, listed.classes, True, listed, boxes)


@dataclass(frozen=True, eq=False)
class Folder(Opened):
    """A folder of images; which of them are near-duplicates, nobody has looked."""

    listed: Listing
    boxes: Mapping[Path, Box]

    pooled = PARTS

    def read(self, *, image_size: int, fit: str, cache_dir: str | None) -> Mapping[str, Split]:
        """Every image, RGB; the decoded arrays are kept in cache_dir."""
        root, size = self.listed.root.resolve(), {"image_size": image_size, "fit": fit}
        boxes_file = [self.listed.root / NAME] if self.boxes else []
        files = cache.listing(self.listed.root, [*self.listed.files, *boxes_file])
        return cache.read_or_build(
            cache_dir,
            f"folder-{root.name}-{image_size}-{fit}",
            (str(root), size, files, *cache.unless_refused(self.damaged)),
            lambda: read_folder(self.listed, self.boxes, damaged=self.damaged, **size),
        )

    def stream(
        self, split: str, *, image_size: int, fit: str, cache_dir: str | None
    ) -> Mapping[str, LazySplit]:
        """Only where nothing is drawn: near-duplicates would have to be searched for."""
        root = self.listed.root
        if split != "fixed" or not set(PARTS) <= set(self.listed.parts):
            raise UserError(
                f"{root} is not searched for near-duplicates when it is streamed: give it "
                'train/, validation/ and test/ and use split="fixed", or use loading="memory".'
            )
        parts = {}
        for part, pairs in self.listed.parts.items():
            files, labels = zip(*pairs, strict=True)
            store, labels_N = Files.of(root, files), np.array(labels, np.int32)
            rows_N = np.arange(len(labels_N), dtype=np.int64)
            size = {"image_size": image_size, "fit": fit}
            boxes_N4 = fitted_boxes(files, self.boxes, **size)
            parts[part] = LazySplit(
                store, rows_N, labels_N, **size, channels=3, cache_dir=cache_dir, boxes_N4=boxes_N4
            )
        return parts

    def groups(self, parts: Mapping[str, AnySplit]) -> np.ndarray | None:
        """The near-duplicates of train, where a part is to be drawn from it."""
        return None if set(PARTS) <= set(parts) else near_duplicates(parts["train"])  # pyright: ignore

    def require_classes(
        self, split: str, given: Mapping[str, AnySplit], three: Mapping[str, AnySplit]
    ) -> str:
        """Each class in each part that is given, and in each that was drawn those of train."""
        root, names, lacking = self.listed.root, self.classes, ""
        classes = dict(enumerate(names))
        if split == "fixed":
            for part, found in given.items():
                what, remedy = f"{part} of {root}", f"add some to {part}/"
                lacking += require_classes(found, classes, part, what, remedy, self.damaged)
            classes = present([given["train"]], names)  # all that can be drawn from it
        for part, found in three.items():
            if part not in given or part == "train":
                what = f"The {part} part drawn from {root}"
                remedy = "give each class ten images or more"
                lacking += require_classes(found, classes, part, what, remedy, self.damaged)
        return lacking

    def describe(self, count: int) -> str:
        """Its name, how many images it has, and how much was skipped."""
        listed = self.listed
        lost, empty = len(listed.files) + len(listed.lost) - count, len(listed.empty)
        note = f"image folder {listed.root.resolve().name}, {count:,} images"
        note += f", {lost} damaged files skipped" if lost else ""
        return note + (f", {empty} empty class folders skipped" if empty else "")


def _found(path: str, data_dir: str | None) -> str:
    """A path as it is or, where nothing is there, under data_dir: so a recipe names no machine."""
    inside = Path(data_dir).expanduser() / path if data_dir else None
    return str(inside) if inside and inside.exists() and not Path(path).exists() else path


def read_folder(
    listing: Listing,
    boxes: Mapping[Path, Box] | None = None,
    *,
    image_size: int,
    fit: str,
    damaged: str = "refuse",
) -> Mapping[str, Split]:
    """Decode every image, RGB, with its box where there are any.

    damaged: "refuse": Damaged, naming the first file that cannot be read; "skip": each such file
    is named on stderr and left out.
    """
    size = {"image_size": image_size, "fit": fit}
    return {
        part: _read_part(pairs, boxes or {}, part, size, damaged)
        for part, pairs in listing.parts.items()
    }


def _read_part(pairs, boxes: Mapping[Path, Box], part: str, size: Mapping, damaged: str) -> Split:
    whole = []  # the (file, label) pairs of the images that could be read

    def read(file: Path) -> np.ndarray | None:
        try:
            return decode(file, str(file), channels=3, **size)
        except Damaged as flaw:
            flaw.refuse_or_tell(damaged)
            return None

    def readable(images):
        for pair, x_HWC in zip(pairs, images, strict=True):
            if x_HWC is not None:
                whole.append(pair)
                yield x_HWC

    # Threads: Pillow releases the interpreter lock while it decodes and scales.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = [file for file, _ in pairs]
        try:
            images = progress(pool.map(read, files), len(files), part)
            rows = readable(images)
            images_NHWC, sizes_N2 = stack(rows, len(files), channels=3, **size)
        finally:
            pool.shutdown(cancel_futures=True)
    labels_N = np.array([label for _, label in whole], np.int32)
    boxes_N4 = fitted_boxes([file for file, _ in whole], boxes, **size)
    return Split(images_NHWC, labels_N, sizes_N2, boxes_N4)
