"""Boxes: where objects lie, through every fit, split, cache and stream.

The oracle is the picture itself: the object is a bright rectangle on black, found again among the
pixels.
"""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from tests.data.test_data import options
from vggbn.data import Split, load
from vggbn.data.readers import open_set
from vggbn.data.split import concatenate, digest_of
from vggbn.errors import UserError

PARTS = ("train", "validation", "test")
HEADER = "file,x0,y0,x1,y1,width,height"
LOADINGS = ("memory", "stream")
SHAPES = [(80, 60), (60, 80), (64, 64), (150, 60)]  # width, height; the last is longer than 16:9
EACH = {"train": 10, "validation": 2, "test": 3}


def draw(path, number, size, box, **how):
    x_HW3 = np.zeros((size[1], size[0], 3), np.uint8)
    x_HW3[box[1] : box[3], box[0] : box[2]] = 255
    # Its own colour, so that no two are near-duplicates and flat copies.
    x_HW3[..., 2] = np.where(x_HW3[..., 0] > 0, 5 * number % 250, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x_HW3).save(path, **how)


def boxes_file(root, rows):
    (root / "boxes.csv").write_text("\n".join([HEADER, *rows]) + "\n")


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    """30 images of four shapes, every fifth without a box; two are turned by their EXIF tag."""
    root, rows, number = tmp_path_factory.mktemp("boxed"), [], 0
    rng = np.random.default_rng(3)
    for part, each in EACH.items():
        for kind in "ab":
            for i in range(each):
                width, height = SHAPES[number % 4]
                x0, y0 = width // 2 - rng.integers(4, 20), height // 2 - rng.integers(4, 20)
                x1, y1 = width // 2 + rng.integers(4, 20), height // 2 + rng.integers(4, 20)
                file = f"{part}/{kind}/{i}.png"
                if number in (4, 13):  # stored on its side
                    exif = Image.Exif()
                    exif[0x0112] = 6  # shown after a quarter turn clockwise
                    stored = (y0, width - x1, y1, width - x0)
                    draw(root / file, number, (height, width), stored, exif=exif)
                else:
                    draw(root / file, number, (width, height), (x0, y0, x1, y1))
                if number % 5:
                    rows.append(f"{file},{x0},{y0},{x1},{y1},{width},{height}")
                number += 1
    boxes_file(root, rows)
    return root


def seen(x_HWC):
    """(top, left, bottom, right) of the bright rectangle."""
    bright = x_HWC[..., 0] > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]


def check(split):
    """Every box is where the object is seen; returns how many there are."""
    assert split.boxes_N4.dtype == np.float32 and split.boxes_N4.shape == (len(split), 4)
    with_box = np.flatnonzero(~np.isnan(split.boxes_N4).any(1))
    for row in with_box:
        np.testing.assert_allclose(split.boxes_N4[row], seen(split.image(row)), atol=1.01)
    return len(with_box)


SIZES = {"resize": 40, "pad": 160, "whole": 48}


@pytest.mark.parametrize("fit", SIZES)
@pytest.mark.parametrize("loading", LOADINGS)
def test_boxes_lie_where_the_objects_are(boxed, fit, loading):
    found = load(f"folder:{boxed}", **options(fit=fit, image_size=SIZES[fit]), loading=loading)
    assert [check(getattr(found, part)) for part in PARTS] == [16, 3, 5]


@pytest.mark.parametrize("loading", LOADINGS)
def test_a_view_moves_the_boxes(boxed, loading):
    found = load(f"folder:{boxed}", **options(fit="whole", image_size=48), loading=loading).test
    view = found.centred(44, 40)
    assert check(view) == 5
    assert not np.array_equal(view.boxes_N4, found.boxes_N4, equal_nan=True)


