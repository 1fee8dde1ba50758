"""vggbn.data: sources, splits, batches, augmentation, cache."""

import io
import itertools
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import ROOT
from vggbn.commands.prepare import main as prepare_main
from vggbn.data import Split, batch_indices, colour_pca, input_moments, load, pixel_moments
from vggbn.data import splits as splitting
from vggbn.data.duplicates import near_duplicates
from vggbn.data.permutation import permutation
from vggbn.data.pixels import augment as aug
from vggbn.data.progress import progress
from vggbn.data.readers import tfds as tfds_source
from vggbn.data.readers.prepared import version_folder
from vggbn.data.split import digest_of
from vggbn.errors import UserError

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PARTS = ("train", "validation", "test")


def options(**changes) -> dict:
    base = {"image_size": 16, "fit": "resize", "split": "fixed", "seed": 0, "data_dir": None}
    return base | changes


def rows(*splits: Split) -> list[bytes]:
    """One hashable value for each example."""
    return [
        x.tobytes() + bytes([y])
        for s in splits
        for x, y in zip(s.images_NHWC, s.labels_N, strict=True)
    ]


def pixels(n: int, *, size: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def as_split(images_NHWC: np.ndarray) -> Split:
    return Split(images_NHWC, np.zeros(len(images_NHWC), np.int32))


# --- embedded sets -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist():
    return load("mnist5k", **options(image_size=28))


def test_mnist5k_is_the_known_set(mnist):
    assert [len(getattr(mnist, part)) for part in PARTS] == [3500, 500, 1000]
    for part, each in zip(PARTS, (350, 50, 100), strict=True):
        assert np.bincount(getattr(mnist, part).labels_N).tolist() == [each] * 10
    assert mnist.train.images_NHWC.shape == (3500, 28, 28, 1)
    assert mnist.classes == tuple("0123456789")
    assert not mnist.flip
    assert "MNIST" in mnist.note
    # Zeros are rounder and darker in the middle than ones: image and label belong together.
    centre = mnist.train.images_NHWC[:, 13:15, 13:15].mean((1, 2, 3))
    assert (
        centre[mnist.train.labels_N == 1].mean()
        > 150
        > 60
        > centre[mnist.train.labels_N == 0].mean()
    )


def test_fixed_splits_do_not_depend_on_the_seed_and_folds_do(mnist):
    assert load("mnist5k", **options(image_size=28, seed=9)).digest == mnist.digest
    folds = {load("digits", **options(split="folds", seed=s)).digest for s in range(6)}
    assert len(folds) == 5  # seed 5 repeats seed 0


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_five_folds_test_every_image_once(name):
    size = 28 if name == "mnist5k" else 8
    folds = [load(name, **options(image_size=size, split="folds", seed=s)) for s in range(5)]
    everything = sorted(rows(*(getattr(folds[0], part) for part in PARTS)))
    assert sorted(rows(*(fold.test for fold in folds))) == everything
    for fold in folds:
        assert sorted(rows(fold.train, fold.validation, fold.test)) == everything
        assert len(set(rows(fold.test)) & set(rows(fold.train, fold.validation))) == 0
    for part in PARTS:
        shares = [np.bincount(getattr(f, part).labels_N) / len(getattr(f, part)) for f in folds]
        assert np.ptp(shares, axis=0).max() < 0.02, f"{part} is not stratified"


@pytest.mark.parametrize(
    ("name", "changes", "digest"),
    [
        ("mnist5k", {"image_size": 28}, "9c48ad574d0ece37"),
        ("mnist5k", {"image_size": 16}, "268eb17881c03cd2"),
        ("mnist5k", {"image_size": 32, "fit": "pad"}, "f228c3c036be99e8"),
        ("digits", {"image_size": 8}, "bcd688f01836039d"),
    ],
)
def test_golden_digest(name, changes, digest):
    """Data, resampling or splits changed: results made before cannot be compared with new ones.
    When 28 pixels fail too it is the data or the splits, else Pillow's bicubic filter."""
    assert load(name, **options(**changes)).digest == digest


def test_digits_use_the_whole_range():
    images = load("digits", **options(image_size=8)).train.images_NHWC
    assert images.shape == (1257, 8, 8, 1)
    assert sorted(set(images.ravel().tolist())) == [round(v * 255 / 16) for v in range(17)]


def test_the_digest_sees_pixels_labels_and_shapes():
    x, y = pixels(4), np.arange(4, dtype=np.int32)
    other = x.copy()
    other[3, 7, 7, 2] ^= 1
    digests = {
        digest_of(Split(x, y)),
        digest_of(Split(other, y)),
        digest_of(Split(x, y[::-1].copy())),
        digest_of(Split(x.reshape(4, 4, 16, 3), y)),
        digest_of(Split(x[:2], y[:2]), Split(x[2:], y[2:])),
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"fit": "stretch"}, "resize, pad"),
        ({"split": "random"}, "fixed, folds"),
        ({"image_size": 0}, "at least 1"),
        ({"seed": -1}, "negative"),
        ({"fit": "pad", "image_size": 16}, "larger than image_size=16"),
    ],
)
def test_wrong_options_are_refused(changes, word):
    with pytest.raises(UserError, match=word):
        load("mnist5k", **options(**changes))


