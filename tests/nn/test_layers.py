"""Layers against NumPy in float64, finite differences and XLA's own operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax

from vggbn.nn import layers


def relative_error(ours, expected) -> float:
    """Largest difference over the largest value: zeros do not pass against anything but zeros."""
    expected = np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    return np.abs(np.asarray(ours, np.float64) - expected).max() / np.abs(expected).max()


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


# --- convolution ---------------------------------------------------------------------------------


def conv_64(kernel, x, dy):
    """(y, kernel gradient, x gradient) of a stride-1 SAME convolution by loops, odd kernels."""
    kernel, x, dy = (np.asarray(a, np.float64) for a in (kernel, x, dy))
    (h, w), (H, W) = kernel.shape[:2], x.shape[1:3]
    y, d_kernel, dx = np.zeros_like(dy), np.zeros_like(kernel), np.zeros_like(x)
    for i in range(H):
        for j in range(W):
            for di in range(h):
                for dj in range(w):
                    row, column = i + di - h // 2, j + dj - w // 2
                    if 0 <= row < H and 0 <= column < W:
                        y[:, i, j] += x[:, row, column] @ kernel[di, dj]
                        d_kernel[di, dj] += x[:, row, column].T @ dy[:, i, j]
                        dx[:, row, column] += dy[:, i, j] @ kernel[di, dj].T
    return y, d_kernel, dx


def with_gradients(conv):
    """(kernel, x, dy) -> (y, kernel gradient, x gradient), jitted."""

    @jax.jit
    def run(kernel, x, dy):
        y, pull = jax.vjp(conv, kernel, x)
        return (y, *pull(dy))

    return run


def conv(kernel, x):
    return layers.conv({"kernel": kernel}, x)


# More shapes, and every form that a CPU has for them, are in test_fast.py.
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 3), (4, 2), (3, 4)])
def test_conv_on_small_maps_by_loops(height, width, side):
    kernel, x = normal(side, side, 3, 2), normal(2, height, width, 3)
    dy = normal(2, height, width, 2, seed=1)
    ours, expected = with_gradients(conv)(kernel, x, dy), conv_64(kernel, x, dy)
    for a, b in zip(ours, expected, strict=True):
        assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize(
    "side, channels, width", [(1, 1, 9), (1, 3, 8), (3, 1, 8), (3, 3, 9), (5, 1, 9), (5, 3, 8)]
)
def test_conv_on_a_larger_map_by_loops(side, channels, width):
    kernel, x = normal(side, side, channels, 4), normal(2, 6, width, channels)
    dy = normal(2, 6, width, 4, seed=1)
    ours, expected = with_gradients(conv)(kernel, x, dy), conv_64(kernel, x, dy)
    for a, b in zip((conv(kernel, x), *ours), (expected[0], *expected), strict=True):
        assert relative_error(a, b) <= 1e-5


def test_an_even_kernel_is_xlas():
    for shape in ((1, 3, 3, 1), (1, 1, 1, 2)):
        kernel, x = normal(2, 2, shape[-1], 3), normal(*shape)
        expected = np.zeros((*shape[:3], 3))
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))  # SAME pads the end first
        for i, j in np.ndindex(2, 2):
            expected += padded[:, i : i + shape[1], j : j + shape[2]] @ kernel[i, j]
        assert relative_error(conv(kernel, x), expected) <= 1e-6


def test_stride_padding_and_bias_of_conv():
    kernel, x, bias = normal(3, 3, 3, 4), normal(2, 7, 9, 3), normal(4)
    same = conv_64(kernel, x, np.zeros((2, 7, 9, 4)))[0] + bias
    params = {"kernel": kernel, "bias": bias}
    assert relative_error(layers.conv(params, x), same) <= 1e-5
    # VALID keeps the inside; a stride of 2 on odd sides takes every other pixel of SAME
    assert relative_error(layers.conv(params, x, padding="VALID"), same[:, 1:-1, 1:-1]) <= 1e-5
    assert relative_error(layers.conv(params, x, stride=2), same[:, ::2, ::2]) <= 1e-5


def test_dense():
    kernel, bias, x = normal(5, 3), normal(3), normal(4, 5)
    expected = x.astype(np.float64) @ kernel
    assert relative_error(layers.dense({"kernel": kernel}, x), expected) <= 1e-6
    with_bias = layers.dense({"kernel": kernel, "bias": bias}, x)
    assert relative_error(with_bias, expected + bias) <= 1e-6


# --- max pooling ---------------------------------------------------------------------------------


def xla_pool(x_NHWC):
    window = (1, 2, 2, 1)
    return lax.reduce_window(x_NHWC, -jnp.inf, lax.max, window, window, "VALID")


@jax.jit
def both_pools(x, dy):
    results = [jax.vjp(pool, x) for pool in (layers.max_pool_2x2, xla_pool)]
    return layers.max_pool_2x2(x), *[(y, pull(dy)[0]) for y, pull in results]


@pytest.mark.parametrize("shape", [(3, 4, 4, 5), (2, 5, 7, 3), (2, 2, 3, 1), (1, 8, 2, 4)])
@pytest.mark.parametrize("values", ["distinct", "ties", "constant"])
def test_max_pool_equals_xlas_exactly(shape, values):
    x = {
        "distinct": normal(*shape),
        "ties": np.random.default_rng(0).integers(0, 3, shape).astype(np.float32),
        "constant": np.full(shape, -2, np.float32),
    }[values]
    dy = normal(shape[0], shape[1] // 2, shape[2] // 2, shape[3], seed=1)
    alone, (y, dx), (expected, d_expected) = both_pools(x, dy)
    for ours, theirs in ((alone, expected), (y, expected), (dx, d_expected)):
        np.testing.assert_array_equal(ours, theirs)
    # every window's gradient arrives, once; what the pool drops gets none
    dx = np.asarray(dx, np.float64)
    np.testing.assert_allclose(dx.sum(), dy.sum(dtype=np.float64), rtol=1e-5)
    assert np.count_nonzero(dx) == dy.size


def test_max_pool_by_hand():
    x = np.array([[1, 5, 9], [4, 2, 9], [9, 9, 9]], np.float32).reshape(1, 3, 3, 1)
    assert layers.max_pool_2x2(x).tolist() == [[[[5]]]]
    dx = jax.grad(lambda x: layers.max_pool_2x2(x).sum())(x)
    assert dx[0, :, :, 0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("place", range(4))
def test_a_nan_makes_its_window_nan(place):
    # a diverged net must not look healthy; the gradient of such a window lands on its last pixel
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    x[0, place // 2, place % 2, 0] = np.nan
    y, pull = jax.vjp(layers.max_pool_2x2, x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[np.nan, 7], [13, 15]])
    np.testing.assert_array_equal(layers.max_pool_2x2(x), y)
    dx = pull(jnp.ones_like(y))[0][0, :, :, 0]
    assert np.argwhere(dx).tolist() == [[1, 1], [1, 3], [3, 1], [3, 3]]


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
@pytest.mark.parametrize("values", ["distinct", "ties"])
def test_pooling_before_an_activation_is_pooling_after_it(activation, values):
    # what the VGGs do for speed; an activation that decreased anywhere would have to go first
    act = layers.ACTIVATIONS[activation]
    x = normal(3, 6, 6, 4) if values == "distinct" else np.round(normal(3, 6, 6, 4))
    dy = normal(3, 3, 3, 4, seed=1)
    y, pull = jax.vjp(lambda x: act(layers.max_pool_2x2(x)), x)
    expected, pull_expected = jax.vjp(lambda x: xla_pool(act(x)), x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pull(dy)[0], pull_expected(dy)[0])


def test_max_pool_keeps_bfloat16():
    x = jnp.asarray(normal(1, 4, 4, 2), jnp.bfloat16)
    y, pull = jax.vjp(layers.max_pool_2x2, x)
    assert y.dtype == pull(y)[0].dtype == jnp.bfloat16


# --- local response normalisation ----------------------------------------------------------------


def lrn_64(x, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """AlexNet 3.3, as printed: b_i = a_i / (k + alpha Σ_j a_j²)^beta, j from i - n/2 to i + n/2."""
    x = np.asarray(x, np.float64)
    y, channels = np.empty_like(x), x.shape[-1]
    for i in range(channels):
        total = np.zeros(x.shape[:-1])
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += x[..., j] ** 2
        y[..., i] = x[..., i] / (k + alpha * total) ** beta
    return y


@pytest.mark.parametrize("channels", [1, 3, 5, 16])
@pytest.mark.parametrize("scale", [1, 100, 1e4])
def test_lrn_is_the_printed_formula(channels, scale):
    x = scale * normal(2, 3, 2, channels)
    assert relative_error(layers.local_response_norm(x), lrn_64(x)) <= 1e-6
    other = layers.local_response_norm(x, k=1.0, n=3, alpha=2e-3)
    assert relative_error(other, lrn_64(x, 1.0, 3, 2e-3)) <= 1e-6


def test_lrn_by_hand():
    y = layers.local_response_norm(np.full((1, 1, 1, 7), 100, np.float32))
    # 1e-4·100² = 1 for each channel in the window: 2 + 3, 2 + 4, 2 + 5, ...
    np.testing.assert_allclose(y[0, 0, 0], 100 / np.array([5, 6, 7, 7, 7, 6, 5]) ** 0.75, rtol=1e-6)


def test_lrn_in_the_convention_that_divides_alpha():
    # PyTorch and Caffe: (k + alpha/n Σ)^0.75, so that their alpha is 5e-4 where ours is 1e-4
    x = 100 * normal(2, 3, 2, 8)
    torchs = lambda alpha: lrn_64(x, alpha=alpha / 5)  # noqa: E731
    assert relative_error(layers.local_response_norm(x), torchs(5e-4)) <= 1e-6
    assert relative_error(layers.local_response_norm(x), torchs(1e-4)) > 0.1


def test_lrn_gradient_by_finite_differences():
    x, dy = 100 * normal(1, 2, 1, 7), normal(1, 2, 1, 7, seed=1)
    gradient = jax.vjp(layers.local_response_norm, x)[1](dy)[0]
    expected, step = np.zeros(x.shape), 1e-3
    for index in np.ndindex(*x.shape):
        up, down = x.astype(np.float64), x.astype(np.float64)
        up[index] += step
        down[index] -= step
        expected[index] = np.sum(dy * (lrn_64(up) - lrn_64(down))) / (2 * step)
    assert relative_error(gradient, expected) <= 1e-5


# --- dropout and activations ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(rate):
    x = 1 + np.abs(normal(100, 1000))
    y = np.asarray(layers.dropout(jax.random.key(0, impl="rbg"), x, rate))
    kept = y != 0
    assert abs(kept.mean() - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / x.size)
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-6)


def test_dropout_at_rate_zero_is_the_identity():
    x = normal(50, 50)
    np.testing.assert_array_equal(layers.dropout(jax.random.key(0, impl="rbg"), x, 0.0), x)


def test_the_rate_of_dropout_may_be_traced():
    traces = []

    @jax.jit
    def traced(key, x, rate):
        traces.append(rate)
        return layers.dropout(key, x, rate)

    key, x = jax.random.key(1, impl="rbg"), jnp.ones((64, 64))
    for rate in (0.0, 0.25, 0.5):
        y = traced(key, x, np.float32(rate))
        np.testing.assert_array_equal(y, layers.dropout(key, x, rate))
    assert len(traces) == 1


def test_activations():
    x = np.array([-30, -1, 0, 0.5, 30], np.float32)
    expected = {
        "relu": np.maximum(x, 0),
        "sigmoid": scipy.special.expit(x.astype(np.float64)),
        "tanh": np.tanh(x.astype(np.float64)),
    }
    assert set(layers.ACTIVATIONS) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(layers.ACTIVATIONS[name](x), values, rtol=1e-6)
    assert jax.grad(layers.ACTIVATIONS["relu"])(0.0) == 0


# --- the loss ------------------------------------------------------------------------------------


def expected_loss(logits, labels):
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    return -log_p[np.arange(len(labels)), labels]


@pytest.mark.parametrize("scale, offset", [(1, 0), (50, 0), (1, 1e4), (1e4, 0)])
def test_cross_entropy_equals_scipys(scale, offset):
    logits, labels = scale * normal(20, 7) + np.float32(offset), np.arange(20) % 7
    loss = layers.cross_entropy(logits, labels)
    assert loss.shape == (20,)
    np.testing.assert_allclose(loss, expected_loss(logits, labels), rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_even_logits_is_the_log_of_the_classes():
    np.testing.assert_allclose(
        layers.cross_entropy(np.zeros((2, 10), np.float32), np.array([0, 9])), np.log(10), rtol=1e-6
    )


def test_gradient_of_cross_entropy_is_softmax_minus_the_label():
    logits, labels = normal(6, 4), np.array([0, 1, 2, 3, 0, 1])
    gradient = jax.grad(lambda z: layers.cross_entropy(z, labels).sum())(logits)
    expected = scipy.special.softmax(logits.astype(np.float64), axis=1) - np.eye(4)[labels]
    assert relative_error(gradient, expected) <= 1e-6


def test_cross_entropy_is_float32_for_bfloat16_logits():
    logits, labels = jnp.asarray(normal(20, 7), jnp.bfloat16), np.arange(20) % 7
    loss = layers.cross_entropy(logits, labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected_loss(logits, labels), rtol=1e-6)


# --- initialisers --------------------------------------------------------------------------------

DENSE, CONV = (300, 200), (3, 3, 40, 100)  # fans: 300, 200 and 9·40, 9·100
STD = {
    ("normal_0.1", DENSE): 0.1,
    ("normal_0.1", CONV): 0.1,
    ("normal_0.01", DENSE): 0.01,
    ("normal_0.01", CONV): 0.01,
    ("he", DENSE): np.sqrt(2 / 300),
    ("he", CONV): np.sqrt(2 / 360),
    ("glorot", DENSE): np.sqrt(2 / 500),
    ("glorot", CONV): np.sqrt(2 / 1260),
}


@pytest.mark.parametrize("name, shape", STD)
def test_initialisers_have_their_mean_and_deviation(name, shape):
    params = layers.linear_init(jax.random.key(7, impl="rbg"), shape, initialiser=name, bias=True)
    kernel, std = np.asarray(params["kernel"]), STD[name, shape]
    assert kernel.shape == shape and kernel.dtype == np.float32
    assert abs(kernel.mean()) <= 4 * std / np.sqrt(kernel.size)
    assert abs(kernel.std() / std - 1) <= 4 / np.sqrt(2 * kernel.size)
    limit = np.abs(kernel).max() / std
    if name == "glorot":  # uniform within ±sqrt(6 / (in + out)) = ±sqrt(3) standard deviations
        assert 0.999 * np.sqrt(3) <= limit <= np.sqrt(3) * (1 + 1e-6)
    else:
        assert limit > 2  # a normal one has tails
    np.testing.assert_array_equal(params["bias"], np.zeros(shape[-1], np.float32))
    assert params["bias"].dtype == jnp.float32


def test_every_initialiser_is_tested_and_biases_are_optional():
    assert {name for name, _ in STD} == set(layers.INITIALISERS)
    key = jax.random.key(0, impl="rbg")
    one = layers.linear_init(key, (2, 3), initialiser="he", bias=False)
    assert set(one) == {"kernel"}
    other = layers.linear_init(jax.random.key(1, impl="rbg"), (2, 3), initialiser="he", bias=False)
    assert (one["kernel"] != other["kernel"]).all()
