"""A cliff hunt over each convolution, pooling and LRN shape of the suite's nets, and over a grid.

    python -m benchmarks.cliffs             # about ten minutes; resumes where it was stopped

Each operation is measured forward, for its input gradient and for its weight gradient, three ways:
`ours` is what vggbn.nn.layers does under the suite's compile options, `lax` the plain operation
under the same options, `stock` the plain operation without them. Convolutions are judged by GFLOP/s
against a matrix product of the same process, pooling and LRN, which are bound by memory, by GB/s
against a copy of about the same size. Only products with real pixels are counted, none with
padding.

An operation that takes more than 5 % of a net's step and runs below a quarter of that rate needs an
entry in REASONS; without one the exit status is 1. The table is written to cliffs.md, and the
measurements to cliffs.jsonl, each under a digest of its program: a changed layer is measured anew.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import pkgutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.cases import CASES
from benchmarks.measure import restart
from vggbn.experiment.design import Experiment
from vggbn.experiment.plan import make_plan, size_names
from vggbn.machine import compiling
from vggbn.machine.provenance import commit, setting, versions
from vggbn.models import Net, build
from vggbn.nn import fast, layers
from vggbn.training.recipe import static

FOLDER = Path(__file__).parent
TABLE, LINES = FOLDER / "cliffs.md", FOLDER / "cliffs.jsonl"
CHILD = "VGGBN_CLIFFS_CHILD"  # set in the process that has the asked-for number of threads

# More than this share of a step below this share of the reference: a cliff.
SHARE, RATE = 0.05, 0.25

# --- how long a measurement may take -------------------------------------------------------------

NET_GFLOP = 32.0  # a net's operation is measured at its batch, halved until a call has this,
GRID_GFLOP = 0.25  # and one of the grid at batch 32, halved until a call has this, at most;
MOST_GFLOP = 4.0  # it is left out where a single image has more than this
LEAST_GFLOP = 1e-3  # or the whole batch less than this: that would measure the call, not the work
MOST_BYTES = 1 << 28  # of input or output
LONG = 0.3  # seconds: a call that takes longer is measured once
ENOUGH, REPEATS = 0.02, 3  # otherwise at least this many seconds and times; the shortest counts

# --- operations ----------------------------------------------------------------------------------


class Op(NamedTuple):
    """A call of vggbn.nn.layers.<kind>: input [N, H, W, C], kernel [h, w, C, O] if any, options."""

    kind: str
    x: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    @property
    def passes(self) -> tuple[str, ...]:
        return ("forward", "dx", "dw") if self.kernel else ("forward", "both")

    def at_batch(self, batch: int) -> Op:
        return self._replace(x=(batch, *self.x[1:]))

    def __str__(self) -> str:
        side = "×".join(map(str, self.x[1:3]))
        if not self.kernel:
            return f"{NAMES.get(self.kind, self.kind)} of {self.x[3]} on {side}{self._said()}"
        h, w, channels, out = self.kernel
        return f"{h}×{w} {channels}→{out} on {side}{self._said()}"

    def _said(self) -> str:
        known = dict(self.options)
        words = [f"stride {known['stride']}"] if known.get("stride", 1) != 1 else []
        words += [str(known["padding"])] if known.get("padding", "SAME") != "SAME" else []
        words += [f"{k} {v}" for k, v in known.items() if k not in ("stride", "padding")]
        return "".join(f", {word}" for word in words)


NAMES = {
    "max_pool_2x2": "max pool 2×2",
    "local_response_norm": "LRN",
    "planned_max_pool": "max pool",
    "planned_mean_pool": "mean pool",
}


def reduce_max(x_NHWC, *, window, stride, padding="SAME"):
    size, steps = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x_NHWC, -jnp.inf, lax.max, size, steps, padding)


def reduce_mean(x_NHWC, *, window, stride, padding="VALID"):
    size, steps = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x_NHWC, 0.0, lax.add, size, steps, padding) / window**2


def sliced_lrn(x_NHWC, *, k=2.0, n=5, alpha=1e-4):
    """LRN as shifted slices and a general power."""
    reach = n // 2
    padded = jnp.pad(x_NHWC * x_NHWC, ((0, 0),) * 3 + ((reach, reach),))
    energy = sum(padded[..., i : i + x_NHWC.shape[-1]] for i in range(n))
    return x_NHWC * (k + alpha * energy) ** -0.75


PLAIN = {
    "conv": fast.plain_conv,
    "max_pool_2x2": fast.plain_max_pool_2x2,
    "local_response_norm": sliced_lrn,
    "planned_max_pool": reduce_max,  # of nets to come: the suite has no operation for it yet
    "planned_mean_pool": reduce_mean,
}
OURS = tuple(kind for kind in PLAIN if hasattr(layers, kind))


def our_conv(kernel, x_NHWC, **options):
    return layers.conv({"kernel": kernel}, x_NHWC, **options)


def function(op: Op, side: str) -> Callable:
    """f(kernel, x) of a convolution, f(x) of the others."""
    own = our_conv if op.kind == "conv" else getattr(layers, op.kind, PLAIN[op.kind])
    return partial(own if side == "ours" else PLAIN[op.kind], **dict(op.options))


def one_pass(op: Op, side: str, which: str) -> tuple[Callable, tuple]:
    """A function of one pass alone and the shapes of its arguments."""
    f = function(op, side)
    shapes = (op.kernel, op.x) if op.kernel else (op.x,)
    if which == "forward":
        return f, shapes

    def run(*args):
        *inputs, dy = args
        y, back = jax.vjp(f, *inputs)
        grads = back(dy)
        return {"dw": lambda: grads[0], "dx": lambda: grads[-1], "both": lambda: (y, grads)}[
            which
        ]()

    return run, (*shapes, out_shape(op))


@cache
def out_shape(op: Op) -> tuple[int, ...]:
    args = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (op.kernel, op.x) if s]
    return jax.eval_shape(function(op, "lax"), *args).shape


@cache
def gflop(op: Op) -> float:
    """10^9 floating-point operations of one pass, those with padding not counted."""
    options = dict(op.options)
    stride, padding = options.get("stride", 1), options.get("padding", "SAME")
    taps = []
    for side, k in zip(op.x[1:3], op.kernel[:2], strict=True):
        out = -(-side // stride) if padding == "SAME" else (side - k) // stride + 1
        before = max((out - 1) * stride + k - side, 0) // 2 if padding == "SAME" else 0
        starts = (i * stride - before for i in range(out))
        taps.append(sum(min(s + k, side) - max(s, 0) for s in starts))
    return 2e-9 * op.x[0] * math.prod(taps) * op.kernel[2] * op.kernel[3]


def gbytes(op: Op, which: str) -> float:
    """10^9 bytes that a pass must move at least: x and y, and for `both` their gradients."""
    once = 4e-9 * (math.prod(op.x) + math.prod(out_shape(op)))
    return once * (2 if which == "both" else 1)


# --- nets ----------------------------------------------------------------------------------------


class Traced(NamedTuple):
    """A net's operations: {operation: (calls, calls that need the gradient of their input)}."""

    name: str
    ops: dict[Op, tuple[int, int]]
    trained: bool = True
    planned: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        return ("ours", "lax") if self.planned else ("ours", "lax", "stock")


