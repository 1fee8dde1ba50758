"""Images of many scales (VGG 3.1, 3.2): rescaling, crops and jitter; Pillow is the reference."""

import jax
import numpy as np
import pytest
from PIL import Image

from vggbn.data import Split, colour_pca, load, pixel_moments
from vggbn.data.duplicates import near_duplicates
from vggbn.data.lazy import centre_view
from vggbn.data.pixels.decode import decode
from vggbn.data.pixels.jitter import random_scale_crop, rescaled_crop
from vggbn.data.pixels.scale import centre_crop, grid_corners, rescale, rescaled_size, window_side
from vggbn.data.split import concatenate, digest_of
from vggbn.errors import UserError


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth shapes and noise: uint8 [height, width, channels]."""
    rng = np.random.default_rng((height, width, channels, seed))
    coarse = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), channels), np.uint8)
    layers = [Image.fromarray(coarse[..., c]).resize((width, height)) for c in range(channels)]
    noise = rng.integers(-20, 21, (height, width, channels))
    smooth = np.stack([np.asarray(x) for x in layers], -1).astype(int)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def pillow(x_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each channel on its own, resized by Pillow."""
    size = (width, height)
    channels = [
        np.asarray(Image.fromarray(x_HWC[..., c]).resize(size, Image.Resampling.BICUBIC))
        for c in range(x_HWC.shape[2])
    ]
    return np.stack(channels, -1)


jitted_crop = jax.jit(rescaled_crop, static_argnames=("crop", "window"))
jitted_jitter = jax.jit(random_scale_crop, static_argnames=("crop", "window"))


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((300, 400), 150, (150, 200)),
        ((400, 300), 150, (200, 150)),
        ((500, 375), 256, (341, 256)),  # 341.33
        ((375, 500), 384, (384, 512)),
        ((100, 101), 50, (50, 51)),  # 50.5 goes up
        ((1, 1000), 64, (64, 64000)),
        ((7, 7), 224, (224, 224)),
    ],
)
def test_the_smallest_side_is_exact_and_the_other_in_proportion(size, side, expected):
    assert rescaled_size(*size, side) == expected


def test_no_size_is_ever_smaller_than_the_side_or_out_of_proportion():
    rng = np.random.default_rng(0)
    for height, width, side in rng.integers(1, 900, (500, 3)):
        found = rescaled_size(int(height), int(width), int(side))
        assert min(found) == side
        exact = side * np.array([height, width]) / min(height, width)
        assert np.abs(np.array(found) - exact).max() <= 0.5


# --- rescaling -----------------------------------------------------------------------------------


def random_cases(n: int):
    """(height, width, side) with ratios to 12, both directions, and sides of one pixel."""
    rng = np.random.default_rng(4)
    for i in range(n):
        height, width = np.exp(rng.uniform(0, np.log(300), 2)).astype(int)
        if i % 10 == 0:
            height = 1
        if i % 10 == 5:
            width = 1
        if max(height, width) > 12 * min(height, width):
            height, width = min(height, 12 * width), min(width, 12 * height)
        yield int(height), int(width), int(np.exp(rng.uniform(np.log(2), np.log(150))))


@pytest.mark.parametrize("channels", [1, 3])
def test_rescaling_is_pillow_s_on_200_random_sizes(channels):
    directions = {"up": 0, "down": 0, "one": 0}
    for height, width, side in random_cases(200):
        x_HWC = photo(height, width, channels)
        found = rescale(x_HWC, side)
        expected = pillow(x_HWC, *rescaled_size(height, width, side))
        assert found.dtype == np.uint8 and np.array_equal(found, expected), (height, width, side)
        directions["up" if side > min(height, width) else "down"] += 1
        directions["one"] += min(height, width) == 1
    assert min(directions.values()) >= 30


def test_the_jitted_crop_is_pillow_s_to_its_rounding_on_200_random_sizes():
    """Pillow rounds to whole levels after the rows and after the columns; this does not."""
    rng, crop, errors = np.random.default_rng(5), 12, []
    frame = (160, 160)
    for _ in range(200):
        height, width = (int(v) for v in rng.integers(24, 161, 2))
        side = int(rng.integers(crop, 2 * min(height, width)))
        x_HWC = photo(height, width)
        new = rescaled_size(height, width, side)
        top, left = (int(rng.integers(0, length - crop + 1)) for length in new)
        framed = np.full((*frame, 3), 99, np.uint8)  # what is outside must not matter
        framed[:height, :width] = x_HWC
        found = jitted_crop(
            framed, np.array([height, width]), np.array(new), np.array([top, left], np.float32),
            crop=crop, window=160,
        )  # fmt: skip
        expected = pillow(x_HWC, *new)[top : top + crop, left : left + crop]
        errors.append(np.abs(np.asarray(found) - expected))
    # Half a level of each rounding, the first spread by the negative lobes of the second filter.
    assert np.max(errors) <= 1.3
    assert 0.1 < np.mean(errors) < 0.5


