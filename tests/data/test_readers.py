"""The table of readers: which one a name has, and what a new one needs."""

import ast
from dataclasses import dataclass

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.test_data import options, pixels
from vggbn.data import Split, load, readers
from vggbn.data.readers import READERS, embedded_names, path_of, reader_of
from vggbn.data.readers.opened import Opened
from vggbn.errors import UserError


@pytest.mark.parametrize(
    ("name", "key", "path"),
    [
        ("mnist5k", "mnist5k", None),
        ("canvas", "canvas", None),
        ("folder:photos/a:b", "folder:", "photos/a:b"),
        ("folder:folder:x", "folder:", "folder:x"),
        ("folder:", "folder:", ""),
        ("folder", "tfds", None),
        ("cifar10", "tfds", None),
        ("mnist:3.0.1", "tfds", None),
        ("mnist5k:3.0.1", "tfds", None),
        ("mnist_corrupted/fog", "tfds", None),
    ],
)
def test_a_name_has_one_reader(name, key, path):
    assert (reader_of(name), path_of(name)) == (key, path)


def test_the_embedded_sets_are_those_without_path_and_preparation():
    assert embedded_names() == ("mnist5k", "canvas", "digits")


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_table_is_a_literal_of_names():
    """What reads the source can follow one entry to its reader and leave the others."""
    (table,) = (
        node.value
        for node in _tree(ROOT / "vggbn" / "data" / "readers" / "__init__.py").body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "READERS"
    )
    assert isinstance(table, ast.Dict)
    assert [ast.literal_eval(key) for key in table.keys if key] == list(READERS)
    assert [value.id for value in table.values if isinstance(value, ast.Name)] == [
        reader.__name__ for reader in READERS.values()
    ]


def test_what_begins_the_name_of_a_folder_stands_once():
    constants = [
        (path.name, node.value)
        for path in sorted((ROOT / "vggbn").rglob("*.py"))
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant)
    ]
    assert [where for where, value in constants if value == "folder:"] == ["__init__.py"]


@dataclass(frozen=True, eq=False)
class Dots(Opened):
    """The set of a new reader: so many images."""

    n: int

    pooled = ("train", "validation")

    def read(self, *, image_size, fit, cache_dir):
        parts = {"train": self.n, "validation": 20, "test": 4}
        return {
            part: Split(
                pixels(n, size=image_size, seed=seed), np.arange(n, dtype=np.int32) % 2
            )
            for seed, (part, n) in enumerate(parts.items())
        }  # fmt: skip

    def describe(self, count):
        return f"{count} dots"


def test_a_new_reader_is_one_line_of_the_table(monkeypatch):
    def open_dots(name, data_dir, damaged):
        return Dots(name, damaged, ("a", "b"), True, int(path_of(name)))

    monkeypatch.setitem(readers.READERS, "dots:", open_dots)
    found = load("dots:60", **options())
    assert [len(x) for x in (found.train, found.validation, found.test)] == [60, 20, 4]
    assert (found.name, found.note, found.flip) == ("dots:60", "84 dots", True)
    folds = [load("dots:60", **options(split="folds", seed=seed)) for seed in (0, 1)]
    assert [len(x) for x in (folds[0].train, folds[0].validation, folds[0].test)] == [72, 8, 4]
    assert folds[0].digest != folds[1].digest
    with pytest.raises(UserError, match=r"dots:60 comes .*: use loading=.memory"):
        load("dots:60", **options(), loading="stream")
    with pytest.raises(UserError, match=r"'dts' is unknown.* Use mnist5k, .*, dots:PATH, or"):
        load("dts", **options())
