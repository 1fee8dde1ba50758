"""A batch in parts: the whole batch's gradient; BN over each part, by NumPy and by bn_groups."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import algorithm_1
from tests.support.trees import deviation
from vggbn.data import batch_indices, pixel_moments
from vggbn.errors import UserError
from vggbn.forecast import compiled as sharded
from vggbn.machine.compiling import enable_x64
from vggbn.models import MODELS, Net, Targets
from vggbn.models.vgg import vgg
from vggbn.nn.norms import NORMS
from vggbn.training import feed, loop
from vggbn.training.accumulate import accumulate
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe, static
from vggbn.training.step import TRACES, Hyper, hyper_at, init_state, loss_gradient, train_step
from vggbn.training.task import Task, keys, static_of

SEED = 3
MLP = Recipe(
    data="digits",
    image_size=8,
    model="mlp",
    fc=12,
    activation="tanh",  # smooth: the gradient does not jump where rounding differs
    batch=24,
    steps=6,
    lr=0.1,
    l2=0.01,
    evaluations=2,
    population_batches=2,
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The model "short": a VGG of two convolutions, with all layers that there are."""
    monkeypatch.setitem(MODELS, "short", partial(vgg, ("3 L", "3", "", "", "")))


def strided(parts: int, n: int) -> np.ndarray:
    """The examples of part 0, of part 1 and so on: bn_groups cuts these rows into the parts."""
    return np.concatenate([np.arange(part, n, parts) for part in range(parts)])


# --- the sum over parts --------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 3])
def test_means_are_averaged_and_sums_are_summed(parts):
    x_ND = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    numbers_N = np.arange(12, dtype=np.int32)

    def one(part, x_nD, numbers_n):
        return {"mean": x_nD.mean(0)}, (numbers_n.max(), part)

    means, (largest, numbered) = accumulate(parts, one, x_ND, numbers_N)
    np.testing.assert_allclose(means["mean"], x_ND.mean(0, dtype=np.float64), rtol=1e-5, atol=1e-7)
    assert means["mean"].dtype == jnp.float32 and largest.dtype == numbered.dtype == jnp.int32
    # part k ends with the example 12 - parts + k
    assert int(largest) == sum(12 - parts + part for part in range(parts))
    assert int(numbered) == sum(range(parts))


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match="batch 24 cannot be cut into accumulate=5 equal parts"):
        MLP.but(accumulate=5)
    with pytest.raises(UserError, match="a part of 6 examples cannot be cut into bn_groups=4"):
        MLP.but(accumulate=4, bn_groups=4)
    assert MLP.but(accumulate=4, bn_groups=3).bn_groups == 3
    with pytest.raises(TypeError):
        accumulate(5, lambda part, x_n: (x_n.sum(), ()), jnp.zeros(24))


# --- without a norm: the whole batch -------------------------------------------------------------


def test_without_a_norm_a_run_is_that_of_the_whole_batch(digits):
    recipe = MLP.but(crop_pad=1, distortion=0.1)
    whole = loop.fit(Task.of(recipe, SEED, digits))
    parts = loop.fit(Task.of(recipe.but(accumulate=4), SEED, digits))
    start = init_state(recipe, static_of(recipe, digits), SEED)
    assert deviation(start.params, whole.state.params) > 0.01, "the run moves the weights"
    assert deviation(parts.state.params, whole.state.params) < 2e-5
    assert int(parts.state.correct) == int(whole.state.correct) > 0
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours.keys() == theirs.keys()
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-5)


@cache
def net_64(model: str, **fields):
    """(its Static, params, stats, images, labels) in float64, as NumPy has them; within
    `enable_x64`."""
    size = {"fc": 6, "hidden": 1, "width": 1 / 32}
    net = Net((8, 8, 2), 5, model=model, **size, precision="float64", **fields)
    fixed = static(Recipe(model=model, batch=24), image=net.image, classes=5, flip=False)
    init = jax.jit(lambda key: MODELS[model](net).init(key, "he"))
    variables = init(jax.random.key(0, impl="rbg"))
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    trees = variables["params"], variables["batch_stats"]
    rng = np.random.default_rng(1)
    x_NHWC, labels_N = rng.normal(size=(24, *net.image)), rng.integers(0, 5, 24)
    return fixed._replace(net=net), *trees, x_NHWC, labels_N


