"""Prepare a TFDS set as ArrayRecord files: the one step that needs TensorFlow.

Run by `make data DATASET=NAME` in a virtual environment of its own; training then reads the files
without TensorFlow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vggbn.errors import UserError


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


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m vggbn.data prepare NAME --data-dir DIR`."""
    parser = argparse.ArgumentParser(prog="python -m vggbn.data")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="download a TFDS set and store it for training")
    command.add_argument("name", help="a TFDS name, such as cifar10")
    command.add_argument("--data-dir", default="~/tensorflow_datasets", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        print(f"prepared {prepare(arguments.name, arguments.data_dir)}")
    except UserError as error:
        parser.exit(2, f"{error}\n")
