"""What a training step does to the layers behind it, and how smooth the loss is on its way.

After Santurkar et al. (2018, arXiv 1805.11604): internal covariate shift by their Definition 2.1,
and how loss and gradient vary along the gradient, as in their Figure 4. In training mode, on the
batch of the step: BN by the batch's statistics, dropout and noise as the step draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.data import AnySplit
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, Targets, build

# Times the rate: how far to go along the gradient (half the rate to four times, as the authors).
LENGTHS = tuple(float(2 ** (k / 2)) for k in range(-2, 5))


class Step(NamedTuple):
    """A training step: its batch as the net gets it, its labels, its key, dropout and rate, and the
    params that it leads to."""

    x_NHWC: Any
    labels_N: Any
    key: Any
    dropout: Any
    lr: Any
    params: Any


def landscape(trained: Trained, split: AnySplit, ahead: Callable[[], Step]) -> dict[str, Any]:
    """{loss, gradient, predicted, changes, departures, distances, shift} where training stands.

    G is the gradient of the loss. loss, gradient: of the batch, and |G| over all params. predicted:
    lr |G|², by which a step of plain SGD would lower the loss, were it a plane. changes,
    departures, distances, [LENGTHS], at params - length · lr · G: the loss less that here, the loss
    less that of the plane, and |G' - G|. shift: {layer: {gradient, distance, turn}} of every layer
    but the first: |G|, |G' - G| and 1 - cos(G, G') of the layer's kernel, where G' is taken after
    the step has changed the layers before it, and no other (Definition 2.1).
    """
    step = ahead()
    layers = layers_of(trained.net, trained.variables, step)
    measured = _measure(trained.net, layers)(trained.variables, step)
    found = jax.tree.map(_digits, jax.device_get(measured))
    shift = found.pop("shift")
    own = {layer: {name: of[i] for name, of in shift.items()} for i, layer in enumerate(layers[1:])}
    return {**found, "shift": own}


def layers_of(net: Net, variables, step: Step) -> tuple[str, ...]:
    """The names of the layers with a kernel, in the order in which the net applies them."""
    heard: list[str] = []
    listen = lambda layer, what, x: heard.append(layer)  # noqa: E731
    apply = lambda v, x: build(net).apply(v, x, train=True, tap=listen)  # noqa: E731
    jax.eval_shape(apply, variables, step.x_NHWC)
    output = [name for name, own in variables["params"].items() if "kernel" in own]
    return tuple(dict.fromkeys([*heard, *output]))


@lru_cache
def _measure(net: Net, layers: tuple[str, ...]) -> Callable:
    """measure(variables, step) -> what `landscape` returns, as arrays; of the shift [layer]."""
    model = build(net)
    place = {name: i for i, layer in enumerate(layers) for name in (layer, f"norm_{layer}")}

    @compiling.jit
    def measure(variables, step):
        def loss(params):
            outputs, _ = model.apply(
                variables | {"params": params},
                step.x_NHWC,
                train=True,
                key=step.key,
                dropout=step.dropout,
            )
            return model.loss(outputs, Targets(labels_N=step.labels_N)).mean()

        before = variables["params"]
        value, g = jax.value_and_grad(loss)(before)
        kernels = lambda tree: [tree[layer]["kernel"] for layer in layers]  # noqa: E731
        sizes = list(map(_norm, kernels(g)))

        def along(length):
            way = length * step.lr
            there = jax.tree.map(lambda p, d: p - way * d, before, g)
            value, g_there = jax.value_and_grad(loss)(there)
            return value, _norm(jax.tree.map(jnp.subtract, g_there, g))

        def shifted(i):
            params = {
                name: jax.tree.map(lambda a, b, own=place[name]: jnp.where(own < i, b, a), *pair)
                for name, pair in _pairs(before, step.params).items()
            }
            moved = kernels(jax.grad(loss)(params))
            pairs = list(zip(kernels(g), moved, sizes, strict=True))
            distances = [_norm(b - a) for a, b, _ in pairs]
            # Half the squared distance of the directions: 1 - cos without the cancellation.
            turns = [_norm(b / _norm(b) - a / size) ** 2 / 2 for a, b, size in pairs]
            return jnp.stack(distances)[i], jnp.stack(turns)[i]

        lengths, size = jnp.array(LENGTHS), _norm(g)
        losses, distances = jax.lax.map(along, lengths)
        predicted = step.lr * size**2
        moved, turns = jax.lax.map(shifted, jnp.arange(1, len(layers)))
        shift = {"gradient": jnp.stack(sizes[1:]), "distance": moved, "turn": turns}
        return {
            "loss": value,
            "gradient": size,
            "predicted": predicted,
            "changes": losses - value,
            "departures": losses - value + lengths * predicted,
            "distances": distances,
            "shift": shift,
        }

    return measure


def _digits(values):
    """Four of each number: a history holds many of them."""
    four = np.vectorize(lambda value: float(f"{value:.4g}"), otypes=[float])
    return four(values).tolist()


def _pairs(before, after) -> dict[str, tuple]:
    return {name: (before[name], after[name]) for name in before}


def _norm(tree):
    """The Euclidean norm of all leaves together."""
    return jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))
