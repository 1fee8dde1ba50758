"""Do the nets compile for TPUs, and do the chips exchange what the documentation says?

    python -m benchmarks.tpu_check [--small]     # make tpu-check: libtpu (EXTRAS=tpu), but no TPU

The training and evaluation steps of every net at 32 pixels on four chips, and of D at 224 on one
and on 256, in bfloat16 with Batch Normalization, by the compiler for TPUs. Both must fit, and the
bytes all-reduced in training must be those of a closed form (docs/performance.md). D at 224 alone
compiles for minutes; --small: two small nets, a minute or two on two cores.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vggbn.errors import Parser, exit_with
from vggbn.forecast.compiled import shapes
from vggbn.forecast.dry_run import size_text
from vggbn.forecast.on_tpu import compile_all, describe
from vggbn.forecast.topology import Topology, parse
from vggbn.forecast.tpu import Steps, Wanted
from vggbn.models import MODELS
from vggbn.training.recipe import Recipe, Static, static

BASE = Recipe(norm="batch", norm_fc=True, precision="bfloat16", crop_pad=4, flip=True)
FOUR, ONE, MANY = "tpu:v5e:2x2", "tpu:v5e:1x1", "tpu:v5e:16x16"
CIFAR, IMAGENET = 50_000, 1_281_167  # training images; the first lie on each chip


class Case(NamedTuple):
    """A net on a slice, and the training images that lie on each chip, 0 if they are streamed."""

    on: str
    recipe: Recipe
    held: int
    classes: int


def cases(small: bool) -> dict[str, Case]:
    """What is compiled, by name."""
    if small:
        nets = {"vgg_a": {"width": 1 / 8, "fc": 64}, "mlp": {"fc": 128}}
        return {
            f"{model}, narrow": Case(FOUR, _small(model, batch=256, **edits), CIFAR, 10)
            for model, edits in nets.items()
        }
    at_32 = {model: Case(FOUR, _small(model, batch=1024, fc=512), CIFAR, 10) for model in MODELS}
    d = BASE.but(model="vgg_d", image_size=224, batch=256, loading="stream", crop_pad=0)
    at_224 = {f"vgg_d at 224 on {on}": Case(on, d, 0, 1000) for on in (ONE, MANY)}
    return at_32 | at_224


def _small(model: str, **edits) -> Recipe:
    names = {"model": model, "image_size": 32} | edits
    return BASE.but(**{name: v for name, v in names.items() if getattr(BASE, name) != v})


def check(found: Steps, fixed: Static, devices: int) -> list[str]:
    """What is wrong with a net's programs on so many devices."""
    wrong = []
    if not found.training.fits:
        return ["its training step does not fit"]
    if found.evaluation is None or not found.evaluation.fits:
        wrong.append("its evaluation does not fit")
    wanted = closed_form(fixed) if devices > 1 else 0
    if all_reduced(found) != wanted:
        wrong.append(f"{all_reduced(found):,} bytes are all-reduced, not {wanted:,}")
    others = {c.kind for c in found.training.exchanged} - {"all-reduce"}
    if others:
        wrong.append(f"there is {', '.join(sorted(others))} besides")
    return wrong


def sizes(found: Steps) -> str:
    """What a net's programs need and send, in words; of one that fits."""
    assert found.evaluation is not None, "it is compiled where the training step fits"
    training = (
        f"{size_text(found.training.size)} to train, {size_text(found.evaluation.size)} to test"
    )
    return f"{training}, {all_reduced(found):,} bytes all-reduced a step"


def all_reduced(found: Steps) -> int:
    """Bytes, in a step of training."""
    return sum(c.size for c in found.training.exchanged if c.kind == "all-reduce")


def closed_form(fixed: Static) -> int:
    """Bytes all-reduced in a step: gradients; sum, its correction and squares of each BN channel;
    loss and accuracy.

    The gradients of a layer are summed in what it computes in: the kernels of hidden layers in the
    net's precision, all else (gamma, beta, the last layer) in float32.
    """
    variables = shapes(fixed)
    channels = sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"])) // 2
    gradients = 0
    for name, layer in variables["params"].items():
        in_float32 = name.startswith("norm_") or layer["kernel"].shape[-1] == fixed.net.classes
        width = 4 if in_float32 else jnp.dtype(fixed.net.precision).itemsize
        gradients += width * sum(leaf.size for leaf in jax.tree.leaves(layer))
    return gradients + 3 * 4 * channels + 4 + 4


def run(small: bool) -> int:
    """Compile every case and print what was found; 1 if anything is wrong."""
    asked, failed, began = cases(small), 0, time.perf_counter()
    for on in dict.fromkeys(case.on for case in asked.values()):
        slice_ = parse(on)
        there = describe(slice_)
        here = {name: case for name, case in asked.items() if case.on == on}
        fixed = {name: _static(case) for name, case in here.items()}
        found = compile_all(
            {name: (name, _wanted(slice_, there.capacity, case)) for name, case in here.items()}
        )
        for name in here:
            wrong = check(found[name], fixed[name], there.devices)
            failed += bool(wrong)
            print(
                f"{'WRONG' if wrong else 'right'}  {name}: {'; '.join(wrong) or sizes(found[name])}"
            )
    print(
        f"{len(asked) - failed} of {len(asked)} nets are right, {time.perf_counter() - began:.0f} s"
    )
    return int(failed > 0)


def _static(case: Case) -> Static:
    side = case.recipe.image_size
    return static(case.recipe, image=(side, side, 3), classes=case.classes, flip=True)


def _wanted(slice_: Topology, capacity: int, case: Case) -> Wanted:
    side = case.recipe.image_size
    held = (case.held, side, side) if case.held else None
    return Wanted(slice_, capacity, case.recipe, _static(case), held)


def main() -> None:
    """The command line."""
    parser = Parser(prog="python -m benchmarks.tpu_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="two small nets")
    exit_with(lambda: run(parser.parse_args(sys.argv[1:]).small))


if __name__ == "__main__":
    main()
