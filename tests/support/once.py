"""What several tests compare with is made once for all processes of the suite."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that make(folder) has filled, in whichever worker of pytest-xdist came first."""
    base = factory.getbasetemp()
    if base.name.startswith("popen-"):  # a worker's own folder, inside that of the session
        base = base.parent
    folder, done = base / f"once-{name}", base / f"once-{name}.done"
    with open(base / f"once-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