def test_a_stream_has_the_boxes_of_memory(boxed):
    held, lazy = (
        load(f"folder:{boxed}", **options(fit="whole", image_size=48), loading=loading).train
        for loading in LOADINGS
    )
    np.testing.assert_array_equal(lazy.boxes_N4, held.boxes_N4)
    np.testing.assert_array_equal(lazy.centred(44, 40).boxes_N4, held.centred(44, 40).boxes_N4)


@pytest.mark.parametrize("changes", [{}, {"pixels": "binary"}, {"train_size": 8}])
def test_splits_keep_each_box_with_its_image(boxed, changes):
    folds = [
        load(f"folder:{boxed}", **options(image_size=40, split="folds", seed=seed, **changes))
        for seed in range(5)
    ]
    assert sum(check(fold.test) for fold in folds) == 24
    assert all(check(fold.train) >= 4 for fold in folds)


def test_a_box_is_cut_off_with_its_image(tmp_path):
    """Of 90 x 30 pixels, resize keeps the columns 30 to 60, whole the columns 18.33 to 71.67."""
    boxes = {"a/0": (0, 5, 20, 25), "a/1": (20, 5, 40, 25), "b/0": (70, 0, 90, 30)}
    for number, (file, box) in enumerate(boxes.items()):
        draw(tmp_path / f"{file}.png", number, (90, 30), box)
    for number in range(12):
        draw(tmp_path / "ab"[number % 2] / f"x{number}.png", 3 + number, (90, 30), (40, 0, 50, 9))
    boxes_file(tmp_path, [f"{f}.png,{','.join(map(str, box))},90,30" for f, box in boxes.items()])
    opened = open_set(f"folder:{tmp_path}", None)

    def found(fit):
        train = opened.read(image_size=30, fit=fit, cache_dir=None)["train"]
        rows = [opened.listed.files.index(tmp_path / f"{file}.png") for file in boxes]
        return train.boxes_N4[rows]

    nan = [np.nan] * 4
    np.testing.assert_array_equal(found("resize"), np.float32([nan, [5, 0, 25, 10], nan]))
    ratio = 53 / (30 * 16 / 9)  # the longer side is rounded
    left, right = (20 - 55 / 3) * ratio, (40 - 55 / 3) * ratio
    expected = [[5, 0, 25, left], [5, left, 25, right], [0, (70 - 55 / 3) * ratio, 30, 53]]
    np.testing.assert_allclose(found("whole"), expected, rtol=1e-5)


def test_splits_without_boxes_and_with_them():
    images_NHWC, labels_N = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int32)
    boxes_N4 = np.arange(8, dtype=np.float32).reshape(2, 4)
    plain, boxed = Split(images_NHWC, labels_N), Split(images_NHWC, labels_N, None, boxes_N4)
    both = concatenate([plain, boxed])
    assert np.isnan(both.boxes_N4[:2]).all()
    np.testing.assert_array_equal(both.boxes_N4[2:], boxes_N4)
    np.testing.assert_array_equal(boxed.take(np.array([1, 0])).boxes_N4, boxes_N4[::-1])
    assert concatenate([plain, plain]).boxes_N4 is None and plain.take([1]).boxes_N4 is None
    moved = Split(images_NHWC, labels_N, None, boxes_N4 + 1)
    assert len({digest_of(x) for x in (plain, boxed, moved)}) == 3
    for wrong in (boxes_N4[:1], boxes_N4.astype(float), boxes_N4[:, :3]):
        with pytest.raises(TypeError, match="boxes_N4 must be float32"):
            Split(images_NHWC, labels_N, None, wrong)


@pytest.mark.parametrize("loading", LOADINGS)
def test_boxes_tell_sets_apart(boxed, tmp_path, loading):
    def digest():
        return load(f"folder:{root}", **options(image_size=40), loading=loading).digest

    root = tmp_path / "copy"
    root.mkdir()
    for part in PARTS:
        (root / part).symlink_to(boxed / part)
    without = digest()
    assert load(f"folder:{root}", **options(image_size=40)).train.boxes_N4 is None
    lines = (boxed / "boxes.csv").read_text().splitlines()[1:]
    boxes_file(root, lines)
    first = digest()
    boxes_file(root, lines[1:])
    assert len({without, first, digest()}) == 3


