"""Dense and multi-crop evaluation against plain loops over the net itself, and their averages."""

import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import scipy.special
from sklearn.metrics import recall_score, top_k_accuracy_score

from tests.models.test_models import random_like, shapes, small
from vggbn.data import Split
from vggbn.data.pixels.scale import rescale
from vggbn.errors import UserError
from vggbn.evaluate import centre, dense, mean_posterior, multi_crop, scores
from vggbn.evaluate import shared as batches
from vggbn.evaluate.trained import Trained
from vggbn.models import MODELS

modules = {name: sys.modules[f"vggbn.evaluate.{name}"] for name in ("dense", "multi_crop")}
CROP, STRIDE = 16, 4
NET = small((CROP, CROP, 3), pools=2, norm="batch")
MEAN_C, STD = np.float32([0.4, 0.5, 0.6]), np.float32(0.25)
SIZES = ((20, 30), (30, 20), (20, 20), (20, 30), (26, 20), (20, 30), (30, 21))


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    params, stats = (random_like(tree, rng) for tree in shapes("vgg_a", NET))
    # Logits apart by about one: posteriors that are all 0 or 1 would hide what is averaged.
    params["fc3"]["kernel"] = params["fc3"]["kernel"] / 20
    return {"params": params, "batch_stats": stats}


def split_of(sizes, seed=0) -> Split:
    rng, frame = np.random.default_rng(seed), np.max(sizes, axis=0)
    images_NHWC = np.zeros((len(sizes), *frame, 3), np.uint8)
    for image, (height, width) in zip(images_NHWC, sizes, strict=True):
        image[:height, :width] = rng.integers(0, 256, (height, width, 3))
    return Split(images_NHWC, np.zeros(len(sizes), np.int32), np.int32(sizes))


def mirror(split) -> Split:
    images_NHWC = np.zeros_like(split.images_NHWC)
    for row, (height, width) in enumerate(split.sizes_N2):
        images_NHWC[row, :height, :width] = split.image(row)[:, ::-1]
    return Split(images_NHWC, split.labels_N, split.sizes_N2)


def standard(x_HWC):
    return ((x_HWC / 255 - MEAN_C) / STD).astype(np.float32)[None]


score_map = jax.jit(MODELS["vgg_a"](NET).score_map)
apply = jax.jit(partial(MODELS["vgg_a"](NET).apply, train=False))


def scores_of(weights, x_HWC):
    """The score map [h, w, K] of one uint8 image."""
    return np.asarray(score_map(weights, standard(x_HWC)))[0]


def posterior_of(weights, crop_HWC):
    logits, _ = apply(weights, standard(crop_HWC))
    return scipy.special.softmax(np.asarray(logits)[0])


def run(protocol, weights, split, **options):
    options = {"side": 20, "mirrored": False} | options
    return protocol(Trained(NET, weights, MEAN_C, STD), split, **options)


def assert_close(found, expected, tolerance=1e-5):
    assert found.dtype == np.float32 and found.shape == np.shape(expected)
    assert np.ptp(expected) > 0.1, "nothing to tell apart"
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("protocol", [dense, centre])
def test_on_images_of_the_crop_s_size_a_protocol_is_the_net(protocol, weights):
    split = split_of([(CROP, CROP)] * 3)
    found = run(protocol, weights, split, side=CROP)
    assert_close(found, [[posterior_of(weights, split.image(i)) for i in range(3)]])


def whole(weights, split, side=20):
    """The score map of every image, cut by hand."""
    for row in range(len(split)):
        x_HWC = rescale(split.image(row), side)
        height, width = x_HWC.shape[:2]
        spare = max(height, width) % STRIDE
        first, end = spare // 2, max(height, width) - (spare - spare // 2)
        cut = x_HWC[first:end] if height > width else x_HWC[:, first:end]
        yield scores_of(weights, cut)


@pytest.mark.parametrize("crops", [batches.CROPS, 5], ids=["large batches", "small batches"])
def test_dense_is_the_score_map_image_by_image(weights, monkeypatch, crops):
    """Landscape, portrait and square, in the split's order, whatever shares a batch."""
    monkeypatch.setattr(modules["dense"], "CROPS", crops)
    split = split_of(SIZES)
    expected = [scipy.special.softmax(map_.mean((0, 1))) for map_ in whole(weights, split)]
    assert_close(run(dense, weights, split), [expected])
    order = np.array([4, 0, 6, 2, 5, 1, 3])
    assert_close(run(dense, weights, split.take(order)), [[expected[i] for i in order]])


