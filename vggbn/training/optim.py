"""The papers' SGD: momentum, L2 inside the gradient, and their learning-rate schedules."""

from __future__ import annotations

import math

import jax
import optax

L2_ON = ("kernels", "all")
SCHEDULES = ("constant", "exponential", "plateau")


def sgd(lr, l2, momentum, *, l2_on="kernels") -> optax.GradientTransformation:
    """v <- momentum·v + (gradient + l2·w); w <- w - lr·v (VGG 3.1; loss term l2/2·|w|², as Caffe).

    lr, l2 and momentum may be traced. l2_on: "kernels" leaves biases, gamma and beta alone (the
    papers are silent), "all" decays every leaf.
    """
    return optax.chain(
        optax.add_decayed_weights(l2, mask=is_kernel if l2_on == "kernels" else None),
        optax.trace(momentum),
        optax.scale_by_learning_rate(lr),
    )


def is_kernel(params):
    """A tree of bools: True for the leaves named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def learning_rate(
    schedule: str,
    step: int,
    *,
    lr: float,
    factor: float,
    every: float,
    validation: tuple[float, ...] = (),
) -> float:
    """The rate at `step`.

    constant     lr.
    exponential  lr·factor^floor(step / every): "4 % every 8 epochs" (GoogLeNet 6) is factor 0.96;
                 `every` counts steps and need not be whole.
    plateau      lr·factor^drops: a drop each time `every` validations in a row bring no new best
                 (VGG 3.1: ÷10 when the validation accuracy stops improving), three at most; where
                 a fourth would follow, training ends (`is_over`).
    """
    if schedule == "exponential":
        return lr * factor ** math.floor(step / every)
    if schedule == "plateau":
        return lr * factor ** plateau_drops(validation, patience=every)
    return lr


def is_over(schedule: str, validation: tuple[float, ...], *, every: float) -> bool:
    """Whether a plateau schedule has come to its end: the last rate brings nothing more."""
    return schedule == "plateau" and plateau_drops(validation, patience=every, most=4) == 4


def plateau_drops(validation: tuple[float, ...], *, patience: float, most: int = 3) -> int:
    """How often `patience` validations in a row stayed at or below the best one before them."""
    drops, best, stale = 0, -math.inf, 0
    for accuracy in validation:
        best, stale = (accuracy, 0) if accuracy > best else (best, stale + 1)
        if stale >= patience:
            drops, stale = drops + 1, 0
    return min(drops, most)
