"""A prepared TFDS set that is opened without TensorFlow: its parts, its keys, its words."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggbn.data.pixels.decode import PREPARE_AGAIN, Damaged
from vggbn.data.readers.opened import UnknownSet
from vggbn.data.records import SKIPPED, Records
from vggbn.data.splits import PARTS
from vggbn.errors import UserError

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


def open_prepared(name: str, data_dir: str | None) -> Prepared:
    """Open the set `name`, `name:version` or `name/config` under data_dir.

    data_dir None: $VGGBN_DATA_DIR/tfds, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    Raises UnknownSet, or UserError when the set is not prepared there, or no image classification.
    """
    root = sets_folder(data_dir)
    folder = version_folder(root, name)
    tfds = _import_tfds()
    if folder is None:
        raise _not_found(name, root, tfds)
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{folder} holds {builder.info.file_format.value} files, which only TensorFlow reads: "  # pyright: ignore[reportOptionalMemberAccess]
            f"move it away and run make data DATASET={name}"
        )
    return Prepared(name, folder, builder, *_keys(builder.info, name, tfds))


def sets_folder(data_dir: str | None) -> Path:
    """Where prepared sets lie."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if base := os.environ.get("VGGBN_DATA_DIR"):
        return Path(base).expanduser() / "tfds"
    # TFDS's own variable, which `make data` also follows.
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def version_folder(root: Path, name: str) -> Path | None:
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


def _not_found(name: str, root: Path, tfds) -> UserError:
    known = tfds.list_builders(with_community_datasets=False)
    if name.partition(":")[0].partition("/")[0] in known:
        return UserError(
            f"{name} is not prepared in {root}: run make data DATASET={name} DATA_DIR={root}"
        )
    return UnknownSet(name, known)


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
