"""Training and single-view testing on images of many scales (VGG 3.1)."""

import jax
import numpy as np
import pytest

from tests.data.test_data import options
from vggbn.data import load
from vggbn.data.lazy import centre_view
from vggbn.evaluate import evaluate
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe
from vggbn.training.step import TRACES, augment_batch, hyper_at
from vggbn.training.task import Task, static_of

RECIPE = Recipe(
    data="digits", fit="whole", source_side=16, scale_min=10, scale_max=14, image_size=8, batch=16,
    model="mlp", fc=16, steps=6, evaluations=2, population_batches=2, norm="batch",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return load("digits", **options(fit="whole", image_size=16))


def crops(recipe, dataset, seed=0):
    fixed, data = static_of(recipe, dataset), on_device(dataset)
    indices = np.arange(16, dtype=np.int32)
    key = jax.random.key(seed, impl="rbg")
    hyper = hyper_at(recipe, 0, [])
    batch = data.take(indices)
    x_NHWC = jax.jit(augment_batch, static_argnums=0)(fixed, batch, key, hyper)
    return np.asarray(x_NHWC) * np.asarray(data.std) + np.asarray(
        data.mean_C
    )  # back to pixels / 255


def test_a_net_is_fed_crops_of_its_own_size(digits):
    assert static_of(RECIPE, digits).net.image == (8, 8, 1)
    assert crops(RECIPE, digits).shape == (16, 8, 8, 1)


def test_with_one_place_to_crop_the_batch_is_the_rescaled_images(digits):
    fixed = RECIPE.but(scale_min=8, scale_max=8)
    expected = centre_view(digits.train, 8, 8).images_NHWC[:16] / 255
    np.testing.assert_allclose(crops(fixed, digits), expected, atol=1.5 / 255)


def test_scale_and_crop_follow_the_key(digits):
    one, again, other = (crops(RECIPE, digits, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again) and np.abs(one - other).max() > 0.1


def test_fixed_scale_and_jitter_share_one_compilation(digits):
    for recipe in (RECIPE, RECIPE.but(scale_max=10)):
        loop.fit(Task.of(recipe, 0, digits))
    assert TRACES[static_of(RECIPE, digits)] == 1


def test_the_validation_scores_are_those_of_the_centre_view(digits):
    fit = loop.fit(Task.of(RECIPE, 0, digits))
    view = loop.single_view(RECIPE, digits.validation)
    assert np.array_equal(view.images_NHWC, centre_view(digits.validation, 12, 8).images_NHWC)
    trained = loop.trained(Task.of(RECIPE, 0, digits), fit.state.variables)
    scores = evaluate(trained, view)
    assert scores["accuracy"] == fit.history[-1]["val_accuracy"]


def test_a_run_on_many_scales_is_saved_and_found(tmp_path):
    store = runs.Store(tmp_path / "runs")
    run = runs.get_run(RECIPE, 0, store)
    assert run.record["final"]["test_n"] == run.record["data"]["test"]
    assert runs.find_record(RECIPE, 0, store)["id"] == RECIPE.id
    assert runs.find_record(RECIPE.but(scale_max=15), 0, store) is None


def test_a_plateau_ends_the_run_after_its_last_drop(digits):
    flat = {"lr": 1e-12, "norm": "none"}  # BN's averages would move
    recipe = RECIPE.but(schedule="plateau", lr_every=1.0, steps=40, evaluations=20, **flat)
    fit = loop.fit(Task.of(recipe, 0, digits))
    # Nothing is learned: the second to fifth validations are each no better than the first.
    assert [record["step"] for record in fit.history] == [2, 4, 6, 8, 10]
    assert int(fit.state.step) == 10 and loop.is_over(recipe, fit.history)
    assert not loop.is_over(recipe.but(schedule="constant"), fit.history)
