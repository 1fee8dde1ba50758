"""Streamed sets: the same images, splits and scores as in memory, decoded when they are needed."""

import os
import pickle
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.test_data import make_tfds, options
from vggbn.data import LazySplit, Split, colour_pca, load, moments, pixel_moments
from vggbn.data.lazy import Files, centre_view
from vggbn.data.readers import tfds as tfds_source
from vggbn.data.split import digest_of
from vggbn.data.splits import stratified
from vggbn.errors import UserError
from vggbn.evaluate import centre, dense, evaluate, predict
from vggbn.evaluate.single import padded_batches
from vggbn.evaluate.trained import Trained
from vggbn.models import MODELS, Net

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PARTS = ("train", "validation", "test")
TWO = [0, 1] * 10
WHOLE = {"image_size": 40, "fit": "whole"}


@pytest.fixture(scope="module")
def clothes(data_dir, tmp_path_factory):
    """A folder of a few of the photographs, one of them turned by its EXIF tag."""
    root = tmp_path_factory.mktemp("clothes")
    for part in PARTS:
        for kind in ("shoes", "hat"):
            (root / part / kind).mkdir(parents=True)
            for file in sorted((data_dir / "clothing" / part / kind).iterdir())[:6]:
                shutil.copy(file, root / part / kind)
    turned = sorted((root / "train" / "hat").iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(turned).save(turned, exif=exif)
    return root


def both(name, **changes) -> tuple:
    """The same set in memory and streamed."""
    return tuple(load(name, **options(**changes), loading=how) for how in ("memory", "stream"))


def same_images(lazy: LazySplit, held: Split) -> None:
    assert isinstance(lazy, LazySplit) and isinstance(held, Split)
    assert lazy.one_size == held.one_size and lazy.channels == held.channels
    np.testing.assert_array_equal(lazy.labels_N, held.labels_N)
    assert lazy.labels_N.dtype == np.int32
    for row in range(len(held)):
        np.testing.assert_array_equal(lazy.image(row), held.image(row))
        assert lazy.size(row) == held.size(row)


@pytest.mark.parametrize("fit", ["resize", "whole"])
def test_a_streamed_folder_holds_the_images_of_the_folder(clothes, fit):
    held, lazy = both(f"folder:{clothes}", image_size=40, fit=fit)
    assert lazy.streamed and not held.streamed
    assert (lazy.classes, lazy.flip, lazy.note) == (held.classes, held.flip, held.note)
    for part in PARTS:
        same_images(getattr(lazy, part), getattr(held, part))


def test_a_streamed_part_of_cifar10_holds_its_images(data_dir):
    prepared = tfds_source.open_prepared("cifar10", str(data_dir / "tfds"))
    part, size = "test[300:340]", {"image_size": 24, "fit": "resize"}
    held = tfds_source.read_part(prepared, part, **size)
    labels_N = tfds_source.read_labels(prepared, part)
    lazy = LazySplit(
        tfds_source.part_store(prepared, part), np.arange(40), labels_N, channels=3, **size
    )
    same_images(lazy, held)
    rows = [39, 0, 7, 7]
    np.testing.assert_array_equal(lazy.images(rows), held.images(rows))
    same_images(pickle.loads(pickle.dumps(lazy)), held)  # after it was read from


@pytest.mark.parametrize("split", ["fixed", "folds"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_streamed_set_is_cut_into_the_same_splits(tmp_path, split, channels):
    parts = {"train": TWO, "validation": TWO, "test": [1, 0, 0]}
    root = make_tfds(tmp_path, parts, channels=channels)
    held, lazy = both("tiny", image_size=8, data_dir=str(root), split=split, seed=1)
    for part in PARTS:
        same_images(getattr(lazy, part), getattr(held, part))


def test_official_validation_is_test_and_validation_comes_from_train(tmp_path):
    root = make_tfds(tmp_path, {"train": TWO, "validation": [0, 1, 1], "test": [-1, -1]})
    held, lazy = both("tiny", image_size=8, data_dir=str(root), train_size=6)
    for part in PARTS:
        same_images(getattr(lazy, part), getattr(held, part))


def test_parts_of_a_set_have_digests_of_their_own(tmp_path):
    root = make_tfds(tmp_path, {"train": TWO, "validation": TWO, "test": TWO})
    found = load("tiny", **options(data_dir=str(root)), loading="stream")
    assert len({digest_of(getattr(found, part)) for part in PARTS}) == 3
    (listed,) = found.test.store.listing
    shard = root / "tiny" / "1.0.0" / "tiny-test.array_record-00000-of-00001"
    assert listed == (f"{shard.name}[0:20]", shard.stat().st_size)


def test_labels_are_read_once(tmp_path, monkeypatch):
    root = make_tfds(tmp_path / "data", {"train": TWO, "test": [1, 0, 0]})
    reads, read = [], tfds_source.read_labels
    monkeypatch.setattr(
        tfds_source, "read_labels", lambda p, part: (reads.append(part), read(p, part))[1]
    )

    def stream():
        cache = str(tmp_path / "cache")
        found = load("tiny", **options(data_dir=str(root)), cache_dir=cache, loading="stream")
        return found.test.labels_N.tolist()

    assert stream() == stream() == [1, 0, 0]
    assert reads == ["train", "test"]
    (file,) = (tmp_path / "cache").glob("tiny-test-*")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert stream() == [1, 0, 0] and reads == ["train", "test", "test"]
    shard = next((root / "tiny" / "1.0.0").glob("*train*"))
    os.utime(shard, (1, 1))
    assert stream() == [1, 0, 0] and len(reads) == 5


def test_the_digest_tells_sets_apart_and_copies_not(clothes, tmp_path):
    def digest(root, **changes):
        return load(f"folder:{root}", **options(**changes), loading="stream").digest

    copy = tmp_path / "copy"
    shutil.copytree(clothes, copy, copy_function=shutil.copyfile)  # with other dates
    first = digest(clothes)
    assert digest(copy) == first
    assert len({first, digest(copy, fit="pad", image_size=900), digest(copy, train_size=4)}) == 3
    file = next((copy / "train" / "shoes").iterdir())
    file.write_bytes(file.read_bytes() + b"x")
    longer = digest(copy)
    file.rename(file.with_name("other.jpg"))
    assert len({first, longer, digest(copy)}) == 3


def test_pixel_statistics_are_those_of_a_stratified_sample(clothes, monkeypatch):
    held, lazy = (found.train for found in both(f"folder:{clothes}", **WHOLE))
    for statistic in (pixel_moments, colour_pca):
        for ours, exact in zip(statistic(lazy), statistic(held), strict=True):
            np.testing.assert_array_equal(ours, exact)  # all of them: the sums are exact
    monkeypatch.setattr(moments, "SAMPLE", 4)
    mean_C, std = pixel_moments(lazy.take(np.arange(len(lazy))))
    few = [image.reshape(-1, 3) / 255 for image in map(lazy.image, _sampled_rows(lazy, 4))]
    pixels = np.concatenate(few)
    np.testing.assert_allclose(mean_C, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(pixels.var(0).mean()), rtol=1e-5)


def test_pixel_statistics_are_computed_once(clothes, tmp_path, monkeypatch):
    decoded, image = [], LazySplit.image
    monkeypatch.setattr(LazySplit, "image", lambda s, row: (decoded.append(row), image(s, row))[1])

    def statistics(**changes):
        found = load(
            f"folder:{clothes}", **options(**changes), cache_dir=str(tmp_path), loading="stream"
        )
        mean_C, std = pixel_moments(found.train)
        return [*mean_C.tolist(), std, *colour_pca(found.train).ravel().tolist()]

    first = statistics()
    assert len(decoded) == 12
    assert statistics() == first and len(decoded) == 12
    assert statistics(image_size=20) != first and len(decoded) == 24


def _sampled_rows(split, n):
    few = stratified(split, n)
    return [split.rows_N.tolist().index(row) for row in few.rows_N]


# --- evaluation ----------------------------------------------------------------------------------

NET = Net((32, 32, 3), classes=2, width=1 / 16, fc=8, pools=3)
PIXELS = (np.float32([0.5, 0.5, 0.4]), np.float32(0.25))


@pytest.fixture(scope="module")
def net():
    init = jax.jit(lambda key: MODELS["vgg_a"](NET).init(key, "he"))
    variables = init(jax.random.key(1, impl="rbg"))
    return Trained(NET, variables, *PIXELS)


def test_a_net_scores_a_streamed_split_as_the_split(clothes, net):
    held, lazy = (found.test for found in both(f"folder:{clothes}", image_size=32))
    assert evaluate(net, lazy) == evaluate(net, held)
    views = [centre_view(split.test, 36, 32) for split in both(f"folder:{clothes}", **WHOLE)]
    assert isinstance(views[1], LazySplit)
    same_images(views[1], views[0])
    p_NK = predict(net, views[1])
    assert np.ptp(p_NK[:, 0]) > 0.01
    np.testing.assert_array_equal(p_NK, predict(net, views[0]))


@pytest.mark.parametrize("protocol", [dense, centre])
def test_protocols_of_many_views_take_streamed_images(clothes, net, protocol):
    held, lazy = (found.test for found in both(f"folder:{clothes}", **WHOLE))
    ours, expected = (protocol(net, split, side=36, mirrored=True) for split in (lazy, held))
    np.testing.assert_array_equal(ours, expected)


def test_padded_batches_of_a_streamed_split(clothes, monkeypatch):
    monkeypatch.setattr("vggbn.evaluate.single.BATCH", 5)
    held, lazy = (found.test for found in both(f"folder:{clothes}", image_size=32))
    batches = list(padded_batches(lazy))
    assert [mask.sum() for *_, mask in batches] == [5, 5, 2]
    for found, expected in zip(batches, padded_batches(held), strict=True):
        for ours, array in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, array)


def test_images_of_many_sizes_are_neither_stacked_nor_of_one_shape(clothes):
    held, lazy = (found.train for found in both(f"folder:{clothes}", **WHOLE))
    assert not lazy.one_size and held.resident[2] is held.sizes_N2
    with pytest.raises(TypeError, match="many sizes"):
        lazy.images([0, 1])
    with pytest.raises(TypeError, match="many sizes"):
        _ = lazy.image_shape
    view = lazy.centred(36, 32)
    assert view.image_shape == held.centred(36, 32).image_shape == (32, 32, 3)
    assert view.resident == (None, None, None)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"split": "folds"}, 'use split="fixed"'),
        ({"damaged": "skip"}, 'damaged="refuse"'),
        ({"pixels": "binary"}, 'loading="memory"'),
        ({"loading": "lazy"}, "loading='lazy' is unknown: use one of memory, stream"),
    ],
)
def test_what_cannot_be_streamed_is_refused(clothes, changes, word):
    with pytest.raises(UserError, match=word):
        load(f"folder:{clothes}", **options(**({"loading": "stream"} | changes)))