def test_a_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        load("digits", **options())


# --- splits --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_tenths_are_even_in_size_and_in_every_class(labels):
    labels_N = np.array(labels)
    tenth_N = splitting.tenths(labels_N)
    assert np.ptp(np.bincount(tenth_N, minlength=10)) <= 5
    for label in set(labels):
        assert np.ptp(np.bincount(tenth_N[labels_N == label], minlength=10)) <= 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=100))
def test_a_group_stays_together(groups):
    groups_N = np.array(groups)
    tenth_N = splitting.tenths(groups_N % 3, groups_N)
    assert all(len(set(tenth_N[groups_N == g])) == 1 for g in groups)


def test_given_parts_are_kept_and_missing_ones_carved():
    train, test = (Split(pixels(n, seed=n), np.arange(n, dtype=np.int32) % 2) for n in (100, 30))
    a, b, c = splitting.carve({"train": train, "test": test}, fold=0)
    assert c is test
    assert (len(a), len(b)) == (90, 10)
    assert sorted(rows(a, b)) == sorted(rows(train))
    seen = [rows(splitting.carve({"train": train, "test": test}, fold=k)[1]) for k in range(10)]
    assert sorted(itertools.chain(*seen)) == sorted(rows(train))  # ten disjoint validation parts


# --- batches -------------------------------------------------------------------------------------


