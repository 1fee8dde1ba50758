"""--dry-run: what an experiment would train, counted and compiled without data or accelerator."""

from __future__ import annotations

import textwrap
from collections.abc import Hashable, Iterator
from functools import partial
from typing import NamedTuple

from vggbn.data import batch_indices
from vggbn.errors import UserError
from vggbn.experiment.plan import Plan
from vggbn.forecast.collectives import GRADIENTS, METRICS, OTHER, STATISTICS
from vggbn.forecast.compiled import Cost, costs_on, shapes
from vggbn.forecast.machines import GPUS, H100_NODE, MODEL, TPU_V5E, Machine, modelled
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe, Static, static


class Facts(NamedTuple):
    """Of a data set: images, classes, channels, whether mirroring keeps a label; the height and
    width that images are held at, where it was loaded into memory."""

    train: int
    validation: int
    classes: int
    channels: int
    flip: bool
    held: tuple[int, int] | None = None


# Sets that are too large to lie here when a run on them is planned.
KNOWN = {"imagenet2012": Facts(1_281_167, 50_000, 1000, 3, flip=True)}

INDENT = 23 * " "  # of a row that goes on

Arms = dict[str, tuple[Recipe, Static]]


def dry_run(plan: Plan, store: runs.Store, devices: int) -> str:
    """The whole plan as text. UserError: a batch that the devices cannot share evenly."""
    if devices < 1:
        raise UserError(f"--devices must be 1 or more, not {devices}.")
    facts = facts_of(plan.base, store)
    arms = arms_of(plan, facts, devices, "--devices")
    counts = {devices} if devices == 1 else {devices, GPUS}
    on = {count: _costs(arms, count) for count in counts}
    lines = headline(plan, facts, f"{devices} device(s)")
    for name, (recipe, fixed) in arms.items():
        key = program_of(recipe, fixed)
        costs = {count: found[key] for count, found in on.items() if key in found}
        lines += ["", *_describe(name, recipe, fixed, facts, costs[devices], devices)]
        if devices > 1:
            lines += _scaling(recipe, costs, devices)
    if devices > 1:
        lines += ["", MODEL, *_figures(TPU_V5E), *_figures(H100_NODE)]
    return "\n".join(lines)


def headline(plan: Plan, facts: Facts, where: str) -> list[str]:
    """What is planned, and on which data."""
    return [
        f"{plan.experiment.title}, --size {plan.size_name} on {plan.base.data}: "
        f"{len(plan.variants)} variants × {len(plan.seeds)} seeds, {where}",
        f"{facts.train:,} training and {facts.validation:,} validation images, {facts.classes} "
        "classes",
    ]


def arms_of(plan: Plan, facts: Facts, devices: int, flag: str) -> Arms:
    """Every arm, after the nets that it starts from. UserError: a batch that so many devices, as
    `flag` says, cannot share evenly."""
    return {
        arm: (each, _static(each, facts, devices, flag))
        for name, recipe in plan.variants.items()
        for arm, each in _with_parents(name, recipe, plan.variants)
    }


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
    held = None if found.streamed else found.train.image_shape[:2]
    return Facts(*sizes, len(found.classes), channels, found.flip, held)


def _static(recipe: Recipe, facts: Facts, devices: int, flag: str) -> Static:
    if recipe.part % devices:
        raise UserError(
            f"{_at_once(recipe)} cannot be shared evenly by {devices} devices: choose "
            f"{flag} that divide it, or --set batch=…"
        )
    batch_indices(0, 0, n=facts.train, batch=recipe.batch, shuffle=recipe.shuffle)
    image = (recipe.image_size, recipe.image_size, facts.channels)
    return static(recipe, image=image, classes=facts.classes, flip=facts.flip)


def _at_once(recipe: Recipe) -> str:
    """What the devices share, in words."""
    whole = recipe.accumulate == 1
    return f"a batch of {recipe.batch}" if whole else f"a part of {recipe.part} images"


def program_of(recipe: Recipe, fixed: Static) -> Hashable:
    """Equal for arms whose steps are one program."""
    return fixed, recipe.source_side


def _costs(arms: Arms, devices: int) -> dict[Hashable, Cost]:
    """Of the arms whose batch so many devices can share."""
    wanted = {
        program_of(recipe, fixed): (name, recipe, fixed)
        for name, (recipe, fixed) in arms.items()
        if recipe.part % devices == 0
    }
    return costs_on(devices, wanted)


