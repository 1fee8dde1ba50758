"""The contract of every norm in NORMS, and each norm against its own formulas in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.nn.test_norm import algorithm_1, assert_close, excess
from vggbn.machine.compiling import enable_x64
from vggbn.nn import detached, whitening
from vggbn.nn.batch_norm import batch_norm
from vggbn.nn.norms import NORMS

# Their gradient is, on purpose, not the derivative of what they compute.
NOT_THE_DERIVATIVE = ("batch_fixed", "batch_detached", "batch_moving", "batch_renorm")


@pytest.fixture(params=NORMS)
def norm(request):
    return NORMS[request.param]


def _variables(norm, channels, dtype=None):
    """Random parameters and statistics in the tree that `init` makes."""
    params, stats = norm.init(channels)
    rng = np.random.default_rng(70)

    def draw(path, leaf):
        values = rng.uniform(0.5, 2, leaf.shape)
        if path[-1].key == "cov":  # symmetric, positive definite
            values = values @ values.swapaxes(1, 2) + np.eye(leaf.shape[-1])
        return values.astype(dtype or leaf.dtype)

    return tuple(jax.tree_util.tree_map_with_path(draw, tree) for tree in (params, stats))


def _value_and_grad(norm, x, params, stats):
    def loss(x, params):
        y, new = norm.apply(x, params, stats, train=True)
        return (y.astype(jnp.float32) ** 3).sum(), (y, new)

    (_, aux), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, params)
    return aux, gradient


_compiled = jax.jit(_value_and_grad, static_argnums=0)


@partial(jax.jit, static_argnums=0, static_argnames="groups")
def _train(norm, x, params, stats, **choices):
    return norm.apply(x, params, stats, train=True, **choices)


def _describe(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


X = 2 * np.random.default_rng(71).normal(size=(6, 3, 2, 4)).astype(np.float32) + 1
HARD = {
    "mean/std = 1e4": X + np.float32(2e4),
    "constant": np.full_like(X, 1000.1),
    "zero": np.zeros_like(X),
    "batch 1": X[:1],
    "one value": X[:1, :1, :1],
    "dense batch 1": X[:1, 0, 0],
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_contract_trees_and_dtypes(norm, dtype):
    """Statistics, parameters and their gradients keep their float32; y and dx have x's dtype."""
    params, stats = _variables(norm, 4)
    x = jnp.asarray(X, dtype)
    (y, new), (dx, d_params) = _compiled(norm, x, params, stats)
    assert _describe((y, dx)) == _describe((x, x))
    assert _describe(new) == _describe(stats)
    assert _describe(d_params) == _describe(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((new, d_params)))
    assert np.isfinite(np.asarray(y, np.float32)).all()
    evaluated, _ = jax.eval_shape(partial(norm.apply, train=False), x, params, stats)
    assert _describe(evaluated) == _describe(x)
    # the same numbers as from float32, but for rounding y
    (wide, _), _ = _compiled(norm, x.astype(jnp.float32), params, stats)
    error = excess(np.asarray(y), np.asarray(wide, np.float64))
    assert error.max() <= 1e-6 * np.abs(wide).max()


def test_contract_evaluation_is_pure(norm):
    params, stats = _variables(norm, 4)
    y, new = norm.apply(X, params, stats, train=False)
    assert new is stats
    for i in range(len(X)):
        assert_close(norm.apply(X[i : i + 1], params, stats, train=False)[0][0], y[i], 1e-6)


def test_contract_jit_equals_no_jit(norm):
    params, stats = _variables(norm, 4)
    plain = _value_and_grad(norm, X, params, stats)
    assert_close(_compiled(norm, X, params, stats), plain, 1e-6)


@pytest.mark.parametrize("case", HARD)
def test_contract_finite(norm, case):
    params, stats = _variables(norm, 4)
    results = _compiled(norm, HARD[case], params, stats)
    evaluated, _ = norm.apply(HARD[case], params, stats, train=False)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((results, evaluated)))