def epoch(shuffle: str, number: int, *, seed: int = 0, n: int = 23, batch: int = 5) -> np.ndarray:
    steps = range(number * (n // batch), (number + 1) * (n // batch))
    return np.stack([batch_indices(seed, s, n=n, batch=batch, shuffle=shuffle) for s in steps])


@given(
    st.sampled_from(["fixed", "fresh"]), st.integers(0, 5), st.integers(1, 40), st.integers(1, 40)
)
def test_an_epoch_visits_examples_once(shuffle, number, n, batch):
    batch = min(batch, n)
    seen = epoch(shuffle, number, n=n, batch=batch)
    assert seen.dtype == np.int32
    assert seen.shape == (n // batch, batch)
    assert len(set(seen.ravel().tolist())) == seen.size
    assert set(seen.ravel().tolist()) <= set(range(n))


def test_fixed_batches_keep_their_composition_and_change_their_order():
    def composition(number):
        return [tuple(b) for b in epoch("fixed", number, n=203).tolist()]

    first, second = composition(0), composition(1)
    assert first != second
    assert set(first) == set(second)
    assert set(first) != {tuple(b) for b in epoch("fixed", 0, n=203, seed=1).tolist()}


def test_fresh_batches_are_dealt_anew_and_drop_another_tail():
    first, second = epoch("fresh", 0), epoch("fresh", 1)
    assert not {frozenset(b) for b in first.tolist()} & {frozenset(b) for b in second.tolist()}
    assert set(first.ravel()) != set(second.ravel())


def test_a_batch_is_a_pure_function_of_seed_and_step():
    asked = [(0, 5), (1, 900), (0, 17), (2, 5), (0, 5)]
    kw = {"n": 203, "batch": 5, "shuffle": "fixed"}
    forth = [batch_indices(seed, step, **kw).tolist() for seed, step in asked]
    back = [batch_indices(seed, np.int64(step), **kw).tolist() for seed, step in asked[::-1]]
    assert forth == back[::-1]
    assert forth[0] == forth[4] != forth[3]
    with pytest.raises(ValueError, match="read-only"):
        batch_indices(0, 5, **kw)[0] = 1


def test_golden_permutation():
    """The stream of batches changed: every result made before is of another data order."""
    assert permutation(8, 1, 0).tolist() == [2, 4, 7, 5, 0, 6, 3, 1]
    assert batch_indices(0, 3, n=8, batch=4, shuffle="fresh").tolist() == [6, 3, 5, 1]
    assert batch_indices(0, 3, n=8, batch=4, shuffle="fixed").tolist() == [0, 6, 3, 1]


def test_wrong_batches_are_refused():
    with pytest.raises(UserError, match="fixed, fresh"):
        batch_indices(0, 0, n=8, batch=4, shuffle="none")
    for batch in (0, 9):
        with pytest.raises(UserError, match="between 1 and 8"):
            batch_indices(0, 0, n=8, batch=batch, shuffle="fresh")


# --- statistics and augmentation -----------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_moments_and_components_agree_with_numpy(channels):
    images = pixels(1500, channels=channels) // np.arange(1, channels + 1, dtype=np.uint8)
    x_PC = images.reshape(-1, channels) / 255
    mean_C, std = pixel_moments(as_split(images))
    np.testing.assert_allclose(mean_C, x_PC.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(x_PC.var(0).mean()), rtol=1e-6)
    pca_CC = colour_pca(as_split(images))
    assert (mean_C.dtype, std.dtype, pca_CC.dtype) == (np.float32,) * 3
    covariance = np.cov(x_PC.T, bias=True).reshape(channels, channels)
    np.testing.assert_allclose(pca_CC @ pca_CC.T, covariance, atol=1e-8)
    np.testing.assert_allclose(np.tril(pca_CC.T @ pca_CC, -1), 0, atol=1e-8)  # orthogonal
    assert (np.diff(np.linalg.norm(pca_CC, axis=0)) <= 0).all()


def test_binary_pixels_reach_the_net_as_0_and_1():
    grey, binary = (load("digits", **options(pixels=p)) for p in ("standardised", "binary"))
    assert binary.digest != grey.digest and "binary from 128 of 255 on" in binary.note
    for part in PARTS:
        before, after = getattr(grey, part), getattr(binary, part)
        assert np.array_equal(before.labels_N, after.labels_N)
        x_NHWC = np.asarray(aug.standardise(after.images_NHWC, *input_moments(binary)))
        assert np.array_equal(x_NHWC, (before.images_NHWC / 255 >= 0.5).astype(np.float32))
    mean_C, std = input_moments(grey)
    assert (mean_C, std) == pixel_moments(grey.train)


def test_a_few_training_images_keep_the_shares_of_their_classes():
    every = load("digits", **options())
    few, more = (load("digits", **options(), train_size=n) for n in (100, 300))
    assert (len(few.train), len(more.train)) == (100, 300) and few.digest != more.digest
    assert "100 of its training images" in few.note
    assert set(rows(few.train)) <= set(rows(more.train)) <= set(rows(every.train))
    assert np.ptp(np.bincount(few.train.labels_N)) <= 1
    for part in PARTS[1:]:
        assert rows(getattr(few, part)) == rows(getattr(every, part))
    skewed = Split(pixels(110), np.repeat(np.arange(2), (100, 10)).astype(np.int32))
    assert np.bincount(splitting.stratified(skewed, 22).labels_N).tolist() == [20, 2]
    for wrong in (5, len(every.train) + 1):
        with pytest.raises(UserError, match=f"train_size={wrong} does not fit"):
            load("digits", **options(), train_size=wrong)


def test_the_moments_keep_no_split_alive_but_the_last():
    old = as_split(pixels(3))
    seen = weakref.ref(old)
    pixel_moments(old)
    del old
    pixel_moments(as_split(pixels(4)))
    assert seen() is None


def test_one_colour_has_no_moments():
    with pytest.raises(UserError, match="same colour"):
        pixel_moments(as_split(np.full((3, 4, 4, 3), 200, np.uint8)))


def test_standardise_gives_mean_0_and_variance_1():
    images = pixels(200)
    y = np.asarray(aug.standardise(images, *pixel_moments(as_split(images))))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)).mean(), 1, rtol=1e-5)


def test_a_crop_is_a_window_of_the_zero_padded_image():
    key, x, pad = jax.random.key(3), pixels(64, size=6) | 1, 2  # | 1: no pixel is 0
    y = np.asarray(aug.random_crop(key, jnp.asarray(x), pad))
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    offsets = np.asarray(jax.random.randint(key, (64, 2), 0, 2 * pad + 1)).tolist()
    for image, crop, (r, c) in zip(padded, y, offsets, strict=True):
        np.testing.assert_array_equal(crop, image[r : r + 6, c : c + 6])
    assert {r for r, _ in offsets} == {c for _, c in offsets} == set(range(5))


def test_a_flip_mirrors_about_half_of_the_images():
    x = pixels(400)
    y = np.asarray(aug.random_flip(jax.random.key(0), jnp.asarray(x)))
    flipped = (y == x[:, :, ::-1]).all((1, 2, 3))
    assert (flipped | (y == x).all((1, 2, 3))).all()
    assert 160 < flipped.sum() < 240


