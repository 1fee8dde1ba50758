"""Images per second of the input pipeline of training at ImageNet's size, beside torchvision's.

    python -m benchmarks.input            # measures, adds to input.jsonl, writes input.md

JPEG files of 500x375 pixels at quality 92 are decoded, rescaled to a random smallest side S in
256 … 512 and cropped at random to 224x224, in batches of 64 (VGG 3.1). The files are parts of
scikit-learn's photograph china.jpg. Contestants run in turns (A B A B), each in processes of its
own, pinned to the same cores. torchvision, whose transforms rescale with the same Pillow, takes
part where it is installed; nothing else here needs it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.table import read
from vggbn.errors import Parser, UserError, exit_with
from vggbn.machine import provenance

FOLDER = Path(__file__).parent
RESULTS, PAGE = FOLDER / "input.jsonl", FOLDER / "input.md"
SIZE, QUALITY, FILES = (500, 375), 92, 256
BATCH, CROP, SCALES = 64, 224, (256, 512)
WARM_UP = 8  # batches: those that lay ready, and the first of all workers


class Contestant(NamedTuple):
    """Who decodes, in how many worker processes (0: in this one), and on how many cores."""

    side: str
    workers: int
    cores: int


CONTESTANTS = {
    "decode only": Contestant("decode", 0, 1),
    "vggbn, 1 thread": Contestant("vggbn", 0, 1),
    "vggbn, 1 worker": Contestant("vggbn", 1, 1),
    "torchvision, 1 worker": Contestant("torchvision", 1, 1),
    "vggbn, 2 threads": Contestant("vggbn", 0, 2),
    "vggbn, 2 workers": Contestant("vggbn", 2, 2),
    "torchvision, 2 workers": Contestant("torchvision", 2, 2),
}
RIVALS = {
    "vggbn, 1 thread": "torchvision, 1 worker",
    "vggbn, 1 worker": "torchvision, 1 worker",
    "vggbn, 2 threads": "torchvision, 2 workers",
    "vggbn, 2 workers": "torchvision, 2 workers",
}
HEADER = f"""<!-- `python -m benchmarks.input` writes this from input.jsonl; do not edit it. -->
# Input

{__doc__.split(chr(10), 4)[4]}
- images/s is the median of the turns, with their range.
- per core: images a second of processor time, of the process and its workers together. Other work
  on the machine slows it less than the clock's.
- A ratio is the median over the rounds of two such rates per core, with its range.
- decode only: the JPEG files decoded and thrown away, by Pillow: no pipeline that decodes with it
  can be faster.