def test_images_are_rescaled_before_anything_is_cut(weights):
    split = split_of([(40, 61), (66, 44)])
    expected = [scipy.special.softmax(map_.mean((0, 1))) for map_ in whole(weights, split)]
    assert_close(run(dense, weights, split), [expected])


def test_the_posteriors_of_the_cells_can_be_averaged_instead(weights):
    split = split_of(SIZES)
    maps = list(whole(weights, split))
    of_scores = [scipy.special.softmax(m.mean((0, 1))) for m in maps]
    of_cells = [scipy.special.softmax(m, axis=-1).mean((0, 1)) for m in maps]
    assert np.abs(np.array(of_scores) - of_cells).max() > 1e-3
    assert_close(run(dense, weights, split, average="scores"), [of_scores])
    assert_close(run(dense, weights, split, average="posteriors"), [of_cells])


@pytest.mark.parametrize("protocol", [dense, multi_crop, centre])
def test_the_second_view_is_that_of_the_mirror_image(protocol, weights):
    split = split_of([(20, 32), (28, 20), (20, 20)])  # nothing odd is cut or left over
    both = run(protocol, weights, split, mirrored=True)
    assert np.abs(both[0] - both[1]).max() > 1e-3
    assert_close(both[:1], run(protocol, weights, split))
    if protocol is not multi_crop:  # the corners of a grid are rounded
        assert_close(both[1:], run(protocol, weights, mirror(split)))


@pytest.mark.parametrize(
    ("side", "size", "expected"),
    [
        (20, (20, 31), (20, 28)),
        (20, (31, 20), (28, 20)),
        (21, (21, 30), (21, 28)),
        (21, (21, 23), (21, 21)),  # 20 would be below the side
        (22, (44, 44), (22, 22)),
        (20, (40, 64), (20, 32)),
    ],
)
def test_the_long_side_is_cut_to_a_multiple_of_the_stride(side, size, expected):
    found = modules["dense"].buckets(split_of([size]), side, STRIDE)
    assert found == {expected: [0]}


def test_what_is_cut_is_cut_at_the_centre():
    cut, x_HWC = modules["dense"].cut, np.arange(31).reshape(1, 31, 1)
    assert cut(x_HWC, (1, 28)).ravel().tolist() == list(range(1, 29))
    assert cut(x_HWC.reshape(31, 1, 1), (28, 1)).ravel().tolist() == list(range(1, 29))


@pytest.mark.parametrize(("image", "pools"), [(64, 3), (32, 2), (28, 3), (224, 5), (16, 5)])
def test_the_stride_is_that_of_the_pools(image, pools):
    net = replace(small((image, image, 3), pools=pools), model="vgg_d")
    stride = modules["dense"].stride(net)
    assert stride == 2 ** min(pools, int(np.log2(image)))


def explicit_crops(x_HWC, grid):
    """By the definition: evenly from corner to corner, rounded half up."""
    for i in range(grid):
        for j in range(grid):
            top, left = (
                int(k / (grid - 1) * (n - CROP) + 0.5)
                for k, n in zip((i, j), x_HWC.shape, strict=False)
            )
            yield x_HWC[top : top + CROP, left : left + CROP]


@pytest.mark.parametrize("crops", [batches.CROPS, 60], ids=["one batch", "several batches"])
def test_multi_crop_is_the_mean_posterior_of_fifty_crops(weights, monkeypatch, crops):
    monkeypatch.setattr(modules["multi_crop"], "CROPS", crops)
    split = split_of([(20, 31), (26, 20), (40, 40)])
    images = [rescale(split.image(row), 20) for row in range(3)]
    found = run(multi_crop, weights, split, mirrored=True)
    expected = np.zeros((2, 3, NET.classes))
    for row, x_HWC in enumerate(images):
        taken = list(explicit_crops(x_HWC, 5))
        assert len(taken) == 25
        for view, step in enumerate((1, -1)):
            each = [posterior_of(weights, crop[:, ::step]) for crop in taken]
            expected[view, row] = np.mean(each, 0)
    assert_close(found, expected)
    averaged = mean_posterior([found])
    assert_close(averaged, expected.mean(0))


def test_centre_is_the_central_crop(weights):
    split = split_of([(20, 30), (30, 20)])
    taken = [split.image(0)[2:18, 7:23], split.image(1)[7:23, 2:18]]
    assert_close(run(centre, weights, split), [[posterior_of(weights, c) for c in taken]])


