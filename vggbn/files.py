"""Files that outlive a kill: one is whole or not there, a line is appended whole."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

_BLOCK = 2**16  # bytes that are read at once in search of the last line's end


@contextmanager
def whole(path: Path, *, beside: Path | None = None) -> Iterator[Path]:
    """The name under which to write `path`, within: a reader sees the whole file or none.

    It lies in `beside` (None: in the folder of `path`), on the same file system. When the block
    ends it is forced to disk and takes the place of `path`; when the block fails it is removed, and
    what was there before stays. What is there and is no file, as /dev/null, is written itself.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    # The process id keeps two processes apart that write the same file.
    part = (beside or path.parent) / f"{path.name}.{os.getpid()}.part"
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(path)  # the one that the user knows
        raise
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Write the file, whole or not at all; text in UTF-8. Its folder must be there."""
    raw = content.encode("utf-8") if isinstance(content, str) else content
    with whole(path) as part, naming(path):
        part.write_bytes(raw)


def append(path: Path, line: str) -> None:
    """Add a line and force it to disk, or, where it does not fit, leave the file as it was.

    A torn last line of a killed writer is cut off first. Another process that appends waits.
    Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file, naming(path):
        _lock(file, path.parent)
        cut_torn_line(file)
        end = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, line.encode("utf-8") + b"\n")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def cut_torn_line(file: BinaryIO) -> None:
    """End the file, open for reading and writing, after its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    file.truncate(end)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, an OSError that names no file names this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _write_all(file, raw: bytes) -> None:
    """A disk that is nearly full takes a part first."""
    while raw:
        raw = raw[file.write(raw) :]


def _lock(file: BinaryIO, folder: Path) -> None:
    """Wait until no other process appends; some network file systems know no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        _say_unlocked(folder, error.strerror)


@cache
def _say_unlocked(folder: Path, why: str) -> None:
    """Once a folder."""
    print(f"{folder} cannot be locked ({why}): run no two commands on it at once.", file=sys.stderr)