@cache
def gradient_of(fixed, parts: int = 1, groups: int = 1):
    """The step's own, jitted: gradient(params, stats, x, labels, key, hyper, decay).

    Cached, as nets are, so that tests share what is compiled.
    """
    net = replace(fixed.net, bn_groups=groups)
    return jax.jit(partial(gradient, fixed._replace(net=net, accumulate=parts)))


def gradient(fixed, params, stats, x_NHWC, labels_N, key, hyper, decay):
    """((loss, number of right ones, stats), gradients of params)."""
    variables, targets = {"params": params, "batch_stats": stats}, Targets(labels_N)
    (loss, new, grads), right = loss_gradient(
        fixed, variables, x_NHWC, targets, key, hyper.dropout, decay
    )
    return (loss, right, new), grads


def hyper(dropout: float = 0.0) -> Hyper:
    return hyper_at(Recipe(dropout=dropout), 0, [])


def sgd_64(gradient, params, stats, x_NHWC, labels_N, *, steps: int = 5, decay: float = 0.7):
    """(params, stats, losses, numbers of right ones) after so many steps on the same batch."""
    seen = []
    for _ in range(steps):
        (loss, right, stats), grads = gradient(
            params, stats, x_NHWC, labels_N, jax.random.key(0, impl="rbg"), hyper(), decay
        )
        params = jax.tree.map(lambda w, g: w - 0.1 * np.asarray(g), params, grads)
        seen.append((loss, right))
    return params, stats, seen


@pytest.mark.parametrize("model, parts", [("mlp", 2), ("mlp", 12), ("short", 4)])
def test_in_float64_without_a_norm_parts_are_the_whole(model, parts):
    with enable_x64():
        fixed, *batch = net_64(model, activation="tanh")
        whole = sgd_64(gradient_of(fixed), *batch)
        found = sgd_64(gradient_of(fixed, parts), *batch)
        assert jax.tree.leaves(found)[0].dtype == jnp.float64
        assert deviation(found, whole) < 1e-12


# --- BN sees each part ---------------------------------------------------------------------------


# batch_moving normalises by averages that have stepped on with the part, not with all groups; of
# what a norm draws each part draws its own.
NOT_BY_GROUPS = {"none", "batch_moving", *(name for name, norm in NORMS.items() if norm.draws)}


@pytest.mark.parametrize("norm", [name for name in NORMS if name not in NOT_BY_GROUPS])
def test_in_float64_a_norm_of_parts_is_that_of_groups(norm):
    """Every norm: gradients and moving averages after five steps; groups are cut once more."""
    with enable_x64():
        fixed, params, stats, x_NHWC, labels_N = net_64("mlp", norm=norm, activation="tanh")
        rows = strided(2, 24)
        groups = sgd_64(gradient_of(fixed, 1, 4), params, stats, x_NHWC[rows], labels_N[rows])
        parts = sgd_64(gradient_of(fixed, 2, 2), params, stats, x_NHWC, labels_N)
        assert deviation(parts, groups) < (1e-9 if norm.startswith("whiten") else 1e-12)
        if norm != "layer":  # to the whole batch the order of its rows would be all the same
            others = sgd_64(gradient_of(fixed, 2, 2), params, stats, x_NHWC[rows], labels_N[rows])
            assert deviation(parts[0], others[0]) > 1e-3
            assert deviation(parts[1], others[1]) > 1e-3


def test_in_float64_a_vgg_with_bn_over_parts_is_that_of_groups():
    with enable_x64():
        fixed, params, stats, x_NHWC, labels_N = net_64("short", norm="batch", norm_fc=True)
        rows = strided(4, 24)
        groups = sgd_64(gradient_of(fixed, 1, 4), params, stats, x_NHWC[rows], labels_N[rows])
        parts = sgd_64(gradient_of(fixed, 4), params, stats, x_NHWC, labels_N)
        assert deviation(parts, groups) < 1e-9  # the deepest maps have one pixel, a part six values


