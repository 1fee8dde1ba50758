"""A run.json of any shape: read, or refused by one sentence; and found only as the run it is of."""

import json
import shutil

import pytest

from vggbn.commands.evaluate import main as evaluate_main
from vggbn.errors import UserError
from vggbn.runs import posteriors
from vggbn.runs import record as run_record
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.recipe import Recipe

TINY = Recipe(
    data="digits", image_size=8, split="fixed", model="mlp", norm="batch", fc=8, steps=4, lr=0.1,
    evaluations=1, population_batches=1,
)  # fmt: skip
OTHER = TINY.but(fc=9)
LATE = {"train_accuracy", "majority"}  # earlier versions did not write these


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with a run of TINY and one of OTHER, seed 0, which no test may change."""
    store = runs.Store(tmp_path_factory.mktemp("out") / "runs")
    for recipe in (TINY, OTHER):
        runs.get_run(recipe, 0, store)
        posteriors.compute_posterior(recipe, 0, store, "by_batch", 8)
    return store


@pytest.fixture
def store(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained.runs, tmp_path / "runs")
    return runs.Store(tmp_path / "runs")


@pytest.fixture
def record(trained):
    return json.loads((trained.folder(TINY, 0) / "run.json").read_text())


def write(store, record, recipe=TINY, seed=0):
    folder = store.folder(recipe, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(record if isinstance(record, str) else json.dumps(record))
    return folder


def edited(record, path, value):
    """The record with the value at "a.b" changed."""
    first, _, rest = path.partition(".")
    return record | {first: edited(record[first], rest, value) if rest else value}


WRONG = [
    *(("recipe", value) for value in (None, [], "x", {}, 3, {"data": "digits", "model": "nope"})),
    ("recipe.parent", "x"),
    ("recipe.parent", {}),
    ("recipe.fc", "8"),
    ("recipe.model", None),
    *(("seed", value) for value in ("0", None, True, -1, 0.0, [0])),
    *(("data", value) for value in ({}, None, [], "digits", {"name": "digits", "classes": "10"})),
    ("data.classes", True),
    ("data.name", None),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_record_of_another_shape_is_refused_by_one_sentence(
    path, value, store, record, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = write(store, edited(record, path, value))
    with pytest.raises(SystemExit) as end:
        evaluate_main([str(folder), "digits"])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith(f"error: {folder}/run.json cannot be read (") and err.count("\n") == 1
    assert path.partition(".")[0] in err and err.endswith("); train the run again.\n")
    assert runs.find_record(TINY, 0, store) is None
    assert posteriors.find_posterior(TINY, 0, store, "by_batch", 8) is None


@pytest.mark.parametrize(
    "text", ["null", "3", '"x"', "[]", "[" * 100_000, "\ufeff{}", '{"seed": 0}']
)
def test_json_that_is_no_record_is_refused(text, store):
    folder = write(store, text)
    with pytest.raises(UserError, match=r"run\.json cannot be read \(.+\); train the run again"):
        runs.load_run(folder)
    assert runs.find_record(TINY, 0, store) is None
    assert posteriors.find_posterior(TINY, 0, store, "by_batch", 8) is None


def paths(value, above=""):
    """Every "a.b" of a record that `find_record` may rely on."""
    for name, inner in value.items():
        if name in LATE:
            continue
        yield above + name
        if isinstance(inner, dict) and name in ("final", "data"):
            yield from paths(inner, f"{above}{name}.")


def test_a_found_record_has_all_that_a_run_writes(store, record):
    assert runs.find_record(TINY, 0, store) == record
    for path in paths(record):
        *above, name = path.split(".")
        lacking = json.loads(json.dumps(record))
        holder = lacking[above[0]] if above else lacking
        del holder[name]
        write(store, lacking)
        assert runs.find_record(TINY, 0, store) is None, path
        if path not in ("diverged_at", "final.test_loss"):  # null: there is none
            write(store, edited(record, path, None))
            assert runs.find_record(TINY, 0, store) is None, path
    for history in ([], [None], [{}], {}, "x"):
        write(store, record | {"history": history})
        assert runs.find_record(TINY, 0, store) is None, history
    write(store, record)
    assert runs.find_record(TINY, 0, store) == record


def test_an_earlier_version_s_record_is_still_read(store, record):
    early = json.loads(json.dumps(record))
    del early["final"]["train_accuracy"], early["data"]["majority"], early["recipe"]["remat"]
    folder = write(store, early)
    assert runs.find_record(TINY, 0, store) == early
    assert runs.load_run(folder).record == early
    # and to be evaluated, a run needs these three alone
    few = {name: record[name] for name in ("recipe", "seed", "data")}
    assert runs.load_run(write(store, few)).record == few
    assert runs.find_record(TINY, 0, store) is None


def test_a_run_that_went_through_a_loss_that_is_not_finite_is_found(store, record):
    wild = record | {"status": "diverged at step 2", "diverged_at": 2}
    wild["history"] = [
        record["history"][0] | {"val_loss": float("nan"), "train_loss": float("inf")}
    ]
    wild["final"] = record["final"] | {"test_loss": None}
    write(store, wild)
    assert runs.find_record(TINY, 0, store)["diverged_at"] == 2


@pytest.mark.parametrize(
    ("recipe", "seed", "edits"),
    [
        (TINY, 0, {"id": OTHER.id}),
        (TINY, 0, {"seed": 1}),
        (TINY, 1, {}),  # seed 0's, copied
        (OTHER, 0, {}),  # another recipe's, copied
        (OTHER, 0, {"id": OTHER.id}),
        (TINY.but(lr=0.2), 0, {}),
    ],
)
def test_another_run_s_record_is_not_found(recipe, seed, edits, store, record):
    write(store, record | edits, recipe, seed)
    assert runs.find_record(recipe, seed, store) is None


def test_the_posteriors_of_a_copied_run_are_not_another_s(store):
    there = (OTHER, 0, store, "by_batch", 8)
    assert posteriors.find_posterior(*there) is not None
    shutil.rmtree(store.folder(OTHER, 0))
    shutil.copytree(store.folder(TINY, 0), store.folder(OTHER, 0))
    assert posteriors.find_posterior(*there) is None


def test_what_is_not_this_run_s_record_is_trained_again_and_then_found(store, record, monkeypatch):
    for wrong in ({"setting": record["setting"]}, record):
        write(store, wrong, OTHER)
        found = runs.train_run(OTHER, 0, store)
        assert (found["id"], found["seed"]) == (OTHER.id, 0)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "fit", None)  # not called
            assert runs.train_run(OTHER, 0, store) == found


def test_weights_of_another_net_are_refused(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = store.folder(TINY, 0)
    shutil.rmtree(folder / "weights")
    shutil.copytree(store.folder(OTHER, 0) / "weights", folder / "weights")
    with pytest.raises(SystemExit) as end:
        evaluate_main([str(folder), "digits"])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert f"{folder}/weights" in err and "not those of its recipe" in err and err.count("\n") == 1


def test_a_misfit_is_named_by_its_place():
    shape = {"a": {"b": int}, "c": [{"d": (int, float)}]}
    for value, said in [
        ({"a": {"b": 1}, "c": [{"d": 0.5}, {"d": 2}], "more": 0}, ""),
        ([], "it is no object"),
        ({"c": []}, "a is missing"),
        ({"a": None, "c": []}, "a is no object"),
        ({"a": {}, "c": []}, "a.b is missing"),
        ({"a": {"b": "1"}, "c": []}, "a.b is '1'"),
        ({"a": {"b": 1}, "c": {}}, "c is no list"),
        ({"a": {"b": 1}, "c": []}, "c is empty"),
        ({"a": {"b": 1}, "c": [{"d": 1}, {"d": True}]}, "c[1].d is True"),
    ]:
        assert run_record.misfit(value, shape) == said
