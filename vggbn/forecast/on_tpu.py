"""--dry-run --on tpu:v5e:2x2: whether an experiment's nets compile for TPU chips and fit there.

The compiler is libtpu's own, and no TPU is needed. It works in processes of its own, which have
their environment from their start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

from vggbn.data.pixels.scale import LONGEST
from vggbn.errors import UserError
from vggbn.experiment.plan import Plan
from vggbn.forecast import topology
from vggbn.forecast.dry_run import Facts, arms_of, facts_of, headline, program_of, size_text
from vggbn.forecast.tpu import Program, Steps, Wanted, compile_steps, smallest_batch
from vggbn.jobs import pool
from vggbn.machine import environment
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe, Static

# Beyond it memory need not grow in proportion: what is small enough lies on the processor itself.
MOST = 8


class Forecast(NamedTuple):
    """The plan as text, and whether all of it fits."""

    text: str
    fits: bool


def forecast(plan: Plan, store: runs.Store, on: str) -> Forecast:
    """What the compiler for TPUs says of every net of the plan.

    UserError: no such slice, no libtpu, a batch that the slice cannot share evenly, or a net that
    cannot be compiled.
    """
    slice_ = topology.parse(on)
    facts = facts_of(plan.base, store)
    there = describe(slice_)
    arms = arms_of(plan, facts, there.devices, "--on with a number of them")
    wanted: dict[Hashable, tuple[str, Wanted]] = {}
    for name, (recipe, fixed) in arms.items():
        each = Wanted(slice_, there.capacity, recipe, fixed, held(recipe, fixed, facts))
        wanted.setdefault(program_of(recipe, fixed), (name, each))
    found = compile_all(wanted)
    lines, refusals = headline(plan, facts, where(slice_, there)), []
    for name, (recipe, fixed) in arms.items():
        steps = found[program_of(recipe, fixed)]
        lines += ["", *_describe(name, recipe, fixed, steps, there)]
        refusals += _refusal(name, fixed, steps, slice_, there)
    verdict = refusals or [f"All of it fits on {slice_}."]
    return Forecast("\n".join([*lines, "", *verdict]), not refusals)


def held(recipe: Recipe, fixed: Static, facts: Facts) -> tuple[int, int, int] | None:
    """(images, height, width) of the training set that lies on every device; None: it is streamed.

    Of a set that is not here the frames are taken to be as wide as they may be.
    """
    if recipe.loading == "stream":
        return None
    side = recipe.source_side
    unknown = (side, round(LONGEST * side)) if fixed.window else fixed.net.image[:2]
    return facts.train, *(facts.held or unknown)


def where(slice_: topology.Topology, there: topology.Slice) -> str:
    """The slice in words."""
    each = there.devices // slice_.chips
    cores = f" of {each} cores each" if each > 1 else ""
    return f"on {slice_}: {slice_.chips} chip(s){cores}"


def describe(slice_: topology.Topology) -> topology.Slice:
    """`topology.describe` in a process of its own."""
    found = []
    events = pool.Events(
        on_report=lambda job, report: None,
        on_result=lambda job, there: found.append(there),
        on_failure=partial(_fail, slice_),
    )
    with environment.override(topology.settings()):
        pool.run_jobs([pool.Job("the description", 0, slice_)], _asked, events, workers=1)
    return found[0]


def compile_all(wanted: dict[Hashable, tuple[str, Wanted]]) -> dict[Hashable, Steps]:
    """The steps of every {key: (name, what is wanted)}, by worker processes that say what they do.

    UserError: one cannot be compiled.
    """
    found: dict[Hashable, Steps] = {}

    def keep(job: pool.Job, steps: Steps) -> None:
        found[job.kind] = steps
        print(f"{len(found)} of {len(wanted)} compiled", file=sys.stderr, flush=True)

    def tell(job: pool.Job, text: str) -> None:
        print(f"{job.name}: {text}", file=sys.stderr, flush=True)

    if wanted:
        slice_ = next(iter(wanted.values()))[1].on
        events = pool.Events(tell, keep, partial(_fail, slice_))
        jobs = [pool.Job(name, key, each) for key, (name, each) in wanted.items()]
        with environment.override(topology.settings()):
            pool.run_jobs(jobs, _compiled, events, workers=pool.default_workers())
    return found


def _asked(slice_: topology.Topology, report: Callable) -> topology.Slice:
    return topology.describe(slice_)


def _compiled(wanted: Wanted, report: Callable) -> Steps:
    return compile_steps(wanted, report)


def _fail(slice_: topology.Topology, job: pool.Job, text: str) -> None:
    reason = text.strip().splitlines()[-1]
    raise UserError(f"{job.name} cannot be compiled for {slice_} ({reason}).")


def _describe(
    name: str, recipe: Recipe, fixed: Static, steps: Steps, there: topology.Slice
) -> list[str]:
    share = f"{fixed.batch // there.devices} a device"
    rows = [
        f"{name}: {recipe.model}, {'×'.join(map(str, fixed.net.image))}, {recipe.precision}",
        f"  a device has         {size_text(there.capacity)} for a program and its data",
        f"  training step        batch of {fixed.batch}, {share}: {_needs(steps.training)}",
    ]
    if steps.evaluation:
        rows += [
            *_room(fixed, steps.training, there),
            f"  evaluation           beside what training holds: {_needs(steps.evaluation)}",
            *_exchanged(fixed, steps.training, there),
        ]
    return rows


def _needs(program: Program) -> str:
    verdict = "fits" if program.fits else "does NOT fit"
    return f"{size_text(program.size)}, {verdict} (compiled in {program.seconds:.0f} s)"


def _room(fixed: Static, training: Program, there: topology.Slice) -> list[str]:
    """How far the batch could grow at least: in proportion, though a part is the weights'."""
    unit = smallest_batch(fixed, there.devices)
    times = min(there.capacity / training.size, MOST)
    largest = int(fixed.batch * times) // unit * unit
    if largest <= fixed.batch:
        return []
    return [
        f"  room                 for a batch of {largest:,} at least, in proportion; not compiled"
    ]


