"""Compiled programs, kept on disk for the next process: jax's own cache, in the output folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

from vggbn.machine import provenance

LIMIT = 512 * 2**20  # bytes; the programs of one net take about half a megabyte
# Small programs too: a run needs dozens, and on a CPU each takes a tenth of a second.
KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_ZSTD = b"\x28\xb5\x2f\xfd"


def use(cache_dir: Path) -> None:
    """Let jax look for compiled programs under cache_dir, and keep them there.

    To be called before the first compilation. A folder that the user has named
    (JAX_COMPILATION_CACHE_DIR) is used instead, and JAX_ENABLE_COMPILATION_CACHE=0 is heeded.
    """
    import jax

    # jax writes entries in place: one that another process is just writing cannot be read yet,
    # and is compiled instead.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore
        return
    jax.config.update("jax_compilation_cache_dir", str(folder(cache_dir)))
    for name, value in KEEP_ALL.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def folder(cache_dir: Path) -> Path:
    """Where this process keeps its programs: machine code for one CPU, jaxlib, thread count.

    jax tells neither CPUs nor thread counts apart, and code for another CPU may crash.
    """
    jaxlib = importlib.metadata.version("jaxlib")
    kind = f"{jaxlib} {provenance.cpu_features()} {provenance.threads()}"
    name = hashlib.sha256(kind.encode()).hexdigest()[:16]
    return _root(cache_dir).absolute() / name


def tidy(cache_dir: Path, limit: int = LIMIT) -> None:
    """Delete damaged entries, then the oldest until all that is kept takes `limit` bytes at most.

    jax does neither without a lock that a killed process leaves in disorder: an entry whose writing
    was cut short would be compiled anew in every process, for good.
    """
    entries = []
    for path in _root(cache_dir).glob("*/*-cache"):
        with suppress(OSError):  # another process may be tidying up as well
            if _damaged(path):
                path.unlink()
            else:
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    left = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if left <= limit:
            break
        with suppress(OSError):
            path.unlink()
        left -= size


def _root(cache_dir: Path) -> Path:
    return Path(cache_dir) / "compiled"


def _damaged(path: Path) -> bool:
    """Whether jax could not unpack this entry: it is cut short, or its bytes have changed."""
    raw = path.read_bytes()
    try:
        _unpack(raw)
    except ImportError:  # packed by an installation that had zstandard, for which it is kept
        return False
    except Exception:
        return True
    return False


def _unpack(raw: bytes) -> bytes:
    if not raw.startswith(_ZSTD):
        return zlib.decompress(raw)
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]
    except ImportError:
        import zstandard  # pyright: ignore[reportMissingImports]

        return zstandard.ZstdDecompressor().decompress(raw)
    return zstd.decompress(raw)