@pytest.mark.parametrize(
    ("source", "scale_min", "crop"), [(146, 73, 64), (73, 37, 32), (50, 64, 64)]
)
def test_the_window_holds_all_that_any_crop_needs(source, scale_min, crop):
    window = window_side(source, scale_min, crop)
    lengths = (source, source + 1, int(source * 4 / 3), int(source * 16 / 9))
    for longer in lengths:
        x_HWC = np.zeros((lengths[-1], source, 3), np.uint8)  # one frame, one program
        x_HWC[:longer] = photo(longer, source)
        new = rescaled_size(longer, source, scale_min)
        for top, left in grid_corners(*new, crop, grid=3):
            args = (x_HWC, np.array([longer, source]), np.array(new), np.array([top, left], float))
            found = jitted_crop(*args, crop=crop, window=window)
            whole = jitted_crop(*args, crop=crop, window=10_000)
            np.testing.assert_allclose(found, whole, rtol=0, atol=2e-3)


# --- crops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 341), (341, 256), (256, 256), (224, 500), (224, 224)])
def test_a_scale_has_25_corners_from_edge_to_edge_spread_evenly(size):
    corners = np.array(grid_corners(*size, 224))
    assert corners.shape == (25, 2)
    for axis, length in enumerate(size):
        places = np.unique(corners[:, axis])
        assert places[0] == 0 and places[-1] == length - 224
        assert np.ptp(np.diff(places)) <= 1 if length > 224 else len(places) == 1
        assert len(places) == (5 if length > 224 else 1)


def test_the_middle_of_the_grid_is_the_centre_crop():
    x_HWC = np.arange(21 * 31).reshape(21, 31, 1)
    top, left = grid_corners(21, 31, 11)[12]
    assert np.array_equal(centre_crop(x_HWC, 11), x_HWC[top : top + 11, left : left + 11])


def test_an_odd_remainder_is_cut_at_the_end():
    x_HWC = np.arange(5 * 4).reshape(5, 4, 1)
    assert centre_crop(x_HWC, 2)[..., 0].tolist() == [[5, 6], [9, 10]]


# --- jitter --------------------------------------------------------------------------------------


