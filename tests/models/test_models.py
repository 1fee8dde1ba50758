"""The nets against Table 1's counts, Keras' VGGs and a NumPy VGG written from the papers alone."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tests.support import algorithm_1
from vggbn.models import MODELS, Net

PAPER = Net(image=(224, 224, 3), classes=1000)
MNIST = Net(image=(28, 28, 1), classes=10, fc=100, activation="sigmoid")

# Parameters at the papers' sizes: without norm (VGG's Table 2, exact), with BN and no bias before
# it, and with BN and that bias. Every model of MODELS has a row.
COUNTS = {
    "vgg_a": (PAPER, 132_863_336, 132_866_088, 132_868_840),
    "vgg_a_lrn": (PAPER, 132_863_336, 132_866_088, 132_868_840),
    "vgg_b": (PAPER, 133_047_848, 133_050_792, 133_053_736),
    "vgg_c": (PAPER, 133_638_952, 133_643_176, 133_647_400),
    "vgg_d": (PAPER, 138_357_544, 138_361_768, 138_365_992),
    "vgg_e": (PAPER, 143_667_240, 143_672_744, 143_678_248),
    "vgg_b_5x5": (PAPER, 134_503_528, 134_505_000, 134_506_472),
    "vgg_c_linear": (PAPER, 133_638_952, 133_643_176, 133_647_400),
    "mlp": (MNIST, 99_400 + 310, 99_400 + 10 + 600, 99_400 + 310 + 600),
}

# Table 1, a word a layer: output channels, "1x" before a 1×1 convolution, "5x" before a 5×5, "-"
# after one without activation, L for LRN, P for pooling. The last two are controls.
TABLE_1 = {
    "vgg_a": "64 P 128 P 256 256 P 512 512 P 512 512 P",
    "vgg_a_lrn": "64 L P 128 P 256 256 P 512 512 P 512 512 P",
    "vgg_b": "64 64 P 128 128 P 256 256 P 512 512 P 512 512 P",
    "vgg_c": "64 64 P 128 128 P 256 256 1x256 P 512 512 1x512 P 512 512 1x512 P",
    "vgg_d": "64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P",
    "vgg_e": "64 64 P 128 128 P 256 256 256 256 P 512 512 512 512 P 512 512 512 512 P",
    "vgg_b_5x5": "5x64 P 5x128 P 5x256 P 5x512 P 5x512 P",
    "vgg_c_linear": "64 64 P 128 128 P 256 256 1x256- P 512 512 1x512- P 512 512 1x512- P",
}


def shapes(model: str, net: Net):
    """(params, stats) as shapes."""
    init = MODELS[model](net).init
    variables = jax.eval_shape(lambda key: init(key, "he"), jax.random.key(0))
    return variables["params"], variables["batch_stats"]


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# --- parameter counts ----------------------------------------------------------------------------


def test_every_model_has_a_row():
    assert set(COUNTS) == set(MODELS) == {*TABLE_1, "mlp"}


@pytest.mark.parametrize("model", COUNTS)
def test_parameter_counts_are_the_papers(model):
    net, plain, with_bn, with_bn_and_bias = COUNTS[model]
    batch = net.__class__(**{**vars(net), "norm": "batch"})
    biased = net.__class__(**{**vars(batch), "bias_before_norm": True})
    counts = [size(shapes(model, variant)[0]) for variant in (net, batch, biased)]
    assert counts == [plain, with_bn, with_bn_and_bias]


@pytest.mark.parametrize("model", TABLE_1)
def test_the_statistics_are_two_numbers_a_channel(model):
    channels = sum(
        int(w.strip("-").split("x")[-1]) for w in TABLE_1[model].split() if w not in "LP"
    )
    stats = shapes(model, Net(image=(224, 224, 3), classes=1000, norm="batch"))[1]
    assert size(stats) == 2 * channels
    assert size(shapes(model, PAPER)[1]) == 0


def test_norm_fc_puts_a_norm_on_the_two_hidden_dense_layers_only():
    # two more norms of 4,096 channels, and two biases fewer, than D with BN on its convolutions
    params, stats = shapes("vgg_d", Net(image=(224, 224, 3), classes=1000, norm="batch", norm_fc=1))
    assert size(params) == 138_361_768 + 2 * 2 * 4096 - 2 * 4096
    assert {"norm_fc1", "norm_fc2"} <= set(stats) and "norm_fc3" not in stats


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("model", MODELS)
def test_a_bias_stands_only_where_no_norm_follows(model, norm):
    params, _ = shapes(model, Net(image=(16, 16, 1), classes=7, fc=8, norm=norm))
    layers = [name for name in params if not name.startswith("norm_")]
    for name in layers:
        assert ("bias" in params[name]) != (f"norm_{name}" in params), name
    assert any(f"norm_{name}" in params for name in layers) == (norm != "none")
    assert f"norm_{layers[-1]}" not in params, "the logits are not normalised"
    # linen.BatchNorm's leaves
    for name in set(params) - set(layers):
        assert set(params[name]) == {"scale", "bias"}


def test_width_multiplies_the_channels_and_never_reaches_zero():
    def channels(width):
        params, _ = shapes("vgg_a", Net(image=(8, 8, 1), classes=2, fc=3, width=width))
        return [params[name]["kernel"].shape[-1] for name in params if name.startswith("conv")]

    assert channels(1.0) == [64, 128, 256, 256, 512, 512, 512, 512]
    assert channels(1 / 8) == [8, 16, 32, 32, 64, 64, 64, 64]
    assert channels(2.0) == [128, 256, 512, 512, 1024, 1024, 1024, 1024]
    assert channels(1e-3) == [1, 1, 1, 1, 1, 1, 1, 1]


# --- against Keras -------------------------------------------------------------------------------


@pytest.mark.slow  # the quick suite has a NumPy VGG; to import Keras and build a net takes longer
@pytest.mark.parametrize(
    "model, theirs, side",
    [
        ("vgg_d", "VGG16", 64),  # fc1 takes 2×2 pixels, so that their order counts
        ("vgg_d", "VGG16", 224),
        ("vgg_e", "VGG19", 224),
    ],
)
def test_forward_pass_equals_keras(model, theirs, side, monkeypatch):
    import keras

    assert keras.backend.backend() == "jax"
    rng = np.random.default_rng(16)

    def he(self, shape, dtype=None, **_):  # Glorot's would shrink the signal below the biases
        kernel = rng.standard_normal(shape, dtype=np.float32)
        kernel *= np.float32(np.sqrt(2 / np.prod(shape[:-1])))
        return jnp.asarray(kernel)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", he)
    with jax.numpy_rank_promotion("allow"):  # Keras adds its biases by broadcasting
        net = getattr(keras.applications, theirs)(
            weights=None, classifier_activation=None, input_shape=(side, side, 3)
        )
        params = {}
        for layer in net.layers:
            if layer.weights:
                layer.bias.assign(rng.normal(0, 0.2, layer.bias.shape).astype(np.float32))
                name = layer.name.replace("block", "conv").replace("_conv", "_")
                name = name.replace("predictions", "fc3")
                params[name] = {"kernel": layer.kernel.value, "bias": layer.bias.value}
        x_NHWC = rng.standard_normal((2, side, side, 3), dtype=np.float32)
        expected = np.asarray(net(x_NHWC))
    ours = replace(PAPER, image=(side, side, 3))
    expected_tree = shapes(model, ours)[0]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, expected_tree)
    apply = jax.jit(MODELS[model](ours).apply, static_argnames="train")
    logits = np.asarray(apply({"params": params, "batch_stats": {}}, x_NHWC, train=False)[0])
    assert logits.shape == (2, 1000)
    # relative to what tells the two images apart, so that a net that ignores its input fails
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected[0] - expected[1]).max()


# --- against a NumPy VGG -------------------------------------------------------------------------


def conv_64(x, kernel):
    h, w = kernel.shape[:2]
    padded = np.pad(x, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    windows = sliding_window_view(padded, (h, w), axis=(1, 2))
    return np.einsum("NHWCij,ijCO->NHWO", windows, kernel, optimize=True)


def pool_64(x):
    if min(x.shape[1:3]) == 1:
        return x
    windows = sliding_window_view(x, (2, 2), axis=(1, 2))[:, ::2, ::2]
    return windows.max(axis=(-2, -1))


def lrn_64(x):
    squares = np.pad(x * x, ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (2 + 1e-4 * total) ** 0.75


ACTIVATIONS_64 = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def norm_64(params, stats, x, *, norm, train, eps):
    if norm == "layer":
        axes = tuple(range(1, x.ndim))
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    elif train:
        return algorithm_1.forward(x, params["scale"], params["bias"], eps).y
    else:
        mean, var = stats["mean"], stats["var"]
    return (x - mean) / np.sqrt(var + eps) * params["scale"] + params["bias"]


def vgg_64(words, net, params, stats, x, *, train=False):
    """Logits in float64: conv, norm, activation, LRN, pooling; then three dense layers."""

    def layer(x, name, linear, act):
        y = linear(x, params[name]["kernel"]) + params[name].get("bias", 0.0)
        y = act(y) if net.norm_after else y
        if f"norm_{name}" in params:
            own = params[f"norm_{name}"], stats.get(f"norm_{name}")
            y = norm_64(*own, y, norm=net.norm, train=train, eps=net.bn_eps)
        return y if net.norm_after else act(y)

    act = ACTIVATIONS_64[net.activation]
    block, i = 1, 0
    for word in words.split():
        if word == "P":
            x, block, i = pool_64(x) if block <= net.pools else x, block + 1, 0
        elif word == "L":
            x = lrn_64(x)
        else:
            i += 1
            linear = word.endswith("-")
            x = layer(x, f"conv{block}_{i}", conv_64, (lambda y: y) if linear else act)
    x = x.reshape(len(x), -1)
    x = layer(x, "fc1", np.matmul, act)
    x = layer(x, "fc2", np.matmul, act)
    return layer(x, "fc3", np.matmul, lambda y: y)


def mlp_64(net, params, stats, x, *, train=False):
    x = x.reshape(len(x), -1)
    act, last = ACTIVATIONS_64[net.activation], f"fc{net.hidden + 1}"
    for name in (f"fc{i + 1}" for i in range(net.hidden)):
        x = x @ params[name]["kernel"] + params[name].get("bias", 0.0)
        x = act(x) if net.norm_after else x
        if net.norm != "none":
            own = params[f"norm_{name}"], stats.get(f"norm_{name}")
            x = norm_64(*own, x, norm=net.norm, train=train, eps=net.bn_eps)
        x = x if net.norm_after else act(x)
    return x @ params[last]["kernel"] + params[last]["bias"]


def random_like(tree, rng, gain=1.414):
    """Weights that keep the signal; biases, gains and statistics far from their neutral values."""

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, gain / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape)
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 2, leaf.shape)
        return rng.normal(0, 0.3, leaf.shape)

    as_32 = lambda path, leaf: draw(path, leaf).astype(np.float32)  # noqa: E731
    return jax.tree_util.tree_map_with_path(as_32, tree)


def small(image, **fields) -> Net:
    return Net(image=image, classes=6, fc=12, width=1 / 16, **fields)


# Sides 8, 16, 28 and 32, odd sides, and a map that is 1 high and 5 wide at the end.
CASES = [
    ("vgg_a", small((16, 16, 1))),
    ("vgg_a", small((32, 32, 3), norm="batch", norm_fc=True, activation="sigmoid")),
    ("vgg_a", small((12, 40, 2), activation="tanh", bn_eps=0.3, norm="batch")),
    ("vgg_a_lrn", small((32, 32, 3))),
    ("vgg_a_lrn", small((8, 8, 1), norm="batch", bias_before_norm=True)),
    ("vgg_b", small((20, 17, 1), norm="layer")),
    ("vgg_c", small((32, 32, 3), norm="batch")),
    ("vgg_d", small((28, 28, 1), norm="batch")),
    ("vgg_e", small((16, 16, 3))),
    ("vgg_b_5x5", small((16, 24, 3), norm="batch", pools=2)),
    ("vgg_c_linear", small((16, 16, 3), norm="batch", pools=3)),
    ("mlp", small((4, 5, 3), activation="sigmoid")),
    ("mlp", small((5, 4, 1), norm="batch", bias_before_norm=True)),
    ("mlp", small((5, 4, 1), norm="layer")),
    ("mlp", small((5, 4, 1), norm="batch", norm_after=True, hidden=5)),
    ("vgg_a_lrn", small((16, 16, 1), norm="batch", norm_fc=True, norm_after=True)),
    ("vgg_c_linear", small((16, 16, 3), norm="batch", norm_after=True)),
]


@pytest.mark.parametrize(
    "model, net", CASES, ids=lambda v: v if isinstance(v, str) else f"{v.image[0]}-{v.norm}"
)
def test_forward_pass_equals_a_numpy_net(model, net):
    rng = np.random.default_rng(len(model) + net.image[0])
    gain = 6 if net.activation == "sigmoid" else 1.414  # against the sigmoid's small slope
    params, stats = (random_like(tree, rng, gain) for tree in shapes(model, net))
    # large pixels: the images must differ by more than the biases, and LRN from a constant
    x_NHWC = rng.normal(0, 100 if model == "vgg_a_lrn" else 10, (5, *net.image)).astype(np.float32)
    reference = mlp_64 if model == "mlp" else lambda *a, **kw: vgg_64(TABLE_1[model], *a, **kw)
    params_64, stats_64, x_64 = jax.tree.map(np.float64, (params, stats, x_NHWC))
    apply = jax.jit(MODELS[model](net).apply, static_argnames="train")

    def check(train):
        expected = reference(net, params_64, stats_64, x_64, train=train)
        logits, new_stats = apply({"params": params, "batch_stats": stats}, x_NHWC, train=train)
        # BN over five values makes much of the rounding, which is another with each XLA.
        assert np.abs(logits - expected).max() <= 3e-4 * np.ptp(expected, axis=0).max()
        return new_stats

    jax.tree.map(np.testing.assert_array_equal, check(train=False), stats)  # evaluation moves none
    if net.norm == "batch":
        trained = check(train=True)
        moved = jax.tree.map(lambda new, old: bool((new != old).all()), trained, stats)
        assert all(jax.tree.leaves(moved)), "training moves every statistic"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("model", ["mlp", "vgg_c"])
def test_a_tap_hears_what_every_hidden_layer_takes_and_makes(model, after):
    net = small((16, 16, 1), norm="batch", norm_fc=True, norm_after=after)
    rng = np.random.default_rng(0)
    params, stats = (random_like(tree, rng) for tree in shapes(model, net))
    x_NHWC = rng.normal(0, 1, (3, *net.image)).astype(np.float32)
    variables = {"params": params, "batch_stats": stats}
    apply = partial(MODELS[model](net).apply, train=False)

    @jax.jit
    def tapped(variables, x_NHWC):
        heard = {}
        tap = lambda layer, what, x: heard.update({(layer, what): x})  # noqa: E731
        apply(variables, x_NHWC, tap=tap)
        return heard

    heard = tapped(variables, x_NHWC)
    heard = {key: np.asarray(x, np.float64) for key, x in heard.items()}
    silent, deaf = (
        jax.make_jaxpr(partial(apply, **tap))(variables, x_NHWC)
        for tap in ({}, {"tap": lambda *_: None})
    )
    assert str(silent) == str(deaf), "to listen changes nothing"
    hidden = [name for name in params if not name.startswith("norm") and "bias" not in params[name]]
    assert set(heard) == {(name, what) for name in hidden for what in ("u", "sum", "input")}
    for name in hidden:
        u, total, inner = (heard[name, what] for what in ("u", "sum", "input"))
        linear = conv_64 if u.ndim == 4 else np.matmul
        close = {"rtol": 1e-4, "atol": 1e-4 * np.abs(total).max()}
        np.testing.assert_allclose(total, linear(u, np.float64(params[name]["kernel"])), **close)
        own = params[f"norm_{name}"], stats[f"norm_{name}"]
        normed = total if after else norm_64(*own, total, norm="batch", train=False, eps=net.bn_eps)
        np.testing.assert_allclose(inner, normed, rtol=1e-4, atol=1e-4 * np.abs(normed).max())


def test_a_lrn_without_its_lrn_would_be_a():
    net = small((8, 8, 1))
    params = random_like(shapes("vgg_a", net)[0], np.random.default_rng(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes("vgg_a_lrn", net)[0])
    x_NHWC = np.full((1, 8, 8, 1), 3, np.float32)
    a, a_lrn = (
        jax.jit(partial(MODELS[model](net).apply, train=False))(
            {"params": params, "batch_stats": {}}, x_NHWC
        )[0]
        for model in ("vgg_a", "vgg_a_lrn")
    )
    assert np.abs(a - a_lrn).max() > 0.01


# --- dropout -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    """An `apply` whose logits show the masks: fc1 gives its bias b, fc2 adds c, fc3 copies."""
    net = Net(image=(8, 8, 1), classes=64, fc=64, width=1 / 64, activation="sigmoid")
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes("vgg_a", net)[0])
    params["fc1"]["bias"] += np.float32(0.5)
    params["fc2"] = {"kernel": np.eye(64, dtype=np.float32), "bias": np.full(64, -0.25, np.float32)}
    params["fc3"]["kernel"] = np.eye(64, dtype=np.float32)
    apply = jax.jit(MODELS["vgg_a"](net).apply, static_argnames="train")
    x_NHWC = np.ones((64, 8, 8, 1), np.float32)
    return lambda **kw: np.asarray(
        apply({"params": params, "batch_stats": {}}, x_NHWC, **kw)[0], np.float64
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_dropout_follows_the_activations_of_fc1_and_fc2(head):
    rate = 0.25
    logits = head(train=True, key=jax.random.key(1), dropout=rate)
    h1 = sigmoid(0.5) / (1 - rate)
    kept_both, kept_second = (sigmoid(h - 0.25) / (1 - rate) for h in (h1, 0.0))
    shares = {0.0: rate, kept_second: (1 - rate) * rate, kept_both: (1 - rate) ** 2}
    found = {value: np.isclose(logits, value, rtol=1e-6, atol=0) for value in shares}
    assert sum(found.values()).all(), "another value than those of two dropouts"
    for value, share in shares.items():  # 4,096 draws: four standard errors
        assert abs(found[value].mean() - share) <= 4 * np.sqrt(share * (1 - share) / 4096)
    # masks differ from example to example and from unit to unit
    assert (found[0.0] != found[0.0][:1]).any() and (found[0.0] != found[0.0][:, :1]).any()


def test_dropout_needs_train_and_a_key(head):
    key = jax.random.key(2)
    still = head(train=False)
    np.testing.assert_allclose(still, sigmoid(sigmoid(0.5) - 0.25), rtol=1e-6)
    np.testing.assert_array_equal(head(train=False, key=key, dropout=0.5), still)
    np.testing.assert_array_equal(head(train=True, dropout=0.5), still)
    np.testing.assert_array_equal(head(train=True, key=key, dropout=0.0), still)


def test_the_mask_is_a_function_of_the_key(head):
    one, again, other = (
        head(train=True, key=jax.random.key(seed), dropout=0.5) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_the_mlp_has_no_dropout():
    net = small((4, 4, 1))
    params = random_like(shapes("mlp", net)[0], np.random.default_rng(0))
    x_NHWC = np.ones((2, 4, 4, 1), np.float32)
    one, other = (
        MODELS["mlp"](net).apply(
            {"params": params, "batch_stats": {}}, x_NHWC, train=True, key=key, dropout=0.9
        )[0]
        for key in (None, jax.random.key(0))
    )
    np.testing.assert_array_equal(one, other)


# --- initial weights -----------------------------------------------------------------------------


def test_initial_weights():
    net = small((8, 8, 1), norm="batch")
    key = jax.random.key(5, impl="rbg")  # threefry compiles for seconds a shape
    variables = jax.jit(lambda key: MODELS["mlp"](net).init(key, "he"))(key)
    params, stats = variables["params"], variables["batch_stats"]
    kernels = [layer["kernel"] for layer in params.values() if "kernel" in layer]
    for kernel in kernels:
        std = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        assert abs(np.std(kernel) / std - 1) <= 5 / np.sqrt(2 * kernel.size)
    assert not params[list(params)[-1]]["bias"].any()
    for name, own in stats.items():
        assert not own["mean"].any() and (own["var"] == 1).all()
        assert (params[name]["scale"] == 1).all() and not params[name]["bias"].any()
