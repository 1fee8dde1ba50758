"""Algorithm 1 of the BN paper and the six gradients of its section 3, as printed, in NumPy: the one
reference. Statistics are over all axes but the last; all is computed in the dtype of x."""

from typing import NamedTuple

import numpy as np


class Forward(NamedTuple):
    """var: over m, as it normalises; `unbiased` makes the paper's estimate of it."""

    y: np.ndarray
    x_hat: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class Backward(NamedTuple):
    dx: np.ndarray
    d_scale: np.ndarray
    d_bias: np.ndarray
    d_x_hat: np.ndarray


def forward(x, scale, bias, eps) -> Forward:
    """Algorithm 1."""
    flat = x.reshape(-1, x.shape[-1])
    m = len(flat)
    mean = flat.sum(0) / m
    var = ((flat - mean) ** 2).sum(0) / m
    x_hat = (flat - mean) / np.sqrt(var + eps)
    y = scale * x_hat + bias
    return Forward(y.reshape(x.shape), x_hat.reshape(x.shape), mean, var)


def backward(x, scale, dy, eps) -> Backward:
    """Section 3."""
    shape, channels = x.shape, x.shape[-1]
    x, dy = x.reshape(-1, channels), dy.reshape(-1, channels)
    _, x_hat, mean, var = forward(x, scale, 0, eps)
    m = len(x)
    d_x_hat = dy * scale
    d_var = (d_x_hat * (x - mean) * -0.5 * (var + eps) ** -1.5).sum(0)
    d_mean = (d_x_hat * (-1 / np.sqrt(var + eps))).sum(0) + d_var * (-2 * (x - mean)).sum(0) / m
    dx = d_x_hat / np.sqrt(var + eps) + d_var * 2 * (x - mean) / m + d_mean / m
    return Backward(dx.reshape(shape), (dy * x_hat).sum(0), dy.sum(0), d_x_hat.reshape(shape))


def unbiased(var, m: int):
    """The variance with m/(m − 1) (Algorithm 2, line 10)."""
    return var * m / (m - 1)
