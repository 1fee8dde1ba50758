"""What is watched in a net, against NumPy and jax's own derivatives."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.digits import load_digits
from vggbn.evaluate import activations, evaluate, watch
from vggbn.nn.layers import ACTIVATIONS
from vggbn.training import loop
from vggbn.training.recipe import Recipe
from vggbn.training.task import Task

MLP = Recipe(
    data="digits", image_size=8, model="mlp", fc=12, activation="sigmoid", norm="batch", steps=30,
    evaluations=2, lr=0.1, watch="inputs",
)  # fmt: skip
VGG = MLP.but(model="vgg_a", width=1 / 32, fc=8, activation="relu", steps=2, norm_fc=True)


def no_step():
    raise AssertionError("what is watched in evaluation mode needs no step")


@pytest.fixture(scope="module")
def digits():
    return load_digits(seed=0)


@cache
def net(recipe):
    """(fit, the trained net)."""
    digits = load_digits(seed=0)
    task = Task.of(recipe, 0, digits)
    fit = loop.fit(task)
    return fit, loop.trained(task, fit.state.variables)


def ahead_of(fit):
    """The step that lies ahead of a net of MLP."""
    return partial(loop.step_ahead, Task.of(MLP, 0, load_digits(seed=0)), fit.state)


# --- activations ---------------------------------------------------------------------------------


def test_the_last_layer_s_inputs_give_the_net_s_own_score(digits):
    _, trained = net(MLP)
    test = digits.test
    heard = activations(trained, test.images_NHWC)
    out = trained.variables["params"]["fc4"]
    z = 1 / (1 + np.exp(-np.float64(heard["fc3", "input"])))
    right = (z @ np.float64(out["kernel"]) + np.float64(out["bias"])).argmax(1) == test.labels_N
    assert right.mean() == evaluate(trained, test)["accuracy"] > 0.2


def test_in_training_mode_batch_norm_centres_and_scales(digits):
    _, trained = net(MLP)
    unit = {"scale": np.ones(12, np.float32), "bias": np.zeros(12, np.float32)}
    params = trained.variables["params"]
    params = params | {name: unit for name in params if name.startswith("norm")}
    trained = trained._replace(variables=trained.variables | {"params": params})
    heard = activations(trained, digits.test.images_NHWC, train=True)
    for (_, what), x in heard.items():
        if what == "input":
            np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
            np.testing.assert_allclose(x.var(0), 1, rtol=1e-2)


# --- in the history ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in watch.WATCHES if name != "none"])
def test_a_watch_stands_in_the_history_from_the_first_step_on(name, digits):
    fit, trained = net(MLP.but(watch=name) if name != "inputs" else MLP)
    assert fit.history[0]["step"] == 1 and all(name in record for record in fit.history)
    expected = watch.WATCHES[name](trained, digits.validation, ahead_of(fit))
    assert fit.history[-1][name] == expected
    unwatched = loop.fit(Task.of(MLP.but(watch="none"), 0, digits)).history[0]
    assert name not in unwatched and unwatched["step"] == 10


# --- each of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [MLP, VGG], ids=["mlp", "vgg"])
def test_percentiles_are_of_the_last_hidden_layer(recipe, digits):
    fit, trained = net(recipe)
    heard = activations(trained, digits.validation.images_NHWC[: watch.IMAGES])
    last = list(dict.fromkeys(layer for layer, _ in heard))[-1]
    x_ND = np.sort(heard[last, "input"].reshape(-1, recipe.fc), axis=0)
    nearest = np.round(np.array(watch.PERCENTILES) / 100 * (len(x_ND) - 1)).astype(int)
    recorded = np.array(fit.history[-1]["inputs"])
    np.testing.assert_allclose(recorded, x_ND[nearest], atol=0.05 * np.ptp(x_ND))
    assert (np.diff(recorded, axis=0) >= 0).all() and recorded.shape == (3, recipe.fc)


def test_some_inputs_are_the_first_units_with_more_digits(digits):
    _, trained = net(MLP.but(fc=24))
    some, every = (
        np.array(f(trained, digits.validation, no_step)) for f in (watch.some_inputs, watch.inputs)
    )
    assert some.shape == (3, watch.UNITS) and every.shape == (3, 24)
    np.testing.assert_allclose(some, every[:, : watch.UNITS], rtol=6e-4)
    heard = activations(trained, digits.validation.images_NHWC[: watch.IMAGES])["fc3", "input"]
    wanted = np.percentile(heard[:, : watch.UNITS], watch.PERCENTILES, axis=0)
    np.testing.assert_allclose(some, wanted, rtol=1e-6)


def test_weights_are_euclidean_norms(digits):
    _, trained = net(MLP)
    found = watch.weights(trained, digits.validation, no_step)
    assert list(found) == ["fc1", "fc2", "fc3", "fc4"] and set(found["fc1"]) == {"kernel"}
    kernel = np.float64(trained.variables["params"]["fc2"]["kernel"])
    assert found["fc2"]["kernel"] == pytest.approx(np.sqrt((kernel**2).sum()), rel=1e-3)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradients_are_those_of_a_training_batch_in_numpy(norm, digits):
    """Of kernels, by hand and in float64: through BN's batch statistics where there are any."""
    _, trained = net(MLP if norm == "batch" else MLP.but(norm="none"))
    params = jax.tree.map(np.float64, trained.variables["params"])
    found = watch.gradients(trained, digits.validation, no_step)
    images, labels = (a[: watch.IMAGES] for a in images_and_labels(digits.validation))
    mean_C, std = np.asarray(trained.mean_C), np.asarray(trained.std)
    z = ((np.float64(images) / 255 - mean_C) / std).reshape(len(images), -1)
    kept = []
    for name in ("fc1", "fc2", "fc3"):
        total = z @ params[name]["kernel"] + params[name].get("bias", 0.0)
        rstd, x_hat, scale, shift = 1.0, total, 1.0, 0.0
        if norm == "batch":
            rstd = 1 / np.sqrt(total.var(0) + 1e-5)
            x_hat = (total - total.mean(0)) * rstd
            scale, shift = params[f"norm_{name}"]["scale"], params[f"norm_{name}"]["bias"]
        kept.append((name, z, x_hat, rstd, scale))
        z = 1 / (1 + np.exp(-(scale * x_hat + shift)))
        kept[-1] += (z * (1 - z),)
    logits = z @ params["fc4"]["kernel"] + params["fc4"]["bias"]
    p = np.exp(logits - logits.max(1, keepdims=True))
    d_logits = (p / p.sum(1, keepdims=True) - np.eye(10)[labels]) / len(labels)
    expected = {"fc4": np.linalg.norm(z.T @ d_logits)}
    dz = d_logits @ params["fc4"]["kernel"].T
    for name, u, x_hat, rstd, scale, slope in kept[::-1]:
        d = dz * slope * scale
        if norm == "batch":
            d = (d - d.mean(0) - x_hat * (d * x_hat).mean(0)) * rstd
        expected[name] = np.linalg.norm(u.T @ d)
        dz = d @ params[name]["kernel"].T
    assert found == pytest.approx(expected, rel=2e-3)


