"""Views: posteriors of trained nets, kept beside them, averaged and scored as arms."""

import json

import numpy as np
import pytest

from tests.support.result_lines import SETTING, line
from vggbn.claims.results import Results
from vggbn.evaluate import centre, dense, multi_crop
from vggbn.experiment import view_many, views
from vggbn.experiment.views import Look, View, correct, record, view
from vggbn.identity import equalities
from vggbn.jobs import here, pool
from vggbn.machine import compiling
from vggbn.runs import posteriors
from vggbn.runs import run as runs
from vggbn.runs.posteriors import compute_posterior, find_posterior
from vggbn.training.recipe import Recipe

A = Recipe(
    data="digits", fit="whole", source_side=16, scale_min=10, scale_max=14, image_size=8, batch=16,
    width=1 / 16, fc=32, pools=1, steps=40, lr=0.05, evaluations=1, population_batches=2,
    norm="batch", dropout=0.0,
)  # fmt: skip
RECIPES = {"a": A, "b": A.but(lr=0.02)}
BOTH = View((Look("a", (8, 12), ("dense", "multi_crop")), Look("b", (10,))))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return runs.Store(tmp_path_factory.mktemp("views") / "runs")


@pytest.fixture(scope="module")
def lines(store):
    wanted = {"both": (BOTH, 0), "one": (view("b", 10), 0), "plain": (view("a", 8, 12), 0)}
    written = []
    with pytest.MonkeyPatch.context() as patch:  # this process is not the engine's alone
        patch.setattr(compiling, "tune_process", lambda: None)
        lost = view_many.view_many(
            wanted, RECIPES, store, here.engine(), lambda name, line: written.append((name, line))
        )
    assert lost == 0 and [name for name, _ in written] == ["both", "one", "plain"]
    return dict(written)


def by_hand(store, net, protocol, side):
    recipe = RECIPES[net]
    run, dataset = runs.load_run(store.folder(recipe, 0)), runs.load_data(recipe, 0, store)
    return protocol(run.trained, dataset.test, side=side, mirrored=False)[0]


def test_a_view_averages_scales_then_protocols_then_nets(store, lines):
    first = np.mean(
        [
            np.mean([by_hand(store, "a", protocol, side) for side in (8, 12)], axis=0)
            for protocol in (dense, multi_crop)
        ],
        axis=0,
    )
    p_NK = (first + by_hand(store, "b", dense, 10)) / 2
    test = runs.load_data(A, 0, store).test
    expected = p_NK.argmax(1) == test.labels_N
    found = lines["both"]
    assert 0.15 < found["final"]["test_accuracy"] < 1
    assert np.mean(correct(found) == expected) > 0.995  # but for a tie by rounding
    assert found["final"]["test_n"] == len(test)
    recalls = [correct(found)[test.labels_N == k].mean() for k in range(10)]
    assert found["final"]["test_balanced"] == pytest.approx(np.mean(recalls))
    assert found["final"]["test_accuracy"] == pytest.approx(correct(found).mean())


def test_the_line_says_what_it_is_of(store, lines):
    found = json.loads(json.dumps(lines["both"]))
    run = json.loads((store.folder(A, 0) / "run.json").read_text())
    assert found["setting"] == run["setting"] | {"code": views.nets_code(BOTH, RECIPES)}
    assert found["data"] == run["data"]
    assert found["evaluation"] == views.evaluation_code(BOTH, RECIPES)
    one = lines["one"]["setting"]["code"]
    assert one == runs.code(RECIPES["b"]) != found["setting"]["code"]
    assert found["view"]["looks"][0] == {
        "net": "a", "sides": [8, 12], "protocols": ["dense", "multi_crop"],
    }  # fmt: skip
    assert found["id"] == BOTH.id(RECIPES) and found["seconds"]["all"] > 0


def test_an_id_knows_nets_scales_protocols_and_mirrors():
    others = [
        view("a", 8), view("a", 8, 12), view("b", 8), view("a", 8, mirrored=False),
        view("a", 8, by=("multi_crop",)), BOTH, View((BOTH.looks[1],)),
    ]  # fmt: skip
    ids = [v.id(RECIPES) for v in others]
    assert len(set(ids)) == len(ids) and ids[0] == view("a", 8).id(RECIPES)
    assert view("a", 8).id(RECIPES) != view("a", 8).id({"a": RECIPES["b"]})


