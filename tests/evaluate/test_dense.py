"""Dense evaluation (VGG 3.2): the same weights over a whole image (V-11)."""

import sys
from functools import partial
from itertools import cycle, repeat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.test_models import PAPER, TABLE_1, random_like, shapes, small
from vggbn.models import MODELS
from vggbn.nn import layers

vgg = sys.modules["vggbn.models.vgg"]  # the package has a function of that name


def weights(model, net, seed=0):
    rng = np.random.default_rng(seed)
    params, stats = (random_like(tree, rng) for tree in shapes(model, net))
    return {"params": params, "batch_stats": stats}


def images(height, width, channels=3, n=2):
    rng = np.random.default_rng(height * width)
    return rng.normal(0, 10, (n, height, width, channels)).astype(np.float32)


def assert_close(found, expected, relative=1e-5):
    expected = np.asarray(expected)
    assert np.isfinite(expected).all() and found.shape == expected.shape
    assert np.abs(found - expected).max() <= relative * np.ptp(expected)


WITH_NORM = {"norm": "batch", "norm_fc": True}
# Each net with a norm, on one of three sizes, and three without.
CASES = [
    *zip(TABLE_1, cycle([((24, 24, 3), 3), ((16, 24, 3), 2), ((32, 32, 3), 5)]), repeat(WITH_NORM)),
    ("vgg_a_lrn", ((24, 24, 3), 3), {}),
    ("vgg_c_linear", ((16, 24, 3), 2), {}),
    ("vgg_a", ((32, 32, 3), 5), {}),
]


@pytest.mark.parametrize(("model", "size", "fields"), CASES)
def test_on_an_image_of_the_crop_s_size_dense_is_the_net(model, size, fields):
    image, pools = size
    net = small(image, pools=pools, **fields)
    variables = weights(model, net)
    x_NHWC = images(*image)
    dense = jax.jit(MODELS[model](net).score_map)(variables, x_NHWC)
    apply = jax.jit(partial(MODELS[model](net).apply, train=False))
    logits, _ = apply(variables, x_NHWC)
    assert_close(dense, logits[:, None, None])


@pytest.mark.parametrize(
    ("side", "cells"), [(224, 1), (256, 2), (288, 3), (352, 5), (384, 6), (416, 7), (512, 10)]
)
def test_the_map_of_the_papers_net_has_the_papers_size(side, cells):
    x_NHWC = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    score_map = MODELS["vgg_d"](PAPER).score_map
    found = jax.eval_shape(
        score_map, {"params": shapes("vgg_d", PAPER)[0], "batch_stats": {}}, x_NHWC
    )
    assert found.shape == (1, cells, cells, 1000)


@pytest.mark.parametrize(("side", "pools"), [(64, 3), (32, 2), (128, 4)])
def test_fewer_pools_keep_about_the_papers_ratio_of_crop_to_stride(side, pools):
    assert vgg.map_size(vgg.D, small((side, side, 3), pools=pools)) == (8, 8)


def crops_slid_over(apply, x_NHWC, crop, stride):
    """The logits of every crop at a multiple of the stride: [N, h, w, classes]."""
    h, w = ((side - crop) // stride + 1 for side in x_NHWC.shape[1:3])
    cut = lambda i, j: x_NHWC[:, i * stride :, j * stride :][:, :crop, :crop]  # noqa: E731
    return np.stack([np.stack([apply(cut(i, j)) for j in range(w)], 1) for i in range(h)], 1)


# One pool and ten 3x3 convolutions without padding leave (36 - 2) / 2 - 14 = 3 cells of 36 pixels.
CROP, STRIDE, CELLS = 36, 2, (3, 3)


@pytest.fixture(params=["vgg_a", "vgg_a_lrn"])
def unpadded(request, monkeypatch):
    """(model, weights) of a net whose convolutions have no padding."""
    conv = layers.conv
    monkeypatch.setattr(layers, "conv", lambda p, x, **_: conv(p, x, padding="VALID"))
    monkeypatch.setattr(vgg, "map_size", lambda config, net: CELLS)
    net = small((CROP, CROP, 3), pools=1, norm="batch")
    return MODELS[request.param](net), weights(request.param, net)


def test_without_padding_dense_is_the_net_on_crops_a_stride_apart(unpadded):
    model, variables = unpadded
    x_NHWC = images(40, 44)
    dense = jax.jit(model.score_map)(variables, x_NHWC)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False)[0])
    expected = crops_slid_over(apply, x_NHWC, CROP, STRIDE)
    assert expected.shape[1:3] == (3, 5)
    assert_close(dense, expected)


def test_with_padding_dense_differs_from_crops():
    net = small((24, 24, 3), pools=3)
    variables = weights("vgg_a", net)
    x_NHWC = images(32, 40)
    dense = jax.jit(MODELS["vgg_a"](net).score_map)(variables, x_NHWC)
    apply = jax.jit(lambda x: MODELS["vgg_a"](net).apply(variables, x, train=False)[0])
    crops = crops_slid_over(apply, x_NHWC, 24, 8)
    assert dense.shape == crops.shape == (2, 2, 3, 6)
    assert np.abs(dense - crops).max() > 0.01 * np.ptp(crops)
