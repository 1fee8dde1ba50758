"""Batch Normalization (Ioffe & Szegedy 2015, arXiv 1502.03167) as pure functions.

A norm is `apply(x, params, stats, *, train, ...) -> (y, stats)`: one switch, the same return in
both modes. The trees are `flax.linen.BatchNorm`'s: params {scale, bias}, stats {mean, var}, of [C].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vggbn.nn.moving import cut_into_groups, mean_over_groups, step_averages

Tree = dict[str, Any]


def batch_norm_init(channels: int, dtype=jnp.float32) -> tuple[Tree, Tree]:
    """gamma = 1, beta = 0; running mean 0, running variance 1. Each [C]."""
    one, zero = partial(jnp.ones, channels, dtype), partial(jnp.zeros, channels, dtype)
    # A buffer for each leaf: a jitted step that donates its state refuses shared ones.
    return {"scale": one(), "bias": zero()}, {"mean": zero(), "var": one()}


def batch_norm(
    x, params, stats, *, train, decay=0.9, eps=1e-5, unbiased=True, mask=None, groups=1,
    normalise=None,
):  # fmt: skip
    """BN over all axes but the last (section 3.2: m' = m·p·q values a feature map): (y, stats).

    x [N, ..., C], any float dtype; statistics are at least float32; y has x's dtype and shape.
    train    True: Algorithm 1, with the batch's biased variance, and the moving averages step on;
             False: the affine map of Algorithm 2 with `stats`, which come back unchanged.
    decay    weight of the OLD value in the moving averages; a number or a traced scalar.
    unbiased the moving variance takes m/(m-1) times the batch's (Algorithm 2); m = 1 is left alone.
    mask     [N] bool: rows that count. The others move no statistic, come out as zeros and get
             no gradient, whatever they hold.
    groups   statistics within each of `groups` equal slices of the batch (per-replica or "ghost"
             BN); the moving averages take the mean over the groups that have a row that counts.
    normalise  Algorithm 1 by another estimator of mean and variance, as `normalise_by` makes one.
    Under jit the statistics of a batch that is cut over devices are those of the whole batch: there
    is no axis_name to give. Within shard_map or pmap they are those of the part at hand.
    Moving averages carry no gradient. Raises ValueError when N is no multiple of `groups`.
    """
    if not train:
        return _affine(x, params, stats, eps), stats
    x_G = cut_into_groups(x, groups)
    weight_G, keep = None, lambda a: a
    if mask is not None:
        weight_G = mask.reshape(x_G.shape[:2] + (1,) * (x.ndim - 1)).astype(_stat_dtype(x))
        keep = lambda a: jnp.where(weight_G > 0, a, 0)  # noqa: E731  not a product: 0 · NaN is NaN
    x_G = keep(x_G)
    normalise = normalise or _normalise
    y_G, mean_GC, var_GC, m_G = normalise(x_G, params["scale"], params["bias"], weight_G, eps)  # pyright: ignore[reportGeneralTypeIssues]
    if unbiased:
        var_GC = var_GC * (m_G / jnp.maximum(m_G - 1, 1))
    filled_G = None if mask is None else mask.reshape(groups, -1).any(1)
    batch = mean_over_groups({"mean": mean_GC, "var": var_GC}, filled_G, stats)
    return keep(y_G).reshape(x.shape), step_averages(stats, batch, decay)


def fixed_batch_norm(x, params, stats, *, train, **choices):
    """`batch_norm` whose gamma and beta get no gradient: they stay what they are at first, 1 and 0,
    unless L2 is on all parameters."""
    return batch_norm(x, jax.lax.stop_gradient(params), stats, train=train, **choices)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise(x, scale, bias, weight, eps):
    """Algorithm 1 on x [G, n, ..., C] within groups: y, mean [G, C], biased variance, m [G, 1].

    Rows of weight 0 hold zeros, and what they put out is not used.
    """
    return _normalise_fwd(x, scale, bias, weight, eps)[0]


def normalise_by(moments: Callable) -> Callable:
    """`_normalise` by another estimator, with the gradient that autodiff gives it.

    moments(x, weight) -> (shift, correction, variance, m), as `_moments`: x [G, n, ..., C] in the
    statistics' dtype, weight None or of 0 and 1.
    """
    return lambda x, scale, bias, weight, eps: _normalised(moments, x, scale, bias, weight, eps)[0]


def _normalise_fwd(x, scale, bias, weight, eps):
    return _normalised(_moments, x, scale, bias, weight, eps)


def _normalised(moments, x, scale, bias, weight, eps):
    """((y, mean, variance, m), what the backward pass needs)."""
    shift, correction, var, m = moments(x.astype(_stat_dtype(x)), weight)
    rstd = 1 / jnp.sqrt(var + eps)
    # gamma · rstd is one factor: on a CPU every vector over channels costs time.
    y = _centre(x, shift, correction) * (_channels(scale, x) * rstd) + _channels(bias, x)
    flat = lambda a: a.reshape(a.shape[0], -1)  # noqa: E731
    out = y.astype(x.dtype), flat(shift + correction), flat(var), flat(m)
    return out, (x, scale, shift, correction, rstd, m)


def _normalise_bwd(eps, saved, cotangents):
    """The paper's six gradients (section 3); those of the returned moments are not propagated.

    dl/dmean = -rstd Σ dx_hat and dl/dvar = -rstd²/2 Σ dx_hat·x_hat, put into the line for dl/dx,
    make it linear in dy and in c = x - mean: dx = gain dy - slope c - constant. The term
    Σ -2(x - mean) of dl/dmean is zero.
    """
    x, scale, shift, correction, rstd, m = saved
    dy, c = cotangents[0].astype(rstd.dtype), _centre(x, shift, correction)
    sum_dy = _sum(dy)  # [G, 1, ..., C]
    # From the deviation, which the forward pass of a CPU wrote down, so that c need not be.
    sum_dy_c = _sum(dy * (x.astype(rstd.dtype) - shift)) - correction * sum_dy
    sum_dy_x_hat = rstd * sum_dy_c
    gain = _channels(scale, x) * rstd
    slope, constant = gain * (rstd * (sum_dy_x_hat / m)), gain * (sum_dy / m)
    dx = gain * dy - slope * c - constant
    d_scale, d_bias = sum_dy_x_hat.sum(0).ravel(), sum_dy.sum(0).ravel()
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(scale.dtype), None


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


def _moments(x, weight):
    """(shift, correction, biased variance, m): the mean is shift + correction, kept apart.

    The corrected second pass: the rounding of the first mean is itself averaged, so that neither a
    large offset nor an outlier costs digits; the two parts of the mean are subtracted one by one
    because their float32 sum would round away what the second pass won. Every use must see the same
    shift: dropping its last bit keeps XLA from fusing the division into one of the subtractions.
    """
    if weight is None:
        m = jnp.full((x.shape[0],) + (1,) * (x.ndim - 1), math.prod(x.shape[1:-1]), x.dtype)
    else:
        m = jnp.maximum(_sum(weight) * math.prod(x.shape[2:-1]), 1)
    limits = jnp.finfo(x.dtype)
    shift = jax.lax.reduce_precision(_sum(x) / m, limits.nexp, limits.nmant - 1)
    deviation = x - shift if weight is None else (x - shift) * weight
    correction = _sum(deviation) / m
    var = _sum(deviation * deviation) / m - correction**2
    return shift, correction, jnp.maximum(var, 0), m


def _affine(x, params, stats, eps):
    """y = gamma (x - E[x]) / sqrt(Var[x] + eps) + beta; mean first, so an offset costs nothing."""
    gain = params["scale"] / jnp.sqrt(stats["var"] + eps)
    centred = x.astype(_stat_dtype(x)) - _channels(stats["mean"], x)
    return (centred * _channels(gain, x) + _channels(params["bias"], x)).astype(x.dtype)


def _sum(x):
    return x.sum(axis=tuple(range(1, x.ndim - 1)), keepdims=True)


def _centre(x, shift, correction):
    return (x.astype(shift.dtype) - shift) - correction


def _channels(vector_C, x):
    return vector_C.reshape((1,) * (x.ndim - 1) + (-1,))


def _stat_dtype(x):
    return jnp.promote_types(x.dtype, jnp.float32)


# --- inference: Algorithm 2 and folding ---------------------------------------------------------


def population_stats(apply: Callable, params, stats, batches) -> Tree:
    """Algorithm 2: statistics averaged over training `batches` through the frozen net.

    `apply(params, stats, x, train=True, decay=0)` must return the batch's own statistics, with the
    unbiased variance where the paper's m/(m-1) is wanted. Raises ValueError without a batch.
    """
    total, count = None, 0
    for x in batches:
        _, batch = apply(params, stats, x, train=True, decay=0.0)
        total = batch if total is None else jax.tree.map(jnp.add, total, batch)
        count += 1
    if total is None:
        raise ValueError("population statistics need at least one training batch")
    return jax.tree.map(lambda s: s / count, total)


def fold(linear: Tree, params: Tree, stats: Tree, *, eps=1e-5) -> Tree:
    """The conv or dense layer {kernel [..., C], bias [C]?} with BN's affine map folded into it."""
    gain_C = params["scale"] / jnp.sqrt(stats["var"] + eps)
    bias_C = linear.get("bias", jnp.zeros_like(gain_C)) - stats["mean"]
    kernel = linear["kernel"] * _channels(gain_C, linear["kernel"])
    return {"kernel": kernel, "bias": bias_C * gain_C + params["bias"]}


# --- per-example statistics ---------------------------------------------------------------------


def layer_norm(x, params, stats, *, train, eps=1e-5, **_):
    """Layer Normalization (Ba et al. 2016): one mean and variance an example, over all its values.

    x [N, ..., C]; no state. The per-example statistics that section 2 of the BN paper sets aside.
    """
    one, zero = jnp.ones(1, _stat_dtype(x)), jnp.zeros(1, _stat_dtype(x))
    rows = x.astype(one.dtype).reshape(x.shape[0], -1, 1)  # x_hat is not rounded to x's dtype
    x_hat = _normalise(rows, one, zero, None, eps)[0].reshape(x.shape)  # pyright: ignore
    y = x_hat * _channels(params["scale"], x) + _channels(params["bias"], x)
    return y.astype(x.dtype), stats
