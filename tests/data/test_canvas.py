"""Canvas: MNIST-5k digits at a known scale and place among clutter."""

import numpy as np
import pytest
from PIL import Image

from tests.data.test_data import options
from vggbn.data import load
from vggbn.data.permutation import uniform
from vggbn.data.readers import canvas
from vggbn.data.readers.embedded import read_mnist5k


@pytest.fixture(scope="module")
def digits():
    return read_mnist5k().take(np.arange(0, 5000, 10))


@pytest.fixture(scope="module")
def drawn(digits):
    return canvas.draw(digits)


def test_every_digit_lies_whole_and_undimmed_in_its_box(digits, drawn):
    for x_HWC, box, digit in zip(
        drawn.images_NHWC, drawn.boxes_N4, digits.images_NHWC, strict=True
    ):
        top, left, bottom, right = box
        inside = x_HWC[top:bottom, left:right, 0]
        ink = Image.fromarray(digit[..., 0])
        glyph = ink.crop(ink.getbbox()).resize(
            (right - left, bottom - top), Image.Resampling.BICUBIC
        )
        assert (inside >= np.asarray(glyph)).all()
        outside = x_HWC.copy()
        outside[top:bottom, left:right] = 0
        assert outside.max() <= canvas.DIM * 255


def test_boxes_are_as_large_as_said_and_lie_on_the_canvas(drawn):
    corners = drawn.boxes_N4
    assert corners.min() >= 0 and corners.max() <= canvas.SIDE
    longer = (corners[:, 2:] - corners[:, :2]).max(1) / canvas.SIDE
    assert 0.29 < longer.min() < 0.32 and 0.77 < longer.max() < 0.81
    # log-uniform: the median is the geometric mean
    assert np.median(longer) == pytest.approx(np.sqrt(0.3 * 0.8), rel=0.05)


def test_places_differ_and_stay_near_the_middle(drawn):
    size = drawn.boxes_N4[:, 2:] - drawn.boxes_N4[:, :2]
    share = drawn.boxes_N4[:, :2] / (canvas.SIDE + 1 - size)
    assert 0.2 < share.min() < 0.28 and 0.72 < share.max() <= 0.75
    assert np.abs(share.mean(0) - 0.5).max() < 0.03


def test_clutter_is_on_nearly_every_canvas(drawn):
    for x_HWC, (top, left, bottom, right) in zip(drawn.images_NHWC, drawn.boxes_N4, strict=True):
        x_HWC[top:bottom, left:right] = 0
    assert (drawn.images_NHWC.max((1, 2, 3)) > 50).mean() > 0.95


def test_canvas_is_loaded_like_any_set():
    found = load("canvas", **options(fit="whole", image_size=73))
    parts = [found.train, found.validation, found.test]
    assert [len(part) for part in parts] == [3500, 500, 1000] and not found.flip
    assert found.train.images_NHWC.shape[1:] == (73, 73, 1)
    assert found.digest == "cbc53ba84c3824aa"


def test_uniform_numbers_are_uniform_and_given_by_their_key():
    x = uniform(100_000, 1, 2)
    assert x.min() >= 0 and x.max() < 1
    assert np.histogram(x, 10, (0, 1))[0].min() > 9_500
    assert np.array_equal(x, uniform(100_000, 1, 2)) and not np.array_equal(
        x, uniform(100_000, 1, 3)
    )
    raw = np.random.PCG64(np.random.SeedSequence((1, 2))).random_raw(3)
    assert x[:3].tolist() == [int(r) // 2**11 / 2**53 for r in raw]
