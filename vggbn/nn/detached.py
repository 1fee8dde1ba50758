"""Batch norms whose statistics are, in part, taken for constants.

`detached_batch_norm` is what section 2 of the BN paper warns of: the gradient step ignores that the
normalisation depends on what it normalises. `moving_batch_norm` is what its authors first tried:
statistics computed outside of the step. `batch_renorm` (Ioffe 2017, arXiv 1702.03275) keeps BN's
gradient and takes the batch's noise out of the values. Signature and trees are `batch_norm`'s.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vggbn.nn.batch_norm import batch_norm
from vggbn.nn.moving import cut_into_groups

# Differs: the paper lets these bounds grow in the first steps, from BN's own 1 and 0.
R_MAX, D_MAX = 3.0, 5.0


def detached_batch_norm(x, params, stats, *, train, mask=None, groups=1, eps=1e-5, **moving):
    """`batch_norm`'s values; the gradient takes mean and variance for constants."""
    y, new = batch_norm(x, params, stats, train=train, mask=mask, groups=groups, eps=eps, **moving)
    if not train:
        return y, new

    def group(x, mask):
        batch = _moments(x, params, stats, mask, eps)
        y, _ = batch_norm(x, params, batch, train=False, eps=eps)
        return y if mask is None else _kept(y, mask)

    return _by_group(group, x, mask, groups), new


def moving_batch_norm(x, params, stats, *, train, mask=None, eps=1e-5, **moving):
    """Training too normalises by the moving averages, which step on before: numbers, not functions
    of x, to the gradient.

    With decay 0 it is `detached_batch_norm`, with the variance that the averages take.
    """
    if not train:
        return batch_norm(x, params, stats, train=False, eps=eps)
    _, new = batch_norm(x, params, stats, train=True, mask=mask, eps=eps, **moving)
    y, _ = batch_norm(x, params, new, train=False, eps=eps)
    return y if mask is None else _kept(y, mask), new


def batch_renorm(x, params, stats, *, train, mask=None, groups=1, eps=1e-5, **moving):
    """x_hat r + d for BN's x_hat, where r and d, constants to the gradient, turn the batch's
    statistics into the moving averages', within R_MAX and D_MAX: training sees what evaluation
    will."""
    y, new = batch_norm(x, params, stats, train=train, mask=mask, groups=groups, eps=eps, **moving)
    if not train:
        return y, new
    unit = {"scale": jnp.ones_like(params["scale"]), "bias": jnp.zeros_like(params["bias"])}
    std_C = jnp.sqrt(stats["var"] + eps)

    def group(x, mask):
        batch = _moments(x, params, stats, mask, eps)
        x = x.astype(batch["mean"].dtype)  # x_hat is not rounded to 16 bits
        x_hat, _ = batch_norm(x, unit, stats, train=True, mask=mask, eps=eps)
        r_C = jnp.clip(jnp.sqrt(batch["var"] + eps) / std_C, 1 / R_MAX, R_MAX)
        d_C = jnp.clip((batch["mean"] - stats["mean"]) / std_C, -D_MAX, D_MAX)
        wide = lambda vector_C: vector_C.reshape((1,) * (x.ndim - 1) + (-1,))  # noqa: E731
        r, d = map(wide, jax.lax.stop_gradient((r_C, d_C)))
        y = (x_hat * r + d) * wide(params["scale"]) + wide(params["bias"])
        return y if mask is None else _kept(y, mask)

    return _by_group(group, x, mask, groups).astype(x.dtype), new


def _moments(x, params, stats, mask, eps):
    """The batch's own mean and biased variance, without gradient."""
    _, batch = batch_norm(
        jax.lax.stop_gradient(x), params, stats, train=True, decay=0.0, eps=eps, unbiased=False,
        mask=mask,
    )  # fmt: skip
    return batch


def _kept(y, mask_N):
    return jnp.where(mask_N.reshape(-1, *[1] * (y.ndim - 1)), y, 0)


def _by_group(one, x, mask, groups):
    """`one(x, mask)` of each of `groups` equal slices of the batch, put together again."""
    x_G = cut_into_groups(x, groups)
    mask_G = None if mask is None else jnp.asarray(mask).reshape(groups, -1)
    return jax.vmap(one)(x_G, mask_G).reshape(x.shape)