def test_embedded_sets_and_folders_without_all_parts_are_not_streamed(clothes, tmp_path):
    with pytest.raises(UserError, match="digits comes out of a package"):
        load("digits", **options(), loading="stream")
    shutil.copytree(clothes, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "validation")
    with pytest.raises(UserError, match="not searched for near-duplicates"):
        load(f"folder:{tmp_path}", **options(), loading="stream")
    shutil.copytree(tmp_path / "test", tmp_path / "validation")
    shutil.rmtree(tmp_path / "test" / "hat")
    with pytest.raises(UserError, match=r"test of .* has no image of class hat"):
        load(f"folder:{tmp_path}", **options(), loading="stream")


def test_a_damaged_image_is_named_when_it_is_met(clothes, tmp_path):
    shutil.copytree(clothes, tmp_path, dirs_exist_ok=True)
    file = sorted((tmp_path / "train" / "shoes").iterdir())[2]
    file.write_bytes(file.read_bytes()[:2000])
    train = load(f"folder:{tmp_path}", **options(), loading="stream").train
    with pytest.raises(UserError, match=f"{file} cannot be read as an image"):
        train.images(range(len(train)))
    train.image(0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["tif", "jpg", "png"])
def test_a_turned_image_has_the_size_it_is_shown_in(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.full((60, 90, 3), 99, np.uint8))
    image.save(tmp_path / f"x.{kind}", exif=exif)
    store = Files.of(tmp_path, [tmp_path / f"x.{kind}"])
    split = LazySplit(store, np.zeros(1, int), np.zeros(1, np.int32), 40, "whole", 3)
    expected = (60, 40) if orientation >= 5 else (40, 60)
    assert split.image(0).shape[:2] == split.size(0) == expected
