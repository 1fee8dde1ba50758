"""Ratios between contestants, and README.md: `python -m benchmarks.table` writes it.

It shows, for each device and net, the newest race in results.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from benchmarks.cases import CONTESTANTS

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
COLUMNS = ("contestant", "images/s", "range", "GEMM", "MB", "start")
HEADER = """<!-- `python -m benchmarks.table` writes this from results.jsonl; do not edit it. -->
# Benchmarks

A whole training step: forward, loss, backward, momentum SGD with L2, BN's running statistics; no
dropout, no augmentation, the same weights and batch on all sides. `make bench` runs the
contestants of a net in turns (A B A B), each in processes of its own, and checks that they are the
same net: their parameter counts, and their losses before and after an update.

- images/s is the median of the turns; a ratio is the median over the rounds, with its range.
- GEMM: share of the rate of a large matrix product, measured in the same run, precision and
  number of threads. Products with the zeros around a map are not counted as work.
- MB is the peak of the contestant's processes, or on a GPU of its memory; start is the first step,
  compilation included. torch-bf16 is autocast, channels_last.

Single operations, shape by shape: [cliffs.md](cliffs.md), by `python -m benchmarks.cliffs`.
The input pipeline at ImageNet's size: [input.md](input.md), by `python -m benchmarks.input`.
"""


def main() -> None:
    """Write README.md."""
    (FOLDER / "README.md").write_text(markdown(read(RESULTS)), encoding="utf-8")


def read(path: Path) -> list[dict]:
    """The lines of a results file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def markdown(lines: list[dict]) -> str:
    """The page: one section a device and number of threads, one table a race."""
    sections: dict[str, dict[tuple, list[dict]]] = {}
    for line in lines:
        cores = line["processes"] * line["threads"]
        device = (
            f"{line['device']}, {cores} threads" if line["backend"] == "cpu" else line["device"]
        )
        race = line["title"], line["processes"]
        known = sections.setdefault(device, {}).setdefault(race, [])
        if known and known[0]["date"] != line["date"]:
            known.clear()  # a newer run of the same race
        known.append(line)
    text = [HEADER]
    for device, races in sections.items():
        text += [f"## {device}", ""]
        for race in races.values():
            text += _table(race)
    return "\n".join(text)


def _table(race: list[dict]) -> list[str]:
    rows = [
        f"### {race[0]['title']}: {mode(race[0])}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line in race:
        rows.append(f"| {' | '.join(cells(line))} |")
    rows += ["", *(f"- {ratio}" for ratio in ratios(race))]
    versions = ", ".join(f"{name} {version}" for name, version in race[0]["versions"].items())
    return [*rows, "", f"{race[0]['date']}, commit {race[0]['commit']}, {versions}", ""]


def mode(line: dict) -> str:
    """How the cores were used, in words."""
    if line["processes"] > 1:
        return f"{line['processes']} processes of 1 thread at once"
    return "1 process" if line["backend"] != "cpu" else f"1 process of {line['threads']} thread(s)"


def cells(line: dict) -> list[str]:
    """Contestant, images/s, their range, share of the GEMM rate, peak MB, seconds of the start."""
    speeds = line["images_per_s"]
    spread = f"{_speed(min(speeds))}–{_speed(max(speeds))}"
    memory, start = f"{line['peak_mb']:,}", f"{line['first_step_s']:.1f} s"
    return [line["contestant"], _speed(median(speeds)), spread, f"{share(line):.0%}", memory, start]


def _speed(images_per_s: float) -> str:
    return f"{images_per_s:,.1f}" if images_per_s < 100 else f"{images_per_s:,.0f}"


def share(line: dict) -> float:
    """Share of the GEMM rate."""
    return median(line["images_per_s"]) * line["gflop_per_image"] / line["gemm_gflops"]


def ratios(race: list[dict]) -> list[str]:
    """This suite's speed over PyTorch's best and over stock Flax's in the same precision."""
    found = []
    for ours in race:
        if CONTESTANTS[ours["contestant"]].side != "vggbn":
            continue
        for side, words in (("torch", "PyTorch's best"), ("linen", "stock Flax")):
            rivals = [
                line
                for line in race
                if CONTESTANTS[line["contestant"]].side == side
                and line["precision"] == ours["precision"]
            ]
            if rivals:
                best = max(rivals, key=lambda line: median(line["images_per_s"]))
                found.append(
                    f"{ours['contestant']} / {words} {ours['precision']} ({best['contestant']}): "
                    f"{ratio(ours, best)}"
                )
    return found


def ratio(ours: dict, theirs: dict) -> str:
    """Median and range of the rounds' ratios."""
    pairs = zip(ours["images_per_s"], theirs["images_per_s"], strict=True)
    rounds = [a / b for a, b in pairs]
    return f"{median(rounds):.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


if __name__ == "__main__":
    main()