def ramps(sizes, frame=(80, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Images whose red is the row and green the column over their sides: they tell S and place."""
    images = np.zeros((len(sizes), *frame, 3), np.uint8)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:height, :width, 0] = np.linspace(0, 240, height)[:, None].round()
        image[:height, :width, 1] = np.linspace(0, 240, width)[None].round()
    return images, np.array(sizes, np.int32)


def scales_of(crops, sizes):
    """S as read from the slope along the image's smaller side."""
    slopes = np.stack([np.diff(crops[..., 0], axis=1).mean((1, 2)),
                       np.diff(crops[..., 1], axis=2).mean((1, 2))], 1)  # fmt: skip
    smaller = np.argmin(sizes, 1)
    return 240 / slopes[np.arange(len(sizes)), smaller]


def jittered(key, images, sizes, low, high, crop=16):
    window = window_side(40, low, crop)
    return np.asarray(jitted_jitter(key, images, sizes, low, high, crop=crop, window=window))


def test_every_image_gets_its_own_scale_over_the_whole_range():
    images, sizes = ramps([(40, 60), (70, 40)] * 400)
    crops = jittered(jax.random.key(0), images, sizes, 20, 40)
    found = scales_of(crops, sizes)
    assert crops.shape == (800, 16, 16, 3) and found.min() < 21.5 and found.max() > 38.5
    assert abs(found.mean() - 30) < 1 and abs(found.std() - np.sqrt((21**2 - 1) / 12)) < 0.7
    inside = crops[:, :, :, :2]
    assert inside.min() < 10 and inside.max() > 230  # crops reach all four edges


def test_a_fixed_scale_is_fixed_and_isotropic():
    images, sizes = ramps([(40, 60), (70, 40)] * 50)
    crops = jittered(jax.random.key(1), images, sizes, 30, 30)
    np.testing.assert_allclose(scales_of(crops, sizes), 30, rtol=0.05)
    rows = np.diff(crops[..., 0], axis=1).mean((1, 2)) * sizes[:, 0]
    columns = np.diff(crops[..., 1], axis=2).mean((1, 2)) * sizes[:, 1]
    np.testing.assert_allclose(rows, columns, rtol=0.06)


def test_places_are_uniform_over_the_rescaled_image():
    images, sizes = ramps([(40, 40)] * 3000)
    crops = jittered(jax.random.key(2), images, sizes, 20, 20)
    rows = np.round(crops[:, 0, 0, 0] / (240 / 20)).astype(int)
    counts = np.bincount(rows, minlength=5)
    assert len(counts) == 5 and counts.min() > 3000 / 5 * 0.8  # corners 0 … 4


def test_jitter_is_a_function_of_its_key():
    images, sizes = ramps([(40, 60)] * 20)
    one, again, other = (jittered(jax.random.key(k), images, sizes, 20, 40) for k in (3, 3, 4))
    assert np.array_equal(one, again) and not np.allclose(one, other, atol=5)


def test_at_its_own_scale_an_image_is_cropped_without_a_change():
    images, _ = ramps([(40, 40)], frame=(40, 40))
    found = jittered(jax.random.key(5), images, None, 40, 40, crop=40)
    np.testing.assert_allclose(found, images, atol=1e-3)


# --- what is stored ------------------------------------------------------------------------------


def save(path, x_HWC, **options):
    Image.fromarray(x_HWC).save(path, **options)
    return path


def whole(source, side=40, channels=3):
    return decode(source, "x", image_size=side, fit="whole", channels=channels)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (50, 50), (1, 1)])
def test_every_mode_is_decoded_whole_as_pillow_s_rgb(tmp_path, mode, size):
    image = Image.fromarray(photo(*size)).convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image.save(path)
    found = whole(path)
    with Image.open(path) as opened:
        x_HWC = np.asarray(opened.convert("RGB"))
    assert np.array_equal(found, pillow(x_HWC, *rescaled_size(*size, 40)))