def _exchanged(fixed: Static, training: Program, there: topology.Slice) -> list[str]:
    if there.devices == 1:
        return ["  all-reduced a step   nothing on one device"]
    sizes: dict[str, list[int]] = {}
    for each in training.exchanged:
        sizes.setdefault(each.kind, []).append(each.size)
    summed = sizes.pop("all-reduce", [])
    parts = f", those of its {fixed.accumulate} parts counted once" if fixed.accumulate > 1 else ""
    others = "; ".join(f"{size_text(sum(each))} of {kind}" for kind, each in sizes.items())
    return [
        f"  all-reduced a step   {size_text(sum(summed))} in {len(summed)} exchange(s){parts}",
        f"  sent besides         {others or 'nothing'}",
    ]


def _refusal(
    name: str, fixed: Static, steps: Steps, slice_: topology.Topology, there: topology.Slice
) -> list[str]:
    """What does not fit, as one sentence; none where all does."""
    has = f"a device of {slice_} has {size_text(there.capacity)}"
    if steps.bounds:
        most, next_ = steps.bounds
        hint = "no batch does; another --on or --set remat=true may help"
        if most:
            hint = f"the largest that does is {most}, and {next_} does not"
        return [
            f"{name}: a batch of {fixed.batch} does NOT fit, for its training step needs "
            f"{size_text(steps.training.size)} and {has}; {hint}."
        ]
    assert steps.evaluation is not None, "it is compiled where the training step fits"
    if not steps.evaluation.fits:
        return [
            f"{name}: its evaluation does NOT fit beside what training holds, for it needs "
            f"{size_text(steps.evaluation.size)} and {has}; another --on may help."
        ]
    return []