def test_no_more_programs_than_shapes_and_one_for_crops(weights, monkeypatch):
    for module in modules.values():
        module._posteriors.cache_clear()
    split = split_of([*SIZES, (20, 29), (20, 31)])  # 30, 29 and 31 are all cut to 28
    run(dense, weights, split)
    program = modules["dense"]._posteriors(NET, False, "scores")
    assert program._cache_size() == 4  # 20x28, 28x20, 20x20, 24x20: one batch size each
    run(dense, weights, split)
    assert program._cache_size() == 4
    for side in (16, 20, 23):
        run(multi_crop, weights, split, side=side)
    assert modules["multi_crop"]._posteriors(NET, False)._cache_size() == 1


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 33, 64, 65, 100, 1000])
@pytest.mark.parametrize("largest", [1, 8, 64])
def test_a_batch_is_a_power_of_two_that_wastes_little(n, largest):
    size = modules["dense"].batch_size(n, largest)
    assert 1 <= size <= largest and size & (size - 1) == 0
    calls = -(-n // size)
    assert calls * size < 2 * n and calls * size - n < size
    if n >= 2 * largest:
        assert calls * size <= 1.25 * n


def test_the_pixels_of_a_batch_are_bounded():
    largest = modules["dense"].largest_batch
    assert largest(NET, (CROP, CROP), 1) == 128  # of 250
    assert largest(NET, (CROP, CROP), 2) == 64  # of 125
    assert largest(NET, (2 * CROP, 2 * CROP), 2) == 16  # of 31
    assert largest(NET, (100 * CROP, CROP * 100), 2) == 1


def test_refusals(weights):
    split = split_of([(20, 20)])
    for protocol in (dense, multi_crop, centre):
        with pytest.raises(UserError, match="side=15 is smaller than the net's crop of 16"):
            run(protocol, weights, split, side=15)
    with pytest.raises(UserError, match="mlp cannot be slid"):
        mlp = Trained(replace(NET, model="mlp"), weights, MEAN_C, STD)
        dense(mlp, split, side=20, mirrored=False)
    with pytest.raises(UserError, match="unknown average 'score'"):
        run(dense, weights, split, average="score")


# --- averages and scores -------------------------------------------------------------------------


def random_posteriors(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def test_each_protocol_weighs_the_same():
    a_VNK, b_NK, c_VNK = (
        random_posteriors(2, 4, 3),
        random_posteriors(4, 3, seed=1),
        random_posteriors(5, 4, 3, seed=2),
    )
    found = mean_posterior([a_VNK, b_NK, c_VNK])
    expected = ((a_VNK[0] + a_VNK[1]) / 2 + b_NK + sum(c_VNK) / 5) / 3
    assert_close(found, expected, 1e-6)
    np.testing.assert_array_equal(mean_posterior([b_NK]), b_NK)
    for wrong in ([], [b_NK, b_NK[:1]], [b_NK[0]]):
        with pytest.raises(ValueError, match="same images"):
            mean_posterior(wrong)


def test_scores_are_sklearns():
    p_NK, labels_N = random_posteriors(300, 8), np.random.default_rng(1).integers(0, 7, 300)
    labels_N[:200] = 2  # unbalanced, and class 7 is absent
    found = scores(p_NK, labels_N, 8)
    right_N = p_NK.argmax(1) == labels_N
    assert found["n"] == 300 and found["accuracy"] == right_N.mean()
    assert found["correct"].dtype == bool
    np.testing.assert_array_equal(found["correct"], right_N)
    # balanced_accuracy_score warns of a class that is only predicted
    own = {"labels": np.unique(labels_N), "average": "macro"}
    balanced = recall_score(labels_N, p_NK.argmax(1), **own)
    assert found["balanced"] == pytest.approx(balanced) != found["accuracy"]
    top5 = top_k_accuracy_score(labels_N, p_NK, k=5, labels=range(8))
    assert found["top5"] == pytest.approx(top5) and 0 < top5 < 1


def test_ties_count_against_the_net_and_nan_is_wrong():
    even = np.full((4, 10), 0.1, np.float32)
    found = scores(even, np.array([0, 3, 5, 9]), 10)
    assert (found["accuracy"], found["top5"], found["balanced"]) == (0, 0, 0)
    p_NK = np.float32([[0.4, 0.4, 0.2], [0.6, 0.2, 0.2], [np.nan] * 3, [np.nan, 0.5, 0.5]])
    found = scores(p_NK, np.array([0, 0, 0, 0]), 3)
    assert found["correct"].tolist() == [False, True, False, False]
    assert found["top5"] == 0.5
    another = scores(np.float32([[0.9, np.nan, 0.1]]), np.array([0]), 3)
    assert another["correct"].tolist() == [False]
    with pytest.raises(ValueError, match="p_NK is"):
        scores(even, np.zeros(4, int), 9)
