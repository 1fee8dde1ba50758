"""A set packed into one file: the same images, in a process that cannot import TFDS."""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.test_data import PARTS, TWO, load_tiny, make_tfds
from vggbn.data.readers.packed import pack, packed_path
from vggbn.data.readers.tfds import open_tfds
from vggbn.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def packed(tmp_path, parts, **how):
    """(the prepared set's folder, that of its packed copy)."""
    root = make_tfds(tmp_path / "prepared", parts, **how)
    folder = tmp_path / "packed"
    folder.mkdir()
    pack(open_tfds("tiny", str(root), "refuse"), packed_path(folder, "tiny"))
    return root, folder


@pytest.mark.parametrize("channels, kind", [(1, "PNG"), (3, "JPEG")])
@pytest.mark.parametrize("split", ["fixed", "folds"])
def test_a_packed_set_is_the_prepared_one(tmp_path, channels, kind, split):
    parts = {"train": TWO, "validation": TWO[:6], "test": [0, 1]}
    root, folder = packed(tmp_path, parts, channels=channels, kind=kind)
    one, other = (load_tiny(where, split=split, seed=2) for where in (root, folder))
    assert other.digest == one.digest
    assert (other.note, other.classes, other.flip) == (one.note, one.classes, one.flip)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(other, part).labels_N, getattr(one, part).labels_N)


def test_it_needs_neither_tfds_nor_array_record(tmp_path):
    _, folder = packed(tmp_path, {"train": TWO, "test": [0, 1]})
    code = f"""
import sys
for name in ("tensorflow_datasets", "array_record", "grain", "mlxtend", "sklearn", "rich"):
    sys.modules[name] = None
from vggbn.data import load
found = load("tiny", image_size=8, fit="resize", split="fixed", seed=0, data_dir={str(folder)!r})
print(len(found.train), len(found.test))
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "18 2\n"


def test_the_prepared_set_comes_first(tmp_path):
    root, folder = packed(tmp_path, {"train": TWO, "test": [0, 1]})
    packed_path(folder, "tiny").rename(packed_path(root, "tiny"))
    assert type(open_tfds("tiny", str(root), "refuse")).__name__ == "Tfds"


def test_a_damaged_file_is_refused_in_a_sentence(tmp_path):
    _, folder = packed(tmp_path, {"train": TWO, "test": [0, 1]})
    path = packed_path(folder, "tiny")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is damaged .*: make the bundle again"):
        open_tfds("tiny", str(folder), "refuse")