def test_a_colour_shift_has_the_covariance_of_the_colours():
    pca_CC = colour_pca(as_split(pixels(100) // np.array([1, 2, 8], np.uint8)))
    x = jnp.full((20_000, 2, 2, 3), 0.5)
    shift = np.asarray(aug.colour_shift(jax.random.key(1), x, pca_CC, 0.1)) - 0.5
    assert np.ptp(shift, axis=(1, 2)).max() == 0  # one draw for an image
    shift_NC = shift[:, 0, 0].astype(np.float64)
    np.testing.assert_allclose(shift_NC.mean(0), 0, atol=4 * 0.1 * 0.3 / np.sqrt(20_000))
    expected = 0.01 * pca_CC @ pca_CC.T
    np.testing.assert_allclose(np.cov(shift_NC.T), expected, atol=0.04 * expected.max())


def augmented(key, x, **changes):
    mean_C, std = pixel_moments(as_split(x))
    base = {"pad": 2, "flip": True, "amount": 0.1, "mean_C": mean_C, "std": std}
    return np.asarray(
        aug.augment(key, jnp.asarray(x), **(base | {"pca_CC": colour_pca(as_split(x))} | changes))
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_augment_is_its_parts_in_order(channels):
    key, x = jax.random.key(5), pixels(16, channels=channels)
    (mean_C, std), pca_CC = pixel_moments(as_split(x)), colour_pca(as_split(x))
    colour, crop, flip = jax.random.split(key, 3)
    y = np.asarray(aug.colour_shift(colour, jnp.asarray(x / 255, jnp.float32), pca_CC, 0.1))
    y = aug.random_flip(flip, aug.random_crop(crop, jnp.asarray((y - mean_C) / std), 2))
    np.testing.assert_allclose(augmented(key, x), y, atol=1e-5)


def test_augment_without_changes_is_standardise():
    x = pixels(16)
    y = augmented(jax.random.key(5), x, pad=0, flip=False, amount=0.0)
    np.testing.assert_allclose(y, aug.standardise(x, *pixel_moments(as_split(x))), atol=1e-6)


def test_the_border_of_a_crop_is_the_mean_colour():
    x = pixels(32)
    y = augmented(jax.random.key(5), x, amount=0.5)
    corners = np.stack([y[:, 0, 0], y[:, 0, -1], y[:, -1, 0], y[:, -1, -1]])
    assert (corners == 0).all(-1).any()


def test_augment_is_one_trace_for_all_amounts_and_pure_in_its_key():
    x = pixels(8)
    traces = []

    @jax.jit
    def f(key, x, amount):
        traces.append(1)
        mean_C, std = np.zeros(3, np.float32), np.float32(1)
        return aug.augment(
            key, x, pad=1, flip=True, amount=amount, mean_C=mean_C, std=std, pca_CC=np.eye(3)
        )

    a, b, c = (f(jax.random.key(k), x, s) for k, s in ((0, 0.1), (0, 0.1), (1, 0.0)))
    assert len(traces) == 1
    assert a.dtype == jnp.float32
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


# --- image folders -------------------------------------------------------------------------------


def save(path: Path, x_HWC: np.ndarray, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x_HWC).save(path, **how)
    return path


def make_folder(root: Path, counts: dict[str, int], size: int = 12) -> Path:
    """counts: 'train/cat' or 'cat' -> number of different images."""
    for number, (folder, count) in enumerate(sorted(counts.items())):
        for row, x in enumerate(pixels(count, size=size, seed=number)):
            save(root / folder / f"{row:03}.png", x)
    return root


def load_folder(root: Path, **changes):
    return load(f"folder:{root}", **options(**{"image_size": 12, **changes}))


GIVEN = {f"{part}/{name}": n for part, n in zip(PARTS, (6, 2, 3), strict=True) for name in "ab"}


def test_given_splits_are_used_as_they_are(tmp_path):
    root = make_folder(tmp_path, GIVEN)
    (root / ".hidden").mkdir()
    (root / "train" / "a" / "Thumbs.db").write_text("x")
    (root / "LICENSE").write_text("x")
    found = load_folder(root)
    assert found.classes == ("a", "b")
    assert found.flip
    assert [np.bincount(getattr(found, p).labels_N).tolist() for p in PARTS] == [
        [6, 6],
        [2, 2],
        [3, 3],
    ]
    with Image.open(root / "test" / "b" / "002.png") as image:
        np.testing.assert_array_equal(found.test.images_NHWC[5], np.asarray(image))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_folder_without_splits_is_carved(tmp_path, prefix):
    found = load_folder(make_folder(tmp_path, {f"{prefix}a": 20, f"{prefix}b": 40}))
    assert [np.bincount(getattr(found, p).labels_N).tolist() for p in PARTS] == [
        [14, 28],
        [2, 4],
        [4, 8],
    ]


def test_folds_pool_a_folder_and_test_every_image_once(tmp_path):
    root = make_folder(tmp_path, {k: 5 * n for k, n in GIVEN.items()})
    folds = [load_folder(root, split="folds", seed=s) for s in range(5)]
    tested = rows(*(f.test for f in folds))
    assert len(tested) == len(set(tested)) == 110


def test_near_duplicates_never_straddle_splits(tmp_path):
    smooth = np.asarray(
        [Image.fromarray(x).resize((40, 40), Image.Resampling.BICUBIC) for x in pixels(60, size=5)]
    )
    for n, x in enumerate(smooth):
        save(tmp_path / "ab"[n % 2] / f"{n}.png", x)
        if n < 20:  # saved again: other sizes, other quality, another class
            copy = Image.fromarray(x).resize((33, 33), Image.Resampling.BICUBIC)
            save(tmp_path / "ba"[n % 2] / f"{n}-copy.jpg", np.asarray(copy), quality=70)
    for seed in range(5):
        found = load(f"folder:{tmp_path}", **options(split="folds", seed=seed))
        parts = [getattr(found, part).images_NHWC for part in PARTS]
        part_of = np.repeat([0, 1, 2], [len(x) for x in parts])
        groups = near_duplicates(as_split(np.concatenate(parts)))
        assert len(set(groups)) == 60
        assert all(len(set(part_of[groups == g])) == 1 for g in groups)


def test_flat_images_are_duplicates_only_when_identical():
    flat = np.repeat(np.array([10, 10, 200, 90], np.uint8), 192).reshape(4, 8, 8, 3)
    groups = near_duplicates(as_split(flat))
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_every_pixel_format_becomes_rgb(tmp_path):
    rgb = np.kron(pixels(1, size=3)[0], np.ones((4, 4, 1), np.uint8))
    image = Image.fromarray(rgb)
    ways = {
        "rgb.png": image,
        "rgba.png": image.convert("RGBA"),
        "palette.png": image.quantize(64),
        "grey.png": image.convert("L"),
        "grey16.png": Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
        "cmyk.jpg": image.convert("CMYK"),
    }
    (tmp_path / "a").mkdir()
    for name, way in ways.items():
        way.save(tmp_path / "a" / name, **({"quality": 100} if name.endswith("jpg") else {}))
    make_folder(tmp_path, {"b": 10})
    for n, x in enumerate(pixels(10, size=12, seed=9)):
        save(tmp_path / "a" / f"x{n}.png", x)
    from vggbn.data.readers.folder import list_folder, read_folder

    listed = list_folder(str(tmp_path))
    found = read_folder(listed, image_size=12, fit="resize")["train"].images_NHWC
    by_name = {file.name: found[row].astype(int) for row, file in enumerate(listed.files)}
    grey = np.repeat(np.asarray(image.convert("L")).astype(int)[..., None], 3, axis=2)
    for name in ways:
        expected, tolerance = (grey, 0) if "grey" in name else (rgb.astype(int), 0)
        tolerance = {"cmyk.jpg": 12, "palette.png": 4}.get(name, tolerance)
        assert np.abs(by_name[name] - expected).max() <= tolerance, name


def test_exif_rotation_is_applied(tmp_path):
    x = np.zeros((16, 24, 3), np.uint8)
    x[:8, :12] = 255  # the top left quarter
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    make_folder(tmp_path, {"a": 10, "b": 10})
    save(tmp_path / "a" / "0-turned.jpg", x, exif=exif, quality=95)
    from vggbn.data.readers.folder import list_folder, read_folder

    listed = list_folder(str(tmp_path))
    turned = read_folder(listed, image_size=12, fit="resize")["train"].images_NHWC[
        [f.name for f in listed.files].index("0-turned.jpg")
    ]
    corners = [turned[r, c].mean() > 128 for r, c in ((1, 1), (1, -2), (-2, 1), (-2, -2))]
    assert corners == [False, True, False, False]


def test_resize_takes_the_centre_square_and_pad_the_whole():
    from vggbn.data.pixels.decode import fit_image

    x = pixels(1, size=40)[0, :20]  # 20 high, 40 wide
    image = Image.fromarray(x)
    small = np.asarray(fit_image(image, "x", image_size=10, fit="resize"))
    whole = np.asarray(image.resize((20, 10), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(small, whole[:, 5:15])
    padded = np.asarray(fit_image(image, "x", image_size=40, fit="pad"))
    np.testing.assert_array_equal(padded[10:30], x)
    assert padded[:10].max() == padded[30:].max() == 0
    assert fit_image(Image.fromarray(x[:, :20]), "x", image_size=20, fit="resize").size == (20, 20)


def test_resize_is_antialiased():
    from vggbn.data.pixels.decode import fit_image

    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 254
    small = np.asarray(fit_image(Image.fromarray(stripes), "x", image_size=16, fit="resize"))
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 2


def test_a_large_jpeg_has_the_exact_size(tmp_path):
    """The decoder may shrink it first; its rounding must not show."""
    from vggbn.data.pixels.decode import decode

    gradient = np.linspace(0, 255, 401).astype(np.uint8)
    x = np.stack(np.broadcast_arrays(gradient[:, None], gradient[None, :333], 128), -1)
    x = np.ascontiguousarray(x.astype(np.uint8))
    path = save(tmp_path / "x.jpg", x, quality=95)
    found = decode(path, "x", image_size=17, fit="resize", channels=3)
    box = (0, 34, 333, 367)
    exact = Image.fromarray(x).resize((17, 17), Image.Resampling.BICUBIC, box=box)
    assert found.shape == (17, 17, 3)
    assert np.abs(found.astype(int) - np.asarray(exact)).max() <= 4


def broken(root: Path, name: str) -> Path:
    """A class folder with one file that is no whole image."""
    make_folder(root, {"a": 10, "b": 10})
    path = root / "a" / name
    kind = "PNG" if name.endswith("png") else "JPEG"
    raw = io.BytesIO()
    Image.fromarray(pixels(1, size=64)[0]).save(raw, kind)
    path.write_bytes(b"not an image" if "text" in name else raw.getvalue()[: raw.tell() // 2])
    return path


@pytest.mark.parametrize("name", ["truncated.jpg", "truncated.png", "text.jpg"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = broken(tmp_path, name)
    with pytest.raises(UserError, match="cannot be read as an image") as raised:
        load_folder(tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("counts", "word"),
    [
        ({}, "no class folders"),
        ({"a": 20}, "two are needed"),
        ({"a": 20, "b": 2}, "has no image of class b: give each class ten"),
        ({**GIVEN, "test/a": 0}, "test of .* has no image of class a: add some to test/"),
        ({**GIVEN, "validation/b": 0}, "validation of .* has no image of class b"),
        ({**GIVEN, "test/c": 2}, "train of .* has no image of class c"),
        ({"train/a": 3, "train/b": 3, "val/a": 3}, "val/ beside train/: .* rename"),
        ({"test/a": 3, "test/b": 3}, "add train/"),
        ({"a": 10, "b": 10, "b/more": 3}, "straight into"),
    ],
)
def test_a_layout_that_cannot_work_is_explained(tmp_path, counts, word):
    with pytest.raises(UserError, match=word):
        load_folder(make_folder(tmp_path, counts))


def test_an_empty_class_and_wrong_paths_are_explained(tmp_path):
    make_folder(tmp_path, {"a": 10, "b": 10})
    with pytest.raises(UserError, match="is a file: give the folder"):
        load_folder(tmp_path / "a" / "000.png")
    with pytest.raises(UserError, match="does not exist"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"class folder .*c is empty"):
        load_folder(tmp_path)


def test_images_larger_than_memory_are_refused(tmp_path, monkeypatch):
    make_folder(tmp_path, {"a": 10, "b": 10})
    monkeypatch.setattr("vggbn.data.pixels.decode._memory", lambda: 10_000)
    with pytest.raises(UserError, match="--set loading=stream, or choose a smaller"):
        load_folder(tmp_path)


# --- cache and progress --------------------------------------------------------------------------


def count_reads(monkeypatch) -> list:
    from vggbn.data.readers import folder

    reads, read = [], folder.read_folder
    monkeypatch.setattr(folder, "read_folder", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
    return reads


def test_the_cache_is_used_until_something_changes(tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    root, cache = make_folder(tmp_path / "images", {"a": 20, "b": 20}), tmp_path / "cache"
    digests = {load_folder(root, cache_dir=str(cache)).digest for _ in range(2)}
    digests |= {load_folder(root).digest}
    assert (len(digests), len(reads)) == (1, 2)
    load_folder(root, cache_dir=str(cache), split="folds", seed=1)  # the same pixels
    assert len(reads) == 2
    os.utime(root / "a" / "000.png", (1, 1))
    load_folder(root, cache_dir=str(cache))
    load_folder(root, cache_dir=str(cache), fit="pad")
    assert len(reads) == 4
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "altered", "text"])
def test_a_damaged_cache_is_rebuilt(tmp_path, monkeypatch, damage):
    reads = count_reads(monkeypatch)
    root, cache = make_folder(tmp_path / "images", {"a": 20, "b": 20}), tmp_path / "cache"
    first = load_folder(root, cache_dir=str(cache))
    (file,) = cache.iterdir()
    raw = bytearray(file.read_bytes())
    if damage == "altered":  # a whole npz whose arrays are not those of its checksum
        with np.load(file) as arrays:
            changed = dict(arrays)
        changed["train.images"][0, 0, 0, 0] ^= 1
        with file.open("wb") as out:
            np.savez(out, **changed)
    else:
        raw[len(raw) // 2] ^= 1
        damaged = {
            "truncated": raw[: len(raw) // 2],
            "flipped": raw,
            "empty": b"",
            "text": b"x" * 99,
        }
        file.write_bytes(damaged[damage])
    assert load_folder(root, cache_dir=str(cache)).digest == first.digest
    assert len(reads) == 2
    load_folder(root, cache_dir=str(cache))
    assert len(reads) == 2  # and the rebuilt file is good


def test_the_cache_is_bounded_and_the_least_recently_used_goes_first(tmp_path, monkeypatch):
    root, cache = make_folder(tmp_path / "images", {"a": 20, "b": 20}), tmp_path / "cache"

    def sizes_kept():
        return sorted(int(path.name.split("-")[2]) for path in cache.iterdir())

    for age, image_size in ((3, 8), (2, 9), (1, 10)):
        load_folder(root, cache_dir=str(cache), image_size=image_size)
        (file,) = cache.glob(f"*-{image_size}-*")
        os.utime(file, (time.time() - age * 1000,) * 2)
    load_folder(root, cache_dir=str(cache), image_size=8)  # used again
    total = sum(path.stat().st_size for path in cache.iterdir())
    monkeypatch.setattr("vggbn.data.cache._LIMIT", total)
    load_folder(root, cache_dir=str(cache), image_size=7)
    assert sizes_kept() == [7, 8, 10]  # 9 was the oldest
    monkeypatch.setattr("vggbn.data.cache._LIMIT", 1)
    load_folder(root, cache_dir=str(cache), image_size=6)
    assert sizes_kept() == [6]  # what was just decoded stays, whatever its size


def test_progress_speaks_only_when_it_takes_long(monkeypatch, capsys):
    assert list(progress(range(5), 5, "train")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert list(progress(range(3), 6, "train")) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines()[0] == "train: 1 of 6, 0/s, 20 s left"


# --- TFDS ----------------------------------------------------------------------------------------


def encoded(x_HWC: np.ndarray, kind: str) -> bytes:
    raw = io.BytesIO()
    Image.fromarray(x_HWC[..., 0] if x_HWC.shape[2] == 1 else x_HWC).save(raw, kind)
    return raw.getvalue()


def make_tfds(
    root: Path, parts: dict[str, list[int]], *, channels=3, kind="PNG", **features
) -> Path:
    """Prepare a set 'tiny' 1.0.0 without TensorFlow; parts: name -> labels."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    shape = (None, None, channels)
    described = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
        | features
    )
    infos = []
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="tiny", filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )  # fmt: skip
    for number, (part, labels) in enumerate(parts.items()):
        file = folder / f"tiny-{part}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for x, label in zip(
            pixels(len(labels), channels=channels, seed=number), labels, strict=True
        ):
            example = {"image": io.BytesIO(encoded(x, kind)), "label": label}
            writer.write(described.serialize_example(described.encode_example(example)))
        writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=part, shard_lengths=[len(labels)], num_bytes=0, filename_template=template
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=described, split_infos=infos, filename_template=template,
        check_data=False, supervised_keys=("image", "label"),
    )  # fmt: skip
    return root


def load_tiny(root: Path, **changes):
    return load("tiny", **options(image_size=8, data_dir=str(root), **changes))


TWO = [0, 1] * 10


def test_an_official_test_is_kept_and_validation_is_drawn_from_train(tmp_path):
    root = make_tfds(tmp_path, {"train": TWO, "test": [1, 0, 0]})
    found = load_tiny(root)
    assert [len(getattr(found, p)) for p in PARTS] == [18, 2, 3]
    assert found.test.labels_N.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(found.test.images_NHWC, pixels(3, seed=1))
    assert found.classes == ("a", "b")
    assert found.note == "tiny (TFDS 1.0.0)"
    folds = [load_tiny(root, split="folds", seed=s) for s in (0, 1)]
    assert rows(folds[0].test) == rows(folds[1].test) == rows(found.test)
    assert not set(rows(folds[0].validation)) & set(rows(folds[1].validation))


@pytest.mark.parametrize("secret", [{}, {"test": [-1, -1]}])
def test_without_a_labelled_test_the_official_validation_is_test(tmp_path, secret):
    root = make_tfds(tmp_path, {"train": TWO, "validation": [0, 1, 1], **secret})
    found = load_tiny(root)
    assert found.test.labels_N.tolist() == [0, 1, 1]
    assert [len(getattr(found, p)) for p in PARTS] == [18, 2, 3]


def test_all_three_official_parts_are_used_and_folds_pool_train_and_validation(tmp_path):
    root = make_tfds(tmp_path, {"train": TWO, "validation": TWO, "test": [0, 1]})
    assert [len(getattr(load_tiny(root), p)) for p in PARTS] == [20, 20, 2]
    fold = load_tiny(root, split="folds", seed=3)
    assert [len(getattr(fold, p)) for p in PARTS] == [36, 4, 2]


def test_grey_stays_grey_and_a_jpeg_copy_is_called_one(tmp_path):
    found = load_tiny(make_tfds(tmp_path, {"train": TWO, "test": TWO}, channels=1, kind="JPEG"))
    assert found.train.images_NHWC.shape == (18, 8, 8, 1)
    assert found.note == "tiny, JPEG copy (TFDS 1.0.0)"


def test_the_newest_version_is_opened_unless_one_is_named(tmp_path):
    for version in ("2.0.0", "10.0.0", "9.9.9"):
        (tmp_path / "tiny" / version).mkdir(parents=True)
        (tmp_path / "tiny" / version / "dataset_info.json").touch()
    assert version_folder(tmp_path, "tiny").name == "10.0.0"
    assert version_folder(tmp_path, "tiny:9.9.9").name == "9.9.9"
    assert version_folder(tmp_path, "tiny:3.0.0") is None


def test_other_file_formats_and_other_tasks_are_refused(tmp_path):
    root = make_tfds(tmp_path, {"train": TWO})
    info = root / "tiny" / "1.0.0" / "dataset_info.json"
    text = info.read_text()
    info.write_text(text.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="tfrecord files, which only TensorFlow reads"):
        load_tiny(root)
    info.write_text(text.replace('"label"', '"target"'))
    with pytest.raises(UserError, match="not an image classification set"):
        load_tiny(root)


def test_names_that_are_not_there_are_explained(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="make data DATASET=cifar10") as raised:
        load("cifar10", **options(data_dir=str(tmp_path)))
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(
        UserError, match=r"Close to it: .*cifar10.* Use mnist5k, canvas, digits, folder:PATH"
    ):
        load("cifar-10", **options(data_dir=str(tmp_path)))
    monkeypatch.setenv("VGGBN_DATA_DIR", str(tmp_path / "base"))
    with pytest.raises(UserError, match=r"base.tfds"):
        load("cifar10", **options())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        load("cifar10", **options())


@pytest.mark.parametrize(
    ("name", "shape", "note", "labels"),
    [
        ("cifar10", (32, 32, 3), "CIFAR-10, JPEG copy (TFDS 3.0.2)", ("airplane", "truck")),
        ("fashion_mnist", (28, 28, 1), "Fashion-MNIST (TFDS 3.0.1)", ("T-shirt/top", "Ankle boot")),
    ],
)
def test_real_tfds_sets_are_read_without_tensorflow(data_dir, name, shape, note, labels):
    prepared = tfds_source.open_prepared(name, str(data_dir / "tfds"))
    assert prepared.note == note
    assert (prepared.classes[0], prepared.classes[-1]) == labels
    assert prepared.flip
    found = tfds_source.read_part(prepared, "test[:200]", image_size=shape[0], fit="resize")
    assert found.images_NHWC.shape == (200, *shape)
    assert np.bincount(found.labels_N, minlength=10).min() > 5
    assert 40 < found.images_NHWC.mean() < 160
    assert "tensorflow" not in sys.modules


def test_the_clothing_folder_can_be_listed(data_dir):
    from vggbn.data.readers.folder import list_folder

    listed = list_folder(str(data_dir / "clothing"))
    assert {part: len(pairs) for part, pairs in listed.parts.items()} == {
        "train": 3068, "validation": 341, "test": 372,
    }  # fmt: skip
    assert len(listed.classes) == 10


# --- preparing and importing ---------------------------------------------------------------------


def test_prepare_without_tensorflow_says_what_to_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SystemExit) as raised:
        prepare_main(["cifar10", "--data-dir", str(tmp_path)])
    assert raised.value.code == 2
    assert "run make data DATASET=cifar10" in capsys.readouterr().err


def test_prepare_asks_for_array_records(monkeypatch, capsys, tmp_path):
    import types

    import tensorflow_datasets as tfds

    asked = {}

    def builder(name, **how):
        asked.update(how, name=name)
        return types.SimpleNamespace(download_and_prepare=lambda: None, data_dir=tmp_path / "x")

    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(SystemExit) as raised:
        prepare_main(["cifar10", "--data-dir", str(tmp_path)])
    assert raised.value.code == 0
    assert asked == {"name": "cifar10", "data_dir": tmp_path, "file_format": "array_record"}
    assert str(tmp_path / "x") in capsys.readouterr().out


def test_importing_is_light():
    """`prepare` runs where jax is not installed; the heavy readers are imported where used."""
    heavy = "jax tensorflow tensorflow_datasets mlxtend sklearn PIL scipy".split()
    code = f"import sys, vggbn.data; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
