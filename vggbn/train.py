"""TrainState, one jitted step, one loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vggbn import fast, mesh, norm, optim
from vggbn.clock import Clock
from vggbn.data import Dataset, Split, batch_indices, colour_pca, input_moments
from vggbn.data.augment import augment
from vggbn.data.jitter import random_scale_crop
from vggbn.data.scale import centre_view
from vggbn.evaluate import evaluate
from vggbn.evaluate.watch import WATCHES
from vggbn.layers import cross_entropy
from vggbn.models import MODELS
from vggbn.norm import warm_decay
from vggbn.recipe import Recipe, Static, static

TRACES: Counter[Static] = Counter()  # how often the train step of a static recipe was traced


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that changes from step to step; the step index is the only clock (D4)."""

    step: Any  # int32
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_sum: Any  # float32, over all steps so far: the log takes differences
    correct: Any  # int32, training examples classified right so far
    diverged_at: Any  # int32: the first step whose loss was not finite, or -1

    def replace(self, **fields: Any) -> TrainState:
        """The state with these fields changed."""
        return replace(self, **fields)


class Hyper(NamedTuple):
    """The numbers of a step, float32 scalars: arguments, so that variants share a compilation."""

    lr: Any
    l2: Any
    momentum: Any
    dropout: Any
    decay: Any
    distortion: Any
    scale_min: Any  # int32
    scale_max: Any


class DeviceData(NamedTuple):
    """A training set on the device: uint8 images [N, H, W, C], labels [N], and its statistics.

    sizes_N2: the (height, width) of images of many scales in their frames, else None.
    """

    images_NHWC: Any
    labels_N: Any
    mean_C: Any
    std: Any
    pca_CC: Any
    sizes_N2: Any = None


@lru_cache(maxsize=1)
def on_device(dataset: Dataset) -> DeviceData:
    """The training split on every device; the last data set stays there for the next run."""
    split = dataset.train
    fields = (split.images_NHWC, split.labels_N, *input_moments(dataset), colour_pca(split))
    return DeviceData(*jax.device_put(mesh.replicate((*fields, split.sizes_N2))))


def _keys(seed: int):
    """(key of the initial weights, key of everything that is drawn at a step).

    XLA's own generator: threefry takes 2 s to compile for every shape drawn on a CPU, this 0.1 s.
    """
    return jax.random.split(jax.random.key(seed, impl="rbg"))


def static_of(recipe: Recipe, dataset: Dataset) -> Static:
    """What the recipe's step is compiled for on this data set."""
    image = dataset.train.images_NHWC.shape[1:]
    if recipe.fit == "whole":
        image = (recipe.image_size, recipe.image_size, image[2])
    return static(recipe, image=image, classes=len(dataset.classes), flip=dataset.flip)


def init_state(recipe: Recipe, fixed: Static, seed: int) -> TrainState:
    """Step 0. Runs with one seed and one architecture start from the same weights."""
    init_key, _ = _keys(recipe.stream(seed))
    params, stats = _initialise(fixed.model, fixed.net, recipe.init)(init_key, recipe.init_scale)
    opt_state = optim.sgd(recipe.lr, recipe.l2, recipe.momentum, l2_on=recipe.l2_on).init(params)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=stats,
        opt_state=opt_state,
        loss_sum=jnp.float32(0),
        correct=jnp.int32(0),
        diverged_at=jnp.int32(-1),
    )


@lru_cache
def _initialise(model: str, net, initialiser: str) -> Callable:
    init = MODELS[model](net).init
    return jax.jit(lambda key, scale: init(key, initialiser, scale))


@lru_cache
def train_step(fixed: Static) -> Callable:
    """step(state, key, data, indices_N, hyper) -> state, jitted, the old state donated."""
    return fast.jit(_step(fixed), donate_argnums=0)


@lru_cache
def train_steps(fixed: Static) -> Callable:
    """steps(state, key, data, indices_TN, hyper_T, count) -> the state after count of T steps.

    One program for all of them: to call it costs more than a step of a small net.
    """
    step = _step(fixed)

    def steps(state, key, data, indices_TN, hyper_T, count):
        def body(t, state):
            hyper = jax.tree.map(lambda number_T: number_T[t], hyper_T)
            return step(state, key, data, indices_TN[t], hyper)

        return jax.lax.fori_loop(0, count, body, state)

    return fast.jit(steps, donate_argnums=0)


