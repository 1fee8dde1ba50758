"""`make bench`: this suite against stock JAX and Flax, measured side by side (A B A B) in one run.

Prints the time of each and the ratio stock / ours (above 1: ours is faster) as the median over the
rounds with its range. Times hold for this machine under its load of the moment; ratios travel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vggbn import layers, optim
from vggbn.models import MODELS, Net
from vggbn.models.vgg import CONFIGS, WIDTHS
from vggbn.norm import batch_norm, batch_norm_init
from vggbn.provenance import device, threads


def main() -> None:
    """Run every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternations of the two sides")
    rounds = parser.parse_args().rounds
    print(f"{device()}, {threads()} threads, jax {jax.__version__}")
    print(f"{'what':42s} {'stock ms':>9s} {'ours ms':>9s}  stock / ours (range)")
    for name, stock, ours, args in [*operations(), *steps()]:
        stock_ms, ours_ms = alternate(stock, ours, args, rounds)
        ratios = [a / b for a, b in zip(stock_ms, ours_ms, strict=True)]
        print(
            f"{name:42s} {statistics.median(stock_ms):9.2f} {statistics.median(ours_ms):9.2f}  "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def alternate(stock: Callable, ours: Callable, args, rounds: int):
    """([ms], [ms]) of the two jitted functions, one timing of each a round, after a warm-up."""
    stock, ours = jax.jit(stock), jax.jit(ours)
    repeats = max(1, round(0.2 / max(timed(stock, args, 2), timed(ours, args, 2))))
    pairs = [(timed(stock, args, repeats), timed(ours, args, repeats)) for _ in range(rounds)]
    return [1e3 * a for a, _ in pairs], [1e3 * b for _, b in pairs]


def timed(function: Callable, args, repeats: int) -> float:
    """Mean seconds of a call; the first, which may compile, is not counted."""
    jax.block_until_ready(function(*args))
    began = time.perf_counter()
    for _ in range(repeats):
        out = function(*args)
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / repeats


def with_gradient(function: Callable) -> Callable:
    """The function's value and its gradients, for an upstream gradient of ones."""

    def both(*args):
        y, back = jax.vjp(function, *args)
        return y, back(jnp.ones_like(y))

    return both


def normal(*shape: int):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def xla_conv(kernel, x_NHWC):
    return lax.conv_general_dilated(
        x_NHWC, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def our_conv(kernel, x_NHWC):
    return layers.conv({"kernel": kernel}, x_NHWC)


def xla_max_pool(x_NHWC):
    return nn.max_pool(x_NHWC, (2, 2), (2, 2))


def sliced_lrn(x_NHWC):
    """LRN as shifted slices and a general power."""
    padded = jnp.pad(x_NHWC * x_NHWC, ((0, 0),) * 3 + ((2, 2),))
    energy = sum(padded[..., i : i + x_NHWC.shape[-1]] for i in range(5))
    return x_NHWC * (2 + 1e-4 * energy) ** -0.75


def flax_batch_norm(scale, bias, x):
    norm = nn.BatchNorm(use_running_average=False, epsilon=1e-5)
    _, stats = batch_norm_init(x.shape[-1])
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    return norm.apply(variables, x, mutable=["batch_stats"])[0]


def our_batch_norm(scale, bias, x):
    _, stats = batch_norm_init(x.shape[-1])
    return batch_norm(x, {"scale": scale, "bias": bias}, stats, train=True)[0]


def operations():
    """(name, stock, ours, arguments) of single operations, forward and with gradients."""
    for map_side, channels, out in (
        (16, 1, 8),
        (32, 1, 8),
        (2, 64, 64),
        (2, 512, 512),
        (1, 64, 64),
    ):
        args = 0.1 * normal(3, 3, channels, out), normal(32, map_side, map_side, channels)
        name = f"conv 3×3 {channels}→{out} on {map_side}×{map_side}"
        yield f"{name}, forward", xla_conv, our_conv, args
        yield f"{name}, both", with_gradient(xla_conv), with_gradient(our_conv), args
    x_NHWC = normal(32, 32, 32, 64)
    yield (
        "max pool 2×2, both",
        with_gradient(xla_max_pool),
        with_gradient(layers.max_pool_2x2),
        (x_NHWC,),
    )
    our_lrn = with_gradient(layers.local_response_norm)
    yield "LRN, both", with_gradient(sliced_lrn), our_lrn, (x_NHWC,)
    args = jnp.ones(64), jnp.zeros(64), x_NHWC
    yield "BN, both", with_gradient(flax_batch_norm), with_gradient(our_batch_norm), args


class LinenVGG(nn.Module):
    """VGG-A with BN as a Flax user writes it."""

    width: float
    fc: int

    @nn.compact
    def __call__(self, x):
        def norm():
            return nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)

        for words, channels in zip(CONFIGS["A"], WIDTHS, strict=True):
            for _ in words.split():
                x = nn.Conv(round(channels * self.width), (3, 3), use_bias=False)(x)
                x = nn.relu(norm()(x))
            if x.shape[1] > 1:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.fc)(x))
        return nn.Dense(10)(x)


def steps():
    """(name, stock, ours, arguments) of whole training steps: loss, gradients, SGD update."""
    for size, channels, width, batch in (
        (16, 1, 1 / 8, 32),
        (32, 1, 1 / 8, 32),
        (32, 3, 1 / 8, 128),
    ):
        net = Net((size, size, channels), 10, norm="batch", width=width, fc=128)
        model, linen = MODELS["vgg_a"](net), LinenVGG(width, 128)
        x_NHWC, labels_N = normal(batch, size, size, channels), jnp.arange(batch) % 10
        ours, stats = model.init(jax.random.key(0), "he")
        stock = linen.init(jax.random.key(0), x_NHWC)
        name = f"step VGG-A+BN width/{round(1 / width)} {size}×{size}×{channels} batch {batch}"

        def stock_logits(params, x, linen=linen, stats=stock["batch_stats"]):
            variables = {"params": params, "batch_stats": stats}
            return linen.apply(variables, x, mutable=["batch_stats"])

        def our_logits(params, x, model=model, stats=stats):
            return model.apply(params, stats, x, train=True)

        def stock_step(stock, ours, x, labels, logits=stock_logits):
            return sgd_step(logits, stock, x, labels)

        def our_step(stock, ours, x, labels, logits=our_logits):
            return sgd_step(logits, ours, x, labels)

        yield name, stock_step, our_step, (stock["params"], ours, x_NHWC, labels_N)


def sgd_step(logits: Callable, params, x_NHWC, labels_N):
    """One step of momentum SGD from a fresh buffer: (params, statistics)."""

    def loss(params):
        logits_NK, stats = logits(params, x_NHWC)
        return layers.cross_entropy(logits_NK, labels_N).mean(), stats

    grads, stats = jax.grad(loss, has_aux=True)(params)
    sgd = optim.sgd(0.01, 5e-4, 0.9)
    updates, _ = sgd.update(grads, sgd.init(params), params)
    return jax.tree.map(jnp.add, params, updates), stats


if __name__ == "__main__":
    main()
