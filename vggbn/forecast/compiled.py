"""The training step compiled for many devices that are not there: what one holds, does and sends.

A process may pretend that a CPU is any number of devices, but only from its start: the work is done
in worker processes. It is lowered from shapes alone, so nothing of a net is ever allocated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vggbn.data.pixels.scale import LONGEST
from vggbn.errors import UserError
from vggbn.forecast.collectives import Collective, collectives
from vggbn.jobs import pool
from vggbn.machine import compiling, environment, mesh
from vggbn.models import build
from vggbn.training.batch import DeviceData
from vggbn.training.recipe import Recipe, Static
from vggbn.training.step import Hyper, TrainState, hyper_at, init_state, make_step

# Each all-reduce alone, as the partitioner made it, with the name of what is summed. And the
# barriers that keep a step with `remat` from holding what it computes again: a CPU erases them.
OPTIONS: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "cpu-all-reduce-combiner,cse_barrier_expander"
}


class Cost(NamedTuple):
    """Of one training step on one of its devices, as compiled for a CPU.

    forward_flops: of the forward pass of one image. arguments, temporaries: bytes that are held;
    the weights, momentum and images, and what comes and goes, gradients and activations among it.
    touched: bytes read and written. exchanged: what is sent to the other devices.
    """

    parameters: int
    forward_flops: float
    arguments: int
    temporaries: int
    flops: float
    touched: float
    exchanged: list[Collective]

    @property
    def memory(self) -> int:
        """Bytes that one device holds at most."""
        return self.arguments + self.temporaries

    def sent(self, kind: str = "all-reduce", purpose: str | None = None) -> int:
        """Bytes of the collectives of one kind, and of one purpose or all."""
        return sum(
            c.size for c in self.exchanged if c.kind == kind and purpose in (None, c.purpose)
        )


def costs_on(
    devices: int, wanted: dict[Hashable, tuple[str, Recipe, Static]]
) -> dict[Hashable, Cost]:
    """The cost of each {key: (name, recipe, static)} on so many devices, by worker processes.

    UserError: one cannot be compiled.
    """
    found: dict[Hashable, Cost] = {}
    began = time.perf_counter()

    def keep(job: pool.Job, cost: Cost) -> None:
        found[job.kind] = cost
        each = (time.perf_counter() - began) / len(found)
        left = f"{len(found)} of {len(wanted)}, {each * (len(wanted) - len(found)):.0f} s left"
        print(f"compiled for {devices} device(s): {left}", file=sys.stderr, flush=True)

    def refuse(job: pool.Job, text: str) -> None:
        reason = text.strip().splitlines()[-1]
        raise UserError(f"{job.name} cannot be compiled for {devices} devices ({reason}).")

    jobs = [pool.Job(name, key, rest) for key, (name, *rest) in wanted.items()]
    events = pool.Events(on_report=lambda job, report: None, on_result=keep, on_failure=refuse)
    forced = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    with environment.override(forced):
        pool.run_jobs(jobs, _cost, events, workers=pool.default_workers())
    return found


def _cost(payload, report) -> Cost:
    return cost_of(*payload)


def cost_of(recipe: Recipe, fixed: Static) -> Cost:
    """Counted and compiled for this process's devices, in the forms that accelerators get.

    XLA counts a loop over the parts of a batch once. So what a step computes, touches and sends is
    counted in that of a part; the update, which is small beside it, with every part.
    """
    variables = shapes(fixed)
    x_NHWC = jax.ShapeDtypeStruct((1, *fixed.net.image), jnp.float32)
    apply = build(fixed.net).apply
    with plain_forms():
        forward = jax.jit(lambda variables, x: apply(variables, x, train=False)[0])
        counted: Any = forward.lower(variables, x_NHWC).cost_analysis()
        step = lower_step(recipe, fixed).compile(OPTIONS)
        part = step if fixed.accumulate == 1 else lower_step(recipe, _part(fixed)).compile(OPTIONS)
    memory: Any = step.memory_analysis()
    part_counted: Any = part.cost_analysis()
    return Cost(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        forward_flops=float(counted["flops"]),
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        flops=fixed.accumulate * float(part_counted["flops"]),
        touched=fixed.accumulate * float(part_counted["bytes accessed"]),
        exchanged=fixed.accumulate * collectives(part.as_text() or ""),
    )


def _part(fixed: Static) -> Static:
    """What the step of a part alone is compiled for."""
    return fixed._replace(batch=fixed.batch // fixed.accumulate, accumulate=1)


def shapes(fixed: Static) -> Any:
    """The variables of the net, as shapes."""
    init = build(fixed.net).init
    return jax.eval_shape(lambda: init(jax.random.key(0), "he"))


def lower_step(recipe: Recipe, fixed: Static):
    """The training step on a batch that is cut over all devices, each of which has the weights.

    The images are the batch alone: of a training set that a step takes its batches from, nothing
    is known here.
    """
    state, key, hyper, batch = shapes_of_step(recipe, fixed)
    step = jax.jit(make_step(fixed), donate_argnums=0)  # not the cached one: the forms are plain
    return step.lower(state, key, batch, None, hyper)


def shapes_of_step(recipe: Recipe, fixed: Static) -> tuple[TrainState, Any, Hyper, DeviceData]:
    """A step's state, key, numbers and batch, as shapes with the devices that they lie on."""
    height, width, channels = fixed.net.image
    if fixed.window:
        height, width = recipe.source_side, round(LONGEST * recipe.source_side)
    data = DeviceData(
        images_NHWC=shared((fixed.batch, height, width, channels), jnp.uint8),
        labels_N=shared((fixed.batch,), jnp.int32),
        mean_C=everywhere((channels,), jnp.float32),
        std=everywhere((), jnp.float32),
        pca_CC=everywhere((channels, channels), jnp.float32),
        sizes_N2=shared((fixed.batch, 2), jnp.int32) if fixed.window else None,
    )
    state = jax.eval_shape(lambda: init_state(recipe, fixed, 0))
    key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    state, key, hyper = jax.tree.map(
        lambda leaf: everywhere(leaf.shape, leaf.dtype),
        (state, key, hyper_at(recipe, 0, [])),
    )
    return state, key, hyper, data


def shared(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    """An array of a batch's examples, cut over all devices."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=mesh.by_example(len(shape)))


def everywhere(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    """An array that lies on every device."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=mesh.everywhere())


@contextmanager
def plain_forms() -> Iterator[None]:
    """What accelerators compile: no form that only a CPU gets."""
    before, compiling.ENABLED = compiling.ENABLED, False
    try:
        yield
    finally:
        compiling.ENABLED = before
