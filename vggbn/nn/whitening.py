"""Full whitening, x_hat = Cov[x]^(-1/2) (x - E[x]), which section 2 of the BN paper finds too dear.

Differs: the statistics are a mini-batch's, not the training set's (BN 2), so that it can be trained
at all; the root is the symmetric one (ZCA). `block` whitens so many channels at a time
(Decorrelated BN, Huang et al. 2018, arXiv 1804.08450); `newton_inverse_root` finds the root by
products alone (IterNorm, Huang et al. 2019, arXiv 1904.03441). Signature as `batch_norm`'s; params
are {scale, bias} of [C], stats {mean [C], cov [blocks, b, b]}.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vggbn.nn.moving import cut_into_groups, mean_over_groups, step_averages

ITERATIONS = 5  # of Newton's method: IterNorm's


def whiten_init(channels: int, *, block: int | None = None):
    """Mean 0, covariance the identity, scale 1, bias 0; float32."""
    b = _block(channels, block)
    params = {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}
    cov = jnp.tile(jnp.eye(b), (channels // b, 1, 1))
    return params, {"mean": jnp.zeros(channels), "cov": cov}


def _block(channels: int, block: int | None) -> int:
    """The largest divisor of `channels` that is no larger than `block`."""
    return max(b for b in range(1, min(channels, block or channels) + 1) if channels % b == 0)


@jax.custom_vjp
def inverse_root(a):
    """a^(-1/2), symmetric, of symmetric positive definite matrices [..., b, b], by their spectrum.

    The gradient divides by sums of roots, never by differences of eigenvalues, as that of the
    eigenvectors would: equal eigenvalues do no harm.
    """
    return _inverse_root_fwd(a)[0]


def _inverse_root_fwd(a):
    values, vectors = jnp.linalg.eigh(a)
    root = 1 / jnp.sqrt(values)
    return (vectors * root[..., None, :]) @ jnp.swapaxes(vectors, -1, -2), (root, vectors)


def _inverse_root_bwd(saved, dw):
    # f(l) = l^(-1/2): (f(li) - f(lj)) / (li - lj) = -fi fj / (1/fi + 1/fj)
    root, v = saved
    ri, rj = root[..., :, None], root[..., None, :]
    quotient = -ri * rj / (1 / ri + 1 / rj)
    inner = jnp.swapaxes(v, -1, -2) @ dw @ v
    da = v @ (quotient * inner) @ jnp.swapaxes(v, -1, -2)
    return ((da + jnp.swapaxes(da, -1, -2)) / 2,)


inverse_root.defvjp(_inverse_root_fwd, _inverse_root_bwd)


def newton_inverse_root(a):
    """a^(-1/2) by ITERATIONS of Newton's method on a over its trace; not converged on purpose."""
    trace = jnp.trace(a, axis1=-2, axis2=-1)[..., None, None]
    p, scaled = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape), a / trace
    for _ in range(ITERATIONS):
        p = (3 * p - p @ p @ p @ scaled) / 2
    return p / jnp.sqrt(trace)


def whiten(
    x,
    params,
    stats,
    *,
    train,
    decay=0.9,
    eps=1e-5,
    unbiased=True,
    mask=None,
    groups=1,
    block=None,
    inverse_root: Callable = inverse_root,
):
    """Whitening over all axes but the last, and scale and bias: (y, stats), as `batch_norm`.

    eps is added to the covariance's diagonal. Where m values are fewer than the channels of a block
    the covariance is singular, and eps alone keeps the root finite (BN 3).
    """
    dtype, b = jnp.promote_types(x.dtype, jnp.float32), _block(x.shape[-1], block)
    shape = (groups if train else 1, -1, x.shape[-1] // b, b)
    x_GMKB, ridge_KBB = x.astype(dtype).reshape(shape), eps * jnp.eye(b, dtype=dtype)[None]

    def transformed(centred, root_GKBB):
        y = _product("gmkb,gkbc->gmkc", centred, root_GKBB)
        for_all = lambda name: params[name].reshape(1, 1, *shape[2:])  # noqa: E731
        return y * for_all("scale") + for_all("bias")

    if not train:
        centred = x_GMKB - stats["mean"].reshape(1, 1, *shape[2:])
        y = transformed(centred, inverse_root(stats["cov"] + ridge_KBB)[None])
        return y.reshape(x.shape).astype(x.dtype), stats
    cut_into_groups(x, groups)  # refuses what cannot be cut
    weight = _weights(mask, x, x_GMKB)
    mean, centred, cov, m = _moments(x_GMKB, weight)
    y = transformed(centred, inverse_root(cov + ridge_KBB[None])) * weight
    if unbiased:
        cov = cov * (m / jnp.maximum(m - 1, 1))
    filled_G = (weight > 0).any((1, 2, 3))
    batch = mean_over_groups({"mean": mean.reshape(groups, -1), "cov": cov}, filled_G, stats)
    return y.reshape(x.shape).astype(x.dtype), step_averages(stats, batch, decay)


def _weights(mask, x, x_GMKB):
    """1 where a value's example counts, else 0: [G, m, 1, 1]."""
    shape = (*x_GMKB.shape[:2], 1, 1)
    if mask is None:
        return jnp.ones(shape, x_GMKB.dtype)
    places = x_GMKB.shape[0] * x_GMKB.shape[1] // x.shape[0]  # of an example
    return jnp.repeat(jnp.asarray(mask), places).reshape(shape).astype(x_GMKB.dtype)


def _moments(x_GMKB, weight):
    """(mean, x less it, biased covariance [G, K, b, b], m), by a mean and then a correction of it.

    Rows of weight 0 hold zeros afterwards, whatever they held.
    """
    keep = lambda a: jnp.where(weight > 0, a, 0)  # noqa: E731  not a product: 0 · NaN is NaN
    x_GMKB = keep(x_GMKB)
    m = jnp.maximum(weight.sum(1, keepdims=True), 1)
    mean = x_GMKB.sum(1, keepdims=True) / m
    centred = keep(x_GMKB - mean)
    correction = centred.sum(1, keepdims=True) / m
    centred = keep(centred - correction)
    cov = _product("gmkb,gmkc->gkbc", centred, centred) / m
    return mean + correction, centred, cov, m


def _product(axes: str, a, b):
    return jnp.einsum(axes, a, b, precision="highest")