def traced(name: str, model: str, net: Net, batch: int) -> Traced:
    """The calls of one application of the net, recorded while it is traced."""
    calls: Counter[Op] = Counter()
    first: Counter[Op] = Counter()

    def shadow(kind, real):
        def record(*args, **options):
            *params, x_NHWC = args
            kernel = params[0]["kernel"].shape if params else ()
            op = Op(kind, x_NHWC.shape, kernel, tuple(sorted(options.items())))
            calls[op] += 1
            first[op] += x_NHWC.shape == (batch, *net.image)
            out = jax.eval_shape(partial(real, **options), *args)
            return jnp.zeros(out.shape, out.dtype)

        return patch.object(layers, kind, record)

    def apply(variables, x_NHWC):
        return built.apply(variables, x_NHWC, train=True)[0]

    built = build(replace(net, model=model))
    variables = jax.eval_shape(lambda: built.init(jax.random.key(0), "he"))
    shadows = [shadow(kind, getattr(layers, kind)) for kind in OURS]
    for each in shadows:
        each.start()
    try:
        x = jax.ShapeDtypeStruct((batch, *net.image), jnp.float32)
        left = str(jax.make_jaxpr(apply)(variables, x))
    finally:
        for each in shadows:
            each.stop()
    for primitive in ("conv_general_dilated", "reduce_window"):
        if primitive in left:
            raise SystemExit(f"{model} has a {primitive} outside of {', '.join(OURS)}: add it.")
    return Traced(name, {op: (n, n - first[op]) for op, n in calls.items()})