"""


# --- one turn ------------------------------------------------------------------------------------


def turn(name: str, folder: Path, seconds: float) -> dict[str, float]:
    """{images_per_s, images_per_core_s} of a contestant, measured in this process."""
    who = CONTESTANTS[name]
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: who.cores])
    with closing(PIPELINES[who.side](folder, who)) as batches:
        for count in islice(batches, WARM_UP):
            assert count == BATCH
        began, used, images = time.perf_counter(), processor_seconds(), 0
        while (took := time.perf_counter() - began) < seconds:
            images += next(batches)
        return {
            "images_per_s": images / took,
            "images_per_core_s": images / (processor_seconds() - used),
        }


def processor_seconds() -> float:
    """Used by this process and the workers that are alive."""
    own = time.process_time()
    tick = os.sysconf("SC_CLK_TCK")
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        own += (int(fields[11]) + int(fields[12])) / tick  # user and system time
    return own


def decode_only(folder: Path, who: Contestant) -> Iterator[int]:
    """Sizes of batches of decoded images."""
    from PIL import Image

    files = files_of(folder)
    while True:
        for row in np.random.default_rng(0).integers(0, len(files), BATCH):
            with Image.open(files[row]) as image:
                image.load()
        yield BATCH


def ours(folder: Path, who: Contestant) -> Iterator[int]:
    """Sizes of the batches of `training_batches`."""
    from vggbn.data.lazy import Files, LazySplit
    from vggbn.data.stream import training_batches

    files, n = files_of(folder), FILES
    records = Files.of(folder, files)
    split = LazySplit(records, np.arange(n), np.zeros(n, np.int32), SCALES[1], "whole", 3)
    how = {"seed": 0, "batch": BATCH, "shuffle": "fresh", "first": 0, "stop": 10**9}
    threads = 1 if who.workers else who.cores
    with training_batches(
        split, crop=CROP, scales=SCALES, workers=who.workers, threads=threads, **how
    ) as batches:
        for images_NHWC, _ in batches:
            yield len(images_NHWC)


class Photos:
    """torchvision's way: decode, rescale the whole image, crop, one uint8 tensor."""

    def __init__(self, files: Sequence[Path]):
        from torchvision.transforms import v2

        bicubic = v2.InterpolationMode.BICUBIC
        low, high = SCALES
        self.files = files
        self.transform = v2.Compose(
            [
                v2.RandomResize(low, high + 1, interpolation=bicubic, antialias=True),
                v2.RandomCrop(CROP),
                v2.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int):
        from PIL import Image

        with Image.open(self.files[row]) as image:
            return self.transform(image.convert("RGB")), 0


def torchvisions(folder: Path, who: Contestant) -> Iterator[int]:
    """Sizes of the batches of torch's DataLoader."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    torch.set_num_threads(1)
    photos = Photos(files_of(folder))
    order = RandomSampler(photos, replacement=True, num_samples=10**7)  # pyright: ignore
    for images_NCHW, _ in DataLoader(photos, BATCH, sampler=order, num_workers=who.workers):  # pyright: ignore
        yield len(images_NCHW)


PIPELINES: dict[str, Callable[[Path, Contestant], Iterator[int]]] = {
    "decode": decode_only,
    "vggbn": ours,
    "torchvision": torchvisions,
}


# --- the race ------------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    """The files, sorted."""
    return sorted(folder.iterdir())


def make_files(folder: Path) -> float:
    """FILES JPEG files in the folder; their mean size in bytes."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    photo = Image.fromarray(load_sample_image("china.jpg"))
    for number in range(FILES):
        width = int(rng.integers(500, 570))
        height = width * 3 // 4
        left, top = rng.integers(0, photo.width - width), rng.integers(0, photo.height - height + 1)
        part = photo.resize(
            SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
        )
        part.save(folder / f"{number:03d}.jpg", quality=QUALITY)
    return float(np.mean([file.stat().st_size for file in files_of(folder)]))


def race(names: Sequence[str], folder: Path, rounds: int, seconds: float) -> dict[str, list[dict]]:
    """{contestant: its turns}, one after another, so many times."""
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.input", "--turn", name]
            command += ["--folder", str(folder), "--seconds", str(seconds)]
            run = subprocess.run(
                command, cwd=FOLDER.parent, capture_output=True, text=True, check=False
            )
            if run.returncode:
                raise UserError(f"{name} failed: {run.stderr.strip().splitlines()[-1]}")
            found[name].append(json.loads(run.stdout))
            print(f"round {number + 1}, {name}: {_speeds([found[name][-1]])}", flush=True)
    return found


def _speeds(turns: list[dict]) -> str:
    wall, core = ([t[key] for t in turns] for key in ("images_per_s", "images_per_core_s"))
    spread = f" ({min(wall):,.0f}–{max(wall):,.0f})" if len(turns) > 1 else ""
    return f"{median(wall):,.0f} images/s{spread}, {median(core):,.0f} per core"


# --- the page ------------------------------------------------------------------------------------


def markdown(lines: list[dict]) -> str:
    """One table a device, of its newest race."""
    newest = {line["device"]: line for line in lines}
    return "\n".join([HEADER, *(row for line in newest.values() for row in table(line))])


def table(line: dict) -> list[str]:
    """The rows of a race."""
    turns, files = line["turns"], line["files"]
    rows = [
        f"## {line['device']}",
        "",
        f"{files['count']} files of {files['width']}x{files['height']}, {files['bytes']:,} bytes "
        f"on average; {line['rounds']} rounds of {line['seconds']:g} s; load {line['load']}.",
        "",
        "| contestant | cores | images/s | range | per core | times torchvision, per core |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in turns.items():
        wall = [t["images_per_s"] for t in found]
        core = median(t["images_per_core_s"] for t in found)
        cells = (
            name,
            CONTESTANTS[name].cores,
            f"{median(wall):,.0f}",
            f"{min(wall):,.0f}–{max(wall):,.0f}",
            f"{core:,.0f}",
            ratio(turns, name),
        )
        rows.append(f"| {' | '.join(map(str, cells))} |")
    versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
    return [*rows, "", f"{line['date']}, commit {line['commit']}, {versions}", ""]


def ratio(turns: dict[str, list[dict]], name: str) -> str:
    """Of a contestant of ours to its rival, per core; empty for others."""
    rival = RIVALS.get(name)
    if rival not in turns:
        return ""
    pairs = zip(turns[name], turns[rival], strict=True)
    found = [a["images_per_core_s"] / b["images_per_core_s"] for a, b in pairs]
    return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


# --- the command line ----------------------------------------------------------------------------


def main() -> int:
    """Run a race, or one turn of it."""
    parser: argparse.ArgumentParser = Parser(prog="python -m benchmarks.input")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("--turn", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(turn(args.turn, args.folder, args.seconds)))
        return 0
    names = [name for name in CONTESTANTS if name.partition(",")[0] != "torchvision"]
    if find_spec("torchvision"):
        names = list(CONTESTANTS)
    else:
        print("torchvision is not installed and left out: pip install torch torchvision.")
    with tempfile.TemporaryDirectory() as folder:
        mean_bytes = round(make_files(Path(folder)))
        line = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": provenance.commit(),
            "device": provenance.cpu_setting(1)["device"],
            "load": round(os.getloadavg()[0], 2),
            "versions": versions(),
            "files": {"count": FILES, "width": SIZE[0], "height": SIZE[1], "bytes": mean_bytes},
            "rounds": args.rounds,
            "seconds": args.seconds,
            "turns": race(names, Path(folder), args.rounds, args.seconds),
        }
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    PAGE.write_text(markdown(read(RESULTS)), encoding="utf-8")
    print("\n".join(table(line)))
    return 0


def versions() -> dict[str, str]:
    """Of what decodes and what feeds, where it is installed."""
    names = ("pillow", "grain", "numpy", "torch", "torchvision")
    installed = {
        name: importlib.metadata.version(name) for name in names if find_spec(_module(name))
    }
    return {"python": sys.version.partition(" ")[0]} | installed


def _module(name: str) -> str:
    return "PIL" if name == "pillow" else name


if __name__ == "__main__":
    exit_with(main)
