"""A TFDS set packed into one file, which numpy and Pillow alone can read: its encoded images.

For machines without TFDS and network (`python -m vggbn evidence --bundle`): the images are decoded
there as they would be here, to the same pixels.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vggbn import files
from vggbn.data import cache
from vggbn.data.pixels.decode import decode, stack
from vggbn.data.progress import progress
from vggbn.data.readers.opened import Opened
from vggbn.data.split import Split
from vggbn.errors import UserError

if TYPE_CHECKING:
    from vggbn.data.readers.tfds import Tfds


@dataclass(frozen=True, eq=False)
class Packed(Opened):
    """A packed set. facts: channels and note, and each part's number of images by its name."""

    path: Path
    facts: Mapping

    pooled = ("train", "validation")  # as of the set it was made from

    def read(self, *, image_size: int, fit: str, cache_dir: str | None) -> Mapping[str, Split]:
        """Its parts; the decoded arrays are kept in cache_dir."""
        size = {"image_size": image_size, "fit": fit}
        return cache.read_or_build(
            cache_dir,
            f"{self.path.stem}-{image_size}-{fit}",
            (self.name, size, cache.listing(self.path.parent, [self.path])),
            lambda: {part: _read_part(self, part, **size) for part in self.facts["parts"]},
        )

    def describe(self, count: int) -> str:
        """The note of the set it was made from, which was whole."""
        return self.facts["note"]


def packed_path(folder: Path, name: str) -> Path:
    """Where a packed set of this name lies in a folder of sets."""
    return folder / f"{file_stem(name)}.packed.npz"


def file_stem(name: str) -> str:
    """A set's name as the beginning of a file's: `cifar10/jpeg:3.0.2` -> `cifar10-jpeg-3.0.2`."""
    return name.replace("/", "-").replace(":", "-")


def open_packed(path: Path, name: str, damaged: str) -> Packed:
    """UserError: the file is damaged."""
    try:
        # Opened first: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            return Packed(name, damaged, tuple(facts["classes"]), facts["flip"], path, facts)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): make the bundle again.") from None


def _read_part(packed: Packed, part: str, *, image_size: int, fit: str) -> Split:
    """Decoded and fitted."""
    size = {"image_size": image_size, "fit": fit, "channels": packed.facts["channels"]}
    with np.load(packed.path, allow_pickle=False) as arrays:
        raw_B, ends_N = arrays[f"{part}.images"], arrays[f"{part}.ends"].tolist()
        labels_N = arrays[f"{part}.labels"]
    spans = progress(zip([0, *ends_N[:-1]], ends_N, strict=True), len(ends_N), part)
    images = (
        decode(raw_B[start:end].tobytes(), f"Image {number} of {part} in {packed.path}", **size)
        for number, (start, end) in enumerate(spans)
    )
    images_NHWC, sizes_N2 = stack(images, len(ends_N), **size)
    return Split(images_NHWC, labels_N, sizes_N2)


def pack(opened: Tfds, path: Path) -> None:
    """Write the labelled parts of a prepared set, encoded as they are. Damaged: it is not whole."""
    prepared, arrays = opened.prepared, {}
    parts = prepared.labelled_parts
    for role, part in parts.items():
        records = prepared.records(part)
        numbers = records.readable("refuse").tolist()
        found = progress(records.intact(numbers), len(numbers), part)
        arrays |= _encoded(role, ((r[prepared.image_key], r[prepared.label_key]) for r in found))
    facts = {
        "classes": prepared.classes,
        "flip": prepared.flip,
        "channels": prepared.channels,
        "note": prepared.note,
        "parts": {role: len(arrays[f"{role}.labels"]) for role in parts},
    }
    with files.whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays, facts=json.dumps(facts))  # pyright: ignore[reportArgumentType]


def _encoded(role: str, records: Iterable[tuple[bytes, int]]) -> dict[str, np.ndarray]:
    """One array of all bytes, where each image ends in it, and the labels."""
    images, labels = zip(*records, strict=True)
    return {
        f"{role}.images": np.frombuffer(b"".join(images), np.uint8),
        f"{role}.ends": np.cumsum([len(image) for image in images]),
        f"{role}.labels": np.array(labels, np.int32),
    }
