"""Prepared TFDS sets, read from ArrayRecord files without TensorFlow.

Images are decoded here, not by TFDS: it takes OpenCV when that is installed and Pillow when not,
and their pixels differ.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggbn.data.pixels.decode import PREPARE_AGAIN, Damaged, decode, stack
from vggbn.data.progress import progress
from vggbn.data.records import SKIPPED, Records
from vggbn.data.split import Split
from vggbn.data.splits import PARTS
from vggbn.errors import UserError

_BLOCK = 512  # records read at once
_LARGE = 10_000  # bytes of an encoded image, from which threads pay
_TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "fashion_mnist": "Fashion-MNIST",
    "imagenet2012": "ImageNet 2012",
    "mnist": "MNIST",
}
# Sets of letters and digits, which a mirror turns into something else.
_NO_FLIP = {"emnist", "kmnist", "mnist", "mnist_corrupted", "omniglot", "svhn_cropped"}


@dataclass(frozen=True)
class Prepared:
    """A prepared set that has been opened: its builder and the keys of image and label."""

    name: str
    folder: Path
    builder: Any
    image_key: str
    label_key: str

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.builder.info.features[self.label_key].names)

    @property
    def flip(self) -> bool:
        return self.builder.info.name not in _NO_FLIP

    @property
    def channels(self) -> int:
        """1 for a grey set; all else is RGB."""
        return 1 if self.builder.info.features[self.image_key].shape[-1] == 1 else 3

    @property
    def note(self) -> str:
        """Title, version, whether lossless images were stored again as JPEG, and how many
        damaged ones were left out when the set was prepared."""
        info = self.builder.info
        copy = ", JPEG copy" if self._is_jpeg_copy() else ""
        path = self.folder / SKIPPED
        left_out = len(json.loads(path.read_text())) if path.is_file() else 0
        without = f", {left_out:,} damaged images left out" if left_out else ""
        return f"{_TITLES.get(info.name, info.name)}{copy} (TFDS {info.version}){without}"

    @property
    def labelled_parts(self) -> Mapping[str, str]:
        """{train, validation or test: the official part that serves as it}; validation is the test
        of a set without a labelled one. Raises UserError when train has no labels.

        TFDS gives the label -1 to parts whose labels are secret, such as ImageNet's test.
        """
        given = self.builder.info.splits
        names = [part for part in PARTS if part in given]
        found = {part: part for part in names if self.first(part)[self.label_key] >= 0}
        if "train" not in found:
            raise UserError(
                f"{self.name} has the parts {', '.join(given)} and no labelled train: "
                "choose another data set."
            )
        if "test" not in found and "validation" in found:
            found["test"] = found.pop("validation")
        return found

    @property
    def examples(self) -> int:
        """How many the labelled parts have when none is lost."""
        parts = self.labelled_parts.values()
        return sum(self.builder.info.splits[part].num_examples for part in parts)

    def records(self, part: str) -> Records:
        """The encoded records of a part, or of a slice of it such as 'test[:200]'."""
        import tensorflow_datasets as tfds

        skip = {self.image_key: tfds.decode.SkipDecoding()}
        source = self.builder.as_data_source(part, decoders=skip)
        return Records(source, self.builder.info.splits[part].file_instructions)

    def first(self, part: str) -> Mapping:
        """The first record of a part that can be read. Raises UserError, naming the first shard
        file, when none can."""
        records = self.records(part)
        for number in range(len(records)):
            with suppress(Damaged):
                record = records[number]
                if record[self.image_key]:  # bytes of another kind are a record without fields
                    return record
        raise UserError(
            f"{records.where(0)} cannot be read, nor any other of {part}: {PREPARE_AGAIN}."
        )

    def _is_jpeg_copy(self) -> bool:
        # TFDS stores PNG unless the set says otherwise.
        declared = self.builder.info.features[self.image_key].encoding_format
        first = self.first("train")[self.image_key]
        return declared != "jpeg" and first.startswith(b"\xff\xd8")


def open_prepared(name: str, data_dir: str | None, embedded: Iterable[str]) -> Prepared:
    """Open the set `name`, `name:version` or `name/config` under data_dir.

    data_dir None: $VGGBN_DATA_DIR/tfds, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    embedded: names that need no preparation, for the message about an unknown name.
    Raises UserError when the set is unknown, not prepared there, or no image classification.
    """
    root = _root(data_dir)
    folder = _version_folder(root, name)
    tfds = _import_tfds()
    if folder is None:
        raise UserError(_not_found(name, root, tfds, tuple(embedded)))
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{folder} holds {builder.info.file_format.value} files, which only TensorFlow reads: "  # pyright: ignore[reportOptionalMemberAccess]
            f"move it away and run make data DATASET={name}"
        )
    return Prepared(name, folder, builder, *_keys(builder.info, name, tfds))


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


def _root(data_dir: str | None) -> Path:
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if base := os.environ.get("VGGBN_DATA_DIR"):
        return Path(base).expanduser() / "tfds"
    # TFDS's own variable, which `make data` also follows.
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _version_folder(root: Path, name: str) -> Path | None:
    """The folder of the wanted or the newest prepared version."""
    name, _, version = name.partition(":")
    found = [path.parent for path in (root / name).glob("*/dataset_info.json")]
    if version:
        found = [path for path in found if path.name == version]
    return max(found, key=_version_order, default=None)


def _version_order(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _import_tfds():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"Data sets of TFDS need a package that is missing ({error}): "
            "pip install tensorflow-datasets array-record importlib_resources."
        ) from error
    return tfds


def _not_found(name: str, root: Path, tfds, embedded: tuple[str, ...]) -> str:
    known = tfds.list_builders(with_community_datasets=False)
    if name.partition(":")[0].partition("/")[0] in known:
        return f"{name} is not prepared in {root}: run make data DATASET={name} DATA_DIR={root}"
    close = difflib.get_close_matches(name, [*embedded, *known], n=3)
    hint = f" Close to it: {', '.join(close)}." if close else ""
    return (
        f"The data set {name!r} is unknown.{hint} Use {', '.join(embedded)}, folder:PATH, "
        "or the name of an image data set of TFDS."
    )


def _keys(info, name: str, tfds) -> tuple[str, str]:
    """The keys of image and label, which `supervised_keys` names."""
    keys = info.supervised_keys or ("image", "label")
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    fits = len(keys) == 2 and all(
        key in info.features and isinstance(info.features[key], kind)
        for key, kind in zip(keys, kinds, strict=True)
    )
    if not fits:
        raise UserError(
            f"{name} is not an image classification set (its keys are {', '.join(info.features)}): "
            "choose a set with one image and one class label."
        )
    return keys
