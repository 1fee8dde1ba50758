"""BN against the paper in float64, against flax and torch, and the contract of every norm.

The functions `check_...(norm)` take the module under test, so that test_norm_mutations.py can hand
them broken copies of it. Errors are normwise and relative, channel by channel.
"""

import math
import os
import subprocess
import sys
import textwrap
import types
from functools import cache, partial
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import vggbn.nn.batch_norm
import vggbn.nn.moving
from tests.conftest import ROOT
from tests.support import algorithm_1 as reference
from tests.support import programs
from vggbn.machine.compiling import enable_x64
from vggbn.nn.batch_norm import (
    batch_norm,
    batch_norm_init,
    fold,
    normalise_by,
    population_stats,
)
from vggbn.nn.moving import warm_decay

EPS = 1e-5
PRECISE = np.finfo(np.longdouble).eps < 1e-18  # not on every machine
TOLERANCE = {"float32": 1e-6, "float64": 1e-13 if PRECISE else 1e-9}
# y and dx are rounded to 16 bits, beyond which 1e-6 is allowed as well. The values of x are few,
# so that what XLA's sums round is the same over and over, and shows in the statistics.
TOLERANCE |= {"bfloat16": 2e-5, "float16": 2e-5}
# Before 0.10.2 the compiler for CPUs adds numbers up one by one: of thousands the sum is worse, and
# that shows in y and dx where the mean is a hundred thousand times the deviation.
OLD = tuple(map(int, version("jaxlib").split(".")[:3])) < (0, 10, 2)
GARBAGE = (np.nan, np.inf, 3e38)
SHAPE = (24, 3, 4)  # one for all checks: op by op, every new shape is compiled anew


# --- the paper, word for word, in float64 NumPy -------------------------------------------------