def images_and_labels(split):
    return split.images_NHWC, split.labels_N


@pytest.mark.parametrize(
    "norm, activation", [("batch", "sigmoid"), ("none", "sigmoid"), ("batch", "relu")]
)
def test_jacobians_are_jax_s_own(norm, activation, digits):
    """From the inputs of one non-linearity to the next's, both standardised over the images."""
    recipe = MLP.but(norm="none") if norm == "none" else MLP
    recipe = recipe if activation == "sigmoid" else recipe.but(activation=activation)
    _, trained = net(recipe)
    params, stats = trained.variables["params"], trained.variables["batch_stats"]
    found = watch.jacobians(trained, digits.validation, no_step)
    assert list(found) == ["fc2", "fc3"]
    images = digits.validation.images_NHWC[: watch.IMAGES]
    heard = activations(trained, images)
    act = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[activation]

    def layer(x_I):
        y_O = act(x_I) @ params["fc2"]["kernel"] + params["fc2"].get("bias", 0.0)
        if norm == "none":
            return y_O
        own, seen = params["norm_fc2"], stats["norm_fc2"]
        return (y_O - seen["mean"]) / jnp.sqrt(seen["var"] + 1e-5) * own["scale"] + own["bias"]

    x_NI, y_NO = heard["fc1", "input"], heard["fc2", "input"]
    j_NOI = jax.jit(jax.vmap(jax.jacfwd(layer)))(x_NI[: watch.JACOBIANS])
    scaled = np.float64(j_NOI) * x_NI.std(0) / y_NO.std(0)[:, None]
    values = np.linalg.svd(scaled, compute_uv=False)
    for name, q in (("median", 50), ("low", 15), ("high", 85)):
        assert found["fc2"][name] == pytest.approx(np.percentile(values, q), rel=2e-3, abs=1e-5)


def test_shapes_of_distributions_are_those_of_the_textbook():
    rng = np.random.default_rng(0)
    normal = watch.shape_of(rng.normal(3, 2, (200_000, 2)))
    assert normal["skewness"] < 0.02 and normal["kurtosis"] < 0.05 and normal["zeros"] == 0
    assert normal["negentropy"] < 1e-3
    middles = (watch.EDGES[1:] + watch.EDGES[:-1]) / 2
    bell = np.exp(-(middles**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(normal["density"], bell, atol=0.01)
    skewed = watch.shape_of(rng.exponential(1, (400_000, 1)))
    assert skewed["skewness"] == pytest.approx(2, rel=0.05)
    assert skewed["kurtosis"] == pytest.approx(6, rel=0.15)
    assert skewed["negentropy"] == pytest.approx(4 / 12 + 36 / 48, rel=0.2)
    half = np.maximum(rng.normal(size=(1000, 3)), 0)
    half[:, 2] = 0  # a dead unit has no shape, and is all zeros
    found = watch.shape_of(half)
    assert found["zeros"] == pytest.approx((half == 0).mean(), rel=1e-3)
    alive = watch.shape_of(half[:, :2])
    assert found["skewness"] == pytest.approx(alive["skewness"])
    assert found["density"] == alive["density"]
    assert np.isnan(watch.shape_of(half[:, 2:])["density"]).all()
    outside = watch.shape_of(np.r_[np.zeros(99), 1.0][:, None])  # one value at 9.9 deviations
    assert np.sum(outside["density"]) / 3 == pytest.approx(0.99)


def test_gaussianity_is_of_what_layers_take_and_of_their_sums(digits):
    _, trained = net(MLP)
    found = watch.gaussianity(trained, digits.validation, no_step)
    heard = activations(trained, digits.validation.images_NHWC[: watch.IMAGES])
    assert list(found) == ["fc1", "fc2", "fc3"] and set(found["fc1"]) == {"u", "sum"}
    assert found["fc2"]["sum"] == watch.shape_of(heard["fc2", "sum"])


def test_every_activation_has_its_slope():
    x = np.linspace(-3, 3, 13)
    for name, slope in watch.SLOPES.items():
        act = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[name]
        expected = jax.vmap(jax.grad(act))(jnp.float32(x))
        np.testing.assert_allclose(slope(x), expected, rtol=1e-5, atol=1e-6)
    assert set(watch.SLOPES) == set(ACTIVATIONS)
