"""ImageNet 2012 (ILSVRC) from its two official tars, as TFDS labels it and without TensorFlow."""

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vggbn.data.prepare.archive import Member, members, whole
from vggbn.data.prepare.shards import Collection, Example
from vggbn.data.progress import progress
from vggbn.errors import UserError

NAME, VERSION = "imagenet2012", "5.1.0"  # TFDS's, whose features these are
COUNTS = {"train": 1_281_167, "validation": 50_000}
_TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_DESCRIPTION = (
    "ILSVRC 2012 from its official tars: the bytes are theirs, unchanged, also of the one PNG and "
    "the 22 CMYK JPEGs, which TFDS stores again as RGB JPEGs."
)


def imagenet(
    archives: str,
    *,
    counts: Mapping[str, int] = COUNTS,
    validation_labels: Sequence[str] | None = None,
) -> Collection:
    """List the two tars in the folder `archives`; nothing is extracted.

    Classes are the sorted names of the inner tars (synsets); images follow class by class, sorted
    by name. counts: how many images each part must have. validation_labels: the synset of
    validation image 1, 2, ...; None: those that lie in the installed tensorflow-datasets.
    Raises UserError for a tar that is missing or cut short, and for another number of images.
    """
    tars = {part: _tar(archives, part) for part in _TARS}
    inner = sorted(members(tars["train"]), key=lambda member: member.name)
    classes = tuple(Path(member.name).stem for member in inner)
    label = {name: number for number, name in enumerate(classes)}
    train = [
        Example(member, number)
        for number, tar in enumerate(progress(inner, len(inner), "listing the classes of train"))
        for member in _by_name(members(tar))
    ]
    _require_count(tars["train"], "train", train, counts)
    labels = _bundled_labels() if validation_labels is None else validation_labels
    validation = [
        Example(member, label[_synset(member, labels, label)])
        for member in _by_name(members(tars["validation"]))
    ]
    _require_count(tars["validation"], "validation", validation, counts)
    parts = {"train": train, "validation": validation}
    return Collection(NAME, VERSION, classes, parts, _DESCRIPTION)


def _tar(archives: str, part: str) -> Member:
    path = Path(archives).expanduser() / _TARS[part]
    if not path.is_file():
        raise UserError(
            f"{path.name} is missing in {path.parent}: "
            "get it from image-net.org/download-images, where one signs in first."
        )
    return whole(path)


def _require_count(tar: Member, part: str, examples: list, counts: Mapping[str, int]) -> None:
    if len(examples) != counts[part]:
        raise UserError(
            f"The {part} part in {tar.file} has {len(examples):,} images, and {counts[part]:,} "
            "are expected: get the archive again."
        )


def _by_name(found: Iterable[Member]) -> list[Member]:
    return sorted(found, key=lambda member: member.name)


def _synset(member: Member, labels: Sequence[str], known: Mapping[str, int]) -> str:
    """The label of a validation image, by the number in its name: a missing one shifts no other."""
    match = _VALIDATION_NAME.fullmatch(member.name)
    number = int(match[1]) if match else 0
    if not 1 <= number <= len(labels):
        raise UserError(
            f"{member.where} is none of ILSVRC2012_val_00000001.JPEG to {len(labels):08}: "
            "get the official archive."
        )
    synset = labels[number - 1]
    if synset not in known:
        raise UserError(
            f"{member.where} is of class {synset}, which {_TARS['train']} lacks: "
            "get the official archive."
        )
    return synset


def _bundled_labels() -> list[str]:
    """The synsets of the validation images in order, from the installed tensorflow-datasets."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    package = Path(spec.origin).parent if spec and spec.origin else Path()
    path = package / "datasets" / NAME / "validation_labels.txt"
    if not path.is_file():
        raise UserError(
            "The labels of ImageNet's validation images come with tensorflow-datasets, and the "
            "installed one lacks them: pip install tensorflow-datasets==4.9.10."
        )
    return path.read_text(encoding="utf-8").split()