def with_rows_of_parts(monkeypatch, parts: int) -> None:
    """Batches whose equal slices are the parts."""
    rows = strided(parts, MLP.batch)
    monkeypatch.setattr(feed, "batch_indices", lambda *a, **k: batch_indices(*a, **k)[rows])


def test_a_run_with_bn_and_its_population_are_those_of_groups(digits, monkeypatch):
    recipe = MLP.but(norm="batch", steps=12)  # from step 9 on bn_decay counts, not warm_decay

    def trained(recipe):
        state = loop.fit(Task.of(recipe, SEED, digits)).state
        return state, loop.population_stats(Task.of(recipe, SEED, digits), state)

    parts, parts_population = trained(recipe.but(accumulate=3))
    with_rows_of_parts(monkeypatch, 3)
    others, others_population = trained(recipe.but(accumulate=3))  # other parts of each batch
    groups, groups_population = trained(recipe.but(bn_groups=3))
    assert deviation(parts.params, groups.params) < 1e-4
    assert deviation(parts.batch_stats, groups.batch_stats) < 1e-4
    assert deviation(parts_population, groups_population) < 1e-4
    assert float(parts.loss_sum) == pytest.approx(float(groups.loss_sum), rel=1e-5)
    for found, other in (
        (parts.params, others.params),
        (parts.batch_stats, others.batch_stats),
        (parts_population, others_population),
    ):
        assert deviation(found, other) > 1e-2


def test_population_statistics_of_one_net_are_those_of_groups(digits, monkeypatch):
    recipe = MLP.but(norm="batch")
    state = init_state(recipe, static_of(recipe, digits), SEED)
    of = lambda recipe: loop.population_stats(Task.of(recipe, SEED, digits), state)  # noqa: E731
    parts = of(recipe.but(accumulate=3))
    with_rows_of_parts(monkeypatch, 3)
    groups, others = of(recipe.but(bn_groups=3)), of(recipe.but(accumulate=3))
    assert deviation(parts, groups) < 1e-5 < 1e-2 < deviation(parts, others)


# --- three steps by hand, in float64 -------------------------------------------------------------


def part_64(params, x, labels, eps):
    """(loss, gradients, mean, unbiased variance) of dense-BN-tanh-dense on one part.

    Backward by the six lines of the BN paper's section 3.
    """
    w1, gamma, beta = params["fc1"]["kernel"], *(params["norm_fc1"][k] for k in ("scale", "bias"))
    w2, b2 = params["fc2"]["kernel"], params["fc2"]["bias"]
    u, m = x @ w1, len(x)
    bn = algorithm_1.forward(u, gamma, beta, eps)
    h = np.tanh(bn.y)
    logits = h @ w2 + b2
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[labels.astype(bool)]).mean()
    d_logits = (p - labels) / m
    d_y = d_logits @ w2.T * (1 - h**2)
    back = algorithm_1.backward(u, gamma, d_y, eps)
    grads = {
        "fc1": {"kernel": x.T @ back.dx},
        "norm_fc1": {"scale": back.d_scale, "bias": back.d_bias},
        "fc2": {"kernel": h.T @ d_logits, "bias": d_logits.sum(0)},
    }
    return loss, grads, bn.mean, algorithm_1.unbiased(bn.var, m)


