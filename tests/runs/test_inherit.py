"""Fine-tuning, and initialisation from net A by stage (VGG 3.1)."""

import jax
import numpy as np
import pytest

from tests.models.test_models import random_like, shapes, small
from vggbn.errors import UserError
from vggbn.jobs import here, pool
from vggbn.models.inherit import STAGES, inherit
from vggbn.runs import many
from vggbn.runs import run as runs
from vggbn.runs.place import Place
from vggbn.training.recipe import Recipe

NET = small((16, 16, 3), norm="batch", norm_fc=True)


def trees(model, net=NET, seed=0):
    rng = np.random.default_rng(seed)
    params, stats = (random_like(tree, rng) for tree in shapes(model, net))
    return {"params": params, "batch_stats": stats}


def same(one, other) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_all_takes_every_layer_and_every_statistic():
    parent = trees("vgg_d", seed=1)
    assert same(inherit("all", trees("vgg_d"), parent), parent)


@pytest.mark.parametrize("model", ["vgg_b", "vgg_c", "vgg_d", "vgg_e"])
def test_by_stage_the_first_four_convolutions_of_a_and_the_last_three_dense_layers(model):
    own, parent = trees(model), trees("vgg_a", seed=1)
    for name, found in inherit("stages", own, parent).items():
        before, theirs = own[name], parent[name]
        assert found.keys() == before.keys()
        copied = {name for name in found if same(found[name], theirs.get(name))}
        assert {name.removeprefix("norm_") for name in copied} == set(STAGES) - (
            {"fc3"} if "conv1_1" not in found else set()
        )
        assert all(same(found[name], before[name]) for name in found.keys() - copied)


def test_the_four_are_a_s_first_four_by_depth():
    convolutions = [name for name in trees("vgg_a")["params"] if name.startswith("conv")]
    assert tuple(sorted(convolutions)[:4]) == STAGES[:4]
    assert set(STAGES[4:]) == {"fc1", "fc2", "fc3"}


@pytest.mark.parametrize(
    ("how", "model", "net", "layer"),
    [
        ("all", "vgg_a", NET, "conv1_2"),
        ("stages", "vgg_d", small((32, 32, 3), norm="batch", norm_fc=True, pools=2), "fc1"),
        ("all", "vgg_d", small((16, 16, 1), norm="batch", norm_fc=True), "conv1_1"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_by_name(how, model, net, layer):
    with pytest.raises(UserError, match=f"layer {layer} cannot be inherited"):
        inherit(how, trees("vgg_d"), trees(model, net))


# --- in runs -------------------------------------------------------------------------------------

PARENT = Recipe(
    data="digits", image_size=8, model="mlp", fc=16, steps=12, lr=0.05, evaluations=2,
    population_batches=2,
)  # fmt: skip
CHILD = PARENT.but(parent=PARENT, steps=1, lr=1e-9, l2=0.0)
GRANDCHILD = CHILD.but(parent=CHILD, l2=1e-4)


def test_a_child_starts_where_its_parent_ended(tmp_path):
    store = runs.Store(tmp_path / "runs")
    child = runs.get_run(CHILD, 0, store)
    parent = runs.load_run(store.folder(PARENT, 0))  # trained on the way
    assert parent.record["id"] == PARENT.id and child.record["recipe"]["parent"]["lr"] == 0.05
    for a, b in zip(
        *(jax.tree.leaves(run.trained.variables["params"]) for run in (parent, child)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert child.record["final"]["test_accuracy"] == parent.record["final"]["test_accuracy"] > 0.2


def test_ancestors_are_trained_once_and_before(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "_train", lambda place, report: runs.train_run(*place, report))
    store = runs.Store(tmp_path / "runs")
    wanted = {f"g{seed}": Place(GRANDCHILD, seed, store) for seed in (0, 1)}
    wanted["second child"] = Place(CHILD.but(steps=2), 0, store)
    every = many.with_ancestors(wanted)
    ids = [(recipe.id, seed) for recipe, seed, _ in every.values()]
    line = [PARENT.id, CHILD.id, GRANDCHILD.id]
    assert ids[:6] == [(i, 0) for i in line] + [(i, 1) for i in line]
    assert len(ids) == 7 == len(set(ids))
    written = []

    def write(name, record):
        written.append((name, record["id"]))

    done = set()

    def run_jobs(jobs, work, events):
        assert all(job.after for job in jobs if job.payload.parent)
        for job in jobs:
            assert job.after <= done
            here.run_jobs([job], work, events)
            done.add(job.name)

    assert many.train_many(wanted, pool.Engine(run_jobs, 1, here=True), write) == 0
    assert sorted(written) == [
        ("g0", GRANDCHILD.id), ("g1", GRANDCHILD.id), ("second child", CHILD.but(steps=2).id),
    ]  # fmt: skip
    assert len(list((tmp_path / "runs").glob("*/seed*/run.json"))) == 7
