"""SGD against its formula by hand in float64, and the schedules' exact steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vggbn.training.optim import SCHEDULES, is_kernel, learning_rate, plateau_drops, sgd

PARAMS = {
    "fc1": {"kernel": (4, 3), "bias": (3,)},
    "norm_fc1": {"scale": (3,), "bias": (3,)},
    "fc2": {"kernel": (3, 2), "bias": (2,)},
}
STEPS = 5


def tree(seed: int):
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(1, 1, shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, PARAMS, is_leaf=lambda node: isinstance(node, tuple))


def ours(lrs, l2, momentum, l2_on):
    """The weights and the momentum buffer after a step for each rate; one compilation for all."""
    traces = []

    @jax.jit
    def step(params, opt_state, grads, lr, l2, momentum):
        traces.append(lr)
        updates, opt_state = sgd(lr, l2, momentum, l2_on=l2_on).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = tree(0)
    opt_state = sgd(123.0, 4.0, 0.5, l2_on=l2_on).init(params)  # the numbers come with each step
    for i, lr in enumerate(lrs):
        params, opt_state = step(params, opt_state, tree(i + 1), lr, l2, momentum)
    assert len(traces) == 1
    return params, opt_state


def by_hand(lrs, l2, momentum, decayed):
    """v <- momentum·v + (g + l2·w), w <- w - lr·v in float64, leaf by leaf."""
    as_64 = lambda leaf: leaf.astype(np.float64)  # noqa: E731
    w = jax.tree.map(as_64, tree(0))
    v = jax.tree.map(np.zeros_like, w)
    for i, lr in enumerate(lrs):
        grads = jax.tree.map(as_64, tree(i + 1))
        for layer, leaves in grads.items():
            for name, g in leaves.items():
                decay = l2 if decayed(name) else 0.0
                v[layer][name] = momentum * v[layer][name] + (g + decay * w[layer][name])
                w[layer][name] = w[layer][name] - lr * v[layer][name]
    return w, v


DECAYED = {"kernels": lambda name: name == "kernel", "all": lambda name: True}


@pytest.mark.parametrize("l2_on", DECAYED)
@pytest.mark.parametrize("l2, momentum", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.9), (0.3, 0.9)])
def test_sgd_equals_the_formula(l2, momentum, l2_on):
    lrs = [0.1, 0.1, 0.02, 0.02, 0.3]  # a drop leaves the momentum buffer as it is
    params, opt_state = ours(lrs, l2, momentum, l2_on)
    w, v = by_hand(lrs, l2, momentum, DECAYED[l2_on])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, params, w)
    [buffer] = [part.trace for part in opt_state if hasattr(part, "trace")]
    jax.tree.map(close, buffer, v)


def test_one_weight_by_hand():
    tx = sgd(0.5, 0.1, 0.9)
    params = {"fc": {"kernel": jnp.float32(2.0)}}
    state = tx.init(params)
    # v = 1 + 0.1·2 = 1.2, w = 2 - 0.6 = 1.4; v = 1.08 + 1 + 0.14 = 2.22, w = 1.4 - 1.11 = 0.29
    for expected in (1.4, 0.29):
        updates, state = tx.update({"fc": {"kernel": jnp.float32(1.0)}}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["fc"]["kernel"], expected, rtol=1e-6)


def test_l2_on_kernels_is_the_default_and_leaves_the_rest_alone():
    params = tree(0)
    assert is_kernel(params) == {
        "fc1": {"kernel": True, "bias": False},
        "norm_fc1": {"scale": False, "bias": False},
        "fc2": {"kernel": True, "bias": False},
    }
    tx = sgd(1.0, 0.25, 0.0)
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["fc1"]["kernel"], -0.25 * params["fc1"]["kernel"], rtol=1e-6)
    for layer, name in (("fc1", "bias"), ("norm_fc1", "scale"), ("norm_fc1", "bias")):
        assert not np.any(updates[layer][name])


# --- schedules -----------------------------------------------------------------------------------


def rate(schedule, step, *, every=100.0, factor=0.96, validation=()):
    return learning_rate(
        schedule, step, lr=0.045, factor=factor, every=every, validation=validation
    )


def test_every_schedule_is_tested():
    assert set(SCHEDULES) == {"constant", "exponential", "plateau"}


def test_constant():
    assert {rate("constant", step, validation=(0.5, 0.4)) for step in (0, 1, 10**6)} == {0.045}


def test_four_percent_every_eight_epochs():
    epoch = 109  # steps: 3,500 images in batches of 32
    at = lambda step: rate("exponential", step, every=8 * epoch)  # noqa: E731
    assert at(0) == at(8 * epoch - 1) == 0.045
    assert at(8 * epoch) == at(16 * epoch - 1) == 0.045 * 0.96
    assert at(16 * epoch) == 0.045 * 0.96**2
    assert at(80 * epoch) == 0.045 * 0.96**10
    # GoogLeNet's 250 epochs fall to about 0.28 (papers: 0.96^31)
    assert at(250 * epoch) / 0.045 == pytest.approx(0.282, abs=1e-3)


def test_exponential_with_an_interval_that_is_not_whole():
    at = lambda step: rate("exponential", step, every=2.5, factor=0.5)  # noqa: E731
    halvings = [round(-np.log2(at(step) / 0.045)) for step in range(11)]
    assert halvings == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4]
    assert at(10) == 0.045 / 16


@pytest.mark.parametrize(
    "validation, patience, drops",
    [
        ((), 2, 0),
        ((0.1, 0.2, 0.3, 0.4), 1, 0),
        ((0.5, 0.4), 2, 0),
        ((0.5, 0.4, 0.4), 2, 1),
        ((0.5, 0.5, 0.5), 2, 1),  # equal is no new best
        ((0.5, 0.4, 0.6, 0.5), 2, 0),  # a new best starts the count again
        ((0.5, 0.4, 0.6, 0.5, 0.6), 2, 1),
        ((0.5, 0.4, 0.4, 0.4), 2, 1),  # and so does a drop
        ((0.5, 0.4, 0.4, 0.4, 0.4), 2, 2),
        ((0.5, 0.3, 0.3, 0.4), 3, 1),  # better than the last, but not than the best
        ((0.5, 0.4, 0.4, 0.9, 0.8, 0.8), 2, 2),
        ((0.5, 0.4, 0.4), 2.0, 1),
        ((0.5,) * 4, 1, 3),
        ((0.5,) * 50, 1, 3),  # three at most
    ],
)
def test_plateau_drops(validation, patience, drops):
    assert plateau_drops(validation, patience=patience) == drops
    at = rate("plateau", 7, every=patience, factor=0.1, validation=validation)
    assert at == 0.045 * 0.1**drops


def test_the_number_of_drops_can_be_raised():
    assert plateau_drops((0.5,) * 50, patience=1, most=5) == 5
