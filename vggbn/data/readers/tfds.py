"""Prepared TFDS sets, read from ArrayRecord files without TensorFlow.

Images are decoded here, not by TFDS: it takes OpenCV when that is installed and Pillow when not,
and their pixels differ.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vggbn.data import cache
from vggbn.data.classes import present, require_classes
from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.pixels.decode import Damaged, decode, stack
from vggbn.data.progress import progress
from vggbn.data.readers.opened import Opened
from vggbn.data.readers.packed import open_packed, packed_path
from vggbn.data.readers.prepared import Prepared, open_prepared, sets_folder, version_folder
from vggbn.data.records import Records
from vggbn.data.split import Split

_BLOCK = 512  # records read at once
_LARGE = 10_000  # bytes of an encoded image, from which threads pay


def open_tfds(name: str, data_dir: str | None, damaged: str) -> Opened:
    """Find the set where TFDS has prepared it (`open_prepared`), or where it lies packed."""
    root = sets_folder(data_dir)
    packed = packed_path(root, name)
    if packed.is_file() and version_folder(root, name) is None:
        return open_packed(packed, name, damaged)
    prepared = open_prepared(name, data_dir)
    return Tfds(name, damaged, prepared.classes, prepared.flip, prepared)


@dataclass(frozen=True, eq=False)
class Tfds(Opened):
    """A prepared set of TFDS."""

    prepared: Prepared

    pooled = ("train", "validation")  # an official test is kept

    def read(self, *, image_size: int, fit: str, cache_dir: str | None) -> Mapping[str, Split]:
        """The labelled parts; the decoded arrays are kept in cache_dir."""
        size = {"image_size": image_size, "fit": fit}
        return cache.read_or_build(
            cache_dir,
            f"{self._file_name}-{image_size}-{fit}",
            (self.name, self._place, size, self._files(), *cache.unless_refused(self.damaged)),
            lambda: read_prepared(self.prepared, damaged=self.damaged, **size),
        )

    def stream(
        self, split: str, *, image_size: int, fit: str, cache_dir: str | None
    ) -> Mapping[str, LazySplit]:
        """Of the labelled parts the labels only, which are kept in cache_dir."""
        names, files = self.prepared.labelled_parts, self._files()
        if split == "folds" and "validation" in names:
            names = {"train": f"{names['train']}+{names['validation']}", "test": names["test"]}
        parts = {}
        for role, part in names.items():
            labels_N = cache.read_or_build_array(
                cache_dir,
                f"{self._file_name}-{part}-labels",
                (self.name, part, self._place, files),
                partial(read_labels, self.prepared, part),
            )
            store, rows_N = part_store(self.prepared, part), np.arange(len(labels_N))
            parts[role] = LazySplit(
                store, rows_N, labels_N, image_size, fit, self.prepared.channels,
                cache_dir=cache_dir,
            )  # fmt: skip
        return parts

    def require_classes(
        self, split: str, given: Mapping[str, AnySplit], three: Mapping[str, AnySplit]
    ) -> str:
        """Each class in each part, but for those of which the set has no image at all."""
        classes, lacking = present(three.values(), self.classes), ""
        for part, found in three.items():
            what, remedy = f"The {part} part of {self.prepared.folder}", "choose another data set"
            lacking += require_classes(found, classes, part, what, remedy, self.damaged)
        return lacking

    def describe(self, count: int) -> str:
        """The set's note, and how many images could not be read."""
        lost = self.prepared.examples - count
        return self.prepared.note + (f", {lost:,} damaged images skipped" if lost else "")

    @property
    def _file_name(self) -> str:
        return self.name.replace("/", "-").replace(":", "-")

    @property
    def _place(self) -> str:
        return str(self.prepared.folder.resolve())

    def _files(self) -> list[tuple[str, int, int]]:
        return cache.listing(self.prepared.folder, self.prepared.folder.iterdir())


def read_prepared(
    prepared: Prepared, *, image_size: int, fit: str, damaged: str = "refuse"
) -> Mapping[str, Split]:
    """Decode the labelled parts, called train, validation and test; without a labelled test,
    the official validation part is 'test'. damaged: see `read_part`."""
    return {
        role: read_part(prepared, part, image_size=image_size, fit=fit, damaged=damaged)
        for role, part in prepared.labelled_parts.items()
    }


@dataclass(frozen=True, eq=False)
class PartStore:
    """The `lazy.Store` of a part of a prepared set: the images of its records."""

    records: Records
    image_key: str
    listing: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, numbers: Sequence[int]) -> list[Path | bytes]:
        # Together: one by one takes ten times as long.
        return [record[self.image_key] for record in self.records.intact(numbers)]

    def name(self, number: int) -> str:
        return f"The image of {self.records.where(number)}"


def part_store(prepared: Prepared, part: str) -> PartStore:
    """The encoded images of a part, or of several: 'train+validation'."""
    spans = prepared.builder.info.splits[part].file_instructions
    files = [Path(span.filename) for span in spans]
    listing = tuple(
        (f"{file.name}[{span.skip}:{span.skip + span.take}]", file.stat().st_size)
        for file, span in zip(files, spans, strict=True)
    )
    return PartStore(prepared.records(part), prepared.image_key, listing)


def read_labels(prepared: Prepared, part: str) -> np.ndarray:
    """The labels of a part, int32 [N]. The images lie between them, so all of it is read.

    Raises Damaged, naming the first shard file or record that cannot be read.
    """
    records = prepared.records(part)
    numbers = records.readable("refuse").tolist()
    blocks = (records.intact(block) for block in _blocks(numbers))
    found = (record for block in blocks for record in block)
    labels = [r[prepared.label_key] for r in progress(found, len(numbers), f"{part} labels")]
    return np.array(labels, np.int32)


def read_part(
    prepared: Prepared, part: str, *, image_size: int, fit: str, damaged: str = "refuse"
) -> Split:
    """Decode one part, or a slice of it such as 'test[:200]'. Grey stays grey, all else is RGB.

    damaged: "refuse": Damaged, naming the first shard file, record or image that cannot be read;
    "skip": each is named on stderr and left out.
    """
    records = prepared.records(part)
    numbers = records.readable(damaged).tolist()
    size = {"image_size": image_size, "fit": fit, "channels": prepared.channels}

    def read(number: int, record: Mapping | Damaged) -> np.ndarray | None:
        try:
            if isinstance(record, Damaged):
                raise record
            what = f"The image of {records.where(number)}"
            return decode(record[prepared.image_key], what, **size)
        except Damaged as flaw:
            flaw.refuse_or_tell(damaged)
            return None

    large = len(prepared.first(part)[prepared.image_key]) >= _LARGE
    labels = []

    def labelled():
        rows = _mapped(read, records, numbers, large)
        for record, x_HWC in progress(rows, len(numbers), part):
            if x_HWC is not None:
                labels.append(record[prepared.label_key])
                yield x_HWC

    images_NHWC, sizes_N2 = stack(labelled(), len(numbers), **size)
    return Split(images_NHWC, np.array(labels, np.int32), sizes_N2)


def _mapped(read: Callable, records: Records, numbers: list[int], large: bool) -> Iterator[tuple]:
    """(record, image) of the numbers, block by block; large images are decoded in threads,
    small ones are not: there the interpreter lock makes threads slower than one loop."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in _blocks(numbers):
            found = records.read(block)
            yield from zip(found, (pool.map if large else map)(read, block, found), strict=True)


def _blocks(numbers: list[int]) -> Iterator[list[int]]:
    return (numbers[start : start + _BLOCK] for start in range(0, len(numbers), _BLOCK))
