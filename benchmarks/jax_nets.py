"""The training step in JAX: this suite's, and the one a Flax Linen user writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks import cases
from benchmarks.cases import Case, Contestant
from vggbn.machine import compiling
from vggbn.models import Net, build
from vggbn.nn import layers
from vggbn.training import optim


class Side(NamedTuple):
    """apply(params, stats, x) -> (logits, stats); loss(logits, labels) -> scalar; tx, jit."""

    apply: Callable
    loss: Callable
    tx: optax.GradientTransformation
    jit: Callable


def ours(case: Case, precision: str) -> Side:
    """This suite's net, BN, loss and SGD, compiled as its training step is, in a tuned process."""
    compiling.tune_process()
    net = Net(
        model=f"vgg_{case.config.lower()}",
        image=(case.side, case.side, case.channels),
        classes=case.classes,
        norm="batch",
        width=case.width,
        fc=case.fc,
        bn_eps=case.eps,
        precision=precision,
    )
    model = build(net)
    return Side(
        lambda params, stats, x: model.apply(
            {"params": params, "batch_stats": stats}, x, train=True, decay=case.decay
        ),
        lambda logits, labels: layers.cross_entropy(logits, labels).mean(),
        optim.sgd(case.lr, case.l2, case.momentum),
        compiling.jit,
    )


def stock(case: Case, precision: str) -> Side:
    """Stock Flax and optax: nn.Conv, nn.BatchNorm, nn.max_pool, autodiff, optax.sgd."""
    net = LinenVGG(case, jnp.dtype(precision))

    def apply(params, stats, x):
        logits, new = net.apply({"params": params, "batch_stats": stats}, x, mutable="batch_stats")
        return logits, new["batch_stats"]

    def loss(logits, labels):
        logits = logits.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    decay = optax.add_decayed_weights(case.l2, mask=optim.is_kernel)
    return Side(apply, loss, optax.chain(decay, optax.sgd(case.lr, case.momentum)), jax.jit)


class LinenVGG(nn.Module):
    """VGG with BN in training mode; the layers' names are those of `cases.weights`."""

    case: Case
    dtype: Any

    @nn.compact
    def __call__(self, x):
        """x [N, H, W, C] -> logits [N, classes]."""
        case, dtype = self.case, self.dtype
        numbers = {"momentum": case.decay, "epsilon": case.eps, "dtype": dtype}
        for layer in cases.layers(case):
            if layer.is_conv:
                out, norm = layer.kernel[-1], f"norm_{layer.name}"
                x = nn.Conv(out, (3, 3), use_bias=False, dtype=dtype, name=layer.name)(x)
                x = nn.BatchNorm(use_running_average=False, name=norm, **numbers)(x)
                x = nn.relu(x)
                if layer.pool_after:
                    x = nn.max_pool(x, (2, 2), (2, 2))
            else:
                x = x.reshape(x.shape[0], -1)
                x = nn.Dense(layer.kernel[-1], dtype=dtype, name=layer.name)(x)
                x = x if layer.name == "fc3" else nn.relu(x)
        return x


class Runner:
    """A contestant that is ready to train: its state lies on the device."""

    def __init__(self, case: Case, contestant: Contestant):
        side = {"vggbn": ours, "linen": stock}[contestant.side](case, contestant.precision)
        self.precision = contestant.precision
        self.loss = None

        def step(state, batch):
            params, stats, opt_state = state

            def loss(params):
                logits, new = side.apply(params, stats, batch[0])
                return side.loss(logits, batch[1]), new

            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, opt_state = side.tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), stats, opt_state), value

        self.jitted = side.jit(step, donate_argnums=0)  # before jax computes anything
        params = jax.device_put(cases.weights(case))
        stats = {
            name: {"mean": jnp.zeros_like(leaf["bias"]), "var": jnp.ones_like(leaf["bias"])}
            for name, leaf in params.items()
            if name.startswith("norm_")
        }
        self.state = params, stats, side.tx.init(params)
        self.batch = jax.device_put(cases.batch(case))

    def step(self) -> None:
        """One training step; may return before the device has done it."""
        self.state, self.loss = self.jitted(self.state, self.batch)

    def wait(self) -> float:
        """Wait for the last step: its loss."""
        jax.block_until_ready(self.state)
        return float(self.loss)  # pyright: ignore[reportArgumentType]

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state[0]))

    def device_peak(self) -> int | None:
        """Peak bytes on an accelerator; None on a CPU, where the process's own peak tells."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    def product(self, n: int) -> Callable[[int], None]:
        """multiply(times): do, and wait for, n×n matrix products in this precision."""
        a = jnp.ones((n, n), self.precision)
        multiply = jax.jit(lambda a, b: a @ b)

        def times(count):
            for _ in range(count):
                c = multiply(a, a)
            jax.block_until_ready(c)

        return times
