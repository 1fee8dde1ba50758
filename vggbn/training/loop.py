"""The training loop: steps, evaluations, the learning curve."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.lazy import centre_view
from vggbn.evaluate import Trained, evaluate
from vggbn.evaluate.landscape import Step
from vggbn.evaluate.watch import WATCHES
from vggbn.machine import mesh
from vggbn.machine.clock import Clock
from vggbn.nn import batch_norm
from vggbn.training import optim
from vggbn.training.feed import feed
from vggbn.training.recipe import Recipe, Static
from vggbn.training.step import (
    Hyper,
    TrainState,
    batch_moments,
    hyper_at,
    init_state,
    step_inputs,
    train_step,
    train_steps,
    validation_accuracies,
)
from vggbn.training.task import Task


class Fit(NamedTuple):
    """What `fit` returns: the state reached, the learning curve, and where the time went.

    seconds: compile (all of it, wherever it came up), data (waiting for it), python (preparing),
    step (starting steps and waiting for them), evaluation (with what is written of it), total.
    """

    state: TrainState
    history: list[dict]
    seconds: dict[str, float]


class Reached(NamedTuple):
    """Where a run stands; with this `fit` goes on as if it had never stopped.

    before: (step, loss_sum, correct) at the last evaluation, for the means of the next.
    """

    state: TrainState
    history: list[dict]
    before: tuple[int, float, int]


def fit(
    task: Task,
    *,
    state: TrainState | None = None,
    history: list[dict] | tuple = (),
    before: tuple[int, float, int] | None = None,
    stop: int | None = None,
    on_evaluation: Callable[[dict], None] = lambda record: None,
    on_step: Callable[[int, Reached], None] = lambda step, reached: None,
    workers: int = 0,
) -> Fit:
    """Train to step `stop` (default: recipe.steps), from where a `Reached` stood if it is given.

    Each record of the history has step, lr, train_loss, train_accuracy (means since the record
    before, or since `state` where `before` is not given), val_loss, val_accuracy, and what the
    recipe watches. on_step(steps done, where they led) is called after each program of steps. A
    loss that is not finite ends the run at the next evaluation; state.diverged_at tells the step. A
    given `state` is used up: the step donates its buffers. workers: processes that decode a
    streamed set (0: threads of this one). UserError: a batch, or a part of it where the recipe
    accumulates, that the devices cannot share out evenly.
    """
    recipe, program = task.recipe, task.program
    if recipe.accumulate > 1:
        mesh.refuse_uneven(recipe.part, "part")
    clock = Clock("python")
    most = 1 if task.dataset.streamed else TOGETHER.get(program.net.model, 1)
    advance = _advance(program, most)
    at = mesh.replicate(init_state(recipe, program, task.seed) if state is None else state)
    due, validation = set(evaluation_steps(recipe)), single_view(recipe, task.dataset.validation)
    history, before = list(history), before or _progress(at)
    ahead = range(int(at.step), recipe.steps if stop is None else stop)
    clock.to("data")
    with closing(feed(task, ahead, due=due, most=most, workers=workers)) as fed:
        for steps, batch, indices in fed:
            clock.to("python")
            hypers = [hyper_at(recipe, step, history) for step in steps]
            clock.to("step")
            at = advance(at, task.key, batch, indices, hypers)
            if steps[-1] + 1 in due:
                jax.block_until_ready(at)
                clock.to("evaluation")
                now = _progress(at)
                history.append(_record(task, at, validation, hypers[-1], before, now))
                before = now
                on_evaluation(history[-1])
                if at.diverged_at >= 0 or is_over(recipe, history):
                    break
            on_step(steps.stop, Reached(at, history, before))
            clock.to("data")
    clock.to("step")
    jax.block_until_ready(at)
    return Fit(at, history, clock.stop())


# Steps of one program: for nets of a few thousand products, where the program's loop costs nothing.
# On a CPU a convolution runs slower inside a loop than outside.
TOGETHER = {"mlp": 64}


def _advance(program: Static, most: int) -> Callable:
    """advance(state, key, data, indices, hypers) -> the state after a step for each of these."""
    if most == 1:
        step = train_step(program)

        def one(state, key, data, indices, hypers):
            rows_N = None if indices is None else mesh.share_out(indices[0])
            return step(state, key, data, rows_N, *hypers)

        return one
    steps = train_steps(program)

    def advance(state, key, data, indices, hypers):
        count, more = len(indices), most - len(indices)
        indices_TN = np.stack([*indices, *more * indices[-1:]])
        hyper_T = jax.tree.map(lambda *numbers: np.stack(numbers), *hypers, *more * hypers[-1:])
        return steps(state, key, data, mesh.share_out(indices_TN), hyper_T, np.int32(count))

    return advance


def single_view(recipe: Recipe, split: AnySplit) -> AnySplit:
    """What a net sees of a split when it is tested by one view of each image."""
    if recipe.fit != "whole":
        return split
    return centre_view(split, recipe.test_side, recipe.image_size)


def evaluation_steps(recipe: Recipe) -> list[int]:
    """About recipe.evaluations steps, evenly or log-spaced; the last step is one of them.

    Log-spaced ones start at step 10, or at 1 where something is watched: it changes at once. A
    plateau is judged by as many steps each time: there they are evenly spaced.
    """
    if recipe.spacing == "even" or recipe.schedule == "plateau":
        spaced = np.linspace(0, recipe.steps, recipe.evaluations + 1)[1:]
        return sorted({max(1, round(step)) for step in spaced})
    first = 10 if recipe.watch == "none" else 1
    spaced = np.geomspace(recipe.steps, min(first, recipe.steps), recipe.evaluations)
    return sorted({round(step) for step in spaced})


def is_over(recipe: Recipe, history: list[dict]) -> bool:
    """Whether the schedule ends the run before its last step."""
    return optim.is_over(recipe.schedule, validation_accuracies(history), every=recipe.lr_every)


def _progress(state):
    return int(state.step), float(state.loss_sum), int(state.correct)


def trained(task: Task, variables) -> Trained:
    """The task's net with these variables, for evaluation."""
    return Trained(task.program.net, variables, task.data.mean_C, task.data.std)


