"""Decoded arrays on disk: written atomically, checked on every load, rebuilt when damaged, and the
least recently used removed when there are too many."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from vggbn import files
from vggbn.data.split import Split, digest_of

# Raise when decoding or fitting changes its pixels: older files are then not found.
_FORMAT = 1
_LIMIT = 20e9  # bytes of all files together
# What a damaged file may raise.
_UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


def listing(root: Path, files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """What decides whether files changed: (path under root, size, mtime in ns), sorted."""
    stats = ((path.relative_to(root).as_posix(), path.stat()) for path in sorted(files))
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def unless_refused(damaged: str) -> list[str]:
    """For a key: what was decoded with damaged="refuse" is what it always was."""
    return [damaged] if damaged != "refuse" else []


def read_or_build(
    cache_dir: str | None, name: str, key: object, build: Callable[[], Mapping[str, Split]]
) -> Mapping[str, Split]:
    """`build()`, or the copy of its result under cache_dir that has the same key.

    name starts the file's name; key is anything whose repr tells all that decides the result.
    With cache_dir None nothing is read or written.
    """
    if cache_dir is None:
        return build()
    # Another Pillow may decode to other pixels.
    path = _path(cache_dir, name, (_FORMAT, version("pillow"), key))
    found = _read(path)
    if found is not None:
        path.touch()  # used just now: `_prune` takes it last
        return found
    parts = build()
    _write(path, parts)
    _prune(path)
    return parts


def read_or_build_array(
    cache_dir: str | None, name: str, key: object, build: Callable[[], np.ndarray]
) -> np.ndarray:
    """The same for one array that is not of pixels."""
    if cache_dir is None:
        return build()
    path = _path(cache_dir, name, (_FORMAT, key))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array = arrays["array"]
            if str(arrays["checksum"]) == _checksum(array):
                path.touch()
                return array
    except _UNREADABLE:
        pass
    array = build()
    _save(path, {"array": array, "checksum": _checksum(array)})
    return array


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _path(cache_dir: str, name: str, key: object) -> Path:
    code = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return Path(cache_dir).expanduser() / f"{name}-{code}.npz"


def _read(path: Path) -> Mapping[str, Split] | None:
    """The parts in a cache file, or None when it is absent, damaged or altered."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = arrays["names"].tolist()
            parts = {name: _part(arrays, name) for name in names}
            checksum = str(arrays["checksum"])
    except _UNREADABLE:
        return None
    return parts if checksum == digest_of(*parts.values()) else None


def _part(arrays, name: str) -> Split:
    optional = (arrays.get(f"{name}.{kind}") for kind in ("sizes", "boxes"))
    return Split(arrays[f"{name}.images"], arrays[f"{name}.labels"], *optional)


def _write(path: Path, parts: Mapping[str, Split]) -> None:
    arrays = {f"{n}.images": part.images_NHWC for n, part in parts.items()}
    arrays |= {f"{n}.labels": part.labels_N for n, part in parts.items()}
    arrays |= {f"{n}.sizes": p.sizes_N2 for n, p in parts.items() if p.sizes_N2 is not None}
    arrays |= {f"{n}.boxes": p.boxes_N4 for n, p in parts.items() if p.boxes_N4 is not None}
    _save(path, {"names": list(parts), "checksum": digest_of(*parts.values())} | arrays)


def _save(path: Path, arrays: Mapping) -> None:
    """Write beside the target and rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def _prune(newest: Path) -> None:
    """Remove the least recently used files beside the newest until all fit into the limit."""
    others = set(newest.parent.glob("*.npz")) - {newest}
    room = _LIMIT - newest.stat().st_size
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
