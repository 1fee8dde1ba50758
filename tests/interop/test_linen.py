"""vggbn.interop.linen.BatchNorm: flax's variables, norm's numbers."""

import doctest
from functools import partial

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vggbn.interop.linen
from tests.nn.test_norm import assert_close, assert_equal_trees, random_case
from vggbn.interop.linen import BatchNorm
from vggbn.nn import batch_norm as norm

KEY = jax.random.key(0)
X, PARAMS, STATS, _ = random_case(np.random.default_rng(0), (6, 3, 4), ratio=2)
TRAINED = {"params": PARAMS, "batch_stats": STATS}


class Net(nn.Module):
    """The same net around either BN."""

    norm: type

    @nn.compact
    def __call__(self, x, **mode):
        for width in (5, 3):
            x = nn.relu(self.norm()(nn.Dense(width, use_bias=False)(x), **mode))
        return x


def test_docstring_example():
    results = doctest.testmod(vggbn.interop.linen)
    assert results.attempted >= 7
    assert results.failed == 0


def test_variables_are_flaxs():
    """Names, shapes and dtypes, also of a whole net, where modules number themselves."""
    ours = jax.eval_shape(partial(Net(BatchNorm).init, train=True), KEY, X)
    theirs = jax.eval_shape(partial(Net(nn.BatchNorm).init, use_running_average=False), KEY, X)
    assert ours == theirs
    assert sorted(ours["params"]) == ["BatchNorm_0", "BatchNorm_1", "Dense_0", "Dense_1"]


@pytest.mark.parametrize("x", [X, X[0], jnp.asarray(X, jnp.bfloat16)], ids=["3d", "2d", "bfloat16"])
def test_a_checkpoint_of_flax_evaluates_alike(x):
    theirs = nn.BatchNorm(use_running_average=True, dtype=x.dtype).apply(TRAINED, x)
    ours = BatchNorm().apply(TRAINED, x, train=False)
    assert ours.dtype == theirs.dtype
    assert_close(ours, theirs, 1e-6 if x.dtype == np.float32 else 2**-7)


def test_a_checkpoint_of_ours_fits_flax():
    net = Net(BatchNorm)
    variables = net.init(KEY, X, train=True)
    for _ in range(3):
        _, new = net.apply(variables, X, train=True, mutable=["batch_stats"])
        variables = variables | new
    ours = net.apply(variables, X, train=False)
    assert_close(ours, Net(nn.BatchNorm).apply(variables, X, use_running_average=True), 1e-6)
    assert np.abs(ours).max() > 0.1


@pytest.mark.parametrize(
    "choices", [{}, {"decay": 0.5, "eps": 0.1, "unbiased": False, "groups": 3}]
)
@pytest.mark.parametrize("masked", [False, True])
def test_training_is_batch_norm(choices, masked):
    mask = np.arange(6) % 2 > 0 if masked else None
    module = BatchNorm(**choices)
    y, new = module.apply(TRAINED, X, train=True, mask=mask, mutable=["batch_stats"])
    expected, stats = norm.batch_norm(X, PARAMS, STATS, train=True, mask=mask, **choices)
    assert_equal_trees((y, new), (expected, {"batch_stats": stats}))
    assert np.abs(stats["var"] - STATS["var"]).min() > 1e-3


def test_initialising_moves_no_average():
    for train in (True, False):
        variables = BatchNorm().init(KEY, X, train=train)
        params, stats = norm.batch_norm_init(4)
        assert_equal_trees(variables, {"params": params, "batch_stats": stats})


def test_evaluation_moves_no_average():
    _, same = BatchNorm().apply(TRAINED, X, train=False, mutable=["batch_stats"])
    assert_equal_trees(same, {"batch_stats": STATS})


def test_an_update_cannot_be_forgotten():
    with pytest.raises(flax.errors.ModifyScopeVariableError, match="batch_stats"):
        BatchNorm().apply(TRAINED, X, train=True)


def test_another_width_is_refused():
    with pytest.raises(flax.errors.ScopeParamShapeError):
        BatchNorm().apply(TRAINED, X[..., :3], train=False)


def test_gradients_are_batch_norms():
    def ours(params):
        variables = {"params": params, "batch_stats": STATS}
        y, _ = BatchNorm().apply(variables, X, train=True, mutable=["batch_stats"])
        return (y**3).sum()

    theirs = lambda params: (norm.batch_norm(X, params, STATS, train=True)[0] ** 3).sum()  # noqa: E731
    assert_close(jax.grad(ours)(PARAMS), jax.grad(theirs)(PARAMS), 1e-6)