def test_exif_rotation_is_applied_before_the_sides_are_compared(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.png", photo(60, 90), exif=exif)
    upright = np.rot90(photo(60, 90), -1)
    assert np.array_equal(whole(path), pillow(upright, 60, 40))


def test_a_large_jpeg_shrunk_by_its_decoder_keeps_its_proportions(tmp_path):
    x_HWC = np.asarray(Image.fromarray(photo(50, 66)).resize((801, 601)))
    found = whole(save(tmp_path / "x.jpg", x_HWC, quality=98))
    expected = pillow(x_HWC, 40, 53)
    assert found.shape == (40, 53, 3)
    assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_of_very_long_images_the_ends_are_cut(tmp_path):
    x_HWC = photo(36, 200)
    found = whole(save(tmp_path / "x.png", x_HWC), side=36)
    assert found.shape == (36, 64, 3)
    assert np.array_equal(found, x_HWC[:, 68:132])


@pytest.fixture
def folder(tmp_path):
    """Two classes of images of many sizes, and a third of every file cut off one of them."""
    rng = np.random.default_rng(1)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(12):
            size = (int(rng.integers(30, 60)), int(rng.integers(30, 60)))
            save(tmp_path / label / f"{i:02d}.png", photo(*size, seed=i + 100 * (label == "b")))
    return tmp_path


def options(folder, **changes):
    base = {"image_size": 20, "fit": "whole", "split": "folds", "seed": 0, "data_dir": None}
    return {"name": f"folder:{folder}", **base, **changes}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def test_a_folder_is_loaded_whole_framed_and_the_same_from_the_cache(folder, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    first, second = (load(**options(folder), cache_dir=cache) for _ in range(2))
    assert first.digest == second.digest
    sizes = np.concatenate([s.sizes_N2 for s in (first.train, first.validation, first.test)])
    assert (sizes.min(1) == 20).all() and len(np.unique(sizes.max(1))) > 5
    for row in range(len(first.train)):
        height, width = first.train.sizes_N2[row]
        image = first.train.images_NHWC[row]
        assert image[height:].sum() == image[:, width:].sum() == 0
        assert first.train.image(row).shape == (height, width, 3)
        assert np.array_equal(first.train.image(row), second.train.image(row))


def test_frames_larger_than_memory_are_refused_before_all_is_decoded(folder, monkeypatch):
    monkeypatch.setattr("vggbn.data.pixels.decode._memory", lambda: 24 * 20 * 24 * 3)
    truncate(folder / "b" / "11.png")  # the last of the part: it is never reached
    with pytest.raises(UserError, match=r"24 images of \d+x\d+x3 .* choose a smaller image_size"):
        load(**options(folder))


def test_a_truncated_file_is_refused_by_name(folder):
    truncate(folder / "a" / "03.png")
    with pytest.raises(UserError, match=r"a/03\.png cannot be read"):
        load(**options(folder))


def test_a_truncated_file_is_skipped_by_name_if_asked(folder, capfd, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    before = load(**options(folder), cache_dir=cache)
    truncate(folder / "a" / "03.png")
    (folder / "b" / "notes.jpg").write_text("no image")
    found = load(**options(folder, damaged="skip"), cache_dir=cache)
    told = capfd.readouterr().err
    assert told.count("skipped: ") == 2 and "a/03.png" in told and "b/notes.jpg" in told
    assert "2 damaged files skipped" in found.note
    parts = [found.train, found.validation, found.test]
    assert sum(map(len, parts)) == 23 and np.bincount(concatenate(parts).labels_N).tolist() == [
        11,
        12,
    ]
    assert "skipped" not in before.note
    with pytest.raises(UserError, match="damaged='ignore' is unknown"):
        load(**options(folder, damaged="ignore"))


def test_statistics_are_of_the_pixels_inside_the_frames(folder):
    train = load(**options(folder)).train
    pixels = np.concatenate([train.image(i).reshape(-1, 3) for i in range(len(train))]) / 255
    mean_C, std = pixel_moments(train)
    np.testing.assert_allclose(mean_C, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(pixels.var(0).mean()), rtol=1e-6)
    np.testing.assert_allclose(
        colour_pca(train) @ colour_pca(train).T, np.cov(pixels.T, bias=True), rtol=1e-4, atol=1e-7
    )


def test_the_digest_sees_sizes():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    label = np.zeros(1, np.int32)
    framed = [Split(images, label, np.array([size], np.int32)) for size in ((4, 3), (3, 4))]
    assert len({digest_of(s) for s in (Split(images, label), *framed)}) == 3


def test_near_duplicates_are_found_in_frames_of_another_shape():
    x = photo(40, 60)
    other = photo(40, 60, seed=9)
    frames = np.zeros((3, 80, 80, 3), np.uint8)
    frames[0, :40, :60], frames[1, :80, :80] = x, np.asarray(Image.fromarray(x).resize((80, 80)))
    frames[2, :40, :60] = other
    sizes = np.array([(40, 60), (80, 80), (40, 60)], np.int32)
    assert near_duplicates(Split(frames, np.zeros(3, np.int32), sizes)).tolist() == [0, 0, 1]


def test_the_single_view_is_the_centre_of_the_rescaled_image():
    images, sizes = np.zeros((2, 60, 60, 3), np.uint8), np.array([(40, 60), (60, 40)], np.int32)
    images[0, :40], images[1, :, :40] = photo(40, 60), photo(60, 40)
    found = centre_view(Split(images, np.zeros(2, np.int32), sizes), 20, 16).images_NHWC
    assert np.array_equal(found[0], pillow(photo(40, 60), 20, 30)[2:18, 7:23])
    assert np.array_equal(found[1], pillow(photo(60, 40), 30, 20)[7:23, 2:18])


def test_frames_are_joined_to_the_largest():
    small = Split(
        np.ones((1, 2, 3, 1), np.uint8), np.zeros(1, np.int32), np.array([[2, 3]], np.int32)
    )
    tall = Split(
        np.ones((1, 4, 2, 1), np.uint8), np.ones(1, np.int32), np.array([[4, 2]], np.int32)
    )
    both = concatenate([small, tall])
    assert both.images_NHWC.shape == (2, 4, 3, 1) and both.images_NHWC.sum() == 6 + 8
    assert both.image(0).shape == (2, 3, 1) and both.image(1).shape == (4, 2, 1)


def test_a_split_refuses_sizes_that_do_not_fit():
    with pytest.raises(TypeError, match="pair"):
        Split(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32), np.zeros((1, 2), np.int32))
