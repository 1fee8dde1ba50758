"""The CPU forms against `lax` and its gradients, and who gets them: no GPU, TPU or VGGBN_FAST=0.

Whether the process itself has them on does not matter here: each test says what it wants.
"""

import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.nn.test_layers import conv_64, normal, relative_error, with_gradients
from vggbn.machine import compiling
from vggbn.models import MODELS, Net
from vggbn.nn import fast, layers
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe


@pytest.fixture(autouse=True)
def cpu():
    """Also where a GPU is the default device."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.fixture
def switch(monkeypatch):
    """switch(True) or switch(False): what is traced afterwards takes the fast or the plain form."""

    def turn(on):
        monkeypatch.setattr(compiling, "ENABLED", on)
        compiling.compiler_options.cache_clear()

    yield turn
    compiling.compiler_options.cache_clear()


@pytest.fixture
def on_cpu_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def fresh_jit(function):
    """jax.jit that cannot find a trace of the same function with another switch."""
    return jax.jit(lambda *args: function(*args))


def same_bits(ours, theirs) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return (ours.dtype, ours.shape, ours.tobytes()) == (
        theirs.dtype,
        theirs.shape,
        theirs.tobytes(),
    )


def operations(text) -> Counter:
    """Of a StableHLO program, without the branch over platforms: a `case` of a constant."""
    counts = Counter(re.findall(r"stablehlo\.(\w+)", text))
    return Counter({n: k for n, k in counts.items() if n not in ("case", "return", "constant")})


# --- convolution ---------------------------------------------------------------------------------

FORMS = {
    "small map": fast.SMALL_MAP,
    "few channels": fast.FEW_CHANNELS,
    "few to few channels": fast.FEW_TO_FEW_CHANNELS,
    "narrow": fast.NARROW,
    "narrow input": fast.NARROW_INPUT,
    "narrow output": fast.NARROW_OUTPUT,
    "many channels": fast.MANY_CHANNELS,
    "winograd": fast.WINOGRAD,
    "winograd but for the kernel": fast.WINOGRAD_MAPS,
    "plain": fast.PLAIN,
}


def _shapes():
    """(h, w, H, W, C, O): kernels of 1, 3, 5 and 7, maps of 1 to 9, 1 to 4 channels."""
    for i, side in enumerate((1, 3, 5, 7)):
        for j in range(9):
            if (i // 2 + j) % 3 == 2:  # a third of the grid: what is left has every side and size
                continue
            O = (2, 40, 32, 33, 5)[(i + j) % 5]  # noqa: E741
            yield side, side, j + 1, (4 * j + i) % 9 + 1, (i + j) % 4 + 1, O
    yield from ((1, 3, 4, 4, 2, 3), (3, 1, 5, 6, 4, 33), (5, 3, 2, 2, 3, 4), (3, 7, 2, 5, 5, 4))
    # few channels to few, and to 17 … 32
    yield from ((3, 3, 6, 8, 3, 16), (1, 1, 5, 4, 4, 9), (5, 5, 8, 6, 1, 7), (5, 5, 7, 8, 3, 30))
    yield from ((3, 3, 4, 4, 3, 17), (7, 7, 8, 10, 1, 16))
    # 5 to 16 channels on either side or on both
    yield from ((3, 3, 5, 6, 8, 16), (3, 3, 7, 8, 5, 2), (5, 3, 6, 6, 16, 9), (7, 7, 8, 8, 6, 12))
    yield from ((3, 3, 5, 6, 16, 17), (3, 3, 7, 8, 5, 40), (3, 5, 5, 6, 9, 33), (7, 7, 8, 8, 8, 20))
    yield from ((3, 3, 5, 6, 17, 16), (3, 3, 7, 8, 40, 2), (3, 5, 5, 6, 33, 9), (7, 7, 8, 8, 20, 8))
    # more channels on both sides
    yield from (
        (3, 3, 5, 6, 2, 34),
        (3, 3, 4, 8, 33, 17),
        (5, 3, 6, 6, 40, 20),
        (7, 7, 8, 8, 35, 33),
    )
    # many channels on both sides over few pixels, and over more
    for side in ((2, 4), (4, 6), (6, 10)):
        yield from ((3, 3, *side, 256, 64), (3, 3, *side, 90, 130))
    yield from ((3, 3, 18, 20, 64, 128), (3, 3, 22, 22, 140, 90), (3, 3, 8, 48, 130, 64))
    yield (3, 3, 18, 26, 128, 65)
    # sums of as many terms as the suite's nets have
    yield from (
        (3, 3, 2, 2, 128, 96),
        (3, 3, 28, 28, 1, 8),
        (5, 5, 16, 16, 3, 40),
        (3, 3, 16, 16, 64, 16),
    )


SHAPES = list(_shapes())


def _other(shape):
    """One of the forms that are not chosen but can compute this shape, by name: each in turn."""
    _, _, H, W, _, _ = shape
    # a large matrix compiles long
    can = {"small map": H * W <= 14, "few channels": True, "narrow": True}
    can |= {"many channels": True, "winograd": shape[:2] == (3, 3) and H % 2 == W % 2 == 0}
    able = [name for name in can if can[name] and FORMS[name] is not _chosen(shape)]
    return able[SHAPES.index(shape) % len(able)]


def _chosen(shape):
    h, w, H, W, C, O = shape  # noqa: E741
    return fast._form((h, w, C, O), (3, H, W, C), jnp.float32)


def test_the_shapes_reach_every_form():
    chosen = Counter(map(_chosen, SHAPES))
    assert set(chosen) == set(FORMS.values())
    assert min(chosen.values()) >= 4, chosen
    assert {shape[0] for shape in SHAPES} == {1, 3, 5, 7}
    for place in (2, 3):
        assert {shape[place] for shape in SHAPES} >= set(range(1, 10))
    for name in ("small map", "few channels", "narrow"):
        tried = [
            shape for shape in SHAPES if name == _other(shape) or _chosen(shape) is FORMS[name]
        ]
        assert {shape[4] for shape in tried} >= {1, 2, 3, 4}, name
        assert {shape[0] for shape in tried} == {1, 3, 5, 7}, name


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)))
def test_every_form_equals_loops(shape, switch):
    """y and its gradients, by the form that is chosen and by another that could be."""
    h, w, H, W, C, O = shape  # noqa: E741
    kernel, x, dy = normal(h, w, C, O), normal(3, H, W, C), normal(3, H, W, O, seed=1)
    other = FORMS[_other(shape)]
    switch(True)

    @jax.jit
    def run(kernel, x, dy):
        y, pull = jax.vjp(fast.conv, kernel, x)
        another = other.forward(kernel, x), other.d_kernel(kernel, x, dy), other.d_x(kernel, x, dy)
        return {"chosen": (y, *pull(dy)), _other(shape): another}

    exact = conv_64(kernel, x, dy)
    for name, ours in run(kernel, x, dy).items():
        for a, loops in zip(ours, exact, strict=True):
            assert relative_error(a, loops) <= 1e-5, name


def test_the_choice():

    def chosen(side, H, W, C, O, N=8, dtype="float32"):  # noqa: E741
        return fast._form((side, side, C, O), (N, H, W, C), jnp.dtype(dtype))

    assert chosen(3, 2, 2, 512, 512) is fast.SMALL_MAP  # block 5 of a VGG at 32×32
    assert chosen(3, 1, 1, 3, 8) is fast.SMALL_MAP
    assert chosen(3, 40, 32, 64, 128) is chosen(3, 8, 8, 33, 17) is fast.MANY_CHANNELS
    # blocks 3 and 4 of a VGG at 32×32, of full width and of width/4
    assert chosen(3, 8, 8, 256, 256, 128) is fast.WINOGRAD_MAPS
    assert chosen(3, 4, 4, 512, 512, 128) is chosen(3, 4, 4, 128, 128, 128) is fast.WINOGRAD
    assert chosen(3, 8, 8, 64, 64, 128) is fast.MANY_CHANNELS
    assert chosen(3, 16, 16, 128, 128, 128) is fast.MANY_CHANNELS  # the tiles leave the cache
    for other in (
        chosen(3, 4, 4, 512, 512, dtype="bfloat16"),
        chosen(3, 5, 4, 512, 512),
        chosen(5, 6, 6, 512, 512),
    ):
        assert other is fast.MANY_CHANNELS
    assert chosen(3, 4, 5, 512, 512) is fast.PLAIN
    assert chosen(3, 8, 8, 32, 512) is chosen(3, 8, 8, 17, 17) is fast.MANY_CHANNELS
    # the dense form wants a kernel that is larger both ways
    assert chosen(5, 4, 5, 17, 17) is fast.PLAIN
    assert chosen(3, 32, 32, 3, 32) is fast.FEW_CHANNELS
    assert chosen(3, 32, 32, 3, 33) is fast.MANY_CHANNELS
    # pixels lie in pairs: an odd width gets a column of zeros, where that pays
    assert chosen(3, 32, 31, 3, 32) is chosen(5, 9, 7, 3, 8) is fast.FEW_CHANNELS
    assert chosen(3, 72, 55, 8, 16) is chosen(3, 7, 7, 16, 16) is fast.NARROW
    for C, O in ((3, 33), (16, 32), (32, 16), (32, 32), (64, 128)):  # noqa: E741
        assert chosen(3, 36, 27, C, O) is fast.PLAIN
    assert chosen(3, 5, 5, 8, 16) is chosen(5, 5, 5, 3, 8) is fast.PLAIN
    assert chosen(3, 32, 31, 3, 16) is fast.FEW_TO_FEW_CHANNELS
    assert chosen(5, 32, 32, 3, 8) is fast.FEW_CHANNELS  # 75 images to be added
    assert chosen(3, 16, 16, 8, 16) is fast.NARROW  # block 2 of a VGG of width/8
    assert chosen(3, 16, 16, 16, 32) is fast.NARROW_INPUT
    assert chosen(3, 16, 16, 32, 16) is fast.NARROW_OUTPUT
    assert chosen(1, 16, 16, 8, 16) is chosen(1, 16, 15, 8, 16) is fast.PLAIN
    assert chosen(2, 1, 1, 3, 8) is fast.PLAIN


@pytest.mark.parametrize("shape", [(3, 3, 8, 7, 3, 20), (3, 3, 6, 9, 8, 16), (5, 5, 6, 7, 4, 9)])
def test_a_column_of_zeros_changes_no_number(shape, switch):
    """An odd width, in float64, where nothing else than an error shows."""
    h, w, H, W, C, O = shape  # noqa: E741
    assert W % 2 and _chosen(shape) in (fast.FEW_CHANNELS, fast.NARROW)
    switch(True)
    arrays = normal(h, w, C, O), normal(3, H, W, C), normal(3, H, W, O, seed=1)
    with compiling.enable_x64():
        kernel, x, dy = (a.astype(np.float64) for a in arrays)
        ours = fresh_jit(with_gradients(fast.conv))(kernel, x, dy)
        plain = fresh_jit(with_gradients(fast.plain_conv))(kernel, x, dy)
        for a, b, exact in zip(ours, plain, conv_64(kernel, x, dy), strict=True):
            assert a.dtype == np.float64 and a.shape == b.shape
            assert relative_error(a, b) <= 1e-12
            assert relative_error(a, exact) <= 1e-12


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("stride, padding", [(2, "SAME"), (1, "VALID"), (2, "VALID")])
def test_other_strides_and_paddings_are_laxs(stride, padding, on, switch):
    switch(on)
    kernel, x = normal(3, 3, 3, 4), normal(2, 8, 8, 3)
    ours = partial(fast.conv, stride=stride, padding=padding)
    plain = partial(fast.plain_conv, stride=stride, padding=padding)
    assert str(jax.make_jaxpr(ours)(kernel, x)) == str(jax.make_jaxpr(plain)(kernel, x))


@pytest.mark.parametrize(
    "shape",
    [
        (3, 3, 2, 2, 16, 8),
        (3, 3, 6, 6, 3, 8),
        (3, 3, 6, 6, 3, 20),
        (3, 3, 6, 6, 8, 8),
        (3, 3, 4, 4, 64, 128),
    ],
)
def test_forms_keep_bfloat16(shape, switch):
    switch(True)
    h, w, H, W, C, O = shape  # noqa: E741
    arrays = normal(h, w, C, O), normal(3, H, W, C), normal(3, H, W, O, seed=1)
    kernel, x, dy = (jnp.asarray(a, jnp.bfloat16) for a in arrays)
    for a, exact in zip(
        with_gradients(fast.conv)(kernel, x, dy), conv_64(kernel, x, dy), strict=True
    ):
        assert a.dtype == jnp.bfloat16
        assert relative_error(a, exact) <= 2**-7


@pytest.mark.parametrize(
    "shape",
    [(3, 3, 2, 2, 5, 4), (3, 3, 4, 6, 2, 4), (3, 3, 4, 6, 5, 4), (3, 3, 4, 4, 64, 128)],
)
def test_forms_can_be_mapped_and_differentiated_twice(shape, switch):
    """In float64, where nothing else than an error shows."""
    h, w, H, W, C, O = shape  # noqa: E741
    kernels, x = (a.astype(np.float64) for a in (normal(3, h, w, C, O), normal(2, H, W, C)))

    def penalty(kernel, x):
        loss = lambda kernel: jnp.tanh(fast.max_pool_2x2(jnp.tanh(fast.conv(kernel, x)))).sum()  # noqa: E731
        return (jax.grad(loss)(kernel) ** 2).sum()

    results = []
    for on in (True, False):
        switch(on)
        with compiling.enable_x64():
            results.append(fresh_jit(jax.vmap(jax.grad(penalty), (0, None)))(kernels, x))
    assert results[0].dtype == np.float64
    assert relative_error(*results) <= 1e-12


# --- pooling -------------------------------------------------------------------------------------

VALUES = {
    "distinct": lambda rng, shape: rng.normal(size=shape),
    "ties": lambda rng, shape: rng.integers(0, 3, shape),
    "relu's": lambda rng, shape: np.maximum(rng.normal(size=shape), 0),
    "zeros of both signs": lambda rng, shape: rng.choice([-0.0, 0.0], shape),
    "infinite": lambda rng, shape: rng.choice([-np.inf, np.inf, 0, 1], shape),
    "all -inf": lambda rng, shape: np.full(shape, -np.inf),
    "tiny": lambda rng, shape: rng.choice([1e-40, -1e-40, 1e-38, 0], shape),
}


def pool_and_gradient(pool, x, dy):
    y, pull = jax.vjp(pool, x)
    return pool(x), y, pull(dy)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 6, 4, 5), (3, 5, 7, 3), (2, 2, 9, 1), (1, 3, 2, 33)])
def test_pooling_is_xlas_bit_for_bit(shape, dtype, switch):
    switch(True)
    ours = fresh_jit(partial(pool_and_gradient, fast.max_pool_2x2))
    plain = fresh_jit(partial(pool_and_gradient, fast.plain_max_pool_2x2))
    rng = np.random.default_rng(0)
    for name, draw in VALUES.items():
        x = draw(rng, shape).astype(jnp.dtype(dtype))
        dy = rng.normal(size=(shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
        dy = dy.astype(jnp.dtype(dtype))
        for a, b in zip(ours(x, dy), plain(x, dy), strict=True):
            assert same_bits(a, b), name
        assert np.any(ours(x, dy)[2])


def test_pooling_with_nan(switch):
    """XLA's maxima; of the gradient only that it stays in its window, where XLA's place is odd."""
    switch(True)
    rng, shape = np.random.default_rng(1), (4, 7, 6, 3)
    x = rng.choice([np.nan, 0, 1, 2, 3, np.inf], shape).astype(np.float32)
    dy = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    alone, y, dx = fresh_jit(partial(pool_and_gradient, fast.max_pool_2x2))(x, dy)
    _, plain_y, plain_dx = fresh_jit(partial(pool_and_gradient, fast.plain_max_pool_2x2))(x, dy)
    np.testing.assert_array_equal(y, plain_y)
    np.testing.assert_array_equal(alone, plain_y)
    blocks = lambda a: np.asarray(a)[:, :6].reshape(4, 3, 2, 3, 2, 3).transpose(0, 1, 3, 5, 2, 4)  # noqa: E731
    bad = np.isnan(blocks(x)).any((-2, -1))
    np.testing.assert_array_equal(np.isnan(y), bad)
    assert 0 < bad.mean() < 1
    np.testing.assert_array_equal(blocks(dx)[~bad], blocks(plain_dx)[~bad])
    np.testing.assert_array_equal(blocks(dx).sum((-2, -1)), dy)
    assert not np.any(dx[:, 6]), "what the pool drops gets no gradient"


def test_the_gradient_of_a_pool_finds_the_maximum_of_what_is_computed_again(switch, on_cpu_backend):
    """Each pass may round it otherwise."""
    switch(True)
    x, gain, bias = (normal(*shape) for shape in ((4, 8, 8, 16), (1, 1, 1, 16), (1, 1, 1, 16)))
    gain = 1 + gain**2
    total = compiling.jit(jax.grad(lambda x: fast.max_pool_2x2((x - 0.1) * gain + bias).sum()))
    taken = np.asarray(total(x)) != 0
    windows = lambda a: a.reshape(4, 4, 2, 4, 2, 16).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)  # noqa: E731
    assert (windows(taken).sum(1) == 1).all()
    best = windows(x).max(1)
    assert np.abs(windows(x)[windows(taken)] - best).max() <= 1e-6 * np.abs(best).max()


def test_gradient_of_relu_is_jaxs():
    x = np.array([-np.inf, -1, -0.0, 0.0, 1e-30, 2, np.inf, np.nan], np.float32)
    x = np.concatenate([x, normal(100)])
    dy = normal(x.size, seed=1)
    for relu in (layers.relu, jax.jit(layers.relu)):
        y, pull = jax.vjp(relu, x)
        expected, plain_pull = jax.vjp(jax.nn.relu, x)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(pull(dy)[0], plain_pull(dy)[0])
    assert jax.grad(layers.relu)(0.0) == jax.grad(layers.relu)(-0.0) == 0


# --- what is computed once -----------------------------------------------------------------------


def test_what_is_computed_once_is_not_computed_again_by_its_consumers(switch, on_cpu_backend):
    """Left alone, XLA takes the sine again for the transposition."""
    switch(True)
    if not compiling.compiler_options():
        pytest.skip("this jaxlib does not know the options")

    def sines(once, compiled_by):
        def function(x):
            y = once(jnp.sin(x) * 2)
            return y, y.T + 1

        program = compiled_by(function).lower(np.ones((512, 512), np.float32)).compile()
        return program.as_text().count(" sine(")

    assert sines(compiling.once, compiling.jit) == 1
    assert sines(lambda x: x, compiling.jit) == 2  # jaxlib 0.10 needs the options besides


# --- a whole net ---------------------------------------------------------------------------------


def mean_pool_2x2(x_NHWC):
    N, H, W, C = x_NHWC.shape
    return x_NHWC.reshape(N, H // 2, 2, W // 2, 2, C).mean((2, 4))


def net_gradient(net, compiled_by):
    """(loss and gradient, operations of the program) of a tanh VGG-A at random weights."""
    model, rng = MODELS["vgg_a"](net), np.random.default_rng(5)
    init = jax.jit(lambda key: model.init(key, "he"))
    variables = init(jax.random.key(3, impl="rbg"))
    params, stats = variables["params"], variables["batch_stats"]
    x, labels = rng.normal(size=(64, *net.image)).astype(np.float32), np.arange(64) % 5

    def loss(params, x):
        logits, new = model.apply({"params": params, "batch_stats": stats}, x, train=True)
        return layers.cross_entropy(logits, labels).mean(), new

    run = compiled_by(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    program = run.lower(params, x)
    return program.compile()(params, x), operations(program.as_text())


def switched_gradient(net, on, switch):
    switch(on)
    return net_gradient(net, compiling.jit if on else jax.jit)


NETS = [
    pytest.param((16, 16, 1), "none", "max", id="16"),
    pytest.param((32, 32, 3), "none", "mean", id="32"),
    pytest.param((16, 16, 1), "batch", "max", id="16-batch", marks=pytest.mark.slow),
    pytest.param((32, 32, 3), "batch", "max", id="32-batch", marks=pytest.mark.slow),
    pytest.param((32, 32, 3), "batch", "mean", id="32-batch-mean", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("image, norm, pool", NETS)
def test_gradient_of_a_smooth_net(image, norm, pool, switch, monkeypatch):
    """Means make it smooth; a maximum that flips would be seen a hundred times over."""
    if pool == "mean":
        monkeypatch.setattr(layers, "max_pool_2x2", mean_pool_2x2)
    net = Net(image=image, classes=5, fc=16, width=1 / 16, norm=norm, activation="tanh")
    results, programs = zip(
        *(switched_gradient(net, on, switch) for on in (True, False)), strict=True
    )
    scatters = [program["select_and_scatter"] for program in programs]
    assert scatters == ([0, 5 if image[0] == 32 else 4] if pool == "max" else [0, 0])
    # a forward pass and two gradients a layer; the last blocks' kernels are larger than the map
    assert programs[0]["convolution"] < programs[1]["convolution"] == 3 * 8
    gradients = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)]) for _, g in results
    ]
    ours, plain = (g.astype(np.float64) for g in gradients)
    assert np.linalg.norm(ours - plain) <= 1e-5 * np.linalg.norm(plain)
    # leaf by leaf BN over few values rounds a little more, in both: float64 is as far from either
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert relative_error(a, b) <= 3e-5


# --- who gets them -------------------------------------------------------------------------------


def net_part(kernel, x):
    """A convolution, an activation and a pool, with all gradients."""
    y, pull = jax.vjp(
        lambda kernel, x: fast.max_pool_2x2(jnp.tanh(fast.conv(kernel, x))), kernel, x
    )
    return y, pull(y)


def lowered(platform, kernel_shape, x_shape, function=net_part):
    args = np.ones(kernel_shape, np.float32), np.ones(x_shape, np.float32)
    traced = jax.jit(lambda *args: function(*args)).trace(*args)
    return traced.lower(lowering_platforms=(platform,)).as_text()


PARTS = {
    "small map": ((3, 3, 8, 4), (2, 2, 2, 8)),
    "few channels": ((3, 3, 3, 20), (2, 8, 8, 3)),
    "few to few channels": ((3, 3, 3, 4), (2, 8, 8, 3)),
    "narrow": ((3, 3, 8, 4), (2, 8, 8, 8)),
    "many channels": ((3, 3, 40, 20), (2, 8, 8, 40)),
    "winograd": ((3, 3, 64, 128), (2, 8, 8, 64)),
    "winograd but for the kernel": ((3, 3, 64, 128), (2, 32, 32, 64)),
}


@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
@pytest.mark.parametrize("part", PARTS)
def test_gpu_and_tpu_get_the_plain_program(part, platform, switch):
    switch(True)
    text = lowered(platform, *PARTS[part])
    found = operations(text)
    assert found["convolution"] == 3
    assert found["reduce_window"] == found["select_and_scatter"] == 1
    # no matrix, no gathered windows, no kernel of pairs, no barrier
    assert not {"dot_general", "concatenate", "optimization_barrier"} & set(found)
    # every branch is decided when the program is made: on a constant, or on what such a one gives
    branches = re.findall(r'= "stablehlo.case"\((%\w+)\)', text)
    constants = set(re.findall(r"(%\w+) = stablehlo.constant", text))
    chosen = set(re.findall(r'(%\w+) = "stablehlo.case"\((?:%c\w*)\)', text))
    assert branches and set(branches) <= constants | chosen
    # operation for operation what there is without fast.py's forms
    switch(False)
    off = lowered(platform, *PARTS[part])
    assert "stablehlo.case" not in off
    assert found == operations(off)


@pytest.mark.parametrize("part", PARTS)
def test_a_cpu_gets_its_forms(part, switch):
    switch(True)
    text = lowered("cpu", *PARTS[part])
    found = operations(text)
    # once: the pool's maxima, their places, its gradient and that of its output; x and dy before
    # and after they are transposed for the kernel's gradient; what is shifted, and the sum
    left, products, once = {
        "small map": (0, 3, 4),
        "few channels": (2, 1, 8),
        "few to few channels": (2, 0, 10),
        "narrow": (3, 0, 4),
        "many channels": (3, 0, 8),
        # a grid takes its kernel's 16 barriers or its image's 18, a result 16 products' and its own
        "winograd": (2 * 16, 16, 4 + 2 * (16 + 18 + 17) + 18 + 2 * 16 + 1),
        "winograd but for the kernel": (2 * 16 + 1, 0, 8 + 2 * (16 + 18 + 17)),
    }[part]
    assert text.count("stride = [1, 2]") == 2 * (part == "narrow")
    assert (found["convolution"], found["dot_general"]) == (left, products)
    assert not found["reduce_window"] and not found["select_and_scatter"]
    assert found["optimization_barrier"] == once
    switch(False)
    found = operations(lowered("cpu", *PARTS[part]))
    assert found["convolution"] == 3 and not found["dot_general"]
    assert not found["optimization_barrier"]
    assert found["reduce_window"] == found["select_and_scatter"] == 1


def test_settled_keeps_on_a_cpu_alone(switch):
    twice = lambda _, x: compiling.settle(x + x)  # noqa: E731
    found = {}
    for on in (True, False):
        switch(on)
        for platform in ("cpu", "tpu", "cuda"):
            text = lowered(platform, (1,), (4, 3), twice)
            found[on, platform] = set(operations(text))
        x = normal(4, 3)
        assert same_bits(fresh_jit(twice)(0, x), x + x)
    plain = {"add"}
    assert found.pop((True, "cpu")) == plain | {"optimization_barrier"}
    assert all(operations == plain for operations in found.values()), found


# --- compile options -----------------------------------------------------------------------------


def known(options) -> bool:
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        assert any(name in str(error) for name in options)
        return False
    return True


def test_options_are_applied_where_they_are_known(switch, on_cpu_backend):
    switch(True)
    assert compiling.compiler_options() == (compiling.OPTIONS if known(compiling.OPTIONS) else {})
    # jaxlib 0.10.2 names the library in its program, and with the options no convolution is in it
    kernel, x = np.ones((3, 3, 32, 32), np.float32), np.ones((8, 16, 16, 32), np.float32)
    stock, ours = (
        jit(lambda *args: fast.plain_conv(*args)).lower(kernel, x).compile().as_text()
        for jit in (jax.jit, compiling.jit)
    )
    if "ynn_fusion" in stock:
        assert compiling.compiler_options() and "ynn_fusion" not in ours


@pytest.mark.parametrize(
    "options",
    [
        {"xla_cpu_an_option_of_another_version": "x"},
        {**compiling.OPTIONS, "xla_cpu_an_option_of_another_version": "x"},
        dict.fromkeys(compiling.OPTIONS, "A_TYPE_OF_ANOTHER_VERSION"),
    ],
    ids=["unknown", "one unknown", "unknown value"],
)
def test_unknown_options_are_left_out(options, switch, on_cpu_backend, monkeypatch):
    switch(True)
    monkeypatch.setattr(compiling, "OPTIONS", options)
    assert not known(options)
    assert compiling.compiler_options() == {}
    assert compiling.jit(lambda x: x + 1)(np.float32(1)) == 2


@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_other_backends_get_no_options(backend, switch, monkeypatch):
    switch(True)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert compiling.compiler_options() == {}


def test_no_options_when_switched_off(switch, on_cpu_backend):
    switch(False)
    assert compiling.compiler_options() == {}


def test_jit_passes_its_arguments_on(switch):
    switch(True)
    double = compiling.jit(lambda x, n: n * x, static_argnames="n", donate_argnums=0)
    x = jnp.ones(3)
    assert double(x, n=2).tolist() == [2, 2, 2]
    assert x.is_deleted()


@pytest.mark.parametrize("value, on", [("0", False), ("1", True), (None, True)])
def test_the_variable_decides(value, on, monkeypatch):
    if value is None:
        monkeypatch.delenv("VGGBN_FAST", raising=False)
    else:
        monkeypatch.setenv("VGGBN_FAST", value)
    assert runpy.run_path(compiling.__file__)["ENABLED"] is on


def test_what_is_computed_without_the_forms_is_of_another_code(switch):
    switch(True)
    code = runs.code(Recipe())
    assert code and "plain" not in code
    switch(False)
    assert runs.code(Recipe()) == f"{code} plain"


# --- nothing at all ------------------------------------------------------------------------------


def test_an_empty_batch_and_a_map_that_pools_to_nothing(switch):
    """lax returns empty arrays; so do the forms, and their gradients are zero or empty."""
    switch(True)
    kernel = normal(3, 3, 2, 4)
    for side in (2, 4):
        x = np.zeros((0, side, side, 2), np.float32)
        y, pull = jax.vjp(lambda k, x: fast.conv(k, x), kernel, x)
        d_kernel, dx = pull(y)
        assert (y.shape, dx.shape) == ((0, side, side, 4), x.shape)
        assert not d_kernel.any()
    x = normal(2, 1, 3, 2)
    y, pull = jax.vjp(fast.max_pool_2x2, x)
    (dx,) = pull(y)
    assert y.shape == (2, 0, 1, 2) and dx.shape == x.shape and not dx.any()


# --- memory that is kept -------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_is_kept_from_step_to_step():
    """A block of 64 MB, freed and taken again, brings no fresh pages: glibc's default would."""
    code = (
        "import ctypes, resource\n"
        "from vggbn.machine import compiling\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]\n"
        "libc.free.argtypes = [ctypes.c_void_p]\n"
        "def turn():\n"
        "    block = libc.malloc(2**26); ctypes.memset(block, 1, 2**26); libc.free(block)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for keep in (lambda: None, compiling.keep_memory):\n"
        "    keep(); turn(); before = turn(); print(turn() - before)\n"
    )
    if not compiling.keep_memory():
        pytest.skip("this C library takes no such order")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    not_kept, kept = map(int, done.stdout.split())
    assert kept < 10 < not_kept


