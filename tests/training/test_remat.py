"""Blocks computed again in the backward pass: the same numbers, fewer of them kept."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.trees import deviation
from tests.training.test_accumulate import gradient_of, hyper, net_64, short  # noqa: F401  a fixture
from vggbn.evaluate import activations, evaluate
from vggbn.evaluate.trained import Trained
from vggbn.evaluate.watch import WATCHES
from vggbn.forecast import compiled as sharded
from vggbn.machine import compiling
from vggbn.models import MODELS, Net
from vggbn.training import loop
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe, static
from vggbn.training.step import TRACES, init_state
from vggbn.training.task import Task, static_of

SEED = 3
MLP = Recipe(
    data="digits", image_size=8, model="mlp", norm="batch", fc=12, activation="tanh", steps=4,
    batch=24, lr=0.05, evaluations=2,
)  # fmt: skip
# LRN, BN, pooling, dropout, crops.
VGG = MLP.but(model="vgg_a_lrn", norm_fc=True, width=1 / 32, crop_pad=1, steps=3)


def again(fixed):
    return fixed._replace(net=replace(fixed.net, remat=True))


# --- the same numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("model, parts", [("mlp", 1), ("short", 1), ("mlp", 3)])
def test_gradients_and_statistics_are_the_same_in_float64(model, parts):
    """Under one mask of dropout too: the second forward pass draws what the first drew."""
    with compiling.enable_x64():
        fixed, *batch = net_64(model, norm="batch", norm_fc=True)
        more = (jax.random.key(1, impl="rbg"), hyper(dropout=0.5), 0.7)
        kept = gradient_of(fixed, parts)(*batch, *more)
        found = gradient_of(again(fixed), parts)(*batch, *more)
        assert deviation(found, kept) < 1e-12
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(kept[1])) > 0.01


def test_a_run_is_the_same_within_rounding(digits):
    recipes = [MLP, MLP.but(remat=True)]
    fixed = [static_of(recipe, digits) for recipe in recipes]
    kept, found = (loop.fit(Task.of(recipe, SEED, digits)) for recipe in recipes)
    start = init_state(MLP, fixed[0], SEED)
    assert deviation(start.params, kept.state.params) > 0.01, "the run moves the weights"
    assert deviation(found.state.params, kept.state.params) < 1e-4
    assert deviation(found.state.batch_stats, kept.state.batch_stats) < 1e-4
    for ours, theirs in zip(found.history, kept.history, strict=True):
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-4)
    assert fixed[0] != fixed[1] and [TRACES[each] for each in fixed] == [1, 1]


# --- what is kept --------------------------------------------------------------------------------


def kept_maps(model: str, net: Net) -> list[tuple[int, ...]]:
    """Shapes, of 7 images, of all that the backward pass of a training step is handed."""

    def backward(variables, x_NHWC):
        def apply(params):
            return MODELS[model](net).apply(variables | {"params": params}, x_NHWC, train=True)[0]

        return jax.vjp(apply, variables["params"])[1]

    variables = jax.eval_shape(lambda: MODELS[model](net).init(jax.random.key(0), "he"))
    x_NHWC = jax.ShapeDtypeStruct((7, *net.image), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(backward, variables, x_NHWC))
    return sorted(leaf.shape for leaf in leaves if 7 in leaf.shape[:2])


def test_a_vgg_keeps_what_its_blocks_hand_on():
    net = Net((32, 32, 3), 10, fc=16, width=1 / 16, norm="batch")
    expected = [(7, 32, 32, 3), (7, 16, 16, 4), (7, 8, 8, 8), (7, 4, 4, 16), (7, 2, 2, 32)]
    # The last block's map is fc1's input, the other two are what fc2 and fc3 take.
    expected += [(7, 32), (7, 16), (7, 16)]
    assert kept_maps("vgg_e", replace(net, remat=True)) == sorted(expected)
    assert len(kept_maps("vgg_e", net)) > 2 * 16  # each of 16 convolutions: its input and its sums


def test_an_mlp_keeps_what_its_layers_hand_on():
    net = Net((4, 4, 1), 10, fc=12, norm="batch", activation="tanh")
    assert kept_maps("mlp", replace(net, remat=True)) == [*3 * [(7, 12)], (7, 16)]
    assert len(kept_maps("mlp", net)) > 4


def test_a_compiled_step_needs_less_memory():
    """8.1 and 4.1 MB, as a CPU's programs are compiled; the plain forms are in test_dry_run.py."""
    if not compiling.compiler_options():
        pytest.skip("XLA erases the barriers on a CPU unless it is told not to")
    recipe = Recipe(model="vgg_a", width=1 / 8, fc=64, norm="batch", image_size=32)
    fixed = static(recipe, image=(32, 32, 3), classes=10, flip=False)

    def temporaries(fixed):
        step = sharded.lower_step(recipe, fixed).compile(compiling.compiler_options())
        return step.memory_analysis().temp_size_in_bytes

    assert temporaries(again(fixed)) < 0.6 * temporaries(fixed)


# --- a net that is looked into -------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [MLP, VGG], ids=["mlp", "vgg"])
def test_a_tap_hears_what_it_hears_without(digits, recipe):
    fixed = static_of(recipe, digits)
    state, pixels = init_state(recipe, fixed, SEED), on_device(digits)
    trained = [
        Trained(each.net, state.variables, pixels.mean_C, pixels.std)
        for each in (fixed, again(fixed))
    ]
    images_NHWC = digits.test.images_NHWC[:20]
    kept, found = (activations(each, images_NHWC, train=True) for each in trained)
    assert list(found) == list(kept) and len(found) > 8
    assert deviation(dict(found), dict(kept)) < 1e-5


@pytest.mark.parametrize("watched", [name for name in WATCHES if name != "none"])
def test_a_net_is_watched_while_it_trains(digits, watched):
    recipe = MLP.but(watch=watched, steps=2)
    records = [
        loop.fit(Task.of(r, SEED, digits)).history[0] for r in (recipe, recipe.but(remat=True))
    ]
    kept, found = (record[watched] for record in records)
    assert deviation(found, kept) < 2e-3  # they are rounded to four digits


def test_evaluation_and_score_maps_are_the_same(digits):
    fixed = static_of(VGG, digits)
    state, pixels = init_state(VGG, fixed, SEED), on_device(digits)
    scores = [
        evaluate(Trained(each.net, state.variables, pixels.mean_C, pixels.std), digits.test)
        for each in (fixed, again(fixed))
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    x_NHWC = np.random.default_rng(0).normal(size=(2, 12, 10, 1)).astype(np.float32)
    nets = (fixed.net, again(fixed).net)
    maps = [jax.jit(MODELS[VGG.model](net).score_map) for net in nets]
    np.testing.assert_allclose(
        *(score_map(state.variables, x_NHWC) for score_map in maps), rtol=1e-4, atol=1e-5
    )
