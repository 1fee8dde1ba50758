"""Encoded images where they lie, in a tar or as a file: listed once, read by seeking, nothing is
extracted."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vggbn.errors import UserError


@dataclass(frozen=True, slots=True)
class Member:
    """`size` bytes of a file from `offset` on, and their name."""

    file: Path
    offset: int
    size: int
    name: str

    @property
    def where(self) -> str:
        """The file, or the name inside the tar: for messages."""
        return f"{self.name} in {self.file}" if self.offset else str(self.file)

    def read(self) -> bytes:
        """Its bytes. Raises UserError when the file has become shorter."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            raw = file.read(self.size)
        if len(raw) < self.size:
            raise UserError(f"{self.where} has lost its end: get {self.file} again.")
        return raw


def whole(file: Path, name: str | None = None) -> Member:
    """All of a file; `name` is what it is called, by default the file's own name."""
    return Member(file, 0, file.stat().st_size, name or file.name)


def members(tar: Member) -> Iterator[Member]:
    """The files inside an uncompressed tar, which may lie in another tar, in its order.

    Names lose their folders. Raises UserError, naming the tar, when it is none or ends early.
    """
    end = tar.offset + tar.size
    try:
        with tar.file.open("rb") as file:
            file.seek(tar.offset)
            with tarfile.open(fileobj=file, mode="r:") as opened:
                for entry in opened:
                    # Without its end mark an inner tar would run on into the next.
                    if entry.offset_data + entry.size > end:
                        raise tarfile.ReadError("unexpected end of data")
                    if entry.isfile():
                        name = Path(entry.name).name
                        yield Member(tar.file, entry.offset_data, entry.size, name)
    except tarfile.TarError as error:
        raise UserError(
            f"{tar.where} is not a whole tar ({error}): get {tar.file} again."
        ) from error
