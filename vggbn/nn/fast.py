"""The same sums sooner on a CPU: what XLA's own code does slowly there.

Every form here equals the plain one (`lax` and its gradient) up to rounding, pooling exactly. The
choice is made where a program is lowered: GPU and TPU get the plain form. VGGBN_FAST=0 switches all
of it off. Each form is timed beside the plain one by benchmarks/cliffs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vggbn.machine import compiling
from vggbn.machine.compiling import on_cpu, once
from vggbn.nn import winograd

# --- convolution ---------------------------------------------------------------------------------


def plain_conv(kernel_HWIO, x_NHWC, stride: int | tuple[int, int] = 1, padding: Any = "SAME"):
    """Cross-correlation by `lax`: [N, H', W', O]. stride: one for both axes, or a pair."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(
        x_NHWC, kernel_HWIO, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv(kernel_HWIO, x_NHWC, stride=1, padding="SAME"):
    """`plain_conv`, in the form that suits the shape on a CPU."""
    form = PLAIN
    if compiling.ENABLED and (stride, padding) == (1, "SAME"):
        form = _form(kernel_HWIO.shape, x_NHWC.shape, x_NHWC.dtype)
    if form is PLAIN:
        return plain_conv(kernel_HWIO, x_NHWC, stride, padding)
    return _conv(form, kernel_HWIO, x_NHWC)


def _gradient(forward: Callable, of: int) -> Callable:
    """(kernel, x, dy) -> the gradient of argument `of` of `forward`, which is bilinear."""

    def gradient(kernel, x, dy):
        args = [kernel, x]
        one = lambda value: forward(*args[:of], value, *args[of + 1 :])  # noqa: E731
        return jax.vjp(one, args[of])[1](dy)[0]

    return gradient


class _Form(NamedTuple):
    """A way to compute a SAME convolution of stride 1, its kernel gradient, its input gradient."""

    forward: Callable = plain_conv
    d_kernel: Callable = _gradient(plain_conv, 0)
    d_x: Callable = _gradient(plain_conv, 1)


def _form(kernel_shape, x_shape, dtype) -> _Form:
    """The form for these shapes. Measured (benchmarks/cliffs.py), not derived."""
    (h, w, C, O), (N, H, W, _) = kernel_shape, x_shape  # noqa: E741
    if not (h % 2 and w % 2):
        return PLAIN
    if h > H and w > W:
        return SMALL_MAP
    if C <= 4 and O <= 16 and h * w * C <= 27:
        return FEW_TO_FEW_CHANNELS
    if w == 1:
        return PLAIN
    if W % 2:  # pixels are taken in pairs, and a column of zeros is added: where that pays
        most = 32 if C <= 4 else 16
        if W < 7 or C > 16 or most < O:
            return PLAIN
        return FEW_CHANNELS if C <= 4 else NARROW
    fewer, more = sorted((C, O))
    if (h, w, H % 2) == (3, 3, 0) and fewer >= 64 and more >= 128 and jnp.finfo(dtype).bits >= 32:
        pixels = N * H * W  # few enough, and the tiles stay in the cache
        if pixels <= 16 * fewer:
            return WINOGRAD
        if pixels <= 128 * fewer:
            return WINOGRAD_MAPS
    if C <= 4:
        return FEW_CHANNELS if O <= 32 else MANY_CHANNELS
    if C <= 16:
        return NARROW if O <= 16 else NARROW_INPUT
    return NARROW_OUTPUT if O <= 16 else MANY_CHANNELS


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(form, kernel, x):
    return on_cpu(form.forward, PLAIN.forward)(kernel, x)


def _conv_bwd(form, saved, dy):
    d_kernel = on_cpu(form.d_kernel, PLAIN.d_kernel)(*saved, dy)
    return d_kernel, on_cpu(form.d_x, PLAIN.d_x)(*saved, dy)


_conv.defvjp(lambda form, kernel, x: (_conv(form, kernel, x), (kernel, x)), _conv_bwd)


