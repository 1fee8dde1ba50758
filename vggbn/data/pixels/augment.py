"""Crop, flip and colour inside the jitted step: every function is pure in its key.

Order in `augment`: colour shift (pixels in 0..1), standardise, crop, flip.
"""

import jax
import jax.numpy as jnp
from jax import lax


def random_crop(key: jax.Array, x_NHWC: jax.Array, pad: int) -> jax.Array:
    """Each image moved by its own offset in -pad..pad, rows and columns: same shape, same dtype.

    What comes in from outside is 0: on standardised pixels, the mean colour of the training set.
    The crop at row r, column c is [r : r + H, c : c + W] of the image with pad zeros around it.
    """
    if pad == 0:
        return x_NHWC
    n, height, width, channels = x_NHWC.shape
    padded_NHWC = jnp.pad(x_NHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    offsets_N2 = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)

    def crop(x_HWC, offset_2):
        return lax.dynamic_slice(x_HWC, (offset_2[0], offset_2[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded_NHWC, offsets_N2)


def random_flip(key: jax.Array, x_NHWC: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability 1/2."""
    flip_N = jax.random.bernoulli(key, shape=x_NHWC.shape[:1])
    return jnp.where(flip_N[:, None, None, None], x_NHWC[:, :, ::-1], x_NHWC)


def colour_shift(key: jax.Array, x_NHWC: jax.Array, pca_CC: jax.Array, amount) -> jax.Array:
    """x + pca_CC @ a, one a ~ N(0, amount) for each image; x_NHWC float, in 0..1.

    amount is a number (0.1 in AlexNet and VGG) and may be traced; 0 is the identity. The result
    is not clipped, as in the papers. Source: Krizhevsky et al. 2012, section 4.1; `colour_pca`.
    """
    a_NC = amount * jax.random.normal(key, (x_NHWC.shape[0], x_NHWC.shape[3]), x_NHWC.dtype)
    # HIGHEST: accelerators would otherwise round the factors to bfloat16.
    shift_NC = jnp.einsum("nk,ck->nc", a_NC, pca_CC, precision=lax.Precision.HIGHEST)
    return x_NHWC + shift_NC[:, None, None, :]


def to_unit(x_NHWC: jax.Array) -> jax.Array:
    """uint8 pixels as float32 in 0..1."""
    return x_NHWC.astype(jnp.float32) / 255


def standardise(x_NHWC: jax.Array, mean_C: jax.Array, std) -> jax.Array:
    """(x / 255 - mean) / std: uint8 -> float32 of mean 0 and variance 1 over the training set.

    Differs: VGG (section 2.1) subtracts the mean RGB value only and keeps 0..255.
    """
    return _centre(to_unit(x_NHWC), mean_C, std)


def _centre(x_NHWC: jax.Array, mean_C: jax.Array, std) -> jax.Array:
    return (x_NHWC - jnp.asarray(mean_C)[None, None, None, :]) / std


def augment(
    key: jax.Array, x_NHWC: jax.Array, *, pad: int, flip: bool, amount, mean_C, std, pca_CC
) -> jax.Array:
    """Colour shift, standardise, crop, flip: uint8 [N, H, W, C] -> float32 [N, H, W, C].

    mean_C, std: `pixel_moments`, pca_CC: `colour_pca` of the training split. pad and flip are
    static. With pad=0, flip=False and amount=0 it equals `standardise`.
    """
    colour_key, crop_key, flip_key = jax.random.split(key, 3)
    x_NHWC = colour_shift(colour_key, to_unit(x_NHWC), jnp.asarray(pca_CC), amount)
    x_NHWC = random_crop(crop_key, _centre(x_NHWC, mean_C, std), pad)
    return random_flip(flip_key, x_NHWC) if flip else x_NHWC
