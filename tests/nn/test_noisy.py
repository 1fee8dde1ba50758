"""BN with noise behind it: whose noise it is, how much, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from vggbn.machine.compiling import enable_x64
from vggbn.models import Net, build
from vggbn.nn.batch_norm import batch_norm, batch_norm_init
from vggbn.nn.noisy import SCALE, SHIFT, SPREAD, draw_noise, noisy_batch_norm

KEY = jax.random.key(3, impl="rbg")
X = np.random.default_rng(0).normal(2, 3, (40, 6)).astype(np.float32)
PARAMS, STATS = (
    {"scale": np.full(6, 2, np.float32), "bias": np.ones(6, np.float32)},
    (batch_norm_init(6)[1]),
)


def test_its_bounds_are_the_authors():
    assert (SHIFT, SCALE, SPREAD) == (0.5, 1.25, 0.1)


def test_noise_has_the_moments_of_its_distributions():
    """Of many units the moments over examples, and over units of what examples share."""
    scale, shift = (np.float64(a) for a in draw_noise(KEY, (400, 4000)))
    for values, mean, between, within in (
        (shift, 0, 1 / 12, 0.2**2 / 12),  # U(-0.5, 0.5), and U(-0.1, 0.1) around it
        (scale, 1.125, 0.25**2 / 12, 0.1**2),  # U(1, 1.25), and N(0, 0.1²) around it
    ):
        assert values.mean() == pytest.approx(mean, abs=0.02)
        assert values.mean(0).var() == pytest.approx(between, rel=0.06)
        assert values.var(0).mean() == pytest.approx(within, rel=0.03)
    assert np.abs(shift).max() <= 0.6 and np.abs(shift.mean(0)).max() == pytest.approx(
        0.5, abs=0.01
    )
    around = shift - shift.mean(0)
    assert abs(np.corrcoef(scale.mean(0), shift.mean(0))[0, 1]) < 0.06
    assert abs(np.corrcoef(around.ravel(), (scale - scale.mean(0)).ravel())[0, 1]) < 0.01


def test_in_training_bn_s_values_are_scaled_and_shifted_and_its_statistics_are_bn_s():
    plain, new = batch_norm(X, PARAMS, STATS, train=True)
    y, found = noisy_batch_norm(X, PARAMS, STATS, train=True, key=KEY)
    scale, shift = draw_noise(KEY, X.shape)
    np.testing.assert_allclose(y, np.float64(scale) * plain + shift, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["mean"], new["mean"])
    np.testing.assert_array_equal(found["var"], new["var"])
    other, _ = noisy_batch_norm(X, PARAMS, STATS, train=True, key=jax.random.fold_in(KEY, 1))
    assert np.abs(other - y).mean() > 0.1


@pytest.mark.parametrize("mode", [{"train": True}, {"train": False}, {"train": False, "key": KEY}])
def test_in_evaluation_and_without_a_key_it_is_the_noise_s_mean(mode):
    plain, _ = batch_norm(X, PARAMS, STATS, train=mode["train"])
    y, _ = noisy_batch_norm(X, PARAMS, STATS, **mode)
    np.testing.assert_allclose(y, 1.125 * plain, rtol=1e-6)


def test_rows_that_do_not_count_stay_zeros():
    mask = np.arange(40) % 3 > 0
    y, _ = noisy_batch_norm(X, PARAMS, STATS, train=True, key=KEY, mask=mask)
    assert not np.asarray(y)[~mask].any() and np.asarray(y)[mask].all()


def test_each_value_of_a_map_has_its_own_noise():
    scale, shift = draw_noise(KEY, (30, 4, 5, 2))
    for noise in (scale, shift):
        assert np.unique(noise.mean(0)).size == 40


def test_the_gradient_is_the_derivative_under_the_same_noise():
    with enable_x64():
        x, dy = np.random.default_rng(1).normal(size=(2, 5, 3))
        params = {"scale": np.array([0.5, 1, 2]), "bias": np.zeros(3)}
        stats = {"mean": np.zeros(3), "var": np.ones(3)}

        @jax.jit
        def loss(x, params):
            return (dy * noisy_batch_norm(x, params, stats, train=True, key=KEY)[0]).sum()

        check_grads(loss, (x, params), order=1, modes=["rev"], eps=1e-5, rtol=1e-6, atol=1e-6)


# --- in a net ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "vgg_a"])
@pytest.mark.parametrize("remat", [False, True])
def test_a_net_s_noise_is_a_function_of_the_key_and_differs_by_layer(model, remat):
    net = Net((8, 8, 1), 10, model, "batch_noisy", norm_fc=True, width=1 / 32, fc=6, remat=remat)
    variables = build(net).init(jax.random.key(0), "he")
    x_NHWC = np.random.default_rng(2).normal(size=(12, 8, 8, 1)).astype(np.float32)
    x_NHWC = jnp.asarray(x_NHWC)

    @jax.jit
    def heard(key):
        found = {}
        tap = lambda layer, what, x: found.update({(layer, what): x})  # noqa: E731
        logits, _ = build(net).apply(variables, x_NHWC, train=True, key=key, tap=tap)
        return logits, found

    logits, found = heard(KEY)
    untapped = jax.jit(lambda key: build(net).apply(variables, x_NHWC, train=True, key=key)[0])
    np.testing.assert_allclose(untapped(KEY), logits, rtol=1e-4, atol=1e-4)
    again, _ = heard(KEY)
    np.testing.assert_array_equal(again, logits)
    assert np.abs(heard(jax.random.key(4, impl="rbg"))[0] - logits).mean() > 0.01
    shifts = []
    for layer in ("fc1", "fc2"):  # of what BN leaves with mean 0, the mean is the noise's shift
        values = np.asarray(found[layer, "input"])
        assert np.abs(values.mean(0)).max() > 0.1
        shifts.append(values.mean(0))
    assert np.abs(shifts[0] - shifts[1]).max() > 0.05
    still = build(net).apply(variables, x_NHWC, train=True)[0]
    np.testing.assert_array_equal(still, build(net).apply(variables, x_NHWC, train=True)[0])