def _record(task: Task, state: TrainState, validation: AnySplit, hyper: Hyper, before, now) -> dict:
    """What one evaluation adds to the history."""
    steps, loss, correct = (b - a for a, b in zip(before, now, strict=True))
    net = trained(task, state.variables)
    scores = evaluate(net, validation)
    record = {
        "step": now[0],
        "lr": float(hyper.lr),
        "train_loss": loss / steps,
        "train_accuracy": correct / (steps * task.recipe.batch),
        "val_loss": scores["loss"],
        "val_accuracy": scores["accuracy"],
    }
    watch = WATCHES[task.recipe.watch]
    if watch is not None:
        record[task.recipe.watch] = watch(net, validation, partial(step_ahead, task, state))
    return record


def step_ahead(task: Task, state: TrainState) -> Step:
    """The step that training would take from `state`, which stays as it is."""
    step, program = int(state.step), task.program
    hyper = hyper_at(task.recipe, step, [])
    copy = jax.tree.map(jnp.copy, state)
    with closing(feed(task, range(step, step + 1))) as fed:
        ((_, data, rows),) = fed
    rows_N = None if rows is None else mesh.share_out(rows[0])
    x_NHWC, labels_N, key = step_inputs(program)(task.key, state.step, data, rows_N, hyper)
    after = train_step(program)(copy, task.key, data, rows_N, hyper)
    return Step(x_NHWC, labels_N, key, hyper.dropout, hyper.lr, after.params)


def population_stats(task: Task, state: TrainState):
    """Algorithm 2 over recipe.population_batches training batches that follow the last step's."""
    recipe = task.recipe
    moments, hyper = batch_moments(task.program), hyper_at(recipe, 0, [])
    steps = range(recipe.steps, recipe.steps + recipe.population_batches)

    def apply(params, stats, fed, *, train, decay):
        (step,), data, rows = fed
        rows_N = None if rows is None else rows[0]
        key = jax.random.fold_in(task.key, step)
        return None, moments(params, stats, key, data, rows_N, hyper)

    with closing(feed(task, steps, shuffle="fresh")) as fed:
        return batch_norm.population_stats(apply, state.params, state.batch_stats, fed)