class Reference(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    d_scale: np.ndarray
    d_bias: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    # what errors are relative to, each [C]
    size_y: np.ndarray
    size_dx: np.ndarray
    size_d_scale: np.ndarray
    size_d_bias: np.ndarray


def norm_C(a):
    """The Euclidean norm over all axes but the last."""
    return np.sqrt(np.square(a, dtype=np.float64).sum(axis=tuple(range(a.ndim - 1))))


def algorithm_1(x, scale, bias, dy, eps=EPS):
    """Algorithm 1 and its gradients in a wider dtype, with what their errors are relative to."""
    wide = np.longdouble if x.dtype == np.float64 else np.float64
    x, scale, bias, dy = (a.astype(wide) for a in (x, scale, bias, dy))
    y, x_hat, mean, var = reference.forward(x, scale, bias, eps)
    dx, d_scale, d_bias, d_x_hat = reference.backward(x, scale, dy, eps)
    m = x.size // x.shape[-1]

    # A sum can cancel to nothing: its error is relative to the size of its terms. So is that of dx
    # in a batch of a few, where the two sums take nearly all of d_x_hat away.
    size_dx = norm_C(dx) if m >= 16 else norm_C(d_x_hat) / np.sqrt(var + eps)
    size_d_scale, size_d_bias = norm_C(dy) * norm_C(x_hat), np.sqrt(m) * norm_C(dy)
    sizes = (norm_C(y), size_dx, size_d_scale, size_d_bias)
    return Reference(y, dx, d_scale, d_bias, mean, var, *sizes)


def relative(error, size):
    """error / size, where nothing may be off by anything."""
    return np.divide(error, size, out=np.where(error > 0, np.inf, 0.0), where=size > 0).max()


def excess(ours, exact):
    """|ours - exact| beyond the half ulp that rounding to ours' own 16-bit format costs."""
    error = np.abs(ours.astype(exact.dtype) - exact)
    if ours.dtype.itemsize > 2:
        return error
    limits = jnp.finfo(ours.dtype)
    half_ulp = np.maximum(np.abs(exact), float(limits.tiny)) * float(limits.eps) / 2
    return np.maximum(error - half_ulp, 0)


def worst_errors(got, x, params, stats, dy, *, decay, unbiased=True, mask=None, groups=1):
    """The largest relative error of each of y, dx, scale, bias (gradients), mean and var."""
    y, new, dx, d_params = jax.tree.map(np.asarray, got)
    mask = np.ones(len(x), bool) if mask is None else np.asarray(mask)
    worst = dict.fromkeys(("y", "dx", "scale", "bias", "mean", "var"), 0.0)
    references = []
    for rows in np.split(np.arange(len(x)), groups):
        rows = rows[mask[rows]]
        if not len(rows):
            continue
        exact = algorithm_1(x[rows], params["scale"], params["bias"], dy[rows])
        references.append((exact, x[rows].size // x.shape[-1]))
        for name, ours, size in (("y", y, exact.size_y), ("dx", dx, exact.size_dx)):
            error = relative(norm_C(excess(ours[rows], getattr(exact, name))), size)
            worst[name] = max(worst[name], error)
    assert not np.any(dx[~mask]), "a masked row got a gradient"
    assert not np.any(y[~mask]), "a masked row put something out"

    def total(field):
        zero = np.zeros(x.shape[-1])
        return sum((getattr(exact, field) for exact, _ in references), zero)

    for name in ("scale", "bias"):  # their gradients
        error = np.abs(d_params[name] - total(f"d_{name}"))
        worst[name] = relative(error, total(f"size_d_{name}"))
    for name in ("mean", "var"):
        old = stats[name].astype(np.float64)
        if not references:
            worst[name] = relative(np.abs(new[name] - old), np.abs(old))
            continue
        values, sizes = [], []
        for exact, m in references:
            correction = m / max(m - 1, 1) if unbiased and name == "var" else 1
            values.append(getattr(exact, name) * correction)
            rms = np.sqrt(exact.mean**2 + exact.var)
            sizes.append(values[-1] if name == "var" else rms)
        exact = decay * old + (1 - decay) * np.mean(values, 0)
        size = decay * np.abs(old) + (1 - decay) * np.mean(sizes, 0)
        worst[name] = relative(np.abs(new[name] - exact), size)
    return worst


def step(norm, x, params, stats, dy, decay, mask=None, *, groups=1, unbiased=True, eps=EPS):
    """(y, new stats, dx, gradients of the parameters) of one training step."""

    def apply(x, params):
        choices = {"decay": decay, "eps": eps, "unbiased": unbiased, "mask": mask, "groups": groups}
        return norm.batch_norm(x, params, stats, train=True, **choices)

    y, vjp, new = jax.vjp(apply, x, params, has_aux=True)
    dx, d_params = vjp(dy)
    return y, new, dx, d_params


# Compiled, which is faster than op by op wherever shapes are new.
STATIC = ("groups", "unbiased", "eps")
STEP = jax.jit(partial(step, vggbn.nn.batch_norm), static_argnames=STATIC)
TRAIN = jax.jit(partial(batch_norm, train=True), static_argnames=STATIC)


def random_case(
    rng, shape, dtype="float32", ratio=1.0, std=1.0, outlier=False, binary=False, mask=None
):
    """x, params, stats, dy: x has this mean/std, and garbage where the mask says that it may."""
    channels = shape[-1]
    offset = ratio * std * rng.choice([-1.0, 1.0], channels) * rng.uniform(0.5, 1, channels)
    x = (
        std
        * (
            rng.random(shape) < rng.uniform(0.1, 0.9, channels)
            if binary
            else rng.normal(size=shape)
        )
        + offset
    )
    if outlier:
        x[0] += 1e3 * std
    dy = rng.normal(size=shape)
    if mask is not None:
        x[~mask], dy[~mask] = rng.choice(GARBAGE, 2)
    with np.errstate(over="ignore"):  # 3e38 in float16
        # float64, too, is of float32's numbers: a constant is one, and sums of a few are exact
        x, dy = (a.astype(np.float32).astype(jnp.dtype(dtype)) for a in (x, dy))
    wide = np.float64 if dtype == "float64" else np.float32
    scale = rng.choice([-1.0, 1.0], channels) * rng.uniform(0.5, 2, channels)
    params = {"scale": scale.astype(wide), "bias": rng.uniform(-1, 1, channels).astype(wide)}
    mean, var = x[0, ..., :].astype(np.float64).reshape(-1, channels)[0], rng.uniform(0.5, 2)
    stats = {"mean": np.nan_to_num(mean, posinf=1, neginf=1).clip(-1e9, 1e9).astype(wide)}
    stats["var"] = np.full(channels, var * std**2, wide)
    return x, params, stats, dy


def assert_close(ours, theirs, tolerance):
    """Relative to the largest number: what a zero or a wrong scale cannot pass."""
    jax.tree.map(partial(_assert_close, tolerance), ours, theirs)


def _assert_close(tolerance, ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    error, size = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert error <= tolerance * size, f"off by {error:.3g}, {error / size:.3g} of the largest value"


def assert_equal_trees(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# --- checks that a broken norm.py must fail -----------------------------------------------------


def check_algorithm_1(norm):
    rng = np.random.default_rng(1)
    for ratio, std in ((0, 1.0), (1, 1e-3), (1e5, 1.0), (1e5, 30.0)):
        x, params, stats, dy = random_case(rng, SHAPE, ratio=ratio, std=std)
        got = step(norm, x, params, stats, dy, 0.75)
        errors = worst_errors(got, x, params, stats, dy, decay=0.75)
        assert max(errors.values()) <= 1e-6, (ratio, std, errors)


def check_outlier(norm):
    rng = np.random.default_rng(2)
    x, params, stats, dy = random_case(rng, SHAPE, ratio=1e5, outlier=True)
    errors = worst_errors(step(norm, x, params, stats, dy, 0.0), x, params, stats, dy, decay=0.0)
    assert max(errors.values()) <= 1e-6, errors


def check_compiled(norm):
    """What XLA makes of it: it may compute a value twice, not the same each time."""
    rng, run = np.random.default_rng(14), jax.jit(partial(step, norm, groups=3))
    for _ in range(3):
        mask = rng.random(24) < 0.8
        x, params, stats, dy = random_case(rng, (24, 7), ratio=1e5, mask=mask)
        errors = worst_errors(
            run(x, params, stats, dy, 0.5, mask),
            x,
            params,
            stats,
            dy,
            decay=0.5,
            mask=mask,
            groups=3,
        )
        assert max(errors.values()) <= 1e-6, errors


def check_groups(norm):
    x, params, stats, dy = random_case(np.random.default_rng(3), SHAPE)
    x *= np.linspace(0.1, 3, 24, dtype=np.float32).reshape(-1, 1, 1)  # each group is another one
    choices = {"groups": 3, "unbiased": False}
    got = step(norm, x, params, stats, dy, 0.5, **choices)
    errors = worst_errors(got, x, params, stats, dy, decay=0.5, **choices)
    assert max(errors.values()) <= 1e-6, errors


def check_mask(norm):
    rng = np.random.default_rng(4)
    mask = np.arange(24) % 3 > 0
    mask[16:] = False  # with three groups the last is padding alone
    for groups in (1, 3):
        x, params, stats, dy = random_case(rng, SHAPE, ratio=3, mask=mask)
        got = step(norm, x, params, stats, dy, 0.5, mask, groups=groups)
        errors = worst_errors(got, x, params, stats, dy, decay=0.5, mask=mask, groups=groups)
        assert max(errors.values()) <= 1e-6, errors


def check_padding_alone(norm):
    x, params, stats, dy = random_case(np.random.default_rng(5), SHAPE, mask=np.zeros(24, bool))
    y, new, dx, d_params = step(norm, x, params, stats, dy, 0.5, np.zeros(24, bool))
    assert not np.any(y)
    assert not np.any(dx)
    assert not any(np.any(d) for d in d_params.values())
    assert_equal_trees(new, stats)


def check_single_value(norm):
    """m = 1: y is the bias, and m/(m-1) is left alone."""
    x, params, stats, dy = random_case(np.random.default_rng(6), (1, 4), ratio=1e4)
    y, new, dx, d_params = step(norm, x, params, stats, dy, 0.5)
    assert_close(y, params["bias"][None], 1e-6)
    assert_close(new["var"], stats["var"] / 2, 1e-6)
    assert_close(new["mean"], (stats["mean"] + x[0]) / 2, 1e-6)
    assert not np.any(dx)
    assert_close(d_params, {"scale": np.zeros(4), "bias": dy[0]}, 1e-6)


def check_constant_input(norm):
    x, params, stats, dy = random_case(np.random.default_rng(7), SHAPE, ratio=1e4)
    x = np.broadcast_to(x[:1, :1], x.shape)
    y, new, dx, _ = step(norm, x, params, stats, dy, 0.0)
    assert_close(y, np.broadcast_to(params["bias"], y.shape), 1e-6)
    assert np.all(np.asarray(new["var"]) >= 0)
    assert np.all(np.asarray(new["var"]) <= 1e-6)
    assert_close(new["mean"], x[0, 0], 1e-6)
    assert np.isfinite(dx).all()


def check_evaluation(norm):
    """Algorithm 2's affine map: (x - E[x]) / sqrt(Var[x] + eps), and the statistics stay."""
    x, params, stats, _ = random_case(np.random.default_rng(8), SHAPE, ratio=100, std=1e-2)
    y, same = norm.batch_norm(x, params, stats, train=False, eps=1e-3)
    wide, mean, var = x.astype(np.float64), stats["mean"].astype(np.float64), stats["var"]
    x_hat = (wide - mean) / np.sqrt(var.astype(np.float64) + 1e-3)
    assert_close(y, params["scale"] * x_hat + params["bias"], 1e-6)
    assert same is stats


def check_low_precision(norm):
    """A mean and a variance that bfloat16 and float16 cannot hold."""
    rng = np.random.default_rng(9)
    for dtype in ("bfloat16", "float16"):
        x, params, stats, dy = random_case(rng, SHAPE, dtype, ratio=100)
        got = step(norm, x, params, stats, dy, 0.25)
        errors = worst_errors(got, x, params, stats, dy, decay=0.25)
        assert max(errors.values()) <= 1e-6, errors
        assert got[0].dtype == got[2].dtype == jnp.dtype(dtype)
        assert all(leaf.dtype == jnp.float32 for leaf in (*got[1].values(), *got[3].values()))


def check_population(norm):
    """E_B[mean] and m/(m-1) E_B[biased variance] over batches through a frozen net."""
    rng = np.random.default_rng(10)
    batches = (rng.normal(size=(5, 8, 3)) * 2 + 7).astype(np.float32)
    params, stats = norm.batch_norm_init(3)
    stats = jax.tree.map(lambda s: s + 100, stats)  # what was there must not matter
    apply = lambda params, stats, x, **choices: norm.batch_norm(x, params, stats, **choices)  # noqa: E731
    found = norm.population_stats(apply, params, stats, iter(batches))
    exact = batches.astype(np.float64)
    assert_close(found["mean"], exact.mean(1).mean(0), 1e-6)
    assert_close(found["var"], 8 / 7 * exact.var(1).mean(0), 1e-6)


def check_fold(norm):
    """x -> BN(linear(x)) in eval mode is one linear layer."""
    rng = np.random.default_rng(11)
    params, stats = random_case(rng, (4, 5), ratio=1)[1:3]
    stats["mean"] = rng.normal(size=5).astype(np.float32)
    image = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    flat = rng.normal(size=(7, 4)).astype(np.float32)
    conv = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    dense = partial(jnp.matmul, precision="highest")
    for x, linear, shape in ((flat, dense, (4, 5)), (image, conv, (3, 3, 3, 5))):
        kernel = rng.normal(size=shape).astype(np.float32)
        for bias in (None, rng.normal(size=5).astype(np.float32)):
            layer = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
            before = np.asarray(linear(x, kernel)) + (0 if bias is None else bias)
            expected, _ = norm.batch_norm(before, params, stats, train=False, eps=1e-3)
            folded = norm.fold(layer, params, stats, eps=1e-3)
            ours = np.asarray(linear(x, folded["kernel"])) + np.asarray(folded["bias"])
            assert_close(ours, expected, 1e-5)


def check_warm_decay(norm):
    """The plain mean of what it has seen, until `decay` takes over."""
    seen = np.random.default_rng(12).normal(size=20) + 5
    average, exact = 1e9, 0.0
    for i, value in enumerate(seen):
        decay = float(norm.warm_decay(0.9, i))
        average = decay * average + (1 - decay) * value
        exact = seen[: i + 1].mean() if i < 10 else 0.9 * exact + 0.1 * value
        assert abs(average - exact) <= 1e-5 * exact, i


CHECKS = [
    check_algorithm_1,
    check_outlier,
    check_groups,
    check_mask,
    check_padding_alone,
    check_single_value,
    check_constant_input,
    check_evaluation,
    check_low_precision,
    check_population,
    check_fold,
    check_warm_decay,
    check_compiled,
]


@pytest.mark.parametrize("check", CHECKS)
def test_norm_passes(check):
    check(types.SimpleNamespace(**(vars(vggbn.nn.moving) | vars(vggbn.nn.batch_norm))))


# --- another estimator of mean and variance -----------------------------------------------------


def textbook_moments(x, weight):
    """Mean and biased variance by numpy's own reductions, without a weight."""
    over = tuple(range(1, x.ndim - 1))
    m = jnp.full((x.shape[0],) + (1,) * (x.ndim - 1), np.prod(x.shape[1:-1]), x.dtype)
    mean, var = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    return mean, jnp.zeros_like(mean), var, m


def second_moments(x, weight):
    """Of an RMS norm: nothing is subtracted."""
    zero, _, _, m = textbook_moments(0 * x, weight)
    return zero, zero, (x * x).mean(tuple(range(1, x.ndim - 1)), keepdims=True), m


def test_an_estimator_s_gradient_is_autodiff_s_and_for_the_paper_s_the_paper_s():
    rng = np.random.default_rng(3)
    x, dy = rng.normal(2, 3, (2, 12, 5))
    params = {"scale": rng.uniform(0.5, 2, 5), "bias": rng.normal(size=5)}
    _, stats = batch_norm_init(5)
    with enable_x64():
        run = lambda x, params, **how: batch_norm(x, params, stats, train=True, groups=2, **how)[0]  # noqa: E731
        other = partial(run, normalise=normalise_by(textbook_moments))
        gradients = [
            jax.jit(lambda x, params, own=own: jax.vjp(own, x, params)[1](dy))(x, params)
            for own in (run, other)
        ]
        for ours, theirs in zip(*gradients, strict=True):
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), ours, theirs)


def test_an_estimator_of_one_s_own_is_what_normalises_and_what_the_averages_follow():
    x = np.random.default_rng(4).normal(2, 3, (12, 5)).astype(np.float32)
    params, stats = batch_norm_init(5)
    how = {"normalise": normalise_by(second_moments), "decay": 0.0, "unbiased": False, "eps": 0.0}
    y, seen = batch_norm(x, params, stats, train=True, **how)
    second_C = (x.astype(np.float64) ** 2).mean(0)
    np.testing.assert_allclose(y, x / np.sqrt(second_C), rtol=1e-5)
    np.testing.assert_allclose(seen["var"], second_C, rtol=1e-5)
    assert not seen["mean"].any()


# --- 204 random shapes, dtypes and offsets ------------------------------------------------------

INPUTS = [
    {"ratio": ratio, "outlier": outlier}
    for ratio in (0, 1, 1e2, 1e3, 1e4, 1e5)
    for outlier in (False, True)
]


class Layout(NamedTuple):
    """What one compilation is for."""

    shape: tuple[int, ...]
    dtype: str
    groups: int
    masked: bool
    unbiased: bool


def _layouts(count=15):
    rng = np.random.default_rng(0)
    dtypes = ["float32", "bfloat16", "float32", "float64", "float32", "float16"]
    for i in range(count):
        rank, groups = 2 + i % 4, int(rng.choice([1, 1, 2, 3]))
        n = groups * int(rng.choice([1, 2, 3, 5, 8, 16]))
        spatial = rng.integers(1, (0, 40, 8, 5)[rank - 2] + 1, rank - 2).tolist()
        channels = int(rng.choice([1, 2, 3, 4, 7, 16, 33]))
        dtype, masked = dtypes[int(rng.integers(6))], bool(rng.random() < 0.4)
        yield Layout((n, *spatial, channels), dtype, groups, masked, i % 3 > 0)


LAYOUTS = [
    Layout((1, 4), "float32", 1, False, True),
    Layout((32, 14, 14, 8), "float32", 1, False, False),
    *_layouts(),
]
LARGE = [  # m of a million and more; the masked one still counts 1,036,800 values
    Layout((1_000_003, 2), "float32", 1, False, True),
    Layout((9, 360, 360, 1), "float32", 1, True, True),
]


def _compare(layout, inputs, rng):
    """The worst relative error of each result over these inputs, with one compilation."""
    shape, dtype, groups, masked, unbiased = layout
    with enable_x64(dtype == "float64"):
        run = jax.jit(partial(step, vggbn.nn.batch_norm, groups=groups, unbiased=unbiased))
        worst = {}
        for choices in inputs:
            mask = rng.random(shape[0]) < 0.8 if masked and shape[0] < 99 else None
            if masked:
                mask = np.ones(shape[0], bool) if shape[0] == 9 else mask
                mask[0] = False
            # float16 ends at 65,504 and bfloat16 in a constant, which is fine.
            std = 10 ** rng.uniform(-3, -1) if dtype == "float16" else 10 ** rng.uniform(-3, 3)
            x, params, stats, dy = random_case(rng, shape, dtype, std=std, mask=mask, **choices)
            decay = float(rng.choice([0.0, 0.5, 0.9]))
            got = run(x, params, stats, dy, decay, mask)
            assert got[0].dtype == got[2].dtype == x.dtype
            errors = worst_errors(
                got, x, params, stats, dy, decay=decay, unbiased=unbiased, mask=mask, groups=groups
            )
            worst = {name: max(worst.get(name, 0.0), error) for name, error in errors.items()}
    return worst


def test_the_random_cases_are_what_the_issue_asks_for():
    assert len(LAYOUTS) * len(INPUTS) >= 200
    assert {len(layout.shape) for layout in LAYOUTS} == {2, 3, 4, 5}
    assert {layout.dtype for layout in LAYOUTS} == set(TOLERANCE)
    assert {layout.groups for layout in LAYOUTS} == {1, 2, 3}
    assert min(layout.shape[0] for layout in LAYOUTS) == 1
    assert min(layout.shape[-1] for layout in LAYOUTS) == 1
    assert {1, 1_000_003} <= {math.prod(layout.shape[:-1]) for layout in LAYOUTS + LARGE}
    assert any(layout.masked and layout.groups > 1 for layout in LAYOUTS)
    assert math.prod(LARGE[1].shape) - math.prod(LARGE[1].shape[1:]) >= 1e6


def summed(times: float) -> float:
    """How many times larger an error may be where the compiler's sums are worse."""
    return times if OLD else 1


@pytest.mark.parametrize("i", range(len(LAYOUTS)))
def test_random_shapes_dtypes_and_offsets(i):
    layout = LAYOUTS[i]
    worst = _compare(layout, INPUTS, np.random.default_rng(100 + i))
    assert max(worst.values()) <= summed(1e3) * TOLERANCE[layout.dtype], (layout, worst)
    assert max(worst["y"], worst["dx"]) <= summed(1e3) * 1e-6, (layout, worst)


def test_pixels_of_two_values():
    """Equal numbers: what a running sum rounds is the same every time, and adds up."""
    layout = Layout((32, 14, 14, 128), "float32", 1, False, True)
    inputs = [{"ratio": ratio, "binary": True} for ratio in (0, 1e4, 1e5)]
    worst = _compare(layout, inputs, np.random.default_rng(300))
    assert max(worst.values()) <= summed(1e4) * 1e-6, worst


@pytest.mark.parametrize("i", range(len(LARGE)))
def test_a_million_values(i):
    inputs = [{"ratio": 1e5, "outlier": i == 0}]
    worst = _compare(LARGE[i], inputs, np.random.default_rng(200 + i))
    assert max(worst.values()) <= summed(100) * 1e-6, worst


# --- flax and torch -----------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_equals_flax(masked):
    """Flax keeps the biased variance in its running average (and has no m/(m-1))."""
    from flax import linen  # not above: the process of the sharding test has no need of it

    layer = linen.BatchNorm(
        use_running_average=False, momentum=0.9, epsilon=EPS, use_fast_variance=False
    )
    rng = np.random.default_rng(20)
    mask = np.arange(6) > 1 if masked else None
    _, params, stats, _ = random_case(rng, (6, 3, 2, 4))
    stats = theirs = batch_norm_init(4)[1]

    @jax.jit
    def flax_step(x, params, stats, dy):
        def apply(x, params):
            wide = None if mask is None else mask.reshape(-1, 1, 1, 1)
            variables = {"params": params, "batch_stats": stats}
            return layer.apply(variables, x, mask=wide, mutable=["batch_stats"])

        y, vjp, new = jax.vjp(apply, x, params, has_aux=True)
        return y, new["batch_stats"], *vjp(dy)

    for _ in range(3):
        x, dy = rng.normal(size=(2, 6, 3, 2, 4)).astype(np.float32) * 3 + 2
        if masked:
            dy[~mask] = 0

        y, stats, dx, d_params = STEP(x, params, stats, dy, 0.9, mask, unbiased=False)
        their_y, theirs, their_dx, their_d_params = flax_step(x, params, theirs, dy)
        keep = slice(None) if mask is None else mask
        assert_close((y[keep], stats, d_params), (their_y[keep], theirs, their_d_params), 1e-6)
        assert_close(dx, their_dx, 1e-6)
        assert_equal_trees(jax.tree.map(np.shape, stats), jax.tree.map(np.shape, theirs))


def test_variable_tree_is_flaxs():
    from flax import linen

    x = np.zeros((2, 5), np.float32)
    theirs = linen.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    params, stats = batch_norm_init(5)
    assert_equal_trees({"params": params, "batch_stats": stats}, theirs)
    leaves = jax.tree.leaves((params, stats))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == 4  # donation needs that


@cache
def torch_golden():
    return dict(np.load(ROOT / "tests" / "golden" / "torch_batch_norm.npz"))


TORCH_CASES = ["dense", "image", "pair", "plain mean", "sequence", "volume"]


def test_every_torch_case_is_compared():
    assert sorted({key.split("/")[0] for key in torch_golden()}) == TORCH_CASES


@pytest.mark.parametrize("case", TORCH_CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_torch(case, dtype):
    """Values made by tests/golden/make_torch_batch_norm.py: three steps, then eval mode."""
    golden = {name.removeprefix(f"{case}/"): a for name, a in torch_golden().items()}
    decay, eps = golden["decay"].item(), golden["eps"].item()
    with enable_x64(dtype == "float64"):
        tolerance = {"float32": 2e-6, "float64": 1e-13}[dtype]
        params = {name: golden[name].astype(dtype) for name in ("scale", "bias")}
        stats = batch_norm_init(params["scale"].size, dtype)[1]
        for i in range(len(golden["x"])):
            weight = i / (i + 1) if decay == 1 else decay  # torch's momentum None: the plain mean
            x, dy = golden["x"][i].astype(dtype), golden["dy"][i].astype(dtype)
            y, stats, dx, d_params = STEP(x, params, stats, dy, weight, eps=eps)
            ours = {"y": y, "dx": dx, "mean": stats["mean"], "var": stats["var"]}
            ours |= {"d_scale": d_params["scale"], "d_bias": d_params["bias"]}
            theirs = {name: golden[f"{dtype}/{name}"][i] for name in ours}
            if case == "pair":  # m = 2: dx is what is left of a sum that cancels
                assert_close(ours.pop("dx"), theirs.pop("dx"), 100 * tolerance)
            assert_close(ours, theirs, tolerance)
        y_eval, _ = batch_norm(golden["x"][0].astype(dtype), params, stats, train=False, eps=eps)
        assert y_eval.dtype == dtype
        assert_close(y_eval, golden[f"{dtype}/y_eval"], tolerance)


# --- gradients ----------------------------------------------------------------------------------


def plain(x, params, stats, *, decay=0.9, eps=EPS, mask=None, groups=1):
    """BN by the textbook, for JAX to differentiate: groups in a loop, zeros for padding."""
    y, means, variances = jnp.zeros_like(x), [], []
    for rows in np.split(np.arange(len(x)), groups):
        rows = rows if mask is None else rows[mask[rows]]
        kept = x[rows].reshape(-1, x.shape[-1])
        mean = kept.mean(0, keepdims=True)
        var = ((kept - mean) ** 2).mean(0, keepdims=True)
        kept = params["scale"][None] * (kept - mean) / jnp.sqrt(var + eps) + params["bias"][None]
        y = y.at[rows].set(kept.reshape(x[rows].shape))
        means.append(mean[0])
        variances.append(var[0] * len(kept) / (len(kept) - 1))
    new = {"mean": sum(means) / groups, "var": sum(variances) / groups}
    return y, {name: decay * stats[name] + (1 - decay) * new[name] for name in stats}


GRADIENT_CASES = {
    "dense": ((7, 3), {"eps": 0.1}),
    "groups": ((6, 2, 2, 3), {"groups": 3}),
    "mask and groups": ((8, 2, 3), {"groups": 2, "mask": np.arange(8) % 4 > 0}),
}


@pytest.mark.parametrize("case", GRADIENT_CASES)
def test_gradients_equal_finite_differences_and_autodiff(case):
    """In float64, and for losses that look at the padding too."""
    shape, choices = GRADIENT_CASES[case]
    with enable_x64():
        rng = np.random.default_rng(30)
        x, params, stats, _ = random_case(rng, shape, "float64", ratio=2)
        dy = jnp.asarray(rng.normal(size=shape))

        @partial(jax.jit, static_argnums=0)
        def loss(apply, x, params):
            y, new = apply(x, params, stats, **choices)
            return (dy * y).sum() + (y**3).sum() / 3, (y, new)

        ours = partial(loss, partial(batch_norm, train=True))
        theirs = partial(loss, plain)
        (_, aux), gradient = jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)(x, params)
        (_, plain_aux), exact = jax.value_and_grad(theirs, argnums=(0, 1), has_aux=True)(x, params)
        assert_close(aux, plain_aux, 1e-12)
        assert_close(gradient, exact, 1e-12)
        value = lambda x, params: ours(x, params)[0]  # noqa: E731
        check_grads(value, (x, params), order=1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=1e-6)


def test_moving_averages_carry_no_gradient():
    x, params, stats, _ = random_case(np.random.default_rng(31), (5, 3))

    def loss(x):
        new = batch_norm(x, params, stats, train=True)[1]
        return new["mean"].sum() + new["var"].sum()

    assert loss(x) != loss(2 * x)
    assert not np.any(jax.grad(loss)(x))


# --- what the paper says of BN ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2, 3)])
def test_normalised_activations_have_mean_0_and_variance_1(shape):  # BN-1
    with enable_x64():
        x = 3 * np.random.default_rng(40).normal(size=shape) + 50
        axes = tuple(range(x.ndim - 1))
        params, stats = batch_norm_init(shape[-1], jnp.float64)
        x_hat, _ = TRAIN(x, params, stats)
        var = x.var(axes)
        assert np.abs(x_hat.mean(axes)).max() < 1e-13
        assert_close(x_hat.var(axes), var / (var + EPS), 1e-12)
        x_hat, _ = TRAIN(x, params, stats, eps=0.0)
        assert_close(x_hat.var(axes), np.ones(shape[-1]), 1e-12)


def test_scale_and_shift_can_recover_the_identity():  # BN-3
    x = random_case(np.random.default_rng(41), (16, 3, 4), ratio=2)[0]
    wide = x.astype(np.float64)
    params = {"scale": np.sqrt(wide.var((0, 1)) + EPS), "bias": wide.mean((0, 1))}
    params = jax.tree.map(np.float32, params)
    y, _ = TRAIN(x, params, batch_norm_init(4)[1])
    assert_close(y, x, 1e-6)


def test_conv_bn_is_dense_bn_on_the_reshaped_array():  # BN-6
    x, params, stats, _ = random_case(np.random.default_rng(42), (4, 5, 3, 6))
    image = TRAIN(x, params, stats)
    y, new = TRAIN(x.reshape(-1, 6), params, stats)
    assert_close(image, (y.reshape(x.shape), new), 1e-6)
    assert params["scale"].shape == (6,)
    rolled, _ = TRAIN(np.roll(x, (2, 1), (1, 2)), params, stats)
    assert_close(rolled, np.roll(image[0], (2, 1), (1, 2)), 1e-6)


@pytest.mark.parametrize("size", [-3.0, 0.1, 50.0])
def test_a_bias_before_bn_does_nothing(size):  # BN-7
    x, params, stats, dy = random_case(np.random.default_rng(43), (16, 4, 3))
    b = np.array([1, -2, 3], np.float32) * np.float32(size)

    def apply(b):
        return batch_norm(x + b.reshape(1, 1, -1), params, stats, train=True, decay=0.0)

    y, vjp, new = jax.vjp(jax.jit(apply), b, has_aux=True)
    without, old = jax.jit(apply)(0 * b)
    assert_close(y, without, 1e-5)  # x + b is rounded
    assert_close(new["mean"] - old["mean"], b, 1e-5)
    assert_close(new["var"], old["var"], 1e-5)
    assert np.abs(vjp(dy)[0]).max() <= 1e-6 * np.abs(dy).sum()


@pytest.mark.parametrize("a", [0.1, 2.0, 100.0])
def test_scale_invariance(a):  # BN-8, section 3.3
    with enable_x64():
        rng = np.random.default_rng(44)
        u, w, dy = rng.normal(size=(6, 4)), rng.normal(size=(4, 3)), rng.normal(size=(6, 3))
        _, params, stats, _ = random_case(rng, (6, 3), "float64")

        def layer(w, u, eps=0.0):
            return batch_norm(u @ w, params, stats, train=True, eps=eps)[0]

        def loss(w, eps=0.0):
            return (dy * layer(w, u, eps)).sum()

        layer = jax.jit(layer, static_argnums=2)
        jacobian = jax.jit(jax.jacrev(layer, argnums=1))
        assert_close(jacobian(a * w, u), jacobian(w, u), 1e-12)
        gradient = jax.jit(jax.grad(loss), static_argnums=1)
        assert_close(layer(a * w, u), layer(w, u), 1e-12)
        assert_close(gradient(a * w), gradient(w) / a, 1e-12)
        # so each unit's gradient is orthogonal to its weights
        across = np.abs((gradient(w) * w).sum(0))
        assert np.all(across <= 1e-12 * norm_C(gradient(w)) * norm_C(w))
        # and none of this holds with an eps that shows
        assert np.abs(layer(a * w, u, 0.1) - layer(w, u, 0.1)).max() > 1e-3
        assert np.abs((gradient(w, 0.1) * w).sum(0)).max() > 1e-3


def test_a_negative_scale_turns_the_sign():
    x, params, stats, _ = random_case(np.random.default_rng(45), (8, 3))
    params["bias"][:] = 0
    y, _ = TRAIN(x, params, stats)
    assert_close(TRAIN(-x, params, stats)[0], -y, 1e-6)


# --- Algorithm 2, moving averages, evaluation ---------------------------------------------------


def test_population_variance_is_unbiased():  # BN-5: m = 4 and 40,000 batches from N(1, 9)
    rng = np.random.default_rng(50)
    batches = (1 + 3 * rng.normal(size=(4, 4, 10_000))).astype(np.float32)
    params, stats = batch_norm_init(10_000)
    found = {}
    for unbiased in (True, False):

        def apply(params, stats, x, *, train, decay, unbiased=unbiased):
            assert train
            return TRAIN(x, params, stats, decay=decay, unbiased=unbiased)

        found[unbiased] = population_stats(apply, params, stats, batches)
    assert np.mean(found[True]["mean"]) == pytest.approx(1, abs=0.04)
    assert np.mean(found[True]["var"]) == pytest.approx(9, rel=0.015)  # 3 standard errors
    assert np.mean(found[False]["var"]) == pytest.approx(9 * 3 / 4, rel=0.015)


def test_population_stats_of_a_net_of_several_layers():
    """Any tree of statistics; the net is frozen, so batches do not see one another."""

    def net(params, stats, x, *, train, decay):
        new = {}
        for name in ("first", "second"):
            choices = {"train": train, "decay": decay, "unbiased": False}
            x, new[name] = batch_norm(x, params[name], stats[name], **choices)
            x = jnp.tanh(x * 2)
        return x, new

    inits = {name: batch_norm_init(3) for name in ("first", "second")}
    params, stats = ({name: both[i] for name, both in inits.items()} for i in (0, 1))
    batches = np.random.default_rng(51).normal(size=(3, 6, 3)).astype(np.float32) + 4
    found = population_stats(net, params, stats, batches)
    exact = batches.astype(np.float64)
    x_hat = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + EPS)
    hidden = np.tanh(2 * x_hat)
    assert_close(found["first"], {"mean": exact.mean((0, 1)), "var": exact.var(1).mean(0)}, 1e-6)
    second = {"mean": hidden.mean((0, 1)), "var": hidden.var(1).mean(0)}
    assert np.abs(found["second"]["mean"] - second["mean"]).max() < 1e-6
    assert_close(found["second"]["var"], second["var"], 1e-6)


def test_population_stats_needs_a_batch():
    with pytest.raises(ValueError, match="at least one training batch"):
        population_stats(batch_norm, {}, {}, [])


def test_decay_is_the_weight_of_the_old_value():
    x = np.array([[1.0], [3.0]], np.float32)  # mean 2, biased variance 1, unbiased 2
    params, stats = batch_norm_init(1)
    for unbiased, var in ((True, 2.0), (False, 1.0)):
        _, new = batch_norm(x, params, stats, train=True, decay=0.75, unbiased=unbiased)
        assert new["mean"] == pytest.approx(0.75 * 0 + 0.25 * 2, rel=1e-6)
        assert new["var"] == pytest.approx(0.75 * 1 + 0.25 * var, rel=1e-6)
    traced = jax.jit(lambda decay: batch_norm(x, params, stats, train=True, decay=decay)[1])
    assert_close(traced(0.75), batch_norm(x, params, stats, train=True, decay=0.75)[1], 1e-6)


def test_warm_decay():
    assert [float(warm_decay(0.9, step)) for step in (0, 1, 3)] == [0, 0.5, 0.75]
    assert float(warm_decay(0.9, 9)) == float(warm_decay(0.9, 1000)) == np.float32(0.9)
    assert float(jax.jit(warm_decay)(0.5, jnp.int32(7))) == 0.5
    # A running variance that starts at 1 and is debiased as if from 0 is 100 times too large.
    x = np.random.default_rng(52).normal(size=(16, 3)).astype(np.float32) * 7
    params, stats = batch_norm_init(3)
    _, new = batch_norm(x, params, stats, train=True, decay=warm_decay(0.99, 0))
    assert_close(new, {"mean": x.mean(0), "var": x.var(0, ddof=1)}, 1e-6)


def test_evaluation_does_not_see_the_batch():  # BN-4
    x, params, stats, _ = random_case(np.random.default_rng(53), (6, 3, 4))
    apply = jax.jit(partial(batch_norm, train=False))
    y, new = apply(x, params, stats)
    assert_equal_trees(new, stats)
    others = np.concatenate([x[:1], 100 * x[1:] - 7])
    np.testing.assert_array_equal(apply(others, params, stats)[0][0], y[0])
    assert_close(apply(x[3:4], params, stats)[0], y[3:4], 1e-6)
    # mask, groups and decay are of training: nothing of them is left
    choices = {"mask": np.arange(6) > 2, "groups": 4, "decay": 0.0, "unbiased": False}
    again, same = batch_norm(x, params, stats, train=False, **choices)
    assert_close(again, y, 1e-6)
    assert same is stats


def test_evaluation_is_affine():  # BN-4
    x, params, stats, _ = random_case(np.random.default_rng(54), (6, 4))
    apply = lambda x: batch_norm(x, params, stats, train=False)[0]  # noqa: E731
    zero = apply(0 * x)
    assert_close(apply(3 * x) - zero, 3 * (apply(x) - zero), 1e-5)


def test_fold_uses_batch_norms_own_eps():
    _, params, stats, _ = random_case(np.random.default_rng(55), (4, 3), std=1e-2)
    kernel = np.eye(3, dtype=np.float32)
    x = np.random.default_rng(56).normal(size=(5, 3)).astype(np.float32)
    folded = fold({"kernel": kernel}, params, stats)
    y, _ = batch_norm(x, params, stats, train=False)
    assert_close(
        jnp.matmul(x, folded["kernel"], precision="highest") + folded["bias"][None], y, 1e-5
    )
    assert set(folded) == {"kernel", "bias"}


# --- groups, mask, devices ----------------------------------------------------------------------


def test_groups_are_separate_calls():
    x, params, stats, dy = random_case(np.random.default_rng(60), (12, 3, 4))
    y, new, dx, d_params = STEP(x, params, stats, dy, 0.5, groups=3)
    parts = [STEP(x[i : i + 4], params, stats, dy[i : i + 4], 0.5) for i in (0, 4, 8)]
    assert_close(y, np.concatenate([part[0] for part in parts]), 1e-6)
    assert_close(dx, np.concatenate([part[2] for part in parts]), 1e-6)
    assert_close(new, jax.tree.map(lambda *a: sum(a) / 3, *(part[1] for part in parts)), 1e-6)
    assert_close(d_params, jax.tree.map(lambda *a: sum(a), *(part[3] for part in parts)), 1e-6)
    whole = STEP(x, params, stats, dy, 0.5)
    assert np.abs(whole[0] - y).max() > 0.1
    assert np.all(new["var"] < whole[1]["var"] + 0.1)


@pytest.mark.parametrize("groups", [5, 8, 100])
def test_groups_must_cut_the_batch_evenly(groups):
    x, params, stats, _ = random_case(np.random.default_rng(61), (12, 3))
    with pytest.raises(ValueError, match=f"a batch of 12 cannot be cut into {groups} equal groups"):
        batch_norm(x, params, stats, train=True, groups=groups)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_mask_is_the_same_call_on_the_rows_that_count(garbage):
    x, params, stats, dy = random_case(np.random.default_rng(62), (9, 2, 4), ratio=10)
    mask = np.arange(9) % 3 > 0
    x[~mask] = dy[~mask] = garbage
    y, new, dx, d_params = STEP(x, params, stats, dy, 0.5, mask)
    kept_y, kept_new, kept_dx, kept_d_params = STEP(x[mask], params, stats, dy[mask], 0.5)
    assert_close(y[mask], kept_y, 1e-6)
    assert_close(dx[mask], kept_dx, 1e-6)
    assert_close((new, d_params), (kept_new, kept_d_params), 1e-6)
    assert not np.any(y[~mask])
    assert not np.any(dx[~mask])


def test_a_group_of_padding_has_no_say_in_the_moving_averages():
    x, params, stats, _ = random_case(np.random.default_rng(63), (12, 4), ratio=10)
    mask = np.arange(12) < 6  # the second group of three is half full, the last one empty
    choices = {"decay": 0.0}
    _, new = TRAIN(x, params, stats, mask=mask, groups=3, **choices)
    _, first = TRAIN(x[:4], params, stats, **choices)
    _, second = TRAIN(x[4:6], params, stats, **choices)
    assert_close(new, jax.tree.map(lambda a, b: (a + b) / 2, first, second), 1e-6)


def test_vmap_over_seeds_is_a_loop():
    rng = np.random.default_rng(64)
    cases = [random_case(rng, (6, 2, 3)) for _ in range(3)]
    run = jax.jit(partial(step, vggbn.nn.batch_norm, decay=0.5, mask=np.arange(6) > 0, groups=2))
    looped = jax.tree.map(lambda *a: np.stack(a), *(run(*case) for case in cases))
    stacked = jax.tree.map(lambda *a: np.stack(a), *cases)
    assert_close(jax.vmap(run)(*stacked), looped, 1e-6)


SHARDED = """
import jax, numpy as np
from functools import partial
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
jax.config.update("jax_numpy_rank_promotion", "raise")
from vggbn.nn import batch_norm as norm
from tests.nn.test_norm import assert_close, random_case, step

devices = np.array(jax.devices())
assert len(devices) == 4, devices
mesh = Mesh(devices, "data")
x, params, stats, dy = random_case(np.random.default_rng(0), (16, 3, 5), ratio=2)
x *= np.linspace(0.1, 3, 16, dtype=np.float32).reshape(-1, 1, 1)  # each shard is another one
sharded, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
results = []
for choices in ({}, {"groups": 4}, {"mask": np.arange(16) < 11}):
    run = jax.jit(partial(step, norm, decay=0.5, **choices))
    one = run(x, params, stats, dy)
    four = run(*jax.device_put((x, params, stats, dy), (sharded, whole, whole, sharded)))
    assert not four[0].sharding.is_fully_replicated
    assert_close(four, one, 1e-6)
    results.append(np.asarray(four[0]))
assert np.abs(results[0] - results[1]).max() > 0.1
print("equal on four devices")
"""


def test_statistics_are_global_under_a_sharded_batch(tmp_path):
    """Under jit the batch mean is over all devices; per-device statistics are `groups`."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{programs.QUICK} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SHARDED)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "equal on four devices"
