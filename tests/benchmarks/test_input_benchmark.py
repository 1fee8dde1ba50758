"""The benchmark of the input pipeline: the same work on all sides, and ratios of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import input as bench
from benchmarks.input import BATCH, CONTESTANTS, PIPELINES, RIVALS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    bench.make_files(path)
    return path


def test_the_files_are_of_imagenets_size(folder):
    files = bench.files_of(folder)
    assert len(files) == bench.FILES
    for file in files[:9]:
        with Image.open(file) as image:
            assert image.size == bench.SIZE
    assert 6e4 < np.mean([file.stat().st_size for file in files]) < 9e4
    assert len({file.read_bytes() for file in files}) > 0.9 * bench.FILES


@pytest.mark.parametrize("side", PIPELINES)
def test_a_pipeline_delivers_whole_batches(folder, side):
    if side == "torchvision":
        pytest.importorskip("torchvision")
    batches = PIPELINES[side](folder, bench.Contestant(side, 0, 1))
    assert next(batches) == next(batches) == BATCH
    batches.close()


def test_rivals_have_as_many_cores():
    for ours, theirs in RIVALS.items():
        assert CONTESTANTS[ours].cores == CONTESTANTS[theirs].cores


def test_the_page_shows_the_newest_race_of_a_device():
    def line(date, device, *rates):
        names = ("vggbn, 1 thread", "torchvision, 1 worker")
        turns = {
            name: [{"images_per_s": 10 * rate, "images_per_core_s": rate} for rate in found]
            for name, found in zip(names, rates, strict=False)
        }
        files = {"count": 2, "width": 500, "height": 375, "bytes": 70_000}
        facts = {"commit": "c", "load": 0.1, "versions": {"python": "3"}, "rounds": 3, "seconds": 6}
        return {"date": date, "device": device, "files": files, "turns": turns} | facts

    old, new = line("2001", "a", [1, 1, 1]), line("2002", "a", [600, 400, 800], [200, 200, 200])
    page = bench.markdown([old, line("1999", "b", [7, 7, 7]), new])
    assert "2001" not in page and "1999" in page
    row = "| vggbn, 1 thread | 1 | 6,000 | 4,000–8,000 | 600 | 3.00 (2.00–4.00) |"
    assert row in page
    assert "| torchvision, 1 worker | 1 | 2,000 | 2,000–2,000 | 200 |  |" in page
