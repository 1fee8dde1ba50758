"""A trained run lives once: trained, found, refused when damaged, and as good as its record."""

import json
import math
import os

import numpy as np
import pytest

from vggbn.errors import UserError
from vggbn.evaluate import evaluate
from vggbn.identity import equalities
from vggbn.machine import provenance
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.recipe import Recipe

TINY = Recipe(
    data="digits",
    image_size=8,
    split="fixed",
    model="mlp",
    norm="batch",
    activation="sigmoid",
    fc=8,
    steps=12,
    lr=0.1,
    evaluations=2,
    population_batches=2,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return runs.Store(tmp_path_factory.mktemp("out") / "runs")


@pytest.fixture(scope="module")
def run(store):
    return runs.get_run(TINY, 0, store)


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("this run is there already")

    monkeypatch.setattr(loop, "fit", refuse)


def test_the_record_says_what_was_done(run, store):
    record = run.record
    assert record == json.loads((store.folder(TINY, 0) / "run.json").read_text())
    assert record["id"] == TINY.id and record["seed"] == 0
    assert Recipe(**record["recipe"]) == TINY
    assert record["status"] == "ok" and record["diverged_at"] is None
    assert [line["step"] for line in record["history"]] == loop.evaluation_steps(TINY)
    assert record["end_lr"] == pytest.approx(TINY.lr)
    assert record["final"]["test_n"] == record["data"]["test"] == 360
    assert record["data"]["classes"] == 10
    assert record["setting"] == {"code": runs.code(TINY), **provenance.setting()}
    seconds = record["seconds"]
    parts = "load compile data python step evaluation final".split()
    assert set(seconds) == {*parts, "total", "all"}
    assert seconds["all"] == pytest.approx(sum(seconds[part] for part in parts), abs=0.01)
    assert min(seconds.values()) >= 0
    leaves = sum(
        np.size(v) for layer in run.trained.variables["params"].values() for v in layer.values()
    )
    assert record["parameters"] == leaves


def test_a_run_is_trained_once(run, store, no_training):
    again = runs.get_run(TINY, 0, store)
    assert again.record == run.record
    assert runs.find_record(TINY, 0, store) == run.record


def test_compilation_is_counted_wherever_it_comes_up_and_once(store, monkeypatch):
    fits, fit = [], loop.fit
    monkeypatch.setattr(loop, "fit", lambda *a, **k: fits.append(fit(*a, **k)) or fits[-1])
    first, second = (runs.train_run(TINY.but(fc=9), s, store)["seconds"] for s in (0, 1))
    assert first["compile"] > fits[0].seconds["compile"] > 0, "the final scores compile as well"
    assert second["compile"] == 0


def test_another_seed_or_recipe_is_another_run(run, store):
    assert runs.find_record(TINY, 1, store) is None
    assert runs.find_record(TINY.but(lr=0.2), 0, store) is None


@pytest.mark.parametrize("field", ["code", "jaxlib", "device", "threads"])
def test_a_run_made_in_another_setting_is_not_found(run, store, monkeypatch, field):
    other = provenance.setting() | {field: "other"}
    if field == "code":
        monkeypatch.setattr(runs, "code", lambda recipe: "other")
    else:
        monkeypatch.setattr(provenance, "setting", lambda: other)
    assert runs.find_record(TINY, 0, store) is None


def test_a_run_of_code_that_makes_the_same_numbers_is_found(run, store, monkeypatch, tmp_path):
    path = tmp_path / "same_numbers.json"
    path.write_text(json.dumps({run.record["setting"]["code"]: {TINY.id: "middle"}, "middle": {
        TINY.id: "other"}}))  # fmt: skip
    monkeypatch.setattr(equalities, "PATH", path)
    monkeypatch.setattr(runs, "code", lambda recipe: "other")
    assert runs.find_record(TINY, 0, store) == run.record
    path.with_name("of_another.json").write_text(path.read_text().replace(TINY.id, "another id"))
    monkeypatch.setattr(equalities, "PATH", path.with_name("of_another.json"))
    assert runs.find_record(TINY, 0, store) is None


def test_the_saved_weights_score_what_the_record_says(run, store):
    dataset, final = runs.load_data(TINY, 0, store), run.record["final"]

    def accuracy(split):
        return evaluate(run.trained, split)["accuracy"]

    assert accuracy(dataset.test) == final["test_accuracy"]
    assert accuracy(dataset.validation) == final["val_accuracy"]


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run at .*run\.json"):
        runs.load_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}', "[]", "\x00\x01"])
def test_a_damaged_record_is_refused_and_trained_again(tmp_path, text):
    store = runs.Store(tmp_path / "runs")
    folder = store.folder(TINY, 0)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json cannot be read .* again"):
        runs.load_run(folder)
    assert runs.find_record(TINY, 0, store) is None


def test_damaged_weights_are_refused(run, store, tmp_path):
    record = (store.folder(TINY, 0) / "run.json").read_text()
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(UserError, match="no checkpoint"):
        runs.load_run(tmp_path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        runs.load_run(tmp_path)


def test_a_run_that_diverges_is_a_result(store):
    wild = TINY.but(distortion=3e38)  # a quarter of the images overflow at once
    record = runs.train_run(wild, 0, store)
    assert (record["status"], record["diverged_at"]) == ("diverged at step 0", 0)
    assert math.isfinite(record["final"]["test_accuracy"])
    assert record["final"]["test_loss"] is None
    again = runs.get_run(wild, 0, store).record
    assert (again["finished"], again["status"]) == (record["finished"], record["status"])


def test_an_interrupted_save_leaves_no_record(run, store, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    other = runs.Store(tmp_path / "runs")
    monkeypatch.setattr(runs.checkpoint, "save", full)
    with pytest.raises(OSError, match="No space"):
        runs.train_run(TINY, 0, other)
    assert runs.find_record(TINY, 0, other) is None
    assert not (other.folder(TINY, 0) / "run.json").exists()


def test_folds_give_each_seed_its_own_test_images(store):
    folds = TINY.but(split="folds")
    digests = {runs.load_data(folds, seed, store).digest for seed in range(5)}
    assert len(digests) == 5
    assert len({runs.load_data(TINY, seed, store).digest for seed in range(2)}) == 1


def test_evaluations_are_told_as_they_come(tmp_path):
    told = []
    record = runs.train_run(TINY, 0, runs.Store(tmp_path / "runs"), told.append)
    assert told == record["history"]


def test_nothing_but_the_run_is_left_behind(run, store):
    assert sorted(os.listdir(store.folder(TINY, 0))) == ["run.json", "weights"]
