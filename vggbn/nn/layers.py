"""Convolution, dense, pooling, LRN, dropout, activations, the loss and the initialisers.

Everything is NHWC and HWIO, cross-correlation (no kernel flip), in the dtype of the input.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vggbn.machine import compiling
from vggbn.nn import fast

# --- layers with parameters {kernel, bias?} ------------------------------------------------------


def conv(params, x_NHWC, *, stride=1, padding="SAME"):
    """kernel [h, w, C, O], bias [O] if there is one -> [N, H', W', O]."""
    kernel = params["kernel"].astype(x_NHWC.dtype)
    return _add_bias(params, fast.conv(kernel, x_NHWC, stride, padding))


def dense(params, x_NC):
    """kernel [C, O], bias [O] if there is one -> [N, O]."""
    return _add_bias(params, x_NC @ params["kernel"].astype(x_NC.dtype))


def _add_bias(params, y):
    if "bias" not in params:
        return y
    bias = params["bias"].reshape((1,) * (y.ndim - 1) + (-1,))
    return (y + bias).astype(y.dtype)  # added in the bias' float32: so is its gradient summed


# --- pooling -------------------------------------------------------------------------------------


def max_pool_2x2(x_NHWC):
    """2×2 max pooling, stride 2 (VGG 2.1); an odd last row or column is dropped."""
    return fast.max_pool_2x2(x_NHWC)


# --- without parameters --------------------------------------------------------------------------


def local_response_norm(x_NHWC, *, k=2.0, n=5, alpha=1e-4):
    """x / (k + alpha Σ x²)^0.75 over n neighbouring channels (AlexNet 3.3, used by VGG's A-LRN).

    alpha is not divided by n, as in the printed formula (PyTorch and Caffe do divide). The window
    is a banded matrix product over channels and the power two square roots: faster on CPU than
    shifted slices and a general power (benchmarks/cliffs.py). Sums are float32.
    """
    channel = np.arange(x_NHWC.shape[-1])
    band = (np.abs(channel[:, None] - channel) <= n // 2).astype(np.float32)
    x = x_NHWC.astype(jnp.promote_types(x_NHWC.dtype, jnp.float32))
    root = jnp.sqrt(k + alpha * jnp.matmul(x * x, band, precision=lax.Precision.HIGHEST))
    # Settled: a pool that follows would compute the roots in each of its passes.
    return compiling.settle((x / (root * jnp.sqrt(root))).astype(x_NHWC.dtype))


def dropout(key, x, rate):
    """Zero a fraction `rate` of x and scale the rest by 1 / (1 - rate). rate may be traced."""
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


@jax.custom_vjp
def relu(x):
    """max(x, 0), with gradient 0 at 0. Keeps its output, which the next layer keeps anyway."""
    return jnp.maximum(x, 0)


relu.defvjp(
    lambda x: (relu(x),) * 2,
    lambda y, dy: (jnp.where(y > 0, dy, 0),),
)

ACTIVATIONS = {"relu": relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}


def cross_entropy(logits_NK, labels_N):
    """-log softmax(logits)[label] per example [N], in float32 at least."""
    log_p_NK = jax.nn.log_softmax(logits_NK.astype(jnp.promote_types(logits_NK.dtype, jnp.float32)))
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


def linear_init(key, shape, *, initialiser: str, bias: bool, scale=1.0):
    """{kernel of `shape`, times `scale`, zero bias [shape[-1]] if asked for}, float32."""
    kernel = INITIALISERS[initialiser](key, shape, jnp.float32) * scale
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])} if bias else {"kernel": kernel}