def test_three_steps_with_bn_over_parts_equal_the_formulas(digits):
    parts, decay = 3, 0.6
    recipe = MLP.but(norm="batch", hidden=1, accumulate=parts, bn_decay=decay)
    state = init_state(recipe, static_of(recipe, digits), SEED)
    first = params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    velocity, loss_sum, moving = jax.tree.map(np.zeros_like, params), 0.0, None
    pixel_mean, pixel_std = pixel_moments(digits.train)
    for step in range(3):
        rows = batch_indices(
            SEED, step, n=len(digits.train), batch=recipe.batch, shuffle=recipe.shuffle
        )
        images = digits.train.images_NHWC[rows] / 255
        x = ((images - pixel_mean) / pixel_std).reshape(len(rows), -1)
        labels = np.eye(10)[digits.train.labels_N[rows]]
        each = [part_64(params, x[k::parts], labels[k::parts], recipe.bn_eps) for k in range(parts)]
        loss_sum += np.mean([loss for loss, *_ in each])
        grads = jax.tree.map(lambda *g: np.mean(g, axis=0), *(grads for _, grads, *_ in each))
        for layer in ("fc1", "fc2"):
            grads[layer]["kernel"] += recipe.l2 * params[layer]["kernel"]
        velocity = jax.tree.map(lambda v, g: recipe.momentum * v + g, velocity, grads)
        params = jax.tree.map(lambda w, v: w - recipe.lr * v, params, velocity)
        own = [np.mean([part[i] for part in each], axis=0) for i in (2, 3)]
        now = min(decay, step / (step + 1))  # moving.warm_decay
        moving = own if moving is None else [
            now * old + (1 - now) * new for old, new in zip(moving, own, strict=True)
        ]  # fmt: skip
    state = loop.fit(Task.of(recipe, SEED, digits), stop=3).state
    assert float(state.loss_sum) == pytest.approx(loss_sum, rel=1e-5)
    np.testing.assert_allclose(
        state.batch_stats["norm_fc1"]["mean"], moving[0], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(state.batch_stats["norm_fc1"]["var"], moving[1], rtol=1e-4)

    def close(new, expected, old):
        moved = np.abs(expected - old).max()
        assert moved > 1e-3 and np.abs(np.asarray(new) - expected).max() <= 1e-4 * moved

    jax.tree.map(close, state.params, params, first)


# --- every norm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_in_parts_keeps_the_state_s_tree(digits, norm):
    recipe = replace(MLP, norm=norm, hidden=1, accumulate=2)
    fixed = static_of(recipe, digits)
    state, rows = init_state(recipe, fixed, SEED), np.arange(recipe.batch, dtype=np.int32)
    arguments = (keys(SEED)[1], on_device(digits), rows, hyper_at(recipe, 0, []))
    after = jax.eval_shape(train_step(fixed), state, *arguments)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (new.dtype, new.shape) == (old.dtype, old.shape)


@pytest.mark.parametrize("norm", ["batch_renorm", "whiten"])  # the others are like these
def test_a_norm_trains_in_parts(digits, norm):
    recipe = MLP.but(norm=norm, hidden=1, accumulate=2, steps=3)
    start = init_state(recipe, static_of(recipe, digits), SEED)
    state = loop.fit(Task.of(recipe, SEED, digits)).state
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert int(state.step) == 3 and int(state.diverged_at) == -1
    assert deviation(start.params, state.params) > 1e-3


@pytest.mark.parametrize("norm", [n for n in NORMS if n not in ("none", "layer")])
def test_moving_averages_take_one_step_a_batch(norm):
    """new = decay · old + (1 - decay) · mean of the parts' own, for old ones that are not new."""
    with enable_x64():
        fixed, params, stats, x_NHWC, labels_N = net_64("mlp", norm=norm, activation="tanh")
        old = jax.tree.map(lambda leaf: 3 * leaf + 0.5, stats)
        apply = jax.jit(
            lambda x: MODELS["mlp"](replace(fixed.net, bn_groups=2)).apply(
                {"params": params, "batch_stats": old}, x, train=True, decay=0.0
            )
        )
        own = [apply(x_NHWC[part::2])[1] for part in range(2)]
        expected = jax.tree.map(lambda a, *b: 0.7 * a + 0.3 * np.mean(b, axis=0), old, *own)
        key = jax.random.key(0, impl="rbg")
        parts = gradient_of(fixed, 2, 2)
        (_, _, new), _ = parts(params, old, x_NHWC, labels_N, key, hyper(), 0.7)
        assert deviation(new, expected) < 1e-12
        assert deviation(new, old) > 0.01


# --- dropout -------------------------------------------------------------------------------------


def test_each_part_has_its_own_draws_of_dropout():
    """The mean of the parts' gradients, each under a key of its own, drawn from the step's."""
    with enable_x64():
        fixed, params, stats, x_NHWC, labels_N = net_64("short", activation="tanh")
        x_NHWC, labels_N = x_NHWC[:6].repeat(4, 0), labels_N[:6].repeat(4, 0)  # equal parts
        key, half = jax.random.key(7, impl="rbg"), hyper(dropout=0.5)
        alone = gradient_of(fixed)
        own_keys = [jax.random.fold_in(key, part) for part in range(4)]
        grads = [
            alone(params, stats, x_NHWC[::4], labels_N[::4], own, half, 0.9)[1]
            for own in (*own_keys, key)
        ]
        found = gradient_of(fixed, 4)(params, stats, x_NHWC, labels_N, key, half, 0.9)[1]
        assert deviation(found, jax.tree.map(lambda *each: sum(each) / 4, *grads[:4])) < 1e-12
        for same in grads:
            assert deviation(found, same) > 0.01, "all parts would have one mask"


def test_another_step_has_other_draws(digits):
    recipe = MLP.but(model="short", width=1 / 32, accumulate=2)  # dropout is all that is random
    assert recipe.dropout == 0.5
    fixed, held = static_of(recipe, digits), on_device(digits)
    rows = np.arange(recipe.batch, dtype=np.int32)

    def loss(step):
        state = init_state(recipe, fixed, SEED).replace(step=jnp.int32(step))
        arguments = (keys(SEED)[1], held, rows, hyper_at(recipe, 0, []))
        return float(train_step(fixed)(state, *arguments).loss_sum)

    assert loss(0) != loss(1) != loss(2) and loss(1) == loss(1)


# --- what is compiled ----------------------------------------------------------------------------


def test_each_number_of_parts_is_one_compilation(digits):
    recipes = [MLP.but(fc=14, hidden=1, accumulate=parts) for parts in (2, 3)]
    for recipe in recipes:
        for lr in (0.2, 0.3):
            loop.fit(Task.of(recipe.but(lr=lr), SEED, digits), stop=2)
    fixed = [static_of(recipe, digits) for recipe in recipes]
    assert fixed[0] != fixed[1] and [TRACES[one] for one in fixed] == [1, 1]


def test_gradients_in_bfloat16_are_summed_in_float32():
    net = Net((8, 8, 2), 5, "mlp", fc=6, hidden=2, norm="batch", precision="bfloat16")
    fixed = static(Recipe(model="mlp", batch=24), image=net.image, classes=5, flip=False)
    fixed = fixed._replace(net=net, accumulate=4)
    model = MODELS["mlp"](net)
    variables = jax.jit(lambda key: model.init(key, "he"))(jax.random.key(0, impl="rbg"))
    params, stats = variables["params"], variables["batch_stats"]
    x_NHWC, labels_N = jnp.ones((24, 8, 8, 2)), jnp.zeros(24, jnp.int32)
    arguments = (params, stats, x_NHWC, labels_N, jax.random.key(0, impl="rbg"), hyper(), 0.9)
    traced = jax.make_jaxpr(partial(gradient, fixed))(*arguments)
    (loop,) = [each for each in traced.jaxpr.eqns if each.primitive.name == "scan"]
    sums = [variable.aval for variable in loop.outvars]
    assert len(sums) == 2 + len(jax.tree.leaves((params, stats)))
    assert sorted(str(total.dtype) for total in sums) == (len(sums) - 1) * ["float32"] + ["int32"]


def test_a_step_holds_one_part_at_a_time():
    """A net whose activations outweigh its weights: of eight parts a little more than an eighth."""
    recipe = Recipe(model="mlp", fc=32, batch=4096, image_size=2)

    def temporaries(recipe):
        step = sharded.lower_step(recipe, static(recipe, image=(2, 2, 1), classes=2, flip=False))
        return step.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(recipe.but(accumulate=8)) < 0.25 * temporaries(recipe)
