"""Convolution, dense, pooling, LRN, dropout, activations, the loss and the initialisers.

Everything is NHWC and HWIO, cross-correlation (no kernel flip), in the dtype of the input.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# --- layers with parameters {kernel, bias?} ------------------------------------------------------


def conv(params, x_NHWC, *, stride=1, padding="SAME"):
    """kernel [h, w, C, O], bias [O] if there is one -> [N, H', W', O]."""
    kernel = params["kernel"]
    odd = all(side % 2 for side in kernel.shape[:2])
    if stride == 1 and padding == "SAME" and odd and _kernel_exceeds_map(kernel, x_NHWC):
        y = _conv_on_a_small_map(kernel, x_NHWC)
    elif stride == 1 and padding == "SAME" and odd and x_NHWC.shape[-1] == 1:
        y = _conv_of_one_channel(kernel, x_NHWC)
    else:
        y = _xla_conv(kernel, x_NHWC, stride, padding)
    return _add_bias(params, y)


def _xla_conv(kernel, x_NHWC, stride=1, padding="SAME"):
    return lax.conv_general_dilated(
        x_NHWC, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def dense(params, x_NC):
    """kernel [C, O], bias [O] if there is one -> [N, O]."""
    return _add_bias(params, x_NC @ params["kernel"])


def _add_bias(params, y):
    return y + params["bias"].reshape((1,) * (y.ndim - 1) + (-1,)) if "bias" in params else y


def _kernel_exceeds_map(kernel, x_NHWC):
    return all(k > side for k, side in zip(kernel.shape, x_NHWC.shape[1:3], strict=False))


def _conv_on_a_small_map(kernel, x_NHWC):
    """The same sum as one dense product: XLA's CPU convolution falls off a cliff here, see
    benchmarks/step.py.

    The map is flattened and the kernel unrolled to a [H·W·C, H·W·O] matrix: for the output pixel
    (i, j) it is the window of the kernel that lies over the map.
    """
    N, H, W, C = x_NHWC.shape
    reach_h, reach_w = kernel.shape[0] // 2, kernel.shape[1] // 2
    more_h, more_w = max(H - 1 - reach_h, 0), max(W - 1 - reach_w, 0)
    kernel = jnp.pad(kernel, ((more_h, more_h), (more_w, more_w), (0, 0), (0, 0)))
    top, left = reach_h + more_h, reach_w + more_w
    windows = [
        kernel[top - i : top - i + H, left - j : left - j + W] for i in range(H) for j in range(W)
    ]
    matrix = jnp.stack(windows, axis=3).reshape(H * W * C, -1)  # [H, W, C, H·W, O]
    return (x_NHWC.reshape(N, -1) @ matrix).reshape(N, H, W, -1)


@jax.custom_vjp
def _conv_of_one_channel(kernel, x_NHWC):
    """The same sum as shifted multiply-adds: XLA's CPU convolution of a grey image takes many times
    as long (benchmarks/step.py). Its gradients do not, and stay."""
    (h, w), (H, W) = kernel.shape[:2], x_NHWC.shape[1:3]
    padded = jnp.pad(x_NHWC, ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    y = jnp.zeros((1, 1, 1, 1), x_NHWC.dtype)
    for i in range(h):
        for j in range(w):
            y = y + padded[:, i : i + H, j : j + W] * kernel[i, j].reshape(1, 1, 1, -1)
    return y


_conv_of_one_channel.defvjp(
    lambda kernel, x_NHWC: (_conv_of_one_channel(kernel, x_NHWC), (kernel, x_NHWC)),
    lambda saved, dy: jax.vjp(_xla_conv, *saved)[1](dy),
)


# --- pooling -------------------------------------------------------------------------------------


@jax.custom_vjp
def max_pool_2x2(x_NHWC):
    """2×2 max pooling, stride 2 (VGG 2.1); an odd last row or column is dropped.

    The gradient goes to the first maximum of each window, as in XLA's own rule, but by a compare
    and a select: XLA's select-and-scatter is slow on CPU (benchmarks/step.py).
    """
    return _pool_windows(x_NHWC).max(axis=(2, 4))


def _pool_windows(x_NHWC):
    N, H, W, C = x_NHWC.shape
    return x_NHWC[:, : H // 2 * 2, : W // 2 * 2].reshape(N, H // 2, 2, W // 2, 2, C)


def _max_pool_fwd(x_NHWC):
    windows = _pool_windows(x_NHWC)
    a, b, c, d = (windows[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    y = jnp.maximum(top, bottom)
    first = jnp.where(a == y, 0, jnp.where(b == y, 1, jnp.where(c == y, 2, 3))).astype(jnp.uint8)
    return y, (first, x_NHWC)


def _max_pool_bwd(saved, dy):
    first, x_NHWC = saved
    H, W = x_NHWC.shape[1:3]
    parts = [jnp.where(first == k, dy, 0) for k in range(4)]
    rows = [jnp.stack(parts[i : i + 2], axis=3) for i in (0, 2)]  # [N, H/2, W/2, 2, C]
    dx = jnp.stack(rows, axis=2).reshape(dy.shape[0], H // 2 * 2, W // 2 * 2, dy.shape[3])
    return (jnp.pad(dx, ((0, 0), (0, H % 2), (0, W % 2), (0, 0))),)


max_pool_2x2.defvjp(_max_pool_fwd, _max_pool_bwd)


# --- without parameters --------------------------------------------------------------------------


def local_response_norm(x_NHWC, *, k=2.0, n=5, alpha=1e-4):
    """x / (k + alpha Σ x²)^0.75 over n neighbouring channels (AlexNet 3.3, used by VGG's A-LRN).

    alpha is not divided by n, as in the printed formula (PyTorch and Caffe do divide). The window
    is a banded matrix product over channels and the power two square roots: faster on CPU than
    shifted slices and a general power (benchmarks/step.py).
    """
    channel = np.arange(x_NHWC.shape[-1])
    band = (np.abs(channel[:, None] - channel) <= n // 2).astype(x_NHWC.dtype)
    root = jnp.sqrt(k + alpha * ((x_NHWC * x_NHWC) @ band))
    return x_NHWC / (root * jnp.sqrt(root))


def dropout(key, x, rate):
    """Zero a fraction `rate` of x and scale the rest by 1 / (1 - rate). rate may be traced."""
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}


def cross_entropy(logits_NK, labels_N):
    """-log softmax(logits)[label] per example [N], in float32."""
    log_p_NK = jax.nn.log_softmax(logits_NK.astype(jnp.float32))
    return -jnp.take_along_axis(log_p_NK, labels_N[:, None], axis=1)[:, 0]


# --- initialisers, named after their source ------------------------------------------------------

INITIALISERS = {
    # VGG 3.1: normal with "variance 10^-2", read as the variance ...
    "normal_0.1": jax.nn.initializers.normal(0.1),
    # ... and as the standard deviation, which is AlexNet's.
    "normal_0.01": jax.nn.initializers.normal(0.01),
    "glorot": jax.nn.initializers.glorot_uniform(),  # Glorot & Bengio 2010
    "he": jax.nn.initializers.he_normal(),  # He et al. 2015
}


def linear_init(key, shape, *, initialiser: str, bias: bool):
    """{kernel of `shape`, zero bias [shape[-1]] if asked for}, float32."""
    kernel = INITIALISERS[initialiser](key, shape, jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])} if bias else {"kernel": kernel}