def _step(fixed: Static) -> Callable:
    """One step of SGD, to be jitted."""
    model = MODELS[fixed.model](fixed.net)

    def loss_and_more(params, stats, x_NHWC, labels_N, key, hyper, decay):
        logits, stats = model.apply(
            params, stats, x_NHWC, train=True, key=key, dropout=hyper.dropout, decay=decay
        )
        return cross_entropy(logits, labels_N).mean(), (logits, stats)

    def step(state, key, data, indices_N, hyper):
        TRACES[fixed] += 1
        crop_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        labels_N = data.labels_N[indices_N]
        x_NHWC = augmented(fixed, data, indices_N, crop_key, hyper)
        (loss, (logits, stats)), grads = jax.value_and_grad(loss_and_more, has_aux=True)(
            state.params,
            state.batch_stats,
            x_NHWC,
            labels_N,
            dropout_key,
            hyper,
            warm_decay(hyper.decay, state.step),
        )
        tx = optim.sgd(hyper.lr, hyper.l2, hyper.momentum, l2_on=fixed.l2_on)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        first_bad = ~jnp.isfinite(loss) & (state.diverged_at < 0)
        after = TrainState(
            step=state.step + 1,
            params=jax.tree.map(jnp.add, state.params, updates),
            batch_stats=stats,
            opt_state=opt_state,
            loss_sum=state.loss_sum + loss,
            correct=state.correct + (logits.argmax(-1) == labels_N).sum(),
            diverged_at=jnp.where(first_bad, state.step, state.diverged_at),
        )
        return mesh.keep_replicated(after)

    return step


def augmented(fixed: Static, data: DeviceData, indices_N, key, hyper: Hyper):
    """The training images at `indices_N`: rescaled, cropped, mirrored, coloured, standardised."""
    x_NHWC = data.images_NHWC[indices_N]
    if fixed.window:
        scale_key, key = jax.random.split(key)
        sizes_N2 = None if data.sizes_N2 is None else data.sizes_N2[indices_N]
        scales = (hyper.scale_min, hyper.scale_max)
        crop = fixed.net.image[0]
        x_NHWC = random_scale_crop(
            scale_key, x_NHWC, sizes_N2, *scales, crop=crop, window=fixed.window
        )
    x_NHWC = augment(
        key,
        x_NHWC,
        pad=fixed.crop_pad,
        flip=fixed.flip,
        amount=hyper.distortion,
        mean_C=data.mean_C,
        std=data.std,
        pca_CC=data.pca_CC,
    )
    return fast.settled(x_NHWC)


# --- the loop ------------------------------------------------------------------------------------


class Fit(NamedTuple):
    """What `fit` returns: the state reached, the learning curve, and where the time went.

    seconds: compile (all of it, wherever it came up), data (waiting for it), python (preparing),
    step (starting steps and waiting for them), evaluation (with what is written of it), total.
    """

    state: TrainState
    history: list[dict]
    seconds: dict[str, float]


def fit(
    recipe: Recipe,
    seed: int,
    dataset: Dataset,
    *,
    state: TrainState | None = None,
    history: list[dict] | tuple = (),
    stop: int | None = None,
    on_evaluation: Callable[[dict], None] = lambda record: None,
) -> Fit:
    """Train to step `stop` (default: recipe.steps), from `state` and `history` if they are given.

    Each record of the history has step, lr, train_loss, train_accuracy (means since the record
    before, or since the restart), val_loss, val_accuracy, and what the recipe watches. A loss that
    is not finite ends the run at the next evaluation; state.diverged_at tells the step. A given
    `state` is used up: the step donates its buffers.
    """
    clock = Clock("data")
    fixed = static_of(recipe, dataset)
    advance = _advance(fixed)  # before jax computes anything: see fast.run_inline
    data = on_device(dataset)
    clock.to("python")
    state = mesh.replicate(init_state(recipe, fixed, seed) if state is None else state)
    due, n = set(evaluation_steps(recipe)), len(dataset.train)
    validation = single_view(recipe, dataset.validation)
    history, before = list(history), _progress(state)
    _, key = _keys(recipe.stream(seed))
    for steps in _spans(int(state.step), recipe.steps if stop is None else stop, due, fixed):
        clock.to("data")
        rows = {"n": n, "batch": recipe.batch, "shuffle": recipe.shuffle}
        indices = [batch_indices(recipe.stream(seed), step, **rows) for step in steps]
        clock.to("python")
        hypers = [hyper_at(recipe, step, history) for step in steps]
        clock.to("step")
        state = advance(state, key, data, indices, hypers)
        if steps[-1] + 1 not in due:
            continue
        jax.block_until_ready(state)
        clock.to("evaluation")
        now = _progress(state)
        history.append(_record(recipe, fixed, state, validation, data, hypers[-1], before, now))
        before = now
        on_evaluation(history[-1])
        if state.diverged_at >= 0 or is_over(recipe, history):  # pyright: ignore
            break
    clock.to("step")
    jax.block_until_ready(state)
    return Fit(state, history, clock.stop())  # pyright: ignore


# Steps of one program: for nets of a few thousand products, where the program's loop costs nothing.
# On a CPU a convolution runs slower inside a loop than outside.
TOGETHER = {"mlp": 64}