@pytest.mark.parametrize("name", [name for name in NORMS if name not in NOT_THE_DERIVATIVE])
def test_contract_gradients_equal_finite_differences(name):
    norm = NORMS[name]
    with enable_x64():
        params, stats = _variables(norm, 3, np.float64)
        x, dy = np.random.default_rng(72).normal(size=(2, 5, 2, 3))

        @jax.jit
        def loss(x, params):
            y = norm.apply(x, params, stats, train=True)[0]
            return (dy * y).sum() + (y**3).sum() / 3

        assert loss(x, params).dtype == np.float64
        check_grads(loss, (x, params), order=1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=1e-6)


def test_contract_takes_every_choice_of_batch_norm(norm):
    """A model hands all norms the same keywords."""
    params, stats = _variables(norm, 4)
    choices = {"decay": 0.5, "eps": 1e-3, "unbiased": False, "mask": np.ones(6, bool), "groups": 2}
    for train in (True, False):
        apply = partial(norm.apply, train=train, **choices)
        y, new = jax.eval_shape(apply, X, params, stats)
        assert _describe((y, new)) == _describe((X, stats))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("ratio", [0, 1e4])
def test_layer_norm_is_one_mean_and_variance_an_example(train, ratio):
    norm = NORMS["layer"]
    params, stats = _variables(norm, 4)
    x = (X + 2 * ratio).astype(np.float32)
    y, new = norm.apply(x, params, stats, train=train, eps=1e-3)
    flat = x.astype(np.float64).reshape(6, -1)
    centred = flat - flat.mean(1, keepdims=True)
    x_hat = centred / np.sqrt(flat.var(1, keepdims=True) + 1e-3)
    assert_close(y, params["scale"] * x_hat.reshape(x.shape) + params["bias"], 1e-6)
    assert new == stats == {}


def test_no_norm_is_the_identity():
    y, new = NORMS["none"].apply(X, {}, {}, train=True, decay=0.5)
    assert y is X
    assert new == {}


def test_the_fixed_norm_is_bn_whose_scale_and_shift_get_no_gradient():
    params, stats = _variables(NORMS["batch"], 4)
    (y, new), (dx, d_params) = _compiled(NORMS["batch_fixed"], X, params, stats)
    (wanted, moved), (d_wanted, d_trained) = _compiled(NORMS["batch"], X, params, stats)
    assert_close((y, new, dx), (wanted, moved, d_wanted), 1e-6)
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(d_trained))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(d_params))


# --- statistics that are constants to the gradient -----------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_the_detached_norm_has_bn_s_values_and_only_the_direct_gradient(groups):
    norm, (params, stats) = NORMS["batch_detached"], _variables(NORMS["batch"], 4)
    dy = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)

    @jax.jit
    def step(x, params):
        own = lambda x, params: _train(norm, x, params, stats, groups=groups)  # noqa: E731
        y, pull, new = jax.vjp(own, x, params, has_aux=True)
        return (y, new), pull(dy)

    found, (dx, d_params) = step(X, params)
    assert_close(found, _train(NORMS["batch"], X, params, stats, groups=groups), 1e-6)
    for rows in np.split(np.arange(len(X)), groups):
        std = X[rows].std(axis=(0, 1, 2), dtype=np.float64)
        rstd = 1 / np.sqrt(std**2 + 1e-5)
        assert_close(dx[rows], dy[rows] * params["scale"] * rstd, 1e-5)
    exact = [
        algorithm_1(X[rows], params["scale"], params["bias"], dy[rows])
        for rows in np.split(np.arange(len(X)), groups)
    ]
    assert_close(d_params["scale"], sum(one.d_scale for one in exact), 1e-5)
    assert_close(d_params["bias"], sum(one.d_bias for one in exact), 1e-5)


