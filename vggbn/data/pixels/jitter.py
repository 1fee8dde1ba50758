"""Scale jitter inside the jitted step (VGG 3.1): rescale to a random smallest side, crop at random.

Only the window that a crop needs is rescaled, by two products with matrices of resampling weights:
Pillow's antialiased bicubic filter, to within its rounding.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vggbn.data.pixels.scale import REACH

_A = -0.5  # Keys 1981; Pillow's BICUBIC


def random_scale_crop(
    key: jax.Array, x_NHWC: jax.Array, sizes_N2, scale_min, scale_max, *, crop: int, window: int
) -> jax.Array:
    """Each image rescaled to its own S, uniform in scale_min..scale_max, and cropped at random.

    x_NHWC: uint8 in frames, sizes_N2: their real (height, width), None where they fill the frame.
    scale_min and scale_max are whole numbers, at least `crop`, and may be traced; crop and window
    (`window_side`) are static. Returns float32 [N, crop, crop, C] in 0..255, not rounded.
    """
    n, *frame, _ = x_NHWC.shape
    scale_key, place_key = jax.random.split(key)
    scale_N = jax.random.randint(scale_key, (n,), scale_min, scale_max + 1)
    place_N2 = jax.random.uniform(place_key, (n, 2))
    if sizes_N2 is None:
        sizes_N2 = jnp.broadcast_to(jnp.array(frame, jnp.int32), (n, 2))

    def one(x_HWC, size_2, scale, place_2):
        rescaled_2 = jnp.maximum(scale, jnp.floor(size_2 * scale / size_2.min() + 0.5))
        corner_2 = jnp.floor(place_2 * (rescaled_2 - crop + 1))
        return rescaled_crop(x_HWC, size_2, rescaled_2, corner_2, crop=crop, window=window)

    return jax.vmap(one)(x_NHWC, sizes_N2, scale_N, place_N2)


def rescaled_crop(x_HWC, size_2, rescaled_2, corner_2, *, crop: int, window: int) -> jax.Array:
    """crop x crop pixels at corner_2 of the image rescaled from size_2 to rescaled_2: float32."""
    frame = x_HWC.shape[:2]
    sides = tuple(min(window, side) for side in frame)
    ratio_2 = size_2 / rescaled_2
    reach_2 = REACH * jnp.maximum(ratio_2, 1)
    first = jnp.floor(corner_2 * ratio_2 - reach_2).astype(jnp.int32)
    first = [jnp.clip(first[i], 0, frame[i] - sides[i]) for i in range(2)]
    part_HWC = lax.dynamic_slice(x_HWC, (*first, 0), (*sides, x_HWC.shape[2]))
    rows, columns = (
        _weights(first[i], sides[i], size_2[i], ratio_2[i], corner_2[i], crop) for i in range(2)
    )
    # Columns first and clipped twice, as Pillow does.
    product = partial(jnp.einsum, precision="highest")
    part_HWC = jnp.clip(product("sj,ijc->isc", columns, part_HWC.astype(jnp.float32)), 0, 255)
    return jnp.clip(product("ri,isc->rsc", rows, part_HWC), 0, 255)


def _weights(first, count: int, length, ratio, corner, crop: int) -> jax.Array:
    """float32 [crop, count]: what output corner + o takes of the pixels first..first + count - 1.

    Pixels from `length` on are not of the image: the filter is cut there, as at 0, and the rest
    weighs 1 again.
    """
    centre_O = (corner + jnp.arange(crop) + 0.5) * ratio
    pixel_I = first + jnp.arange(count)
    distance_OI = (pixel_I[None, :] + 0.5 - centre_O[:, None]) / jnp.maximum(ratio, 1)
    weights_OI = jnp.where(pixel_I[None, :] < length, _bicubic(distance_OI), 0.0)
    return weights_OI / weights_OI.sum(axis=1, keepdims=True)


def _bicubic(t):
    t = jnp.abs(t)
    near = ((_A + 2) * t - (_A + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * _A - 4 * _A
    return jnp.where(t < 1, near, jnp.where(t < 2, far, 0.0))
