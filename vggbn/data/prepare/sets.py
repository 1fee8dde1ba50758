"""Prepare a set of encoded images once, as ArrayRecord files; training then reads those.

ImageNet from its own tars and a folder of images need no TensorFlow. Everything else is TFDS's
download_and_prepare, which does: `make data DATASET=NAME` runs it in an environment of its own.
"""

import re
from pathlib import Path

from vggbn.data.prepare.archive import whole
from vggbn.data.prepare.imagenet import NAME, VERSION, imagenet
from vggbn.data.prepare.shards import Collection, Example, finished_folder, write_set
from vggbn.data.readers import embedded_names
from vggbn.data.readers.listing import list_folder
from vggbn.errors import UserError

_FOLDER_VERSION = "1.0.0"


def prepare(name: str, data_dir: str) -> Path:
    """Download and prepare the TFDS set `name` under data_dir; returns its folder.

    A set that is already prepared is left as it is. Raises UserError when TensorFlow or TFDS is
    not installed, or the name is unknown.
    """
    try:
        import tensorflow  # noqa: F401  TFDS imports it lazily and fails halfway
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"Preparing {name} needs a package that is missing ({error}): "
            f"run make data DATASET={name}, which installs TensorFlow in an environment of its own."
        ) from error
    try:
        builder = tfds.builder(
            name, data_dir=Path(data_dir).expanduser(), file_format="array_record"
        )
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"TFDS has no data set {name!r}: see tensorflow.org/datasets.") from error
    builder.download_and_prepare()
    return Path(builder.data_dir)


def prepare_imagenet(archives: str, data_dir: str, damaged: str = "refuse") -> Path:
    """Prepare ImageNet 2012 from the two tars in `archives`, without TensorFlow.

    A set that is already prepared is left as it is; one that was begun is finished. damaged, and
    what is raised: see `imagenet` and `write_set`.
    """
    return finished_folder(data_dir, NAME, VERSION) or write_set(
        imagenet(archives), data_dir, damaged=damaged
    )


def prepare_folder(path: str, name: str, data_dir: str, damaged: str = "refuse") -> Path:
    """Prepare a folder of images (`folder`) as the set `name`, without TensorFlow.

    Its parts stay; what is missing is drawn from train when the set is loaded, and near-duplicates
    are then not kept together. A file name is the path inside the folder. Raises UserError for a
    name that cannot be used, and as `list_folder` and `write_set` do.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in embedded_names():
        raise UserError(
            f"--name {name} cannot be the name of a prepared set: use lower-case letters, digits "
            f"and _, and none of {', '.join(embedded_names())}."
        )
    if done := finished_folder(data_dir, name, _FOLDER_VERSION):
        return done
    listed = list_folder(path, damaged)
    parts = {
        part: [
            Example(whole(file, file.relative_to(listed.root).as_posix()), label)
            for file, label in pairs
        ]
        for part, pairs in listed.parts.items()
    }
    description = f"The image folder {listed.root.name}; the bytes are those of its files."
    collection = Collection(name, _FOLDER_VERSION, listed.classes, parts, description)
    return write_set(collection, data_dir, damaged=damaged)
