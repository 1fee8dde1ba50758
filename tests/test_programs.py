"""What the suite keeps for its own processes and the next run (tests/support/programs.py)."""

import os
import sys
from types import SimpleNamespace

import pytest

from tests.support import programs


@pytest.fixture
def untouched(monkeypatch):
    """An environment that names no folder, and all that keep_programs sets put back after."""
    monkeypatch.setattr(os, "environ", {"PYTHONDONTWRITEBYTECODE": "1"})
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return os.environ


def test_bytecode_and_programs_are_kept_in_pytest_s_cache(untouched, tmp_path):
    folders = SimpleNamespace(mkdir=lambda name: tmp_path / name)
    programs.keep_programs(SimpleNamespace(cache=folders))  # pyright: ignore
    assert sys.pycache_prefix == untouched[programs.BYTECODE] == str(tmp_path / "bytecode")
    assert not sys.dont_write_bytecode and "PYTHONDONTWRITEBYTECODE" not in untouched
    assert untouched[programs.FOLDER].startswith(str(tmp_path / "programs"))


def test_without_pytest_s_cache_nothing_is_kept(untouched):
    """pytest -p no:cacheprovider: its config has no `cache`."""
    programs.keep_programs(SimpleNamespace())  # pyright: ignore
    assert not {programs.BYTECODE, programs.FOLDER} & untouched.keys()
    assert sys.dont_write_bytecode