def by_moving_averages(x, params, stats, dy, *, decay, eps, unbiased):
    """In float64: (y, new averages, dx, d_scale, d_bias); the averages step on, then normalise, and
    are numbers to the gradient."""
    rows, dy_rows = (np.float64(a).reshape(-1, x.shape[-1]) for a in (x, dy))
    batch = {"mean": rows.mean(0), "var": rows.var(0, ddof=1 if unbiased else 0)}
    new = {name: decay * np.float64(stats[name]) + (1 - decay) * batch[name] for name in stats}
    rstd = 1 / np.sqrt(new["var"] + eps)
    x_hat = (rows - new["mean"]) * rstd
    y = (params["scale"] * x_hat + params["bias"]).reshape(x.shape)
    return y, new, dy * params["scale"] * rstd, (dy_rows * x_hat).sum(0), dy_rows.sum(0)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_the_moving_norm_takes_its_averages_for_numbers(decay, unbiased):
    norm = NORMS["batch_moving"]
    params, stats = _variables(norm, 4)
    dy = np.random.default_rng(3).normal(size=X.shape).astype(np.float32)
    choices = {"decay": decay, "eps": 1e-3, "unbiased": unbiased}
    own = lambda x, params: norm.apply(x, params, stats, train=True, **choices)  # noqa: E731
    y, pull, new = jax.vjp(own, X, params, has_aux=True)
    dx, d_params = pull(dy)
    found = y, new, dx, d_params["scale"], d_params["bias"]
    assert_close(found, by_moving_averages(X, params, stats, dy, **choices), 1e-5)


def test_without_memory_the_moving_norm_is_the_detached_one():
    params, stats = _variables(NORMS["batch_moving"], 4)
    choices = {"decay": 0.0, "unbiased": False}
    moving, detached = (
        NORMS[name].apply(X, params, stats, train=True, **choices)
        for name in ("batch_moving", "batch_detached")
    )
    assert_close(moving, detached, 1e-6)


def test_renormalisation_sees_in_training_what_evaluation_sees():
    """Within its bounds; and its gradient is BN's times the ratio of the deviations."""
    norm, (params, _) = NORMS["batch_renorm"], _variables(NORMS["batch"], 4)
    mean, std = X.mean((0, 1, 2)), X.std((0, 1, 2))
    stats = {"mean": mean + 0.5 * std, "var": (1.5 * std) ** 2}
    dy = np.random.default_rng(2).normal(size=X.shape).astype(np.float32)
    y, pull = jax.vjp(lambda x: norm.apply(x, params, stats, train=True)[0], X)
    assert_close(y, norm.apply(X, params, stats, train=False)[0], 1e-5)
    exact = algorithm_1(X, params["scale"] / 1.5, params["bias"], dy)
    assert_close(pull(dy)[0], exact.dx, 1e-4)
    _, new = norm.apply(X, params, stats, train=True)
    assert_close(new, batch_norm(X, params, stats, train=True)[1], 1e-6)


def test_renormalisation_is_bounded():
    norm = NORMS["batch_renorm"]
    unit = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    far = {"mean": np.full(4, 1e6, np.float32), "var": np.full(4, 1e-6, np.float32)}
    y, _ = norm.apply(X, unit, far, train=True, eps=1e-12)
    x_hat, _ = batch_norm(X, unit, far, train=True, eps=1e-12)
    assert_close(y, detached.R_MAX * x_hat - detached.D_MAX, 1e-5)


# --- whitening -----------------------------------------------------------------------------------


whiten = jax.jit(whitening.whiten, static_argnames=("train", "block"))


def covariance(x):
    rows = np.float64(x).reshape(-1, x.shape[-1])
    return np.cov(rows.T, bias=True).reshape(x.shape[-1], -1)


