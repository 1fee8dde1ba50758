"""Prepared TFDS sets, read from ArrayRecord files without TensorFlow.

Images are decoded here, not by TFDS: it takes OpenCV when that is installed and Pillow when not,
and their pixels differ.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggbn.data.images import decode, stack
from vggbn.data.progress import progress
from vggbn.data.splits import PARTS
from vggbn.data.types import Split
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
        """Title, version, and whether lossless images were stored again as JPEG."""
        info = self.builder.info
        copy = ", JPEG copy" if self._is_jpeg_copy() else ""
        return f"{_TITLES.get(info.name, info.name)}{copy} (TFDS {info.version})"

    def records(self, part: str) -> Any:
        """The encoded records of a part, or of a slice of it such as 'test[:200]'."""
        import tensorflow_datasets as tfds

        skip = {self.image_key: tfds.decode.SkipDecoding()}
        return self.builder.as_data_source(part, decoders=skip)

    def _is_jpeg_copy(self) -> bool:
        # TFDS stores PNG unless the set says otherwise.
        declared = self.builder.info.features[self.image_key].encoding_format
        first = self.records("train[:1]")[0][self.image_key]
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


def read_prepared(prepared: Prepared, *, image_size: int, fit: str) -> Mapping[str, Split]:
    """Decode the labelled parts, called train, validation and test; without a labelled test,
    the official validation part is 'test'."""
    return {
        role: read_part(prepared, part, image_size=image_size, fit=fit)
        for role, part in labelled_parts(prepared).items()
    }


def labelled_parts(prepared: Prepared) -> dict[str, str]:
    """{train, validation or test: the official part that serves as it}; validation is the test of
    a set without a labelled one."""
    given = prepared.builder.info.splits
    found = {part: part for part in PARTS if part in given and _is_labelled(prepared, part)}
    if "train" not in found:
        raise UserError(
            f"{prepared.name} has the parts {', '.join(given)} and no labelled train: "
            "choose another data set."
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


@dataclass(frozen=True, eq=False)
class PartRecords:
    """`lazy.Records` of a part of a prepared set, as the records of its shards; source is its TFDS
    data source, which pickles."""

    source: Any
    image_key: str
    part: str
    folder: str
    listing: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, numbers: Sequence[int]) -> list[Path | bytes]:
        # Together: one by one takes ten times as long.
        return [record[self.image_key] for record in self.source.__getitems__(list(numbers))]

    def name(self, number: int) -> str:
        return f"Image {number} of {self.part} in {self.folder}"


def part_records(prepared: Prepared, part: str) -> PartRecords:
    """The encoded images of a part, or of several: 'train+validation'."""
    spans = prepared.builder.info.splits[part].file_instructions
    files = [Path(span.filename) for span in spans]
    listing = tuple(
        (f"{file.name}[{span.skip}:{span.skip + span.take}]", file.stat().st_size)
        for file, span in zip(files, spans, strict=True)
    )
    records = prepared.records(part)
    return PartRecords(records, prepared.image_key, part, str(prepared.folder), listing)


def read_labels(prepared: Prepared, part: str) -> np.ndarray:
    """The labels of a part, int32 [N]. The images lie between them, so all of it is read."""
    records = prepared.records(part)
    n, labels = len(records), []
    starts = range(0, n, _BLOCK)
    blocks = (records.__getitems__(range(s, min(s + _BLOCK, n))) for s in starts)
    for record in progress((record for block in blocks for record in block), n, f"{part} labels"):
        labels.append(record[prepared.label_key])
    return np.array(labels, np.int32)


def read_part(prepared: Prepared, part: str, *, image_size: int, fit: str) -> Split:
    """Decode one part, or a slice of it such as 'test[:200]'. Grey stays grey, all else is RGB."""
    records = prepared.records(part)
    channels = prepared.channels

    def read(numbered) -> np.ndarray:
        number, record = numbered
        what = f"Image {number} of {part} in {prepared.folder}"
        source = record[prepared.image_key]
        return decode(source, what, image_size=image_size, fit=fit, channels=channels)

    n, labels = len(records), []

    def labelled():
        rows = _mapped(read, records, prepared.image_key)
        for record, x_HWC in progress(rows, n, part):
            labels.append(record[prepared.label_key])
            yield x_HWC

    images_NHWC, sizes_N2 = stack(labelled(), n, image_size=image_size, fit=fit, channels=channels)
    return Split(images_NHWC, np.array(labels, np.int32), sizes_N2)


def _mapped(read: Callable, records, image_key: str) -> Iterator[tuple[Mapping, np.ndarray]]:
    """(record, image) of all records, block by block; large images are decoded in threads,
    small ones are not: there the interpreter lock makes threads slower than one loop."""
    large = len(records) > 0 and len(records[0][image_key]) >= _LARGE
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(records), _BLOCK):
            block = records.__getitems__(range(start, min(start + _BLOCK, len(records))))
            images = (pool.map if large else map)(read, enumerate(block, start))
            yield from zip(block, images, strict=True)


def _is_labelled(prepared: Prepared, part: str) -> bool:
    """TFDS gives the label -1 to parts whose labels are secret, such as ImageNet's test."""
    return prepared.records(f"{part}[:1]")[0][prepared.label_key] >= 0


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