def test_a_mirrored_view_is_used_only_if_asked(store, monkeypatch):
    p_VNK = np.array([[[0.9, 0.1]], [[0.2, 0.8]]], np.float32)  # together 0.55 against 0.45
    facts = {"classes": 2, "digest": "d"}
    found = posteriors.Posterior(p_VNK, np.zeros(1, np.int32), 2, 0.1, SETTING, facts)
    monkeypatch.setattr(views, "find_posterior", lambda *_: found._replace(p_VNK=p_VNK[::-1]))
    both, plain = (record(view("a", 8, mirrored=m), RECIPES, 0, store) for m in (True, False))
    assert correct(both).tolist() == [True] and correct(plain).tolist() == [False]


def test_posteriors_are_kept_until_the_net_or_the_evaluation_changes(store, lines, monkeypatch):
    args = (A, 0, store, "dense", 8)
    assert find_posterior(*args).p_VNK.shape == (1, lines["plain"]["final"]["test_n"], 10)
    assert find_posterior(A, 0, store, "dense", 9) is None
    path = store.folder(A, 0) / "run.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"finished": "later"}))
    assert find_posterior(*args) is None
    path.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(posteriors, "code", lambda recipe, protocol: "other")
        assert find_posterior(*args) is None
    assert find_posterior(*args) is not None


def test_a_damaged_posterior_is_computed_again(store, lines):
    args = (A, 0, store, "centre", 8)
    compute_posterior(*args)
    before = find_posterior(*args)
    path = next((store.folder(A, 0) / "posteriors").glob("centre@8*"))
    path.write_bytes(path.read_bytes()[:200])
    assert find_posterior(*args) is None
    compute_posterior(*args)
    assert np.array_equal(find_posterior(*args).p_VNK, before.p_VNK)
    assert np.allclose(before.p_VNK[0], by_hand(store, "a", centre, 8), atol=1e-5)


def test_what_is_there_is_not_computed_again(store, lines):
    idle = pool.Engine(lambda jobs, *_: [pytest.fail() for _ in jobs], 1, here=True)
    again = {}
    view_many.view_many({"x": (BOTH, 0)}, RECIPES, store, idle, again.__setitem__)
    assert again["x"]["correct"] == lines["both"]["correct"]


# --- in results ----------------------------------------------------------------------------------


def test_a_line_counts_if_todays_code_made_it(lines, monkeypatch, tmp_path):
    line = lines["both"]
    assert views.is_of_today(BOTH, RECIPES, line)
    other = {"a": A, "b": RECIPES["a"].but(lr=0.03)}
    assert not views.is_of_today(BOTH, other, line)  # another net
    for changed in (
        line | {"evaluation": "e1"},
        line | {"setting": line["setting"] | {"code": "c1"}},
    ):
        assert not views.is_of_today(BOTH, RECIPES, changed)
    old = line | {"evaluation": "e1", "setting": line["setting"] | {"code": "c1"}}
    table = {"e1": {line["id"]: line["evaluation"]}}
    table["c1"] = {recipe.id: runs.code(recipe) for recipe in RECIPES.values()}
    for number, (key, id) in enumerate([(None, None), *((k, i) for k in table for i in table[k])]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({k: {i: v for i, v in row.items() if (k, i) != (key, id)}
                                    for k, row in table.items()}))  # fmt: skip
        monkeypatch.setattr(equalities, "PATH", path)
        assert views.is_of_today(BOTH, RECIPES, old) == (key is None), f"without {key} {id}"


def test_views_are_left_out_by_what_made_them():
    ids = {name: f"id of {name}" for name in ("base", "v")}
    lines = [line("base"), line("v", 0, view={}), line("base", 1), line("v", 1, view={})]
    made = lambda name, line: (name, line["seed"]) != ("v", 1)  # noqa: E731
    found = Results(lines, ids, SETTING, made=made)
    assert found.final("v") == {0: 0.9} and found.final("base") == {0: 0.9, 1: 0.9}
    assert found.missing(range(2)) == [("v", 1)] and found.left_out == {"of other code": 1}
    assert found.of_other_code == [lines[-1]]
    assert len(found.trained()) == 2
