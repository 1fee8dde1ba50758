"""One training step, in the papers' order: batch, augmentation, forward, loss, gradient, update,
averages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vggbn.data.pixels.augment import augment
from vggbn.data.pixels.jitter import random_scale_crop
from vggbn.machine import compiling, mesh
from vggbn.models import build
from vggbn.nn.moving import warm_decay
from vggbn.training import optim
from vggbn.training.accumulate import accumulate
from vggbn.training.batch import DeviceData
from vggbn.training.recipe import Recipe, Static
from vggbn.training.task import keys

TRACES: Counter[Static] = Counter()  # how often the step of a program was traced


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that changes from step to step; the step index is the only clock."""

    step: Any  # int32
    params: Any
    batch_stats: Any
    opt_state: Any
    loss_sum: Any  # float32, over all steps so far: the log takes differences
    correct: Any  # int32, training examples classified right so far
    diverged_at: Any  # int32: the first step whose loss was not finite, or -1

    @property
    def variables(self) -> dict[str, Any]:
        """The net's, as its `apply` takes them: Flax's two collections."""
        return {"params": self.params, "batch_stats": self.batch_stats}

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


def hyper_at(recipe: Recipe, step: int, history: list[dict]) -> Hyper:
    """The numbers of one step, float32; the scales are int32."""
    lr = optim.learning_rate(
        recipe.schedule,
        step,
        lr=recipe.lr,
        factor=recipe.lr_factor,
        every=recipe.lr_every,
        validation=validation_accuracies(history),
    )
    return Hyper(
        lr=np.float32(lr),
        l2=np.float32(recipe.l2),
        momentum=np.float32(recipe.momentum),
        dropout=np.float32(recipe.dropout),
        decay=np.float32(recipe.bn_decay),
        distortion=np.float32(recipe.distortion),
        scale_min=np.int32(recipe.scale_min),
        scale_max=np.int32(recipe.scale_max),
    )


def validation_accuracies(history: list[dict]) -> tuple[float, ...]:
    """Those that a plateau schedule goes by."""
    return tuple(record["val_accuracy"] for record in history)


def init_state(recipe: Recipe, program: Static, seed: int) -> TrainState:
    """Step 0. Runs with one seed and one architecture start from the same weights."""
    init_key, _ = keys(recipe.stream(seed))
    variables = _initialise(program.net, recipe.init)(init_key, recipe.init_scale)
    tx = optim.sgd(recipe.lr, recipe.l2, recipe.momentum, l2_on=recipe.l2_on)
    return TrainState(
        step=jnp.int32(0),
        **variables,
        opt_state=tx.init(variables["params"]),
        loss_sum=jnp.float32(0),
        correct=jnp.int32(0),
        diverged_at=jnp.int32(-1),
    )


@lru_cache
def _initialise(net, initialiser: str) -> Callable:
    init = build(net).init
    return jax.jit(lambda key, scale: init(key, initialiser, scale))


@lru_cache
def train_step(program: Static) -> Callable:
    """step(state, key, data, indices_N, hyper) -> state, jitted, the old state donated."""
    return compiling.jit(make_step(program), donate_argnums=0)


@lru_cache
def train_steps(program: Static) -> Callable:
    """steps(state, key, data, indices_TN, hyper_T, count) -> the state after count of T steps.

    One program for all of them: to call it costs more than a step of a small net.
    """
    step = make_step(program)

    def steps(state, key, data, indices_TN, hyper_T, count):
        def body(t, state):
            hyper = jax.tree.map(lambda number_T: number_T[t], hyper_T)
            return step(state, key, data, indices_TN[t], hyper)

        return jax.lax.fori_loop(0, count, body, state)

    return compiling.jit(steps, donate_argnums=0)


