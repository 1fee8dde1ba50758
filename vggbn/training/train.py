"""TrainState, one jitted step, one loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import (
    AnySplit,
    Dataset,
    LazySplit,
    batch_indices,
    colour_pca,
    input_moments,
)
from vggbn.data.lazy import centre_view
from vggbn.data.pixels.augment import augment
from vggbn.data.pixels.jitter import random_scale_crop
from vggbn.data.stream import training_batches
from vggbn.evaluate import evaluate
from vggbn.evaluate.watch import WATCHES
from vggbn.machine import compiling, mesh
from vggbn.machine.clock import Clock
from vggbn.models import MODELS
from vggbn.nn import batch_norm as norm
from vggbn.nn.batch_norm import warm_decay
from vggbn.nn.layers import cross_entropy
from vggbn.training import optim
from vggbn.training.accumulate import accumulated
from vggbn.training.recipe import Recipe, Static, static

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
    """A training set on the device, or a batch: uint8 images [N, H, W, C], labels [N], statistics.

    sizes_N2: the (height, width) of images of many scales in their frames, else None. Of a set that
    is streamed, images and labels come with each batch: here they are None.
    """

    images_NHWC: Any
    labels_N: Any
    mean_C: Any
    std: Any
    pca_CC: Any
    sizes_N2: Any = None

    def take(self, indices_N) -> DeviceData:
        """The batch at these rows; None: it is a batch already."""
        if indices_N is None:
            return self
        sizes_N2 = None if self.sizes_N2 is None else self.sizes_N2[indices_N]
        return self._replace(
            images_NHWC=self.images_NHWC[indices_N],
            labels_N=self.labels_N[indices_N],
            sizes_N2=sizes_N2,
        )


@lru_cache(maxsize=1)
def on_device(dataset: Dataset) -> DeviceData:
    """The training split on every device; the last data set stays there for the next run."""
    images_NHWC, labels_N, sizes_N2 = dataset.train.resident
    statistics = (*input_moments(dataset), colour_pca(dataset.train))
    return DeviceData(*mesh.replicate((images_NHWC, labels_N, *statistics, sizes_N2)))


def _keys(seed: int):
    """(key of the initial weights, key of everything that is drawn at a step).

    XLA's own generator: threefry takes 2 s to compile for every shape drawn on a CPU, this 0.1 s.
    """
    return jax.random.split(jax.random.key(seed, impl="rbg"))


def static_of(recipe: Recipe, dataset: Dataset) -> Static:
    """What the recipe's step is compiled for on this data set."""
    split = dataset.train
    crop = (recipe.image_size, recipe.image_size, split.channels)
    image = crop if recipe.fit == "whole" else split.image_shape
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
    return compiling.jit(_step(fixed), donate_argnums=0)


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

    return compiling.jit(steps, donate_argnums=0)


def _step(fixed: Static) -> Callable:
    """One step of SGD, to be jitted. indices_N None: `data` is the batch itself."""
    gradient = _gradient(fixed)

    def step(state, key, data, indices_N, hyper):
        TRACES[fixed] += 1
        crop_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        batch = data.take(indices_N)
        x_NHWC = augmented(fixed, batch, crop_key, hyper)
        decay = warm_decay(hyper.decay, state.step)
        (loss, right, stats), grads = gradient(
            state.params, state.batch_stats, x_NHWC, batch.labels_N, dropout_key, hyper, decay
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
            correct=state.correct + right,
            diverged_at=jnp.where(first_bad, state.step, state.diverged_at),
        )
        return mesh.keep_replicated(after)

    return step


