"""--dry-run: what an experiment would train, counted and compiled without data or accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vggbn import fast, runs, train
from vggbn.data import batch_indices
from vggbn.data.scale import LONGEST
from vggbn.errors import UserError
from vggbn.experiment import Plan
from vggbn.models import MODELS
from vggbn.recipe import Recipe, Static, static


class Facts(NamedTuple):
    """Of a data set: images, classes, channels, whether mirroring keeps a label."""

    train: int
    validation: int
    classes: int
    channels: int
    flip: bool


# Sets that are too large to lie here when a run on them is planned.
KNOWN = {"imagenet2012": Facts(1_281_167, 50_000, 1000, 3, flip=True)}


class Cost(NamedTuple):
    """Of one recipe; memory is what one device holds at most, in bytes."""

    parameters: int
    forward_flops: float
    memory: int


def dry_run(plan: Plan, store: runs.Store, devices: int) -> str:
    """The whole plan as text. UserError: a batch that the devices cannot share evenly."""
    if devices < 1:
        raise UserError(f"--devices must be 1 or more, not {devices}.")
    facts = facts_of(plan.base, store)
    lines = [
        f"{plan.experiment.title}, --size {plan.size} on {plan.base.data}: "
        f"{len(plan.variants)} variants × {len(plan.seeds)} seeds, {devices} device(s)",
        f"{facts.train:,} training and {facts.validation:,} validation images, {facts.classes} "
        "classes",
    ]
    every = {
        arm: each
        for name, recipe in plan.variants.items()
        for arm, each in _with_parents(name, recipe, plan.variants)
    }
    for name, recipe in every.items():
        lines += ["", *_describe(name, recipe, facts, devices)]
    return "\n".join(lines)


def _with_parents(name: str, recipe: Recipe, variants) -> Iterator[tuple[str, Recipe]]:
    known = {r.id: n for n, r in variants.items()}
    for parent in reversed(recipe.ancestors):
        yield known.get(parent.id, f"parent {parent.id}"), parent
    yield name, recipe


def facts_of(recipe: Recipe, store: runs.Store) -> Facts:
    """Known, or counted in the data set itself."""
    if recipe.data in KNOWN:
        return KNOWN[recipe.data]
    found = runs.load_data(recipe, 0, store)
    channels = found.train.channels
    sizes = (len(found.train), len(found.validation))
    return Facts(*sizes, len(found.classes), channels, found.flip)


def _describe(name: str, recipe: Recipe, facts: Facts, devices: int) -> list[str]:
    if recipe.batch % devices:
        raise UserError(
            f"a batch of {recipe.batch} cannot be shared evenly by {devices} devices: choose "
            "--devices that divide it, or --set batch=…"
        )
    batch_indices(0, 0, n=facts.train, batch=recipe.batch, shuffle=recipe.shuffle)
    image = (recipe.image_size, recipe.image_size, facts.channels)
    fixed = static(recipe, image=image, classes=facts.classes, flip=facts.flip)
    cost = cost_of(recipe, fixed, recipe.batch // devices)
    images = recipe.steps * recipe.batch
    return [
        f"{name}: {recipe.model}, {'×'.join(map(str, image))}, {_scales(recipe)}",
        *(f"  {row}" for row in _layers(fixed)),
        f"  parameters           {cost.parameters:,} ({4 * cost.parameters / 1e6:,.0f} MB float32)",
        f"  forward pass         {cost.forward_flops / 2e9:.2f} G multiply-adds an image",
        f"  training step        {3 * cost.forward_flops * recipe.batch / 1e12:.1f} TFLOP for a "
        f"batch of {recipe.batch}, {recipe.batch // devices} a device",
        f"  memory a device      {cost.memory / 1e9:.2f} GB (weights, momentum, gradients, "
        "activations, images; as compiled for a CPU)",
        f"  steps                {recipe.steps:,} = {images / facts.train:.1f} epochs, "
        f"{images / 1e6:,.1f} million images, {3 * cost.forward_flops * images / 1e18:,.2f} EFLOP",
        f"  all-reduced a step   {4 * cost.parameters / 1e6:,.0f} MB of gradients"
        if devices > 1
        else "  all-reduced a step   nothing on one device",
        f"  learning rate        {recipe.lr:g}, {recipe.schedule} ×{recipe.lr_factor:g}",
    ]


def _scales(recipe: Recipe) -> str:
    if recipe.fit != "whole":
        return f"images of {recipe.image_size}"
    low, high = recipe.scale_min, recipe.scale_max
    return f"S = {low}" if low == high else f"S in [{low}, {high}]"


def _layers(fixed: Static) -> list[str]:
    """Each layer's kernel, as shapes."""
    params, _ = _shapes(fixed)
    return [
        f"{name:20s} {'×'.join(map(str, layer['kernel'].shape))}"
        for name, layer in params.items()
        if "kernel" in layer
    ]


def _shapes(fixed: Static) -> Any:
    init = MODELS[fixed.model](fixed.net).init
    return jax.eval_shape(lambda key: init(key, "he"), jax.random.key(0))


def cost_of(recipe: Recipe, fixed: Static, batch: int) -> Cost:
    """Counted and compiled in the plain forms, which accelerators get, for `batch` images."""
    params, stats = _shapes(fixed)
    x_NHWC = jax.ShapeDtypeStruct((1, *fixed.net.image), jnp.float32)
    apply = MODELS[fixed.model](fixed.net).apply
    with plain_forms():
        forward = jax.jit(lambda p, s, x: apply(p, s, x, train=False)[0])
        counted = forward.lower(params, stats, x_NHWC).cost_analysis()
        memory = _step(recipe, fixed, batch).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes  # type: ignore[union-attr]
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Cost(size, float(counted["flops"]), held)  # type: ignore[index]


def _step(recipe: Recipe, fixed: Static, batch: int):
    """The training step of `batch` images, lowered from shapes alone."""
    shape = jax.ShapeDtypeStruct
    height, width, channels = fixed.net.image
    if fixed.window:
        height, width = recipe.source_side, round(LONGEST * recipe.source_side)
    data = train.DeviceData(
        shape((batch, height, width, channels), jnp.uint8),
        shape((batch,), jnp.int32),
        shape((channels,), jnp.float32),
        shape((), jnp.float32),
        shape((channels, channels), jnp.float32),
        shape((batch, 2), jnp.int32) if fixed.window else None,
    )
    state = jax.eval_shape(lambda: train.init_state(recipe, fixed, 0))
    key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    hyper = train.hyper_at(recipe, 0, [])
    static_batch = fixed._replace(batch=batch)
    step = train.train_step.__wrapped__(static_batch)  # not the cached one: the forms are plain
    return step.lower(state, key, data, shape((batch,), jnp.int32), hyper)


@contextmanager
def plain_forms():
    """What accelerators compile: no form that only a CPU gets."""
    before, fast.ENABLED = fast.ENABLED, False
    try:
        yield
    finally:
        fast.ENABLED = before
