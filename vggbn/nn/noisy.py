"""BN with noise behind it (Santurkar et al. 2018, arXiv 1805.11604, section 2.1 and appendix A).

The noise undoes what BN does to a layer's inputs: at each step every activation gets a mean and a
variance of its own, redrawn. Signature and trees are `batch_norm`'s; `key` is of the step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vggbn.nn.batch_norm import batch_norm

# The authors' bounds: of an activation's shift and scale, and of the examples' around these.
SHIFT, SCALE, SPREAD = 0.5, 1.25, 0.1


def noisy_batch_norm(x, params, stats, *, train, key=None, mask=None, **choices):
    """s y + m for BN's y [N, ..., C]; s and m are drawn as `draw_noise` says, anew for each key.

    In evaluation, and without a key, s and m are what they are in the mean, as dropout's are.
    Differs: the authors do not say how they evaluate.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # y is rounded once, behind the noise
    y, new = batch_norm(wide, params, stats, train=train, mask=mask, **choices)
    if not train or key is None:
        return (y * ((1 + SCALE) / 2)).astype(x.dtype), new
    scale, shift = draw_noise(key, y.shape, y.dtype)
    y = y * scale + shift
    if mask is not None:  # rows that do not count stay zeros
        y = jnp.where(mask.reshape(-1, *[1] * (y.ndim - 1)), y, 0)
    return y.astype(x.dtype), new


def draw_noise(key, shape, dtype=jnp.float32):
    """(scale, shift), each [N, ...]: of activation j shift_j ~ U(-SHIFT, SHIFT) and scale_j ~
    U(1, SCALE); of example i there shift_ij ~ U(shift_j ± SPREAD) and scale_ij ~ N(scale_j,
    SPREAD²)."""
    of_shift, of_scale, each_shift, each_scale = jax.random.split(key, 4)
    one = (1, *shape[1:])
    shift = jax.random.uniform(of_shift, one, dtype, -SHIFT, SHIFT)
    scale = jax.random.uniform(of_scale, one, dtype, 1, SCALE)
    shift = shift + jax.random.uniform(each_shift, shape, dtype, -SPREAD, SPREAD)
    return scale + SPREAD * jax.random.normal(each_scale, shape, dtype), shift
