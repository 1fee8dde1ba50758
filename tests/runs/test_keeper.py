"""What a run saves of itself, what it finds again, and whose steps it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest

from vggbn.commands.evaluate import main as evaluate_main
from vggbn.errors import UserError
from vggbn.identity import equalities
from vggbn.machine import provenance
from vggbn.runs import keeper, saved_steps
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe
from vggbn.training.step import init_state
from vggbn.training.task import static_of

TINY = Recipe(
    data="digits", image_size=8, model="mlp", fc=8, norm="batch", steps=192, evaluations=3, lr=0.02,
    schedule="plateau", lr_every=100.0,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return runs.Store(tmp_path / "runs", save_every=0.0)


def steps_of(recipe, store, seed=0):
    return store.folder(recipe, seed) / "steps"


def interrupted(recipe, store, at: int, seed=0) -> None:
    """Train until a step is saved at `at`, and no further."""

    class Enough(Exception):
        pass

    def stop(record):
        if record.get("val_accuracy") is not None and record["step"] >= at:
            raise Enough

    with pytest.raises(Enough):
        runs.train_run(recipe, seed, store, stop)
    assert not (store.folder(recipe, seed) / "run.json").exists()


def test_a_run_goes_on_and_its_record_says_so(store, tmp_path, capsys):
    straight = runs.train_run(TINY, 0, runs.Store(tmp_path / "other"))
    assert "resumed" not in straight
    interrupted(TINY, store, at=192)
    assert saved_steps.steps(steps_of(TINY, store)) == [64, 128]
    found = runs.train_run(TINY, 0, store)
    assert "going on from step 128 in" in capsys.readouterr().err
    assert found["resumed"] == [{"step": 128, "setting": found["setting"]}]
    assert found["final"] == straight["final"] and found["history"] == straight["history"]
    ours, theirs = (
        runs.load_run(s.folder(TINY, 0)) for s in (store, runs.Store(tmp_path / "other"))
    )
    for a, b in zip(jax.tree.leaves(ours[1:3]), jax.tree.leaves(theirs[1:3]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_of_another_recipe_are_refused_and_the_fields_named(store):
    interrupted(TINY, store, at=128)
    other = TINY.but(lr=0.05, dropout=0.25)
    shutil.copytree(steps_of(TINY, store), steps_of(other, store))
    with pytest.raises(UserError) as refusal:
        runs.train_run(other, 0, store)
    assert "lr 0.02, not 0.05" in str(refusal.value)
    assert "dropout 0.5, not 0.25" in str(refusal.value) and "steps" in str(refusal.value)
    shutil.copytree(steps_of(TINY, store), steps_of(TINY, store, seed=1))
    with pytest.raises(UserError, match="seed 0, not 1"):
        runs.train_run(TINY, 1, store)


def test_steps_of_other_code_are_moved_aside_and_not_used(store, monkeypatch, capsys):
    interrupted(TINY, store, at=128)
    old = runs.code(TINY)
    monkeypatch.setattr(runs, "code", lambda recipe: "of another day")
    record = runs.train_run(TINY, 0, store)
    assert "resumed" not in record and record["history"][-1]["step"] == 192
    said = capsys.readouterr().err
    assert "other code than today's" in said and "starts anew" in said
    aside = store.folder(TINY, 0) / f"steps-{old}"
    assert saved_steps.steps(aside) == [64]


def test_steps_of_code_that_makes_the_same_numbers_are_used(store, monkeypatch, tmp_path):
    interrupted(TINY, store, at=128)
    path = tmp_path / "same_numbers.json"
    path.write_text(json.dumps({runs.code(TINY): {TINY.id: "of another day"}}))
    monkeypatch.setattr(equalities, "PATH", path)
    monkeypatch.setattr(runs, "code", lambda recipe: "of another day")
    assert runs.train_run(TINY, 0, store)["resumed"][0]["step"] == 64


def test_on_another_device_it_goes_on_and_both_are_named(store, monkeypatch):
    interrupted(TINY, store, at=128)
    old = provenance.setting()
    monkeypatch.setattr(provenance, "setting", lambda: old | {"device": "another"})
    record = runs.train_run(TINY, 0, store)
    assert record["resumed"] == [{"step": 64, "setting": {"code": runs.code(TINY), **old}}]
    assert record["setting"]["device"] == "another"


def test_a_damaged_step_is_named_and_the_one_before_used(store, capsys):
    interrupted(TINY, store, at=192)
    victim = max(
        (steps_of(TINY, store) / "128" / "state").rglob("*"),
        key=lambda path: path.stat().st_size * path.is_file(),
    )
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(raw)
    record = runs.train_run(TINY, 0, store)
    said = capsys.readouterr().err
    assert "step 128:" in said and "has changed" in said and "going on from step 64" in said
    assert record["resumed"][0]["step"] == 64


def test_a_run_that_ends_soon_saves_no_step(tmp_path):
    store = runs.Store(tmp_path / "runs")
    runs.train_run(TINY, 0, store)
    assert sorted(path.name for path in store.folder(TINY, 0).iterdir()) == ["run.json", "weights"]


def test_the_best_step_stays_and_can_be_evaluated(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    worse = TINY.but(lr=0.5)  # and worse: the best step is not the last
    history = runs.train_run(worse, 0, store)["history"]
    best = max(history, key=lambda record: record["val_accuracy"])
    assert saved_steps.steps(steps_of(worse, store)) == [best["step"]] != [worse.steps]
    argv = [str(store.folder(worse, 0)), "digits", "--split", "validation", "--best"]
    with pytest.raises(SystemExit) as end:
        evaluate_main(argv)
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    assert f"the weights of step {best['step']}," in out
    assert f"top-1              {100 * best['val_accuracy']:6.2f} %" in out


def test_without_a_saved_step_there_is_no_best(store, tmp_path):
    with pytest.raises(UserError, match="no best step"):
        keeper.best(tmp_path, None)


def test_reports_tell_the_step_and_the_mean_loss_since_the_last(store, monkeypatch):
    monkeypatch.setattr(keeper, "BEAT", 0.0)
    seen = []
    record = runs.train_run(TINY, 0, store, seen.append)
    beats = [r for r in seen if "val_accuracy" not in r]
    assert [r["step"] for r in seen if "val_accuracy" in r] == [64, 128, 192]
    assert [beat["step"] for beat in beats] == [128, 192]
    # At these steps it was evaluated too, since the step before.
    for beat, evaluated in zip(beats, record["history"][1:], strict=True):
        assert beat["train_loss"] == pytest.approx(evaluated["train_loss"], rel=1e-6)


def test_a_state_survives_its_names(store):
    dataset = runs.load_data(TINY, 0, store)
    state = init_state(TINY, static_of(TINY, dataset), 0)
    again = keeper._tree(keeper._arrays(state), state)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