def make_step(program: Static) -> Callable:
    """step(state, key, data, indices_N, hyper) -> state, to be jitted.

    indices_N None: `data` is the batch itself.
    """

    def step(state, key, data, indices_N, hyper):
        TRACES[program] += 1
        crop_key, dropout_key = _step_keys(key, state.step)
        batch = data.take(indices_N)
        x_NHWC = augment_batch(program, batch, crop_key, hyper)
        decay = warm_decay(hyper.decay, state.step)
        (loss, batch_stats, grads), right = loss_gradient(
            program, state.variables, x_NHWC, batch.targets, dropout_key, hyper.dropout, decay
        )
        tx = optim.sgd(hyper.lr, hyper.l2, hyper.momentum, l2_on=program.l2_on)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        first_bad = ~jnp.isfinite(loss) & (state.diverged_at < 0)
        after = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            loss_sum=state.loss_sum + loss,
            correct=state.correct + right,
            diverged_at=jnp.where(first_bad, state.step, state.diverged_at),
        )
        return mesh.keep_replicated(after)

    return step


@lru_cache
def step_inputs(program: Static) -> Callable:
    """inputs(key, step, data, indices_N, hyper) -> (x_NHWC, labels_N, key): what the net gets at a
    step, its batch augmented, with the key of its dropout and its norms."""

    @compiling.jit
    def inputs(key, step, data, indices_N, hyper):
        crop_key, dropout_key = _step_keys(key, step)
        batch = data.take(indices_N)
        return augment_batch(program, batch, crop_key, hyper), batch.labels_N, dropout_key

    return inputs


def _step_keys(key, step):
    """(key of the crops, key of dropout and norms) at a step."""
    crop_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    return crop_key, dropout_key


def loss_gradient(program: Static, variables, x_NHWC, targets, key, dropout, decay):
    """((mean loss, new batch_stats, gradient of the params), how many examples are right).

    x_NHWC: float, augmented; targets: of the batch; decay: of the moving averages.
    """
    model, parts = build(program.net), program.accumulate

    def loss_and_more(params, x_NHWC, targets, key):
        outputs, batch_stats = model.apply(
            variables | {"params": params},
            x_NHWC,
            train=True,
            key=key,
            dropout=dropout,
            decay=decay,
        )
        # Unlike `rank_N` a tie counts for the first class: it decides nothing, and tells only in
        # constant or diverged nets.
        right_N = model.scores(outputs).argmax(-1) == targets.labels_N
        loss_N = model.loss(outputs, targets)
        return loss_N.mean(), (batch_stats, right_N.sum(dtype=jnp.int32))

    def of_part(part, x_NHWC, targets):
        own_key = key if parts == 1 else jax.random.fold_in(key, part)
        gradient = jax.value_and_grad(loss_and_more, has_aux=True)
        (loss, (stats, right)), grads = gradient(variables["params"], x_NHWC, targets, own_key)
        return (loss, stats, grads), right

    return accumulate(parts, of_part, x_NHWC, targets)


def augment_batch(program: Static, batch: DeviceData, key, hyper: Hyper):
    """The images of a batch: rescaled, cropped, mirrored, coloured, standardised."""
    x_NHWC = batch.images_NHWC
    if program.window:
        scale_key, key = jax.random.split(key)
        scales = (hyper.scale_min, hyper.scale_max)
        crop = program.net.image[0]
        x_NHWC = random_scale_crop(
            scale_key, x_NHWC, batch.sizes_N2, *scales, crop=crop, window=program.window
        )
    x_NHWC = augment(
        key,
        x_NHWC,
        pad=program.crop_pad,
        flip=program.flip,
        amount=hyper.distortion,
        mean_C=batch.mean_C,
        std=batch.std,
        pca_CC=batch.pca_CC,
    )
    return compiling.settle(x_NHWC)


@lru_cache
def batch_moments(program: Static) -> Callable:
    """moments(params, stats, key, data, indices, hyper) -> the statistics of the batch itself, or
    the mean over its parts of theirs."""
    model = build(program.net)

    @compiling.jit
    def moments(params, stats, key, data, indices_N, hyper):
        x_NHWC = augment_batch(program, data.take(indices_N), key, hyper)
        variables = {"params": params, "batch_stats": stats}

        def one(part, x_NHWC):
            return model.apply(variables, x_NHWC, train=True, decay=0.0)[1], ()

        return accumulate(program.accumulate, one, x_NHWC)[0]

    return moments
