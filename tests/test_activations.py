"""What layers take and make, against NumPy on the taps' own numbers."""

import numpy as np
import pytest

from vggbn import data, train
from vggbn.evaluate import activations, evaluate, input_percentiles
from vggbn.evaluate.activations import IMAGES, PERCENTILES
from vggbn.recipe import Recipe

MLP = Recipe(
    data="digits", image_size=8, model="mlp", fc=12, activation="sigmoid", norm="batch", steps=30,
    evaluations=2, lr=0.1, percentiles=True,
)  # fmt: skip
VGG = MLP.but(model="vgg_a", width=1 / 32, fc=8, activation="relu", steps=2, norm_fc=True)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", image_size=8, fit="resize", split="folds", seed=0, data_dir=None)


def net(recipe, digits):
    fit, pixels = train.fit(recipe, 0, digits), train.on_device(digits)
    fixed = train.static_of(recipe, digits)
    return fit, (fixed, fit.state.params, fit.state.batch_stats), (pixels.mean_C, pixels.std)


@pytest.mark.parametrize("recipe", [MLP, VGG], ids=["mlp", "vgg"])
def test_the_history_holds_percentiles_of_the_last_hidden_layer(recipe, digits):
    fit, trained, pixels = net(recipe, digits)
    images = digits.validation.images_NHWC
    assert all(len(record["percentiles"]) == len(PERCENTILES) for record in fit.history)
    recorded = np.array(fit.history[-1]["percentiles"])
    inputs = activations(*trained, images[:IMAGES], *pixels)
    last = list(dict.fromkeys(layer for layer, _ in inputs))[-1]
    x_ND = inputs[last, "input"].reshape(-1, recipe.fc)
    expected = np.sort(x_ND, axis=0)[
        np.round(np.array(PERCENTILES) / 100 * (len(x_ND) - 1)).astype(int)
    ]
    spread = x_ND.max() - x_ND.min()
    np.testing.assert_allclose(recorded, expected, atol=0.05 * spread)  # the nearest rank
    assert (np.diff(recorded, axis=0) >= 0).all() and recorded.shape == (3, recipe.fc)
    assert input_percentiles(*trained, images, *pixels) == fit.history[-1]["percentiles"]
    assert "percentiles" not in train.fit(recipe.but(percentiles=False), 0, digits).history[0]


def test_the_last_layer_s_inputs_give_the_net_s_own_score(digits):
    _, trained, pixels = net(MLP, digits)
    heard = activations(*trained, digits.test.images_NHWC, *pixels)
    out = trained[1]["fc4"]
    z = 1 / (1 + np.exp(-np.float64(heard["fc3", "input"])))
    right = (z @ np.float64(out["kernel"]) + np.float64(out["bias"])).argmax(
        1
    ) == digits.test.labels_N
    assert right.mean() == evaluate(*trained, digits.test, *pixels)["accuracy"] > 0.2


def test_in_training_mode_batch_norm_centres_and_scales(digits):
    _, (fixed, params, stats), pixels = net(MLP, digits)
    params = params | {
        name: {"scale": np.ones(12, np.float32), "bias": np.zeros(12, np.float32)}
        for name in params
        if name.startswith("norm")
    }
    images = digits.test.images_NHWC
    heard = activations(fixed, params, stats, images, *pixels, train=True)
    for (_, what), x in heard.items():
        if what == "input":
            np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
            np.testing.assert_allclose(x.var(0), 1, rtol=1e-2)