def _describe(
    name: str, recipe: Recipe, fixed: Static, facts: Facts, cost: Cost, devices: int
) -> list[str]:
    images = recipe.steps * recipe.batch
    step = cost.flops * devices
    besides = (
        "one more batch" if recipe.loading == "stream" else "a training set that is held there"
    )
    return [
        f"{name}: {recipe.model}, {'×'.join(map(str, fixed.net.image))}, {_scales(recipe)}",
        *(f"  {row}" for row in _layers(fixed)),
        f"  parameters           {cost.parameters:,} ({size_text(4 * cost.parameters)} float32)",
        f"  forward pass         {cost.forward_flops / 2e9:.2f} G multiply-adds an image",
        f"  training step        {step / 1e12:.3g} TFLOP for a batch of {recipe.batch}, "
        f"{recipe.batch // devices} a device: "
        f"{step / (recipe.batch * cost.forward_flops):.2f} × the forward pass",
        f"  memory a device      {size_text(cost.memory)}, as compiled for a CPU: "
        f"{size_text(cost.arguments)} of weights, momentum and the batch's images,",
        f"{INDENT}{size_text(cost.temporaries)} of gradients and activations; {besides} comes on "
        "top",
        f"  steps                {recipe.steps:,} = {images / facts.train:.1f} epochs, "
        f"{images / 1e6:,.1f} million images, {step * recipe.steps / 1e18:,.2f} EFLOP",
        *_exchanged(cost, devices),
        f"  learning rate        {recipe.lr:g}, {recipe.schedule} ×{recipe.lr_factor:g}",
    ]


def _exchanged(cost: Cost, devices: int) -> list[str]:
    """What the devices send each other in a step; every all-reduce by what it is for."""
    if devices == 1:
        return ["  all-reduced a step   nothing on one device"]
    sums = [c for c in cost.exchanged if c.kind == "all-reduce"]
    parts = {purpose: cost.sent(purpose=purpose) for purpose in (GRADIENTS, STATISTICS, METRICS)}
    unknown = {
        f"{c.kind}, {c.purpose}": cost.sent(c.kind, c.purpose)
        for c in cost.exchanged
        if c.purpose == OTHER
    }
    text = ", ".join(f"{size_text(size)} of {what}" for what, size in parts.items())
    more = "; ".join(f"{size_text(size)} of {what}" for what, size in unknown.items())
    return [
        f"  all-reduced a step   {size_text(cost.sent())}: {text}; {len(sums)} arrays",
        f"  sent besides         {more or 'nothing'}",
    ]


def _scaling(recipe: Recipe, costs: dict[int, Cost], devices: int) -> list[str]:
    """The modelled efficiency of a slice of so many chips and of a node of GPUs."""
    rows = []
    for machine, chips in ((TPU_V5E, devices), (H100_NODE, GPUS)):
        if chips not in machine.links:
            lines = [f"comes with {', '.join(map(str, machine.links))} chips, not with {chips}"]
        elif chips not in costs:
            lines = [f"{_at_once(recipe)} cannot be shared evenly by {chips}"]
        else:
            lines = _modelled(machine, chips, recipe, costs[chips])
        rows += [f"  {machine.name:20s} {lines[0]}", *(INDENT + line for line in lines[1:])]
    return rows


def _modelled(machine: Machine, chips: int, recipe: Recipe, cost: Cost) -> list[str]:
    times = modelled(
        machine,
        chips,
        recipe.precision,
        flops=cost.flops,
        touched=cost.touched,
        reduced=cost.sent(),
    )
    low, high = (100 * share for share in times.efficiency)
    fits = "fits in" if cost.memory < machine.memory else "does NOT fit in"
    return [
        f"{chips} × {machine.chip}, {recipe.batch // chips} image(s) each: modelled efficiency "
        f"{low:.0f} % without overlap, {high:.0f} % with all of it",
        f"{recipe.precision} arithmetic {1e3 * times.compute:.3g} ms, memory "
        f"{1e3 * times.memory:.3g} ms, all-reduce {1e3 * times.all_reduce:.3g} ms",
        f"{size_text(cost.memory)} {fits} {size_text(machine.memory)}",
    ]


def _figures(machine: Machine) -> list[str]:
    """Where the machine's figures come from."""
    lay = partial(textwrap.fill, width=100, initial_indent="  ", subsequent_indent="    ")
    return [f"figures of {machine.chip}:", *map(lay, machine.sources)]


def size_text(count: float) -> str:
    """Bytes, to three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def _scales(recipe: Recipe) -> str:
    if recipe.fit != "whole":
        return f"images of {recipe.image_size}"
    low, high = recipe.scale_min, recipe.scale_max
    return f"S = {low}" if low == high else f"S in [{low}, {high}]"


def _layers(fixed: Static) -> list[str]:
    """Each layer's kernel, as shapes."""
    params = shapes(fixed)["params"]
    return [
        f"{name:20s} {'×'.join(map(str, layer['kernel'].shape))}"
        for name, layer in params.items()
        if "kernel" in layer
    ]