def _gradient(fixed: Static) -> Callable:
    """gradient(params, stats, x, labels, key, hyper, decay) -> ((loss, right, stats), grads)."""
    model = MODELS[fixed.model](fixed.net)

    def loss_and_more(params, stats, x_NHWC, labels_N, key, hyper, decay):
        logits, stats = model.apply(
            params, stats, x_NHWC, train=True, key=key, dropout=hyper.dropout, decay=decay
        )
        # Unlike `rank_N`: a tie counts for the first class and NaN for class 0. It decides nothing,
        # and constant or diverged nets alone have such logits. By another rule the step would be
        # another program, and no published run could be compared with a new one.
        right = (logits.argmax(-1) == labels_N).sum()
        return cross_entropy(logits, labels_N).mean(), (right, stats)

    of_part = jax.value_and_grad(loss_and_more, has_aux=True)

    def gradient(params, stats, x_NHWC, labels_N, key, hyper, decay):
        def one(part, x_NHWC, labels_N):
            own_key = key if fixed.accumulate == 1 else jax.random.fold_in(key, part)
            (loss, (right, stats_after)), grads = of_part(
                params, stats, x_NHWC, labels_N, own_key, hyper, decay
            )
            return (loss, stats_after, grads), right

        (loss, stats_after, grads), right = accumulated(fixed.accumulate, one, x_NHWC, labels_N)
        return (loss, right, stats_after), grads

    return gradient


def augmented(fixed: Static, batch: DeviceData, key, hyper: Hyper):
    """The images of a batch: rescaled, cropped, mirrored, coloured, standardised."""
    x_NHWC = batch.images_NHWC
    if fixed.window:
        scale_key, key = jax.random.split(key)
        scales = (hyper.scale_min, hyper.scale_max)
        crop = fixed.net.image[0]
        x_NHWC = random_scale_crop(
            scale_key, x_NHWC, batch.sizes_N2, *scales, crop=crop, window=fixed.window
        )
    x_NHWC = augment(
        key,
        x_NHWC,
        pad=fixed.crop_pad,
        flip=fixed.flip,
        amount=hyper.distortion,
        mean_C=batch.mean_C,
        std=batch.std,
        pca_CC=batch.pca_CC,
    )
    return compiling.settled(x_NHWC)


# --- the loop ------------------------------------------------------------------------------------


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
    recipe: Recipe,
    seed: int,
    dataset: Dataset,
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
    if recipe.accumulate > 1:
        mesh.refuse_uneven(recipe.part, "part")
    clock = Clock("data")
    fixed = static_of(recipe, dataset)
    most = 1 if dataset.streamed else TOGETHER.get(fixed.model, 1)
    advance = _advance(fixed, most)  # before jax computes anything: see compiling.run_inline
    data = on_device(dataset)
    clock.to("python")
    state = mesh.replicate(init_state(recipe, fixed, seed) if state is None else state)
    due, validation = set(evaluation_steps(recipe)), single_view(recipe, dataset.validation)
    history, before = list(history), before or _progress(state)
    _, key = _keys(recipe.stream(seed))
    ahead = range(int(state.step), recipe.steps if stop is None else stop)
    clock.to("data")
    with closing(_feed(recipe, seed, dataset, ahead, due, most, workers)) as feed:
        for steps, batch, indices in feed:
            clock.to("python")
            hypers = [hyper_at(recipe, step, history) for step in steps]
            clock.to("step")
            state = advance(state, key, batch, indices, hypers)
            if steps[-1] + 1 in due:
                jax.block_until_ready(state)
                clock.to("evaluation")
                now = _progress(state)
                history.append(
                    _record(recipe, fixed, state, validation, data, hypers[-1], before, now)
                )
                before = now
                on_evaluation(history[-1])
                if state.diverged_at >= 0 or is_over(recipe, history):  # pyright: ignore
                    break
            on_step(steps.stop, Reached(state, history, before))  # pyright: ignore
            clock.to("data")
    clock.to("step")
    jax.block_until_ready(state)
    return Fit(state, history, clock.stop())  # pyright: ignore


# Steps of one program: for nets of a few thousand products, where the program's loop costs nothing.
# On a CPU a convolution runs slower inside a loop than outside.
TOGETHER = {"mlp": 64}


def _spans(steps: range, due: set[int], most: int) -> Iterator[range]:
    """The steps, cut where an evaluation is due and where a program ends."""
    first, end = steps.start, steps.stop
    while first < end:
        last = next((s for s in range(first + 1, first + most) if s in due or s == end), None)
        span = range(first, last or first + most)
        yield span
        first = span.stop


