"""Where images come from: `READERS`, one line a kind of set, each in a file of its own."""

import difflib
from collections.abc import Callable

from vggbn.data.readers.canvas import open_canvas
from vggbn.data.readers.embedded import open_digits, open_mnist5k
from vggbn.data.readers.folder import open_folder
from vggbn.data.readers.opened import Opened, UnknownSet
from vggbn.data.readers.tfds import open_tfds
from vggbn.errors import UserError

# The name of a set, or with a colon the beginning of its name, before a path. What has none of
# these names is "tfds". One entry a line, names only: the identity of a result follows the reader
# of its set, which it finds here, and no other.
READERS: dict[str, Callable[[str, str | None, str], Opened]] = {
    "mnist5k": open_mnist5k,
    "canvas": open_canvas,
    "digits": open_digits,
    "folder:": open_folder,
    "tfds": open_tfds,
}


def reader_of(name: str) -> str:
    """The key in READERS of a data set's name: "mnist5k" -> "mnist5k", "folder:photos" ->
    "folder:", "cifar10" -> "tfds"."""
    kind, colon, _ = name.partition(":")
    return kind + colon if kind + colon in READERS else "tfds"


def open_set(name: str, data_dir: str | None, damaged: str = "refuse") -> Opened:
    """Find the set. Raises UserError, in one sentence, when it is not there or cannot be read."""
    try:
        return READERS[reader_of(name)](name, data_dir, damaged)
    except UnknownSet as error:
        close = difflib.get_close_matches(name, [*embedded_names(), *error.known], n=3)
        hint = f" Close to it: {', '.join(close)}." if close else ""
        ours = [key + "PATH" if key.endswith(":") else key for key in READERS if key != "tfds"]
        raise UserError(
            f"{error}{hint} Use {', '.join(ours)}, or the name of an image data set of TFDS."
        ) from error


def embedded_names() -> tuple[str, ...]:
    """The sets that are whole as they come, which need neither a path nor preparation."""
    return tuple(key for key in READERS if not key.endswith(":") and key != "tfds")


def path_of(name: str) -> str | None:
    """The path in a name that has one, "folder:photos" -> "photos"; else None."""
    key = reader_of(name)
    return name.removeprefix(key) if key.endswith(":") else None
