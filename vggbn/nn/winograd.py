"""Winograd's convolution: 2×2 output pixels of a 3×3 kernel by 16 products instead of 36.

F(2×2, 3×3) of Lavin & Gray 2016 (arXiv 1509.09308), section 4.1: over a tile of 4×4 input pixels
y = Aᵀ [(G k Gᵀ) ⊙ (Bᵀ x B)] A. What all tiles have at one of the 16 places is multiplied with the
kernel's value there in one matrix product over channels.

A grid {(row, column): array} holds what a tile, or the kernel, has at each place. The barriers are
for a CPU: see compiling.once.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

once = lax.optimization_barrier

B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])

Grid = dict[tuple[int, int], Any]


def conv(kernel, x_NHWC):
    """Stride 1, padding SAME: kernel [3, 3, C, O] over even H and W -> [N, H, W, O]."""
    k, x = _kernel_grid(kernel), _input_grid(x_NHWC)
    return _output(x_NHWC.shape, {at: _product(x[at], k[at]) for at in x})


def d_x(kernel, _, dy_NHWC):
    """The input gradient: dy convolved with the kernel that is turned around, [3, 3, O, C].

    Turning a kernel around exchanges the first and the last row and column of its grid.
    """
    k, dy, turned = _kernel_grid(kernel), _input_grid(dy_NHWC), (3, 1, 2, 0)
    k = {(i, j): k[turned[i], turned[j]] for i, j in dy}
    return _output(dy_NHWC.shape, {at: _product(dy[at], k[at].T) for at in dy})


def d_kernel(_, x_NHWC, dy_NHWC):
    """The kernel gradient: Gᵀ [(Bᵀ x B)ᵀ (A dy Aᵀ)] G, products over all tiles."""
    x, dy = _input_grid(x_NHWC), _transformed(A_T.T, _pixels(once(dy_NHWC)))
    dk = _transformed(G.T, _each_once({at: x[at].T @ once(dy[at]) for at in x}))
    return jnp.stack([dk[at] for at in np.ndindex(3, 3)]).reshape(3, 3, *dk[0, 0].shape)


def _product(x, k):
    """x @ k, as a 1×1 convolution: XLA's own product shares small ones out better."""
    return lax.conv_general_dilated(
        x[None, :, None], k[None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0, :, 0]


def _transformed(matrix, grid: Grid) -> Grid:
    """matrix · grid · matrixᵀ."""

    def place(a, b):
        weights = {(i, j): float(matrix[a, i] * matrix[b, j]) for i, j in grid}
        return sum(weight * grid[at] for at, weight in weights.items() if weight)

    return {at: place(*at) for at in np.ndindex(len(matrix), len(matrix))}


def _each_once(grid: Grid) -> Grid:
    return {at: once(array) for at, array in grid.items()}


def _kernel_grid(kernel) -> Grid:
    """G k Gᵀ: 4×4 of [C, O]."""
    return _each_once(_transformed(G, {at: kernel[at] for at in np.ndindex(3, 3)}))


def _input_grid(x_NHWC) -> Grid:
    """Bᵀ x B of tiles that lie two pixels apart and overlap: 4×4 of [N·H/2·W/2, C]."""
    N, H, W, C = x_NHWC.shape
    padded = once(jnp.pad(once(x_NHWC), ((0, 0), (1, 1), (1, 1), (0, 0))))
    blocks = padded.reshape(N, H // 2 + 1, 2, W // 2 + 1, 2 * C)  # pixels in pairs

    def pixel(i, j):
        rows, columns, pair = slice(i // 2, None), slice(j // 2, None), slice(j % 2 * C, None)
        return blocks[:, rows, i % 2, columns, pair][:, : H // 2, : W // 2, :C].reshape(-1, C)

    return _each_once(_transformed(B_T, {at: pixel(*at) for at in np.ndindex(4, 4)}))


def _output(shape, products: Grid):
    """Aᵀ products A as an image [N, H, W, O] of this shape but for its channels."""
    N, H, W = shape[:3]
    y = _transformed(A_T, _each_once(products))
    pairs = [jnp.concatenate([y[i, 0], y[i, 1]], -1).reshape(N * H // 2, 1, -1) for i in (0, 1)]
    return once(jnp.concatenate(pairs, 1).reshape(N, H, W, -1))


def _pixels(y_NHWC) -> Grid:
    """The four pixels of every tile's output: 2×2 of [N·H/2·W/2, O]."""
    N, H, W, O = y_NHWC.shape  # noqa: E741
    blocks = y_NHWC.reshape(N * H // 2, 2, W // 2, 2, O)
    return {(i, j): blocks[:, i, :, j].reshape(-1, O) for i, j in np.ndindex(2, 2)}
