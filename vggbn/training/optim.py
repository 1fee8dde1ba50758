"""The papers' SGD: momentum, L2 inside the gradient, and their learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax


def sgd(lr, l2, momentum, *, l2_on="kernels") -> optax.GradientTransformation:
    """v <- momentum·v + (gradient + l2·w); w <- w - lr·v (VGG 3.1; loss term l2/2·|w|², as Caffe).

    lr, l2 and momentum may be traced. l2_on: "kernels" leaves biases, gamma and beta alone (the
    papers are silent), "all" decays every leaf.
    """
    return optax.chain(
        optax.add_decayed_weights(l2, mask=L2_ON[l2_on]),
        optax.trace(momentum),
        optax.scale_by_learning_rate(lr),
    )


def is_kernel(params):
    """A tree of bools: True for the leaves named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


L2_ON: dict[str, Callable | None] = {"kernels": is_kernel, "all": None}


class Schedule(NamedTuple):
    """`rates(lr, factor, every, validation) -> rate(step)`, an optax.Schedule, and
    `is_over(validation, every)`: whether it ends the training before its last step.

    validation holds the validation accuracies so far; what follows from them changes with each.
    """

    rates: Callable[..., optax.Schedule]
    is_over: Callable[..., bool] = lambda validation, every: False


def constant(lr, factor, every, validation) -> optax.Schedule:
    """lr."""
    return lambda step: lr


def exponential(lr, factor, every, validation) -> optax.Schedule:
    """lr·factor^floor(step / every): "4 % every 8 epochs" (GoogLeNet 6) is factor 0.96; `every`
    counts steps and need not be whole."""
    return lambda step: lr * factor ** math.floor(step / every)


def plateau(lr, factor, every, validation) -> optax.Schedule:
    """lr·factor^drops: a drop each time `every` validations in a row bring no new best (VGG 3.1:
    ÷10 when the validation accuracy stops improving), three at most; where a fourth would follow,
    training ends."""
    return lambda step: lr * factor ** plateau_drops(validation, patience=every)


def plateau_is_over(validation, every) -> bool:
    """The last rate brings nothing more."""
    return plateau_drops(validation, patience=every, most=4) == 4


def plateau_drops(validation: tuple[float, ...], *, patience: float, most: int = 3) -> int:
    """How often `patience` validations in a row stayed at or below the best one before them."""
    drops, best, stale = 0, -math.inf, 0
    for accuracy in validation:
        best, stale = (accuracy, 0) if accuracy > best else (best, stale + 1)
        if stale >= patience:
            drops, stale = drops + 1, 0
    return min(drops, most)


SCHEDULES: dict[str, Schedule] = {
    "constant": Schedule(constant),
    "exponential": Schedule(exponential),
    "plateau": Schedule(plateau, plateau_is_over),
}


def learning_rate(
    schedule: str,
    step: int,
    *,
    lr: float,
    factor: float,
    every: float,
    validation: tuple[float, ...] = (),
) -> float:
    """The rate at `step` by one of SCHEDULES."""
    return SCHEDULES[schedule].rates(lr, factor, every, validation)(step)  # pyright: ignore


def is_over(schedule: str, validation: tuple[float, ...], *, every: float) -> bool:
    """Whether the schedule ends the training here."""
    return SCHEDULES[schedule].is_over(validation, every)
