"""Streamed training batches are functions of (seed, step): whoever decodes them, and from where."""

import io
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.support.photographs import encoded, split_of, texture
from vggbn.data import LazySplit, batch_indices
from vggbn.data.lazy import Files
from vggbn.data.pixels.scale import rescale
from vggbn.data.stream import scale_crop, training_batches
from vggbn.errors import UserError

N, BATCH, CROP = 22, 6, 24
STEPS = {"seed": 3, "batch": BATCH, "shuffle": "fresh", "first": 0, "stop": 7, "crop": CROP}
JITTER = {"scales": (24, 40)}


@pytest.fixture(scope="module")
def whole() -> LazySplit:
    return split_of([encoded(texture(30 + i, 50 - i, i)) for i in range(N)])


@pytest.fixture(scope="module")
def small() -> LazySplit:
    return split_of([encoded(texture(24, 24, i)) for i in range(N)], image_size=24, fit="resize")


def batches(split, **changes) -> list[tuple[np.ndarray, np.ndarray]]:
    with training_batches(split, **(STEPS | changes)) as found:
        return [(np.array(images), np.array(labels)) for images, labels in found]


def same(found, expected) -> None:
    assert len(found) == len(expected)
    for (images, labels), (others, more) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(labels, more)
        np.testing.assert_array_equal(images, others)


@pytest.fixture(scope="module")
def stream(whole):
    return batches(whole, **JITTER)


def test_batches_hold_the_images_of_their_steps(small):
    for step, (images, labels) in enumerate(batches(small)):
        rows = batch_indices(3, step, n=N, batch=BATCH, shuffle="fresh")
        np.testing.assert_array_equal(labels, rows)
        np.testing.assert_array_equal(images, small.images(rows))
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


def test_every_epoch_is_a_permutation(stream):
    epochs = [np.concatenate([labels for _, labels in stream[i : i + 3]]) for i in (0, 3)]
    for labels in epochs:
        assert len(set(labels.tolist())) == 3 * BATCH
    assert (epochs[0] != epochs[1]).any()


def test_workers_change_nothing(whole, stream):
    same(batches(whole, **JITTER, workers=2), stream)


def test_a_daemonic_process_takes_threads_for_workers(whole, stream, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # pyright: ignore
    same(batches(whole, **JITTER, workers=2), stream)


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_change_nothing(whole, stream, threads):
    same(batches(whole, **JITTER, threads=threads), stream)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch_in_order(whole, stream, processes):
    parts = [batches(whole, **JITTER, part=(p, processes)) for p in range(processes)]
    joined = [
        tuple(map(np.concatenate, zip(*part, strict=True))) for part in zip(*parts, strict=True)
    ]
    same(joined, stream)


def test_a_resumed_stream_goes_on_as_if_never_stopped(whole, stream):
    same(batches(whole, **JITTER, first=4), stream[4:])


def test_the_seed_and_the_step_decide_the_jitter(whole, stream):
    other = batches(whole, **JITTER, seed=4)
    assert (other[0][1] != stream[0][1]).any()
    few = whole.take(np.arange(BATCH))  # every batch has the same images
    one, two = batches(few, **JITTER, shuffle="fixed", stop=2)
    order, again = np.argsort(one[1]), np.argsort(two[1])
    np.testing.assert_array_equal(one[1][order], two[1][again])
    assert (one[0][order] != two[0][again]).any((1, 2, 3)).all()


# --- scale jitter --------------------------------------------------------------------------------


def by_pillow(raw: bytes, side: int, place_2, crop: int) -> np.ndarray:
    """The whole image rescaled, then cropped."""
    with Image.open(io.BytesIO(raw)) as image:
        x_HWC = rescale(np.asarray(image.convert("RGB")), side)
    top, left = (int(p * (n - crop + 1)) for p, n in zip(place_2, x_HWC.shape, strict=False))
    return x_HWC[top : top + crop, left : left + crop]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (711, 400), (400, 400), (90, 300)])
@pytest.mark.parametrize("side", [256, 359, 375, 480])
@pytest.mark.parametrize("place", [(0, 0), (0.999, 0.999), (0.3, 0.71)])
def test_a_crop_is_the_crop_of_the_rescaled_image(size, side, place):
    raw = encoded(texture(*size))
    found = scale_crop(raw, "x", side=side, place_2=place, crop=224, channels=3)
    expected = by_pillow(raw, side, place, 224)
    assert found.shape == expected.shape == (224, 224, 3)
    off = np.abs(found.astype(int) - expected)
    assert off.max() <= 2 and (off > 0).mean() < 0.005