def mixed(m=400, channels=32, seed=3):
    """Correlated values with a mean, [m, channels]."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(channels, channels)) / np.sqrt(channels) + np.eye(channels)
    return (rng.normal(size=(m, channels)) @ mix + 3).astype(np.float32)


def test_full_whitening_leaves_the_identity_as_covariance():
    x, (params, stats) = mixed(), whitening.whiten_init(32)
    y, new = whiten(x, params, stats, train=True, decay=0.0, eps=1e-6)
    np.testing.assert_allclose(covariance(y), np.eye(32), atol=1e-3)
    np.testing.assert_allclose(np.mean(y, 0), 0, atol=1e-5)
    np.testing.assert_allclose(new["cov"][0], np.cov(np.float64(x).T), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(new["mean"], x.mean(0, dtype=np.float64), rtol=1e-5)
    values, vectors = np.linalg.eigh(covariance(x) + 1e-6 * np.eye(32))
    expected = (x - x.mean(0, dtype=np.float64)) @ (vectors / np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(y, expected, atol=1e-3)  # ZCA
    evaluated, _ = whiten(x, params, new, train=False, eps=1e-6)
    np.testing.assert_allclose(evaluated, y * np.sqrt(399 / 400), atol=2e-3)  # unbiased


def test_blocks_are_whitened_each_by_itself():
    x, (params, stats) = mixed(), whitening.whiten_init(32, block=16)
    y, new = whiten(x, params, stats, train=True, block=16)
    cov = covariance(y)
    for part in (slice(0, 16), slice(16, 32)):
        np.testing.assert_allclose(cov[part, part], np.eye(16), atol=1e-2)
    assert np.abs(cov[:16, 16:]).max() > 0.1 and new["cov"].shape == (2, 16, 16)
    assert [whitening._block(c, 16) for c in (8, 16, 24, 100, 17)] == [8, 16, 12, 10, 1]


def test_newton_s_iterations_go_towards_the_root(monkeypatch):
    with enable_x64():
        a = jnp.asarray(covariance(mixed(channels=4)))
        exact = whitening.inverse_root(a)
        distance = [float(jnp.abs(exact - jnp.eye(4)).max())]
        for steps in (whitening.ITERATIONS, 12):
            monkeypatch.setattr(whitening, "ITERATIONS", steps)
            distance.append(float(jnp.abs(whitening.newton_inverse_root(a) - exact).max()))
    assert distance[0] > distance[1] > 1e3 * distance[2]


def test_the_root_s_gradient_survives_equal_eigenvalues():
    with enable_x64():
        rng = np.random.default_rng(5)
        weights = rng.normal(size=(4, 4))

        def loss(a):
            return (whitening.inverse_root((a + a.T) / 2) * weights).sum()

        q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        for values in ([1, 1, 1, 1], [2, 2, 1, 0.5]):
            a = (q * np.array(values, float)) @ q.T
            check_grads(loss, (a,), order=1, modes=["rev"], eps=1e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["whiten", "whiten_groups", "whiten_iterative", "batch_renorm", "batch_moving"]
)
def test_padding_counts_for_nothing(name):
    norm = NORMS[name]
    (params, _), (_, stats) = _variables(norm, 4), norm.init(4)
    mask = np.array([True, True, False, False, True, False])
    garbage = np.where(mask[:, None, None, None], X, np.float32(1e9))
    y, new = _train(norm, garbage, params, stats, mask=mask)
    expected, expected_new = _train(norm, X[mask], params, stats)
    assert_close(y[mask], expected, 1e-5)
    assert_close(new, expected_new, 1e-5)
    assert not np.asarray(y[~mask]).any()


# Not of the moving averages, which all groups share.
@pytest.mark.parametrize("name", sorted(NORMS.keys() - {"none", "layer", "batch_moving"}))
def test_groups_have_statistics_of_their_own(name):
    norm = NORMS[name]
    (params, _), (_, stats) = _variables(norm, 4), norm.init(4)
    y, _ = _train(norm, X, params, stats, groups=2)
    for half in (slice(0, 3), slice(3, 6)):
        assert_close(y[half], _train(norm, X[half], params, stats)[0], 1e-5)
