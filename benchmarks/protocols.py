"""What evaluation by whole images and by many crops costs: `python -m benchmarks.protocols`.

Every protocol beside the single view, in turns (A B A B) of one process; a figure is the median
over the rounds of its ratio, with its range. All start from the stored images: rescaling and
cropping are counted in, everywhere. Ratios of work are XLA's count of the plain program, zeros
around a map left out. --write puts the tables into protocols.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import Split
from vggbn.errors import Parser
from vggbn.evaluate import Trained, centre, dense, multi_crop
from vggbn.evaluate.shared import CROPS
from vggbn.forecast.compiled import plain_forms
from vggbn.machine.provenance import commit, setting
from vggbn.models import Net, build

CROP, SIDES, SCALES, SOURCE = 64, (64, 73, 110, 146), (73, 110, 146), 146
SHAPES = ((146, 195), (195, 146), (146, 219))  # (height, width) of the images, in turn
NET = Net((CROP, CROP, 3), classes=10, width=1 / 8, fc=512, pools=3)
PAGE = Path(__file__).with_name("protocols.md")


def main() -> None:
    """Print a table a model, and write them if asked to."""
    parser: argparse.ArgumentParser = Parser(prog="python -m benchmarks.protocols")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write protocols.md too")
    parser.add_argument("models", nargs="*", default=["vgg_a", "vgg_d"])
    args = parser.parse_args()
    if args.images % CROPS:
        raise SystemExit(
            f"--images takes multiples of {CROPS}: masked rows would cost a single view."
        )
    tables = []
    for model in args.models:
        tables.append(report(model, split_of(args.images), args.rounds))
        print(tables[-1], flush=True)
    if args.write:
        where = setting()
        facts = f"{where['device']}, {where['threads']} threads, jaxlib {where['jaxlib']}"
        head = f"# What it costs to test a net\n\n{__doc__.split(chr(10), 2)[2]}\n{facts}, commit "
        PAGE.write_text(head + f"{commit()}.\n\n" + "\n\n".join(tables) + "\n")


def split_of(n: int) -> Split:
    """n images of noise, of SHAPES, each in its frame."""
    rng = np.random.default_rng(0)
    frame = np.max(SHAPES, axis=0)
    sizes_N2 = np.array([SHAPES[i % len(SHAPES)] for i in range(n)], np.int32)
    images_NHWC = np.zeros((n, *frame, 3), np.uint8)
    for image, (height, width) in zip(images_NHWC, sizes_N2, strict=True):
        image[:height, :width] = rng.integers(0, 256, (height, width, 3))
    return Split(images_NHWC, np.zeros(n, np.int32), sizes_N2)


def report(model: str, split: Split, rounds: int) -> str:
    """What each protocol costs, in single views."""
    net = replace(NET, model=model)
    variables = build(net).init(jax.random.key(0), "he")
    trained = Trained(net, variables, np.float32([0.5] * 3), np.float32(0.25))

    def single():
        centre(trained, split, side=SCALES[0], mirrored=False)

    def whole(side):
        dense(trained, split, side=side, mirrored=False)

    def many():
        for side in SCALES:
            multi_crop(trained, split, side=side, mirrored=True)

    protocols = {f"dense at {side}": lambda side=side: whole(side) for side in SIDES}
    protocols["150 crops"] = many
    n = len(split)
    ms, ratios = race(single, protocols, rounds)
    lines = [
        f"{model}, width/8, fc {NET.fc}, crop {CROP}, {n} images; a single view takes "
        f"{ms / n:.3f} ms an image.",
        "",
        "| protocol | times a single view | of its work | range |",
        "|---|---:|---:|---:|",
    ]
    for name, found in ratios.items():
        side = int(name.split()[-1]) if name.startswith("dense") else 0
        work = work_of(net, split, side) if side else 150
        shares = [ratio / work for ratio in found]
        lines.append(
            f"| {name} | {median(found):.2f} | {median(shares):.2f} of {work:.2f} "
            f"| {min(shares):.2f}–{max(shares):.2f} |"
        )
    return "\n".join(lines)


def race(base: Callable, others: dict[str, Callable], rounds: int):
    """(ms of base, {name: ratios of its time to that of base before and after it})."""

    def seconds(function: Callable) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    for function in (base, *others.values()):
        function()  # compiles
    again = max(1, round(0.3 / seconds(base)))
    turn = lambda: seconds(lambda: [base() for _ in range(again)]) / again  # noqa: E731
    ratios: dict[str, list[float]] = {name: [] for name in others}
    bases = [turn()]
    for _ in range(rounds):
        for name, function in others.items():
            took = seconds(function)
            bases.append(turn())
            ratios[name].append(2 * took / (bases[-2] + bases[-1]))
    return 1e3 * median(bases), ratios


def work_of(net: Net, split: Split, side: int) -> float:
    """The operations of `dense` for a mean image, in those of a single crop."""
    from vggbn.evaluate.dense import buckets, stride  # the package has a function of that name

    model = build(net)
    variables = jax.eval_shape(lambda key: model.init(key, "he"), jax.random.key(0))

    def operations(function: Callable, height: int, width: int) -> float:
        x_NHWC = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        return jax.jit(function).lower(variables, x_NHWC).cost_analysis()["flops"]

    with plain_forms():
        crop = operations(lambda v, x: model.apply(v, x, train=False)[0], CROP, CROP)
        found = buckets(split, side, stride(net))
        total = sum(len(r) * operations(model.score_map, *shape) for shape, r in found.items())
    return total / crop / len(split)


if __name__ == "__main__":
    main()
