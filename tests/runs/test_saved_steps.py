"""Saved steps: what is kept, and that nothing damaged is ever taken for what was saved."""

import itertools
import random
import shutil

import numpy as np
import pytest

from vggbn.errors import UserError
from vggbn.runs import saved_steps
from vggbn.runs.saved_steps import Writer, best_step, newest, read, steps

NOTE = {"history": [{"step": 10, "val_accuracy": 0.1 + 0.2}], "seed": 3}


def arrays(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        ".params['conv1']['kernel']": rng.normal(size=(3, 3, 16, 32)).astype(np.float32),
        ".params['fc']['bias']": np.zeros(5, np.float32),
        ".step": np.array(step, np.int32),
    }


def save(folder, *given):
    """given: (step, score)."""
    writer = Writer(folder)
    for step, score in given:
        writer.save(step, arrays(step), NOTE | {"step": step}, score)
    writer.close()


def assert_whole(found, step):
    assert found.step == step and found.note == NOTE | {"step": step}
    assert found.arrays.keys() == arrays(step).keys()
    for name, wanted in arrays(step).items():
        assert found.arrays[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found.arrays[name], wanted)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    save(folder, (10, None), (20, None))
    return folder


def test_what_is_read_is_what_was_saved_to_the_bit(two):
    assert steps(two) == [10, 20]
    assert_whole(newest(two), 20)
    assert_whole(read(two, 10), 10)


def test_the_last_two_are_kept_and_the_best(tmp_path):
    save(tmp_path, (1, 0.5), (2, 0.9), (3, 0.1), (4, None), (5, 0.2))
    assert steps(tmp_path) == [2, 4, 5] and best_step(tmp_path) == 2
    save(tmp_path, (6, 0.8), (7, 0.3))  # another process, which finds the scores again
    assert steps(tmp_path) == [2, 6, 7] and best_step(tmp_path) == 2
    save(tmp_path, (8, 0.95), (9, None), (10, None))
    assert steps(tmp_path) == [8, 9, 10] and best_step(tmp_path) == 8
    saved_steps.keep_best(tmp_path)
    assert steps(tmp_path) == [8]
    assert_whole(newest(tmp_path), 8)


def test_without_scores_none_is_the_best(two, tmp_path):
    shutil.copytree(two, tmp_path / "a")
    assert best_step(two) is None
    saved_steps.keep_best(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_where_nothing_was_saved_there_is_nothing(tmp_path):
    assert newest(tmp_path) is None and newest(tmp_path / "none") is None and steps(tmp_path) == []


def test_a_step_whose_saving_did_not_end_is_no_step(two, tmp_path):
    """Killed between Orbax's rename and the checksums; and before the rename."""
    folder = tmp_path / "copy"
    shutil.copytree(two, folder)
    (folder / "20" / "sha256").unlink()
    shutil.copytree(folder / "20", folder / "30.orbax-checkpoint-tmp")
    assert steps(folder) == [10]
    assert_whole(newest(folder), 10)
    saved_steps.forget(folder, after=10)
    assert [path.name for path in folder.iterdir()] == ["10"]
    save(folder, (20, None))
    assert_whole(newest(folder), 20)
    for step in ("10", "20"):
        (folder / step / "sha256").unlink()
    assert newest(folder) is None  # the run begins anew: nothing was damaged


HOWS = ("flip", "truncate", "delete")


def names(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def damage(path, how: str, rng: random.Random) -> None:
    """Flip a bit of the file, cut it short, or delete it."""
    raw = bytearray(path.read_bytes())
    if how == "delete" or not raw:
        path.unlink()
    elif how == "flip":
        bit = rng.randrange(8 * len(raw))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
    else:
        path.write_bytes(raw[: rng.randrange(len(raw))])


def test_of_all_damages_of_any_file_none_is_used(two, tmp_path, capsys):
    """The newest step damaged: the one before it is used, and the newest is named. Both damaged: a
    refusal that names the folder."""
    rng, folder = random.Random(0), tmp_path / "steps"
    for name, how in itertools.product(names(two / "20"), HOWS):
        shutil.copytree(two, folder)
        damage(folder / "20" / name, how, rng)
        found = newest(folder)
        said = capsys.readouterr().err
        assert found is not None and found.step == 10, (name, how)
        assert_whole(found, 10)
        # Without its checksums a step is one whose saving did not end.
        unsealed = (name, how) == ("sha256", "delete")
        assert unsealed or ("step 20" in said and str(folder) in said), (name, how)
        other = rng.choice(names(folder / "10")), rng.choice(HOWS)
        damage(folder / "10" / other[0], other[1], rng)
        if unsealed and other == (name, how):
            assert newest(folder) is None
        else:
            with pytest.raises(UserError, match=r"no saved step .* is whole .* delete that folder"):
                newest(folder)
        shutil.rmtree(folder)


def test_without_checksums_a_changed_bit_would_be_used(two, tmp_path, monkeypatch):
    """Why there are checksums: Orbax reads a flipped bit of an array without a word."""
    monkeypatch.setattr(saved_steps, "_verify", lambda folder: None)
    folder = tmp_path / "steps"
    shutil.copytree(two, folder)
    largest = max((folder / "20").rglob("*"), key=lambda path: path.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[len(raw) // 2] ^= 4
    for path in (folder / "20").rglob("*"):
        if path.is_file() and path.stat().st_size == len(raw):  # a second name for the same file
            path.write_bytes(raw)
    found = read(folder, 20)
    assert not all(np.array_equal(found.arrays[name], a) for name, a in arrays(20).items())


def test_a_score_that_is_not_a_number_is_not_the_best(tmp_path):
    save(tmp_path, (1, 0.5), (2, float("nan")), (3, None), (4, None))
    assert best_step(tmp_path) == 1
