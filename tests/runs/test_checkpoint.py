"""Checkpoints: what goes in comes out, and what is damaged is refused in one sentence."""

import gc
import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.trees import assert_same
from vggbn.errors import UserError
from vggbn.runs import arrays as checkpoint


class Pair(NamedTuple):
    """Stands for the named tuples of optax."""

    empty: tuple
    trace: Any


@flax.struct.dataclass
class State:
    """Stands for TrainState."""

    step: Any
    params: Any
    opt_state: Any


def a_tree(seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "float32": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32),
        "bfloat16": jnp.asarray(rng.normal(size=(3,)), jnp.bfloat16),
        "float16": jnp.asarray(rng.normal(size=(2, 1)), jnp.float16),
        "odd": jnp.array([np.nan, -np.inf, -0.0, 1e-45], jnp.float32),
        "bool": jnp.array([True, False, True]),
        "uint32": jnp.array([0, 2**32 - 1], jnp.uint32),
        "int32": jnp.int32(-7),
        "numpy": {"uint8": np.arange(5, dtype=np.uint8), "float32": np.asarray(0.25, np.float32)},
    }
    return State(jnp.int32(11), arrays, (Pair((), {"w": jnp.full((2, 3), 1.5)}), ()))


# Orbax leaves the reads of a damaged file unfinished: they end here, and not in another module.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def last_reads():
    yield
    time.sleep(0.5)
    gc.collect()


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "deep" / "checkpoint"
    checkpoint.save(folder, a_tree())
    return folder


def refused(folder, like=None):
    with pytest.raises(UserError) as caught:
        checkpoint.load(folder, like)
    message = str(caught.value)
    assert str(folder) in message and "train the run" in message
    assert "\n" not in message and message.endswith(".") and len(message) < 500
    return message


# --- there and back ------------------------------------------------------------------------------


def test_round_trip_with_a_template(saved):
    back = checkpoint.load(saved, like=a_tree(seed=1))
    assert jax.tree.structure(back) == jax.tree.structure(a_tree())
    assert_same(back, a_tree())


def test_round_trip_of_dicts_without_a_template(tmp_path):
    tree = a_tree().params
    checkpoint.save(tmp_path / "c", tree)
    back = checkpoint.load(tmp_path / "c")
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert_same(back, tree)


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("c"), {"w": jnp.ones(2)})
    assert (tmp_path / "c").is_dir()
    assert_same(checkpoint.load(Path("c")), {"w": jnp.ones(2)})


def test_saving_again_replaces_the_old_one(saved):
    checkpoint.save(saved, a_tree(seed=2))
    assert_same(checkpoint.load(saved, like=a_tree()), a_tree(seed=2))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


# --- refusals ------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    assert "no checkpoint" in refused(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "no checkpoint" in refused(tmp_path / "file")


def test_an_empty_folder(tmp_path):
    (tmp_path / "c").mkdir()
    refused(tmp_path / "c")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace(params={k: v for k, v in t.params.items() if k != "bool"}),
        lambda t: t.replace(params={**t.params, "more": jnp.ones(2)}),
        lambda t: t.replace(params={**t.params, "float32": jnp.ones((40, 31))}),
        lambda t: t.replace(params={**t.params, "float32": jnp.ones((30, 40))}),
        lambda t: t.replace(params={**t.params, "float32": jnp.ones((40, 30), jnp.bfloat16)}),
        lambda t: t.replace(opt_state=()),
    ],
    ids=["a key less", "a key more", "wider", "transposed", "another dtype", "no optimiser"],
)
def test_a_template_of_another_tree(saved, change):
    refused(saved, like=change(a_tree()))


def test_every_file_truncated_or_removed_is_refused_or_harmless(saved):
    files = sorted(path for path in saved.rglob("*") if path.is_file())
    refusals = 0
    for path in files:
        whole = path.read_bytes()
        for part in (whole[: len(whole) // 2], b"", None):
            path.unlink()
            if part is not None:
                path.write_bytes(part)
            try:
                assert_same(checkpoint.load(saved, like=a_tree()), a_tree())
            except UserError:
                refused(saved, like=a_tree())
                refusals += 1
        path.write_bytes(whole)
    assert refusals >= 6
    assert_same(checkpoint.load(saved, like=a_tree()), a_tree())


@pytest.mark.parametrize("place", [0.25, 0.5, 0.75])
def test_a_changed_byte_in_the_arrays_is_noticed(saved, place):
    data = max(
        (path for path in saved.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    raw = bytearray(data.read_bytes())
    assert len(raw) > 4000, "the file that holds the arrays"
    raw[int(place * len(raw))] ^= 4
    data.write_bytes(raw)
    refused(saved, like=a_tree())