def test_numbers_of_64_bits_end_with_their_block_however_it_ends():
    def precision():
        return jax.jit(lambda: jnp.arange(2.0))().dtype

    with pytest.raises(ZeroDivisionError), compiling.enable_x64():
        assert precision() == jnp.float64
        with compiling.enable_x64(False):
            assert precision() == jnp.float32
        assert precision() == jnp.float64
        raise ZeroDivisionError
    assert precision() == jnp.float32


def test_a_program_runs_in_the_thread_that_calls_it_and_keeps_its_memory():
    """100 MB between two products, 12 times: ready at once, no fresh pages.

    jax's threads do neither; on a busy machine one may be done before it is asked for. Each thread
    that makes a part of a product has memory of its own, which is fresh once.
    """
    code = (
        "import resource\n"
        "import jax.numpy as jnp\n"
        "from vggbn.machine import compiling\n"
        "compiling.tune_process()\n"
        "f = compiling.jit(lambda x, y: jnp.outer(x, x) @ y)\n"
        "x, y = jnp.ones(5000), jnp.ones((5000, 16))\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): f(x, y).block_until_ready()\n"
        "before, ready = faults(), []\n"
        "for _ in range(12):\n"
        "    result = f(x, y)\n"
        "    ready.append(result.is_ready())\n"
        "    result.block_until_ready()\n"
        "print(sum(ready), faults() - before)\n"
    )

    def ready_and_faults(**settings):
        environment = {"JAX_PLATFORMS": "cpu", "VGGBN_FAST": "1", **settings}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return map(int, done.stdout.split())

    ready, ours = ready_and_faults()
    later, theirs = ready_and_faults(JAX_CPU_ENABLE_ASYNC_DISPATCH="true")
    assert ready == 12 > later, (
        "a busy machine may let a thread of jax's finish first, now and then"
    )
    if compiling.keep_memory() and sys.platform == "linux":
        assert ours < theirs / 4


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(compiling.ctypes, "CDLL", lambda name: object())
    compiling.keep_memory.cache_clear()
    assert compiling.keep_memory() is False
    compiling.keep_memory.cache_clear()
