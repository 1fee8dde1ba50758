"""Evaluation by the test batches' own statistics."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vggbn import data
from vggbn.data import Split
from vggbn.data.permutation import permutation
from vggbn.errors import UserError
from vggbn.evaluate import by_batch
from vggbn.evaluate.by_batch import _KEY
from vggbn.evaluate.trained import Trained
from vggbn.models import MODELS
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe
from vggbn.training.step import init_state
from vggbn.training.task import static_of

RECIPE = Recipe(
    data="digits", image_size=8, model="mlp", fc=12, norm="batch", activation="tanh", bn_groups=2
)


@pytest.fixture(scope="module")
def net():
    """(trained net whose moving averages are far off, test images)."""
    digits = data.load("digits", image_size=8, fit="resize", split="fixed", seed=0, data_dir=None)
    fixed = static_of(RECIPE, digits)
    state = init_state(RECIPE, fixed, 0)
    far = jax.tree.map(lambda leaf: leaf + 3, state.batch_stats)
    pixels = on_device(digits)
    variables = {"params": state.params, "batch_stats": far}
    trained = Trained(fixed.net, variables, pixels.mean_C, pixels.std)
    return trained, digits.test.take(np.arange(50))


def normalised_together(net, images_NHWC):
    """The softmax of a net whose batch is all these images, in one group."""
    trained, _ = net
    x_NHWC = (images_NHWC / 255 - np.asarray(trained.mean_C)) / np.asarray(trained.std)
    model = MODELS["mlp"](replace(trained.net, bn_groups=1))
    logits, _ = model.apply(trained.variables, x_NHWC.astype(np.float32), train=True)
    return jax.nn.softmax(logits)


def test_all_images_at_once_are_one_batch(net):
    p_VNK = by_batch(*net, side=50, mirrored=False)
    expected = normalised_together(net, net[1].images_NHWC)
    np.testing.assert_allclose(p_VNK[0], expected, rtol=1e-4, atol=1e-6)


def test_an_image_shares_its_batch_with_others_and_the_last_batch_is_filled_up(net):
    images = net[1].images_NHWC
    p_VNK = by_batch(*net, side=20, mirrored=True)
    assert p_VNK.shape == (2, 50, 10)
    np.testing.assert_allclose(p_VNK.sum(-1), 1, rtol=1e-5)
    order = permutation(50, _KEY)
    for start in (0, 20, 40):
        rows = np.concatenate([order, order])[start : start + 20]
        new = rows[: 50 - start]  # the others had their turn in the first batch
        for view, side in enumerate((images, images[:, :, ::-1])):
            expected = normalised_together(net, side[rows])[: len(new)]
            np.testing.assert_allclose(p_VNK[view, new], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [0, 51])
def test_a_batch_that_does_not_fit_is_refused(net, side):
    with pytest.raises(UserError, match=f"a batch of {side} does not fit 50 test images"):
        by_batch(*net, side=side, mirrored=False)


def test_images_of_many_scales_are_refused(net):
    split = net[1]
    framed = Split(split.images_NHWC, split.labels_N, np.full((50, 2), 8, np.int32))
    with pytest.raises(UserError, match="no batches"):
        by_batch(net[0], framed, side=10, mirrored=False)