def nets() -> list[Traced]:
    """Those of the experiments at all their sizes, and those of the benchmark of whole steps."""
    found: dict[tuple, Traced] = {}
    for name, model, net, batch in dict.fromkeys([*experiment_nets(), *case_nets()]):
        new = traced(name, model, net, batch)
        if new.ops:
            found.setdefault(tuple(sorted(new.ops.items())), new)
    return [*found.values(), *planned()]


def experiment_nets() -> Iterator[tuple[str, str, Net, int]]:
    """(name, model, net, batch) of every variant of every experiment."""
    folder = FOLDER.parent / "experiments"
    for module in pkgutil.iter_modules([str(folder)]):
        experiment = importlib.import_module(f"experiments.{module.name}").EXPERIMENT
        if not isinstance(experiment, Experiment):
            continue  # exact: it trains nothing
        data = {None, *(claim.primary for claim in experiment.claims)}
        for size in size_names(experiment):
            for name in sorted(data, key=str):
                plan = make_plan(experiment, size, out=folder, data=name)
                for recipe in plan.variants.values():
                    channels = 1 if recipe.data in GREY else 3
                    image = (recipe.image_size, recipe.image_size, channels)
                    fixed = static(recipe, image=image, classes=10, flip=False)
                    # What has no operation that is measured here is left out: fewer nets to trace.
                    net = replace(fixed.net, norm="none", activation="relu", precision="float32")
                    yield label(net.model, net, fixed.batch), net.model, net, fixed.batch


GREY = ("mnist5k", "digits")


def label(model: str, net: Net, batch: int) -> str:
    width = "" if net.width == 1 else f" width/{1 / net.width:g}"
    side = "×".join(map(str, net.image))
    return f"{model.upper().replace('_', '-')}{width} {side} batch {batch}"


def case_nets() -> Iterator[tuple[str, str, Net, int]]:
    """The nets of `make bench`."""
    for case in CASES.values():
        image = (case.side, case.side, case.channels)
        net = Net(image, case.classes, norm="batch", width=case.width, fc=case.fc)
        model = f"vgg_{case.config.lower()}"
        yield label(model, net, case.batch), model, net, case.batch


# Table 1 of GoogLeNet: map side at 224, input channels, #1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5,
# pool projection. It goes when MODELS has the net.
MODULES = (
    (28, 192, 64, 96, 128, 16, 32, 32),
    (28, 256, 128, 128, 192, 32, 96, 64),
    (14, 480, 192, 96, 208, 16, 48, 64),
    (14, 512, 160, 112, 224, 24, 64, 64),
    (14, 512, 128, 128, 256, 24, 64, 64),
    (14, 512, 112, 144, 288, 32, 64, 64),
    (14, 528, 256, 160, 320, 32, 128, 128),
    (7, 832, 256, 160, 320, 32, 128, 128),
    (7, 832, 384, 192, 384, 48, 128, 128),
)


