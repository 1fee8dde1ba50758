"""A net's training and evaluation steps, compiled by the compiler for TPUs for chips that are not
here: whether they fit with all else that lies there meanwhile, and what the chips exchange.

One process does it for one topology, started with `topology.settings()`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vggbn.evaluate import single
from vggbn.forecast import fit, topology
from vggbn.forecast.collectives import Collective, collectives
from vggbn.forecast.compiled import everywhere, plain_forms, shapes_of_step, shared
from vggbn.machine import mesh
from vggbn.training.batch import DeviceData
from vggbn.training.recipe import Recipe, Static
from vggbn.training.step import make_step

Report = Callable[[str], None]


class Program(NamedTuple):
    """A compiled program on one device. size: bytes of it and of all that lies there with it;
    exchanged: nothing is known of a program that does not fit."""

    size: int
    fits: bool
    seconds: float
    exchanged: list[Collective]


class Steps(NamedTuple):
    """Of one net: both programs, and where the first does not fit, what batches do and do not."""

    training: Program
    evaluation: Program | None
    bounds: fit.Bounds | None


class Wanted(NamedTuple):
    """A net on a slice. held: (images, height, width) of the training set that lies on every
    device, None of one that is streamed."""

    on: topology.Topology
    capacity: int
    recipe: Recipe
    fixed: Static
    held: tuple[int, int, int] | None


def compile_steps(wanted: Wanted, report: Report) -> Steps:
    """Both programs of a net; report(what is done, and what was found) with each compilation.

    UserError: libtpu knows no such topology.
    """
    with plain_forms(), mesh.absent(topology.devices(wanted.on)):
        training = _training(wanted, wanted.fixed.batch, report)
        if training.fits:
            return Steps(training, _evaluation(wanted, report), None)
        unit = smallest_batch(wanted.fixed, mesh.devices())

        def need(units: int) -> fit.Need:
            program = _training(wanted, units * unit, report)
            return fit.Need(program.size, program.fits)

        units = wanted.fixed.batch // unit
        found = fit.largest(need, units, training.size, wanted.capacity)
        return Steps(training, None, fit.Bounds(found.fits * unit, found.fails * unit))


def smallest_batch(fixed: Static, devices: int) -> int:
    """Of whose multiples each part can be cut into groups and shared out evenly."""
    return fixed.accumulate * math.lcm(devices, fixed.net.bn_groups)


def _training(wanted: Wanted, batch: int, report: Report) -> Program:
    fixed = wanted.fixed._replace(batch=batch)
    return _compiled(lower_training(wanted, fixed), f"training step, batch {batch}", report)


def _evaluation(wanted: Wanted, report: Report) -> Program:
    name = f"evaluation of {single.batch_size()} images"
    return _compiled(lower_evaluation(wanted), name, report)


def lower_training(wanted: Wanted, fixed: Static):
    """The training step beside what it does not use: of a streamed set, the next batch."""
    state, key, hyper, batch = shapes_of_step(wanted.recipe, fixed)
    data, rows_N, ahead = batch, None, batch
    if wanted.held:
        data, rows_N, ahead = _held(wanted.held, batch), shared((fixed.batch,), jnp.int32), None
    step = make_step(fixed)
    beside = lambda state, key, data, rows_N, hyper, ahead: step(state, key, data, rows_N, hyper)  # noqa: E731
    program = jax.jit(beside, donate_argnums=0, keep_unused=True)
    return program.lower(state, key, data, rows_N, hyper, ahead)


def lower_evaluation(wanted: Wanted):
    """The evaluation of a batch beside what training holds."""
    fixed = wanted.fixed
    state, _, _, batch = shapes_of_step(wanted.recipe, fixed)
    holds = _held(wanted.held, batch) if wanted.held else (batch, batch)
    n, sums = single.batch_size(), single.make_sums(fixed.net)
    images_NHWC = shared((n, *fixed.net.image), jnp.uint8)
    labels_N, mask_N = shared((n,), jnp.int32), shared((n,), jnp.bool_)
    beside = lambda state, holds, *batch: sums(state.variables, *batch)  # noqa: E731
    program = jax.jit(beside, keep_unused=True)
    return program.lower(state, holds, images_NHWC, labels_N, mask_N, batch.mean_C, batch.std)


def _held(held: tuple[int, int, int], batch: DeviceData) -> DeviceData:
    """A whole training set on every device, of which `batch` is a batch."""
    n, height, width = held
    channels = batch.images_NHWC.shape[-1]
    return batch._replace(
        images_NHWC=everywhere((n, height, width, channels), jnp.uint8),
        labels_N=everywhere((n,), jnp.int32),
        sizes_N2=None if batch.sizes_N2 is None else everywhere((n, 2), jnp.int32),
    )


def _compiled(lowered: Any, name: str, report: Report) -> Program:
    report(f"compiling its {name}")
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = topology.too_much(str(error))
        if refusal is None:
            raise
        program = Program(refusal[0], False, time.perf_counter() - began, [])
    else:
        seconds = time.perf_counter() - began
        program = Program(_size(compiled), True, seconds, collectives(compiled.as_text()))
    verdict = "fits" if program.fits else "does NOT fit"
    report(f"{name}: {program.size / 1e9:.3g} GB, {verdict}; {program.seconds:.0f} s")
    return program


def _size(compiled: Any) -> int:
    """Bytes on one device: of the program, of what it is given and gives, of what it needs."""
    memory = compiled.memory_analysis()
    return (
        memory.generated_code_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
