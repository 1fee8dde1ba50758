"""Store a set once for training: ImageNet's tars, a folder of images, a TFDS set.

    python -m vggbn prepare NAME [--data-dir DIR]

Imports no jax: TFDS sets are prepared in an environment that has TensorFlow instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vggbn.data.pixels.decode import DAMAGED, Damaged
from vggbn.data.prepare.imagenet import NAME
from vggbn.data.prepare.sets import prepare, prepare_folder, prepare_imagenet
from vggbn.data.readers import READERS, path_of, reader_of
from vggbn.data.readers.folder import open_folder
from vggbn.errors import Parser, UserError, exit_with


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Prepare the set, print its folder and exit: 0, or 2 after a mistake of the user's."""
    exit_with(lambda: _run(argv), kept="What is whole is kept")


def _run(argv: Sequence[str] | None) -> None:
    arguments = _parser().parse_args(argv)
    _refuse_idle_flags(arguments)
    try:
        folder = _prepare(arguments)
    except Damaged as flaw:
        choice = "or go on without it by --damaged skip"
        raise UserError(f"{flaw.problem}: {flaw.remedy}, {choice}.") from flaw
    print(f"prepared {folder}")


def _parser() -> Parser:
    parser = Parser(prog="python -m vggbn prepare", description=__doc__)
    parser.add_argument(
        "name", help="imagenet2012 with --archives, folder:PATH, or a TFDS name (needs TensorFlow)"
    )
    parser.add_argument("--data-dir", default="~/tensorflow_datasets", help="default: %(default)s")
    parser.add_argument("--archives", metavar="DIR", help="where the two tars of ImageNet lie")
    parser.add_argument("--name", dest="folder_name", metavar="NAME", help="of a folder's set")
    parser.add_argument(
        "--damaged", choices=DAMAGED, help="refuse a file that is no image (default), or skip it"
    )
    return parser


def _refuse_idle_flags(arguments: argparse.Namespace) -> None:
    """UserError for a flag that says nothing about this set."""
    folder = _folder_path(arguments.name) is not None
    tars = arguments.name == NAME and arguments.archives
    for flag, value, used, where in (
        ("--archives", arguments.archives, tars, NAME),
        ("--name", arguments.folder_name, folder, "folder:PATH"),
        ("--damaged", arguments.damaged, folder or tars, f"folder:PATH and {NAME} --archives"),
    ):
        if value is not None and not used:
            raise UserError(f"{flag} is for {where}: leave it out for {arguments.name}.")


def _prepare(arguments: argparse.Namespace) -> Path:
    name, data_dir = arguments.name, arguments.data_dir
    damaged = arguments.damaged or DAMAGED[0]
    if (path := _folder_path(name)) is not None:
        if arguments.folder_name is None:
            raise UserError(f"{name} needs a name as a set: add --name NAME.")
        return prepare_folder(path, arguments.folder_name, data_dir, damaged)
    if arguments.archives:
        return prepare_imagenet(arguments.archives, data_dir, damaged)
    return prepare(name, data_dir)


def _folder_path(name: str) -> str | None:
    """The path of a folder's name, None for the name of another kind of set."""
    return path_of(name) if READERS[reader_of(name)] is open_folder else None