def test_the_cache_keeps_boxes_until_they_change(boxed, tmp_path):
    root, how = tmp_path / "copy", {"image_size": 40, "cache_dir": str(tmp_path / "cache")}
    root.mkdir()
    for part in PARTS:
        (root / part).symlink_to(boxed / part)
    (root / "boxes.csv").write_bytes((boxed / "boxes.csv").read_bytes())
    first, again = (load(f"folder:{root}", **options(**how)) for _ in range(2))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    np.testing.assert_array_equal(again.train.boxes_N4, first.train.boxes_N4)
    assert again.digest == first.digest and check(again.train) == 16
    boxes_file(root, (root / "boxes.csv").read_text().splitlines()[2:])
    os.utime(root / "boxes.csv", (1, 1))
    assert check(load(f"folder:{root}", **options(**how)).train) == 15


def test_skipped_images_leave_the_boxes_of_the_others(boxed, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(boxed, root)
    (root / "train" / "a" / "1.png").write_text("no image")
    (root / "train" / "a" / "3.png").unlink()
    (root / "train" / "a" / "3.png").symlink_to("nowhere")
    found = load(f"folder:{root}", **options(image_size=40), damaged="skip")
    assert check(found.train) == 14 and len(found.train) == 18


GOOD = "a/0.png,10,10,20,20,60,40"
BAD = {
    "a/9.png,10,10,20,20,60,40": "line 3 of .*boxes.csv names no image of the folder",
    GOOD: r"line 3 of .* is a second box of a/0\.png",
    "a/1.png,10,10,20,20,60": "line 3 of .* is no box inside of its image",
    "a/1.png,10,10,20,20,60,40,7": "line 3 of .* is no box inside of its image",
    "a/1.png,10,10,20,ten,60,40": "is no box inside",
    "a/1.png,20,10,10,20,60,40": "is no box inside",
    "a/1.png,10,10,20,20,nan,40": "is no box inside",
    "a/1.png,10,10,61,20,60,40": "is no box inside",
    "a/1.png,-1,10,20,20,60,40": "is no box inside",
    "a/1.png,10,10,20,20,40,60": r"1\.png on an image of 40x60, and it is 60x40: the box was drawn",
}


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_is_no_box_is_named(tmp_path, line):
    for number in range(24):
        draw(tmp_path / "ab"[number % 2] / f"{number // 2}.png", number, (60, 40), (9, 9, 20, 20))
    (tmp_path / "a" / "9.png").rename(tmp_path / "a" / "x.png")
    boxes_file(tmp_path, [GOOD, line])
    with pytest.raises(UserError, match=BAD[line]):
        load(f"folder:{tmp_path}", **options())
    (tmp_path / "boxes.csv").write_text(GOOD + "\n")
    with pytest.raises(UserError, match=f"must begin with the line {HEADER}"):
        load(f"folder:{tmp_path}", **options())
    (tmp_path / "boxes.csv").write_text(f"\ufeff{HEADER}\n{GOOD}\n", encoding="utf-8")
    assert check(open_set(f"folder:{tmp_path}", None).read(
        image_size=40, fit="whole", cache_dir=None
    )["train"]) == 1  # fmt: skip


def test_the_boxes_of_caltech101_are_read(data_dir):
    opened = open_set("folder:caltech101", str(data_dir))
    assert len(opened.boxes) == 599
    with (data_dir / "caltech101" / "boxes.csv").open() as text:
        first = next(csv.DictReader(text))
    box = opened.boxes[data_dir / "caltech101" / first["file"]]
    assert box.edges == tuple(float(first[field]) for field in ("y0", "x0", "y1", "x1"))
