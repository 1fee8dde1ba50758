"""How the suite compiles: quickly, for programs that run once or twice; each program and each
module once."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# Three quarters of the suite's time would go into machine code that is quicker than it need be.
# What XLA does to a program (fusion, layout, what is computed twice) stays as it is; only how each
# fused loop becomes machine code is another, cheaper way.
# XLA ends a process that names a flag which it does not know: jaxlib 0.11 lost the second.
LOST = (0, 11)
QUICK = "--xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < LOST:
    QUICK += " --xla_cpu_use_fusion_emitters=false"
FOLDER = "JAX_COMPILATION_CACHE_DIR"
BYTECODE = "PYTHONPYCACHEPREFIX"


def quick(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment, for this process and those it starts, before jax is imported.

    The user's own flags come later and win. One thread a process: there is one process a core, and
    programs that two processes share must be made for equally many.
    """
    flags = environment.get("XLA_FLAGS", "")
    if not flags.startswith(QUICK):  # else this is a worker of pytest-xdist
        flags = f"{QUICK} {flags} --xla_gpu_deterministic_ops=true"
    return {"XLA_FLAGS": flags, "NPROC": environment.get("NPROC", "1")}


def as_users_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the processes that a test starts the environment of a user's run: all optimisation, all
    threads, no programs of the suite."""
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].removeprefix(QUICK).strip())
    for name in ("NPROC", FOLDER):
        monkeypatch.delenv(name, raising=False)


def keep_programs(config: pytest.Config) -> None:
    """Let all processes of the suite, and the next run, find what one has compiled: bytecode (half
    of what it takes to import jax, two thirds of what it takes to collect) and machine code.

    In pytest's cache folder (--cache-clear empties it), unless the user names one or wants no cache
    (-p no:cacheprovider). Before jax is imported.
    """
    from vggbn.machine import compile_cache, environment

    os.environ |= environment.QUIET
    cache = getattr(config, "cache", None)
    if cache and BYTECODE not in os.environ:
        sys.pycache_prefix = os.environ[BYTECODE] = str(cache.mkdir("bytecode"))
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if cache and FOLDER not in os.environ:
        root = cache.mkdir("programs")
        compile_cache.tidy(root)
        os.environ[FOLDER] = str(compile_cache.folder(root))
        os.environ |= {name.upper(): str(v) for name, v in compile_cache.KEEP_ALL.items()}


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process of the suite at a time does what belongs to a file; the others wait."""
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