def _feed(
    recipe: Recipe,
    seed: int,
    dataset: Dataset,
    steps: range,
    due: set[int],
    most: int,
    workers: int,
) -> Generator:
    """(steps of a program, data, indices of each or None), in order; see DeviceData, `_spans`."""
    if isinstance(dataset.train, LazySplit):
        return _streamed(recipe, seed, dataset.train, on_device(dataset), steps, workers)
    return _resident(recipe, seed, dataset, _spans(steps, due, most))


def _resident(recipe: Recipe, seed: int, dataset: Dataset, spans: Iterator[range]) -> Generator:
    """Rows of a set that lies on the devices."""
    data = on_device(dataset)
    rows = {"n": len(dataset.train), "batch": recipe.batch, "shuffle": recipe.shuffle}
    for steps in spans:
        yield steps, data, [batch_indices(recipe.stream(seed), step, **rows) for step in steps]


def _streamed(
    recipe: Recipe, seed: int, split: LazySplit, data: DeviceData, steps: range, workers: int
) -> Generator:
    """Batches of which this process decodes its part; while one is used, the next is on its way."""
    scales = (recipe.scale_min, recipe.scale_max) if recipe.fit == "whole" else None
    batches = training_batches(
        split,
        seed=recipe.stream(seed),
        batch=recipe.batch,
        shuffle=recipe.shuffle,
        first=steps.start,
        stop=steps.stop,
        crop=recipe.image_size,
        scales=scales,
        workers=workers,
        part=(mesh.process(), mesh.processes()),
    )
    with closing(batches):
        ahead = None
        for step, (images_NHWC, labels_N) in zip(steps, batches, strict=True):
            batch = data._replace(
                images_NHWC=mesh.join_parts(images_NHWC), labels_N=mesh.join_parts(labels_N)
            )
            now, ahead = ahead, (range(step, step + 1), batch)
            if now:
                yield *now, None
        if ahead:
            yield *ahead, None


def _advance(fixed: Static, most: int) -> Callable:
    """advance(state, key, data, indices, hypers) -> the state after a step for each of these."""
    if most == 1:
        step = train_step(fixed)

        def one(state, key, data, indices, hypers):
            rows_N = None if indices is None else mesh.share_out(indices[0])
            return step(state, key, data, rows_N, *hypers)

        return one
    steps = train_steps(fixed)

    def advance(state, key, data, indices, hypers):
        count, more = len(indices), most - len(indices)
        indices_TN = np.stack([*indices, *more * indices[-1:]])
        hyper_T = Hyper(*map(np.stack, zip(*hypers, *more * hypers[-1:], strict=True)))
        return steps(state, key, data, mesh.share_out(indices_TN), hyper_T, np.int32(count))

    return advance


def single_view(recipe: Recipe, split: AnySplit) -> AnySplit:
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
    fixed = static_of(recipe, dataset)
    _, key = _keys(recipe.stream(seed))
    moments, hyper = batch_moments(fixed), hyper_at(recipe, 0, [])
    fresh = replace(recipe, shuffle="fresh")
    steps = range(recipe.steps, recipe.steps + recipe.population_batches)

    def apply(params, stats, fed, *, train, decay):
        (step,), data, rows = fed
        rows_N = None if rows is None else rows[0]
        return None, moments(params, stats, jax.random.fold_in(key, step), data, rows_N, hyper)

    with closing(_feed(fresh, seed, dataset, steps, due=set(), most=1, workers=0)) as feed:
        return norm.population_stats(apply, state.params, state.batch_stats, feed)


@lru_cache
def batch_moments(fixed: Static) -> Callable:
    """moments(params, stats, key, data, indices, hyper) -> the statistics of the batch itself, or
    the mean over its parts of theirs."""
    model = MODELS[fixed.model](fixed.net)

    @compiling.jit
    def moments(params, stats, key, data, indices_N, hyper):
        x_NHWC = augmented(fixed, data.take(indices_N), key, hyper)

        def one(part, x_NHWC):
            return model.apply(params, stats, x_NHWC, train=True, decay=0.0)[1], ()

        return accumulated(fixed.accumulate, one, x_NHWC)[0]

    return moments