def _spans(first: int, end: int, due: set[int], fixed: Static) -> Iterator[range]:
    """The steps from first to end, cut where an evaluation is due and where a program ends."""
    most = TOGETHER.get(fixed.model, 1)
    while first < end:
        last = next((s for s in range(first + 1, first + most) if s in due or s == end), None)
        span = range(first, last or first + most)
        yield span
        first = span.stop


def _advance(fixed: Static) -> Callable:
    """advance(state, key, data, indices, hypers) -> the state after a step for each of these."""
    most = TOGETHER.get(fixed.model)
    if most is None:
        step = train_step(fixed)
        return lambda state, key, data, indices, hypers: step(
            state, key, data, mesh.share_out(indices[0]), *hypers
        )
    steps = train_steps(fixed)

    def advance(state, key, data, indices, hypers):
        count, more = len(indices), most - len(indices)
        indices_TN = np.stack([*indices, *more * indices[-1:]])
        hyper_T = Hyper(*map(np.stack, zip(*hypers, *more * hypers[-1:], strict=True)))
        return steps(state, key, data, mesh.share_out(indices_TN), hyper_T, np.int32(count))

    return advance


def single_view(recipe: Recipe, split: Split) -> Split:
    """What a net sees of a split when it is tested by one view of each image."""
    if recipe.fit != "whole":
        return split
    return centre_view(split, recipe.test_side, recipe.image_size)


def evaluation_steps(recipe: Recipe) -> list[int]:
    """About recipe.evaluations log-spaced steps from 10 on; the last step is one of them.

    From 1 on where something is watched: it changes at once. A plateau is judged by as many steps
    each time: there they are evenly spaced.
    """
    if recipe.schedule == "plateau":
        spaced = np.linspace(0, recipe.steps, recipe.evaluations + 1)[1:]
        return sorted({max(1, round(step)) for step in spaced})
    first = 10 if recipe.watch == "none" else 1
    spaced = np.geomspace(recipe.steps, min(first, recipe.steps), recipe.evaluations)
    return sorted({round(step) for step in spaced})


def hyper_at(recipe: Recipe, step: int, history: list[dict]) -> Hyper:
    """The numbers of one step, float32; the scales are int32."""
    lr = optim.learning_rate(
        recipe.schedule,
        step,
        lr=recipe.lr,
        factor=recipe.lr_factor,
        every=recipe.lr_every,
        validation=_validation(history),
    )
    numbers = (lr, recipe.l2, recipe.momentum, recipe.dropout, recipe.bn_decay, recipe.distortion)
    scales = (recipe.scale_min, recipe.scale_max)
    return Hyper(*map(np.float32, numbers), *map(np.int32, scales))


def is_over(recipe: Recipe, history: list[dict]) -> bool:
    """Whether the schedule ends the run before its last step."""
    return optim.is_over(recipe.schedule, _validation(history), every=recipe.lr_every)


def _validation(history: list[dict]) -> tuple[float, ...]:
    return tuple(record["val_accuracy"] for record in history)


def _progress(state):
    return int(state.step), float(state.loss_sum), int(state.correct)


def _record(recipe, fixed, state, validation, data, hyper, before, now):
    steps, loss, correct = (b - a for a, b in zip(before, now, strict=True))
    net, pixels = (state.params, state.batch_stats), (data.mean_C, data.std)
    scores = evaluate(fixed, *net, validation, *pixels)
    record = {
        "step": now[0],
        "lr": float(hyper.lr),
        "train_loss": loss / steps,
        "train_accuracy": correct / (steps * recipe.batch),
        "val_loss": scores["loss"],
        "val_accuracy": scores["accuracy"],
    }
    if recipe.watch != "none":
        record[recipe.watch] = WATCHES[recipe.watch](fixed, *net, validation, *pixels)
    return record


def population_stats(recipe: Recipe, seed: int, dataset: Dataset, state: TrainState):
    """Algorithm 2 over recipe.population_batches training batches that follow the last step's."""
    fixed, data = static_of(recipe, dataset), on_device(dataset)
    _, key = _keys(recipe.stream(seed))

    def apply(params, stats, step, *, train, decay):
        rows = {"n": len(dataset.train), "batch": recipe.batch, "shuffle": "fresh"}
        indices_N = batch_indices(recipe.stream(seed), step, **rows)
        moments = batch_moments(fixed)
        hyper = hyper_at(recipe, 0, [])
        return None, moments(params, stats, jax.random.fold_in(key, step), data, indices_N, hyper)

    steps = range(recipe.steps, recipe.steps + recipe.population_batches)
    return norm.population_stats(apply, state.params, state.batch_stats, steps)


@lru_cache
def batch_moments(fixed: Static) -> Callable:
    """moments(params, stats, key, data, indices, hyper) -> the batch's own statistics."""
    model = MODELS[fixed.model](fixed.net)

    @fast.jit
    def moments(params, stats, key, data, indices_N, hyper):
        x_NHWC = augmented(fixed, data, indices_N, key, hyper)
        return model.apply(params, stats, x_NHWC, train=True, decay=0.0)[1]

    return moments