def _dense_conv(kernel, x_NHWC):
    """A kernel larger than the map: one dense product.

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
    matrix = jnp.stack(windows, axis=3).reshape(H * W * C, -1)  # from [H, W, C, H·W, O]
    return (x_NHWC.reshape(N, H * W * C) @ matrix).reshape(N, H, W, kernel.shape[-1])


def _pair_kernel(kernel):
    """For two neighbouring output pixels at once: [h, w + 1, C, 2·O], one pixel wider."""
    shifted = [jnp.pad(kernel, ((0, 0), (q, 1 - q), (0, 0), (0, 0))) for q in (0, 1)]
    return jnp.concatenate(shifted, axis=-1)


def _paired_conv(kernel, x_NHWC):
    """An image of few channels: one dense product for each pair of neighbouring output pixels.

    The pair's window [h, w + 1, C] is a row of a matrix (pairs of input pixels lie side by side in
    memory, so that the rows are cheap to gather), and the kernel is unrolled to [h·(w+1)·C, 2·O].
    """
    (h, w, C, O), (N, H, W) = kernel.shape, x_NHWC.shape[:3]  # noqa: E741
    more = W % 2  # a column of zeros makes the width even
    padded = jnp.pad(x_NHWC, ((0, 0), (h // 2, h // 2), (w // 2, w // 2 + more), (0, 0)))
    pairs = padded.reshape(N, H + h - 1, (W + more + w - 1) // 2, 2 * C)
    half = (W + more) // 2
    wide = jnp.concatenate([pairs[:, :, j : j + half] for j in range((w + 1) // 2)], axis=-1)
    windows = jnp.concatenate([wide[:, i : i + H] for i in range(h)], axis=-1)
    rows = windows.reshape(N * H * half, h * (w + 1) * C)
    y_NHWO = (rows @ _pair_kernel(kernel).reshape(-1, 2 * O)).reshape(N, H, 2 * half, O)
    return y_NHWO[:, :, :W]


def _shifted_conv(kernel, x_NHWC):
    """Few channels to few: a sum of shifted images, each times the kernel's value there.

    One fused loop that writes nothing but its result.
    """
    (h, w, C, _), (H, W) = kernel.shape, x_NHWC.shape[1:3]
    padded = jnp.pad(once(x_NHWC), ((0, 0), (h // 2, h // 2), (w // 2, w // 2), (0, 0)))
    y = jnp.zeros((1, 1, 1, 1), jnp.promote_types(x_NHWC.dtype, jnp.float32))  # the sum's dtype
    for i, j, c in np.ndindex(h, w, C):
        image = padded[:, i : i + H, j : j + W, c : c + 1].astype(y.dtype)
        y = y + image * kernel[i, j, c].reshape(1, 1, 1, -1)
    return once(y.astype(x_NHWC.dtype))


def _strided_conv(kernel, x_NHWC):
    """To few channels, which would leave a matrix product's tiles half empty: to twice as many.

    A convolution of stride (1, 2) by a kernel that is one pixel wider computes pairs of
    neighbouring output pixels: [h, w + 1, C, 2·O].
    """
    (h, w, _, O), (N, H, W) = kernel.shape, x_NHWC.shape[:3]  # noqa: E741
    more = W % 2  # a column of zeros makes the width even
    around = [(h // 2, h // 2), (w // 2, w // 2 + more)]
    y = plain_conv(_pair_kernel(kernel), x_NHWC, (1, 2), around)
    return y.reshape(N, H, W + more, O)[:, :, :W]


def _strided_d_x(kernel, _, dy):
    """The input gradient: dy convolved with the kernel that is turned around."""
    return _strided_conv(kernel[::-1, ::-1].swapaxes(2, 3), dy)


def _correlation_d_kernel(kernel, x_NHWC, dy):
    """The kernel gradient as `lax` computes it: x with channels for images, dy for the kernel.

    Each is transposed from where it lies. `lax` would have the layer that made x, or dy, computed
    again in the order of the transposition.
    """
    h, w = kernel.shape[:2]
    x_CHWN = once(once(x_NHWC).transpose(3, 1, 2, 0))
    dy_HWNO = once(once(dy).transpose(1, 2, 0, 3))
    around = [(h // 2, h // 2), (w // 2, w // 2)]
    return plain_conv(dy_HWNO, x_CHWN, padding=around).transpose(1, 2, 0, 3)


PLAIN = _Form()
SMALL_MAP = _Form(_dense_conv, _gradient(_dense_conv, 0), _gradient(_dense_conv, 1))
FEW_CHANNELS = _Form(_paired_conv, _correlation_d_kernel)
FEW_TO_FEW_CHANNELS = _Form(_shifted_conv, _correlation_d_kernel)
NARROW = _Form(_strided_conv, d_x=_strided_d_x)
NARROW_INPUT = _Form(d_x=_strided_d_x)
NARROW_OUTPUT = _Form(_strided_conv)
MANY_CHANNELS = _Form(d_kernel=_correlation_d_kernel)
WINOGRAD_MAPS = _Form(winograd.conv, _correlation_d_kernel, winograd.d_x)
WINOGRAD = _Form(winograd.conv, winograd.d_kernel, winograd.d_x)


# --- 2×2 max pooling -----------------------------------------------------------------------------


@jax.custom_vjp
def max_pool_2x2(x_NHWC):
    """The maximum of each 2×2 window, stride 2; its gradient goes to the window's first maximum.

    On a CPU what x is made of is computed in each of the two passes, and x itself not written down:
    put `settled` around what is dear.
    """
    return on_cpu(_maximum, plain_max_pool_2x2)(x_NHWC)


def _max_pool_bwd(x_NHWC, dy):
    return (on_cpu(_fast_unpool, _plain_unpool)(x_NHWC, dy),)


max_pool_2x2.defvjp(lambda x_NHWC: (max_pool_2x2(x_NHWC), x_NHWC), _max_pool_bwd)


def plain_max_pool_2x2(x_NHWC):
    """By `lax.reduce_window`."""
    return lax.reduce_window(x_NHWC, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _plain_unpool(x_NHWC, dy):
    return jax.vjp(plain_max_pool_2x2, x_NHWC)[1](dy)[0]


def _corners(x_NHWC):
    """The four pixels of every window, in reading order, each [N, H/2, W/2, C]."""
    N, H, W, C = x_NHWC.shape
    rows = x_NHWC[:, : H // 2 * 2, : W // 2 * 2].reshape(N, H // 2, 2, W // 2, 2 * C)
    return [rows[:, :, i, :, part] for i in (0, 1) for part in (slice(C), slice(C, 2 * C))]


def _maximum(x_NHWC):
    a, b, c, d = _corners(x_NHWC)
    return once(jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d)))


def _fast_unpool(x_NHWC, dy):
    """Compare and select, where XLA has select-and-scatter."""
    return once(_spread(x_NHWC.shape, once(_first_maximum(x_NHWC)), once(dy)))


def _first_maximum(x_NHWC):
    """Which of its corners each window's first maximum is: 0 to 3.

    The corners are compared with each other, not with the maximum: that was computed elsewhere, and
    may be rounded otherwise. As floats: integers of another size keep XLA from vectorising.
    """
    a, b, c, d = _corners(x_NHWC)
    place = jnp.where((b >= c) & (b >= d), 1, jnp.where(c >= d, 2, 3))
    place = jnp.where((a >= b) & (a >= c) & (a >= d), 0, place)
    return place.astype(x_NHWC.dtype)


def _spread(shape, first, dy):
    """dy at the corner `first` of each window, 0 at the others: of the shape that was pooled."""
    N, H, W, C = shape
    place = np.arange(4).reshape(1, 1, 2, 1, 2, 1).astype(dy.dtype)
    each = lambda v: v[:, :, None, :, None, :]  # noqa: E731
    dx = jnp.where(each(first) == place, each(dy), 0).reshape(N, H // 2 * 2, W // 2 * 2, C)
    return jnp.pad(dx, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)))