def googlenet(side: int, width: float, batch: int) -> Traced:
    """GoogLeNet as its paper has it, on `side`² images and with `width` times its channels."""
    calls: Counter[Op] = Counter()

    def conv(map_side, kernel, channels, out, stride=1):
        x = (batch, map_side, map_side, channels)
        options = (("stride", stride),) if stride > 1 else ()
        calls[Op("conv", x, (kernel, kernel, channels, out), options)] += 1

    def pool(map_side, channels, stride):
        options = (("stride", stride), ("window", 3))
        calls[Op("planned_max_pool", (batch, map_side, map_side, channels), (), options)] += 1

    def wide(channels):
        return max(1, round(channels * width))

    halves = [-(-side // 2**i) for i in range(6)]
    conv(halves[0], 7, 3, wide(64), stride=2)
    pool(halves[1], wide(64), 2)
    calls[Op("local_response_norm", (batch, halves[2], halves[2], wide(64)))] += 1
    conv(halves[2], 1, wide(64), wide(64))
    conv(halves[2], 3, wide(64), wide(192))
    calls[Op("local_response_norm", (batch, halves[2], halves[2], wide(192)))] += 1
    pool(halves[2], wide(192), 2)
    before = 28
    for at_224, *channels in MODULES:
        x, one, reduce3, three, reduce5, five, projection = map(wide, channels)
        if at_224 < before:
            pool(halves[{14: 3, 7: 4}[at_224]], x, 2)
        before, here = at_224, halves[{28: 3, 14: 4, 7: 5}[at_224]]
        for out in (one, reduce3, reduce5):
            conv(here, 1, x, out)
        conv(here, 3, reduce3, three)
        conv(here, 5, reduce5, five)
        pool(here, x, 1)
        conv(here, 1, x, projection)
    mean = (("stride", 1), ("window", halves[5]))
    x = (batch, halves[5], halves[5], wide(1024))
    calls[Op("planned_mean_pool", x, (), mean)] += 1
    scale = "" if width == 1 else f" width/{1 / width:g}"
    ops = {op: (n, 0 if op.x[3] == 3 else n) for op, n in calls.items()}
    return Traced(f"GoogLeNet{scale} {side}×{side}×3 batch {batch}", ops, planned=True)


def dense_evaluation(side: int) -> Traced:
    """VGG-D over a whole image (VGG 3.2): fc1 as a 7×7 VALID convolution, fc2 and fc3 as 1×1."""
    body = traced("", "vgg_d", Net((side, side, 3), 1000), 1)
    left = side // 32
    valid = (("padding", "VALID"),)
    head = [Op("conv", (1, left, left, 512), (7, 7, 512, 4096), valid)]
    head += [Op("conv", (1, left - 6, left - 6, 4096), (1, 1, 4096, out)) for out in (4096, 1000)]
    ops = body.ops | dict.fromkeys(head, (1, 0))
    return Traced(f"VGG-D, dense evaluation of {side}×{side}", ops, trained=False, planned=True)


def planned() -> list[Traced]:
    """Nets and protocols that the suite is to have: measured, but no reason is asked for."""
    small = [googlenet(64, 1 / 4, 32), googlenet(32, 1 / 4, 32)]
    return [*small, googlenet(224, 1, 8), dense_evaluation(256), dense_evaluation(384)]


# --- the grid ------------------------------------------------------------------------------------

CHANNELS = ((1, 8), (3, 64), (8, 8), (32, 32), (128, 128), (512, 512))
MAPS = (1, 2, 4, 7, 14, 28, 56, 224)


def grid() -> list[Op]:
    """Kernels × channels × maps × strides × padding, dense-evaluation kernels, pools and LRN."""
    found = []
    for k, (channels, out), side in product((1, 3, 5, 7), CHANNELS, MAPS):
        for stride, padding in product((1, 2), ("SAME", "VALID")):
            if padding == "VALID" and (k == 1 or k > side):
                continue  # as SAME, or nothing to compute
            options = {"stride": stride, "padding": padding}
            plain = {"stride": 1, "padding": "SAME"}
            given = tuple(sorted((o, v) for o, v in options.items() if v != plain[o]))
            found.append(Op("conv", (32, side, side, channels), (k, k, channels, out), given))
    for (channels, out), side in product(((512, 4096), (64, 512)), (7, 8, 12)):
        valid = (("padding", "VALID"),)
        found.append(Op("conv", (32, side, side, channels), (7, 7, channels, out), valid))
    for kind, channels, side in product(
        ("max_pool_2x2", "local_response_norm"), (8, 64, 512), MAPS
    ):
        if side > 1 or kind != "max_pool_2x2":
            found.append(Op(kind, (32, side, side, channels)))
    kept = (fitted(op, GRID_GFLOP) for op in found)
    return [op for op in kept if not op.kernel or LEAST_GFLOP <= gflop(op) <= MOST_GFLOP]


def fitted(op: Op, limit: float) -> Op:
    """The operation at the largest batch, by halving, that keeps to the limits of a call."""
    batch = op.x[0]
    while batch > 1 and (
        (op.kernel and gflop(op.at_batch(batch)) > limit)
        or 4 * max(math.prod(op.x[1:]), math.prod(out_shape(op)[1:])) * batch > MOST_BYTES
    ):
        batch //= 2
    return op.at_batch(batch)


# --- measuring -----------------------------------------------------------------------------------


def compile_options(side: str) -> dict[str, str]:
    """The suite's own, or none."""
    return {} if side == "stock" else compiling.compiler_options()


@cache
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def filled(shape) -> jax.Array:
    return jnp.asarray(np.resize(noise(), shape))


def shaped(*shapes) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def seconds(low, side: str, shapes) -> float:
    """The shortest time of a call of the lowered program, less that of an empty one."""
    compiled = low.compile(compiler_options=compile_options(side) or None)
    args = [filled(shape) for shape in shapes]
    first = timed(compiled, args, 1)
    if first > LONG:
        return first
    calls = math.ceil(ENOUGH / REPEATS / first)
    best = min(timed(compiled, args, calls) for _ in range(REPEATS))
    return max(best - empty_call(), best / 10)


def timed(compiled: Callable, args, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        out = compiled(*args)
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / calls


@cache
def empty_call() -> float:
    """Seconds that it takes to call a program that does nothing."""
    compiled, x = jax.jit(jnp.negative).lower(*shaped((1,))).compile(), filled((1,))
    timed(compiled, (x,), 100)
    return min(timed(compiled, (x,), 300) for _ in range(REPEATS))


def gemm() -> float:
    """GFLOP/s of the best of three square matrix products, in this process."""
    return max(_gemm(n) for n in (512, 1024, 2048))


def _gemm(n: int) -> float:
    shapes = (n, n), (n, n)
    low = jax.jit(jnp.matmul).lower(*shaped(*shapes))
    return 2e-9 * n**3 / min(seconds(low, "ours", shapes) for _ in range(2))


@cache
def copy(size: int) -> float:
    """GB/s, read and written, of y = -x over 4^size bytes, in this process."""
    shape = (4 ** (size - 1),)
    low = jax.jit(jnp.negative).lower(*shaped(shape))
    return 2 * 4e-9 * shape[0] / min(seconds(low, "ours", (shape,)) for _ in range(2))


def copy_size(op: Op) -> int:
    """The power of four that is nearest to the bytes of the input."""
    return max(6, round(math.log(4 * math.prod(op.x), 4)))


class Piece(NamedTuple):
    """What is measured once: a pass of an operation as one side has it."""

    op: Op
    side: str
    which: str

    @property
    def work(self) -> float:
        """GFLOP of a convolution, GB of the others."""
        return gflop(self.op) if self.op.kernel else gbytes(self.op, self.which)


def lowered(piece: Piece):
    """(the program, the shapes of its arguments, a digest of it and of its options)."""
    run, shapes = one_pass(piece.op, "lax" if piece.side == "stock" else piece.side, piece.which)

    def program(*args):
        return run(*args)

    low = jax.jit(program).lower(*shaped(*shapes))
    text = f"{low.as_text()} {sorted(compile_options(piece.side).items())}"
    return low, shapes, hashlib.sha256(text.encode()).hexdigest()[:16]


class Measured(NamedTuple):
    """GFLOP/s or GB/s, and that of the reference in the process that measured it."""

    rate: float
    reference: float

    @property
    def share(self) -> float:
        return self.rate / self.reference


Found = dict[Piece, Measured]


def walk(pieces: list[Piece], *, again: bool) -> Found:
    """Measure what cliffs.jsonl does not have yet, and show how far it is."""
    known = {} if again else remembered()
    found: Found = {}
    best = gemm()
    print(f"{len(pieces)} to measure; matrix product {best:.1f} GFLOP/s", file=sys.stderr)
    weights = [0.1 + 4 * piece.work / best for piece in pieces]
    began, spoke, done, all_new = time.perf_counter(), 0.0, 0.0, sum(weights)
    with LINES.open("a", encoding="utf-8") as lines:
        for piece, weight in zip(pieces, weights, strict=True):
            low, shapes, digest = lowered(piece)
            if digest in known:
                found[piece], all_new = known[digest], all_new - weight
                continue
            reference = best if piece.op.kernel else copy(copy_size(piece.op))
            took = seconds(low, piece.side, shapes)
            if piece.work / took < RATE * reference and took < LONG / 3:
                took = min(took, seconds(low, piece.side, shapes))  # or was it a disturbance?
            known[digest] = found[piece] = Measured(piece.work / took, reference)
            line = {
                "digest": digest,
                "op": str(piece.op),
                "batch": piece.op.x[0],
                "side": piece.side,
                "pass": piece.which,
                "ms": round(1e3 * took, 5),
                "rate": round(piece.work / took, 3),
                "reference": round(reference, 3),
                "unit": "GFLOP/s" if piece.op.kernel else "GB/s",
                "jaxlib": setting()["jaxlib"],
                "device": setting()["device"],
                "threads": setting()["threads"],
            }
            print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
            done += weight
            now = time.perf_counter()
            if now - spoke > 5:
                spoke, left = now, (all_new - done) * (now - began) / done
                text = f"{len(found)}/{len(pieces)}, {left / 60:.1f} min left | {piece.op}"
                print(text, file=sys.stderr, flush=True)
    return found


def remembered() -> dict[str, Measured]:
    """{digest: measured} of the lines from this machine, jaxlib and number of threads."""
    found = {}
    text = LINES.read_text(encoding="utf-8") if LINES.exists() else ""
    for line in map(json.loads, text.splitlines()):
        if all(line[key] == setting()[key] for key in ("jaxlib", "device", "threads")):
            found[line["digest"]] = Measured(line["rate"], line["reference"])
    return found


# --- what the measurements say -------------------------------------------------------------------


class Row(NamedTuple):
    """An operation in a net's step: seconds of {pass: {side: s}} for all its calls together."""

    net: Traced
    op: Op
    calls: int
    seconds: dict[str, dict[str, float]]
    measured: dict[str, dict[str, Measured]]
    at_batch: int

    def total(self, side: str) -> float:
        """Seconds of a step; `both` holds its forward pass."""
        counted = (
            which for which in self.seconds if which != "forward" or "both" not in self.seconds
        )
        return sum(self.seconds[which][side] for which in counted)

    def share_of_reference(self, side: str) -> float:
        """Of all passes together: the time at the reference's rate as a share of the real one."""
        parts = [p for p in self.seconds if p != "forward" or "both" not in self.seconds]
        ideal = sum(self.seconds[p][side] * self.measured[p][side].share for p in parts)
        return ideal / self.total(side)


def passes_of(net: Traced, op: Op) -> dict[str, int]:
    """{pass: calls in a step of the net}."""
    calls, with_dx = net.ops[op]
    if not net.trained:
        return {"forward": calls}
    return {p: with_dx if p == "dx" else calls for p in op.passes if p != "dx" or with_dx}


def rows_of(net: Traced, found: Found) -> list[Row]:
    rows = []
    for op, (calls, _) in net.ops.items():
        small = fitted(op, NET_GFLOP)
        scale = op.x[0] / small.x[0]
        took, measured = {}, {}
        for which, n in passes_of(net, op).items():
            got = {side: found[Piece(small, side, which)] for side in net.sides}
            work = Piece(small, "ours", which).work
            took[which] = {side: n * scale * work / m.rate for side, m in got.items()}
            measured[which] = got
        rows.append(Row(net, op, calls, took, measured, small.x[0]))
    return rows


class Reason(NamedTuple):
    """Why an operation may stay slow: `holds(op, pass)` says which it is about."""

    text: str
    holds: Callable[[Op, str], bool]


REASONS = (
    Reason(
        "More than a copy: a value costs C multiply-adds of the banded product, two roots and a "
        "division. A closed-form gradient was no faster.",
        lambda op, which: op.kind == "local_response_norm",
    ),
    Reason(
        "The first layer: sums of 9 or 27 products, or few of them, leave the tiles of a matrix "
        "product empty. Paired, gathered and dilated products gained little or lost.",
        lambda op, which: bool(op.kernel) and op.kernel[2] <= 3,
    ),
    Reason(
        "More than a copy: the place of each window's first maximum, found by five comparisons, is "
        "written down and read again, which the counted bytes leave out.",
        lambda op, which: op.kind == "max_pool_2x2",
    ),
    Reason(
        "To 8 channels, a fraction of a matrix product's tile, hence two output pixels at a time, "
        "which multiplies 3 zeros with each 9 values. Blocks of 2×2 and 1×4 pixels gained little "
        "or lost, gathered windows lost.",
        lambda op, which: bool(op.kernel) and op.kernel[3 if which == "forward" else 2] <= 8,
    ),
)


def reason(op: Op, which: str) -> str | None:
    return next((each.text for each in REASONS if each.holds(op, which)), None)


class Flag(NamedTuple):
    row: Row
    which: str  # a pass, or "all"
    share_of_step: float
    share_of_reference: float


def flags_of(rows: list[Row]) -> list[Flag]:
    """What takes more than SHARE of the step below RATE of the reference."""
    step = sum(row.total("ours") for row in rows)
    found = []
    for row in rows:
        candidates = [Flag(row, "all", row.total("ours") / step, row.share_of_reference("ours"))]
        candidates += [
            Flag(row, p, took["ours"] / step, row.measured[p]["ours"].share)
            for p, took in row.seconds.items()
        ]
        slow = [f for f in candidates if f.share_of_step > SHARE and f.share_of_reference < RATE]
        found += [f for f in slow if f.which != "all"] or slow
    return sorted(found, key=lambda flag: -flag.share_of_step)


# --- the table -----------------------------------------------------------------------------------


def table(every: list[Traced], ops: list[Op], found: Found) -> tuple[str, int]:
    """(the Markdown page, how many operations of the suite's nets lack a reason)."""
    rows = {net.name: rows_of(net, found) for net in every}
    flags = [flag for net in every for flag in flags_of(rows[net.name])]
    ours = [flag for flag in flags if not flag.row.net.planned]
    missing = sum(reason(flag.row.op, flag.which) is None for flag in ours)
    parts = [*head(found), "## Cliffs in the suite's nets", "", *flag_table(ours)]
    parts += ["", "## Cliffs in nets to come", "", *flag_table([f for f in flags if f not in ours])]
    for net in every:
        parts += ["", f"## {net.name}", "", *net_table(rows[net.name])]
    parts += ["", "## Grid", "", *grid_table(ops, found)]
    return "\n".join(parts) + "\n", missing


def head(found: Found) -> list[str]:
    best = max(m.reference for piece, m in found.items() if piece.op.kernel)
    copies = ", ".join(f"{copy(size):.1f} at {4**size >> 10} KiB" for size in (8, 10, 12, 14))
    used = ", ".join(f"{key}={value}" for key, value in compile_options("ours").items()) or "none"
    return [
        "# Cliffs",
        "",
        "Made by `python -m benchmarks.cliffs`, never by hand; `benchmarks/cliffs.py` says how.",
        "",
        f"- {setting()['device']}, {setting()['threads']} thread(s), jaxlib {setting()['jaxlib']}, "
        f"Python {versions()['python']}",
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit() or 'unknown'}",
        f"- matrix product {best:.1f} GFLOP/s; copy in GB/s: {copies}",
        f"- compile options of ours and lax: {used}; stock has none",
        "",
        "A cell is forward / input gradient / weight gradient; for pooling and LRN it is forward / "
        "forward with gradient.",
        "`ours`, `lax` and `stock` are GFLOP/s (pooling and LRN: GB/s); % is the rate of ours as a "
        f"share of the reference, bold below {100 * RATE:.0f} %; `of it` the share of a step.",
        "",
    ]


def flag_table(flags: list[Flag]) -> list[str]:
    if not flags:
        return ["None."]
    lines = [
        "| net | operation | pass | of the step | of the reference | reason |",
        "|" + "---|" * 6,
    ]
    for row, which, step, reference in flags:
        text = reason(row.op, which) or ("" if row.net.planned else "**NO REASON RECORDED**")
        cells = (row.net.name, str(row.op), which, percent(step), percent(reference), text)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def net_table(rows: list[Row]) -> list[str]:
    net = rows[0].net
    sums = {side: sum(row.total(side) for row in rows) for side in net.sides}
    what = "Convolution, pooling and LRN of a " + ("step" if net.trained else "pass")
    times = ", ".join(f"{side} {1e3 * took:.4g} ms" for side, took in sums.items())
    lines = [f"{what}: {times}.", "", f"| operation | of it | % | {' | '.join(net.sides)} |"]
    lines.append("|" + "---|" * (3 + len(net.sides)))
    for row in rows:
        name = f"{row.op} ({row.calls} times)" if row.calls > 1 else str(row.op)
        if row.at_batch != row.op.x[0]:
            name += f", measured at batch {row.at_batch}"
        measured = list(row.measured.values())
        cells = [name, percent(row.total("ours") / sums["ours"])]
        cells.append(share_cell([m["ours"] for m in measured]))
        cells += [rate_cell([m[side] for m in measured]) for side in net.sides]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rate_cell(measured: list[Measured]) -> str:
    return " / ".join(f"{m.rate:.3g}" for m in measured)


def share_cell(measured: list[Measured]) -> str:
    cells = [(f"{100 * m.share:.0f}", m.share < RATE) for m in measured]
    return " / ".join(f"**{text}**" if slow else text for text, slow in cells)


def grid_table(ops: list[Op], found: Found) -> list[str]:
    """In full those with a pass below RATE, and how many others there are."""
    slow, fast = [], Counter()
    total = Counter()
    for op in ops:
        ours, plain = ([found[Piece(op, s, p)] for p in op.passes] for s in ("ours", "lax"))
        total[group(op)] += 1
        if min(m.share for m in ours) >= RATE:
            fast[group(op)] += 1
            continue
        same = all(a == b for a, b in zip(ours, plain, strict=True))
        cells = (str(op), str(op.x[0]), share_cell(ours), rate_cell(ours))
        slow.append(f"| {' | '.join(cells)} | {'same' if same else rate_cell(plain)} |")
    lines = ["| group | at a quarter or more in every pass | below |", "|---|---|---|"]
    lines += [f"| {name} | {fast[name]} | {n - fast[name]} |" for name, n in total.items()]
    lines += ["", "| operation | batch | % | ours | lax |", "|" + "---|" * 5, *slow]
    return lines


def group(op: Op) -> str:
    if not op.kernel:
        return NAMES[op.kind]
    known = dict(op.options)
    h, w, channels, out = op.kernel
    return f"{h}×{w} {channels}→{out}, stride {known.get('stride', 1)}"


# --- the command line ----------------------------------------------------------------------------


def main() -> int:
    """Walk, write the table; 1 if a cliff has no recorded reason."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="of XLA (default: 1, as a worker's)")
    parser.add_argument("--nets-only", action="store_true", help="leave out the grid")
    parser.add_argument("--again", action="store_true", help="measure all anew")
    args = parser.parse_args()
    if os.environ.get(CHILD) != str(args.threads):
        restart("benchmarks.cliffs", CHILD, args.threads)
    compiling.tune_process()  # otherwise every call would wait for another thread
    every, ops = nets(), [] if args.nets_only else grid()
    pieces = [
        Piece(fitted(op, NET_GFLOP), side, which)
        for net in every
        for op in net.ops
        for which in passes_of(net, op)
        for side in net.sides
    ]
    pieces += [Piece(op, s, which) for op in ops for which in op.passes for s in ("ours", "lax")]
    found = walk(list(dict.fromkeys(pieces)), again=args.again)
    page, missing = table(every, ops, found)
    TABLE.write_text(page, encoding="utf-8")
    print(page.partition("## ")[2].partition("\n## ")[0])
    print(f"{TABLE.name} is written. {missing or 'None'} of the cliffs lack(s) a reason.")
    return int(missing > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on from here.")