def test_jitter_draws_every_scale_and_reaches_every_edge():
    """Of one grey ramp: the slope tells the scale, the ends the place."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3))
    split = split_of([encoded(np.ascontiguousarray(ramp))] * 300)
    (images, _), *_ = batches(split, scales=(32, 48), crop=24, batch=300, stop=1)
    inside = images[:, 4:-4, 12, 0].astype(float)
    slope = np.polyfit(np.arange(inside.shape[1]), inside.T, 1)[0]
    sides = np.round(64 / slope)
    assert set(range(33, 48)) <= set(sides.tolist()) <= set(range(31, 50))
    assert abs(sides.mean() - 40) < 1  # of 300 uniform draws: three standard errors
    assert (images[:, 0].max((1, 2)) < 1).any() and (images[:, -1].min((1, 2)) > 62).any()


def test_both_ends_of_the_scales_are_drawn_alike():
    raw = encoded(texture(50, 50))
    (images, _), *_ = batches(split_of([raw] * 300), scales=(24, 25), batch=300, stop=1)
    smaller = (images == by_pillow(raw, 24, (0, 0), 24)).all((1, 2, 3))
    larger = np.isin(images[:, 0, 0, 0], by_pillow(raw, 25, (0, 0), 25)[:2, :2, 0])
    assert 0.4 < smaller.mean() < 0.6 and (smaller | larger).all()


def test_large_jpegs_are_decoded_at_half_their_size_or_less():
    raw = encoded(texture(1000, 1301), "JPEG", quality=92)
    found = scale_crop(raw, "x", side=100, place_2=(0.5, 0.9), crop=64, channels=3)
    with Image.open(io.BytesIO(raw)) as image:
        image.draft(None, (261, 200))
        assert image.size == (326, 250)
        extent = (1301 / 4, 250)
        small = image.resize((130, 100), Image.Resampling.BICUBIC, box=(0, 0, *extent))
    top, left = int(0.5 * 37), int(0.9 * 67)
    off = np.abs(found.astype(int) - np.asarray(small)[top : top + 64, left : left + 64])
    assert off.max() <= 2 and (off > 0).mean() < 0.005


def test_a_grey_image_stays_grey_and_a_turned_one_is_set_upright():
    x_HWC = texture(60, 40)
    grey = scale_crop(encoded(x_HWC), "x", side=40, place_2=(0, 0), crop=40, channels=1)
    np.testing.assert_array_equal(
        grey[..., 0], np.asarray(Image.fromarray(x_HWC).convert("L"))[:40]
    )
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(x_HWC, exif=exif)
    found = scale_crop(turned, "x", side=40, place_2=(0, 0), crop=40, channels=3)
    np.testing.assert_array_equal(found, x_HWC[::-1, ::-1][:40])


# --- mistakes and ends ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(whole, workers):
    files = [*whole.store.read(range(N - 1)), b"no image"]
    with pytest.raises(UserError, match="Image 21 cannot be read as an image"):
        batches(split_of(files), **JITTER, workers=workers)


def test_a_missing_file_is_named(tmp_path):
    Path(tmp_path / "a").write_bytes(encoded(texture(30, 30)))
    files = Files.of(tmp_path, [tmp_path / "a"])
    split = LazySplit(files, np.zeros(1, int), np.zeros(1, np.int32), 24, "resize", 3)
    (tmp_path / "a").unlink()
    with pytest.raises(UserError, match=f"{tmp_path}/a cannot be read as an image"):
        batches(split, batch=1)


def test_what_does_not_fit_is_refused(whole, small):
    with pytest.raises(UserError, match="cannot be shared evenly by 4 processes"):
        training_batches(whole, **STEPS, **JITTER, part=(0, 4))
    with pytest.raises(UserError, match="A batch of 44 does not fit"):
        training_batches(whole, **(STEPS | {"batch": 44}), **JITTER)
    for split, scales in ((whole, None), (small, (24, 40)), (whole, (20, 40)), (whole, (40, 30))):
        with pytest.raises(ValueError):
            training_batches(split, **STEPS, scales=scales)


SCRIPT = """
import multiprocessing
from contextlib import ExitStack
from tests.support.photographs import encoded, split_of, texture
from vggbn.data.stream import training_batches

def two():
    # Decoded by threads and by a process; the first batch is here.
    every = [
        training_batches(
            split, seed=3, batch=6, shuffle="fresh", first=0, stop=10**6, crop=24, scales=(24, 40),
            workers=workers,
        )
        for workers in (0, 1)
    ]
    print(*(next(batches)[0].shape for batches in every))
    return every

def main():
    for batches in two():
        batches.close()
        batches.close()
    assert not multiprocessing.active_children()
    forgotten = two()
    with ExitStack() as stack:
        for batches in two():
            stack.enter_context(batches)
        raise SystemExit(3)

if __name__ == "__main__":
    split = split_of([encoded(texture(30, 40, i)) for i in range(12)])
    main()
"""


def complaints(stderr: str) -> str:
    """All of it; nothing, if it only says that shared memory was freed before Python's tracker came
    to it: where workers are stopped in the middle of a batch, both may tidy up."""
    lines = re.findall(r"^\w*(?:Error|Warning): .*", stderr, re.MULTILINE)
    freed = [line for line in lines if "No such file or directory: '/psm_" in line]
    return "" if freed and freed == lines else stderr


def test_stopping_early_leaves_nothing_behind(tmp_path):
    """Closed twice; forgotten; and left by an error."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-W", "error", script], cwd=tmp_path, timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert complaints(run.stderr) == ""
    assert run.returncode == 3
    assert run.stdout == 3 * (" ".join(2 * ["(6, 24, 24, 3)"]) + "\n")
