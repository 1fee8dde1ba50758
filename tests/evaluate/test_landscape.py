"""The shift of Definition 2.1 and the loss along its gradient, against a net in NumPy, in float64,
whose gradients are finite differences of its loss."""

from functools import partial

import jax
import numpy as np
import pytest

from tests.support import algorithm_1
from tests.support.digits import load_digits
from tests.support.trees import assert_same
from vggbn.evaluate.landscape import LENGTHS, Step, landscape, layers_of
from vggbn.training import loop
from vggbn.training.recipe import Recipe
from vggbn.training.task import Task

SEED = 2
MLP = Recipe(
    data="digits", image_size=8, model="mlp", fc=3, hidden=3, activation="tanh", init="glorot",
    norm="batch", batch=16, steps=6, evaluations=3, spacing="even", lr=0.4, watch="landscape",
)  # fmt: skip
PLAIN = MLP.but(norm="none")
LAYERS = ("fc1", "fc2", "fc3", "fc4")


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def forward(params, x_ND, labels_N) -> float:
    """The mean cross-entropy of a net without or with BN, in training mode, in float64."""
    for layer in LAYERS[:-1]:
        own, norm = params[layer], params.get(f"norm_{layer}")
        x_ND = x_ND @ own["kernel"] + own.get("bias", 0.0)
        if norm:
            x_ND = algorithm_1.forward(x_ND, norm["scale"], norm["bias"], 1e-5).y
        x_ND = np.tanh(x_ND)
    logits_NK = x_ND @ params[LAYERS[-1]]["kernel"] + params[LAYERS[-1]]["bias"]
    highest_N1 = logits_NK.max(1, keepdims=True)
    log_sum_N = np.log(np.exp(logits_NK - highest_N1).sum(1)) + highest_N1[:, 0]
    return float((log_sum_N - logits_NK[np.arange(len(labels_N)), labels_N]).mean())


def numbers(tree):
    return jax.tree.map(np.float64, tree)


def gradient(params, loss):
    """Central differences, leaf by leaf."""
    found = {}
    for layer, leaves in params.items():
        for name, leaf in leaves.items():
            slopes = np.zeros_like(leaf)
            for at in np.ndindex(leaf.shape):
                sides = []
                for sign in (1, -1):
                    moved = leaf.copy()
                    moved[at] += sign * 1e-6
                    sides.append(loss({**params, layer: {**leaves, name: moved}}))
                slopes[at] = (sides[0] - sides[1]) / 2e-6
            found.setdefault(layer, {})[name] = slopes
    return found


def size(tree) -> float:
    return float(np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree))))


def expected(variables, step: Step, lr: float) -> dict:
    """What `landscape` says, by its definitions."""
    before, after = numbers(variables["params"]), numbers(step.params)
    x_ND = np.float64(step.x_NHWC).reshape(len(step.labels_N), -1)
    loss = partial(forward, x_ND=x_ND, labels_N=np.asarray(step.labels_N))
    value, g = loss(before), gradient(before, loss)
    found = {"loss": value, "gradient": size(g), "predicted": lr * size(g) ** 2}
    found |= {"changes": [], "departures": [], "distances": [], "shift": {}}
    for length in LENGTHS:
        there = jax.tree.map(lambda p, d, way=length * lr: p - way * d, before, g)
        change = loss(there) - value
        found["changes"].append(change)
        found["departures"].append(change + length * found["predicted"])
        turned = jax.tree.map(np.subtract, gradient(there, loss), g)
        found["distances"].append(size(turned))
    for i, layer in enumerate(LAYERS[1:], 1):
        new = {name for one in LAYERS[:i] for name in (one, f"norm_{one}")}
        mixed = {name: (after if name in new else before)[name] for name in before}
        a, b = g[layer]["kernel"].ravel(), gradient(mixed, loss)[layer]["kernel"].ravel()
        cosine = a @ b / np.sqrt((a @ a) * (b @ b))
        shift = {"gradient": size(a), "distance": size(b - a), "turn": 1 - cosine}
        found["shift"][layer] = shift
    return found


@pytest.mark.parametrize("recipe", [MLP, PLAIN], ids=["bn", "plain"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_all_numbers_are_those_of_a_net_in_numpy(recipe, momentum, digits):
    recipe = recipe if momentum else recipe.but(momentum=0.0)
    task = Task.of(recipe, SEED, digits)
    state = loop.fit(task, stop=4).state
    step = loop.step_ahead(task, state)
    found = landscape(loop.trained(task, state.variables), digits.validation, lambda: step)
    theirs = expected(state.variables, step, recipe.lr)
    assert found.keys() == theirs.keys() and list(found["shift"]) == list(theirs["shift"])
    assert min(own["distance"] / own["gradient"] for own in found["shift"].values()) > 0.01
    for ours, value in zip(jax.tree.leaves(found), jax.tree.leaves(theirs), strict=True):
        assert ours == pytest.approx(value, rel=2e-3, abs=2e-5)


def test_the_step_ahead_is_the_one_that_training_takes(digits):
    """Its params are the next ones, and the state that it starts from stays as it is."""
    for recipe in (MLP, MLP.but(norm="batch_noisy"), MLP.but(model="vgg_a", width=1 / 32)):
        task = Task.of(recipe, SEED, digits)
        state = loop.fit(task, stop=3).state
        kept = jax.tree.map(np.array, state)
        step = loop.step_ahead(task, state)
        assert_same(state, kept)
        after = loop.fit(task, state=state, stop=4).state
        close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)  # by another program
        jax.tree.map(close, step.params, after.params)
        assert float(step.lr) == np.float32(recipe.lr)


def test_layers_are_in_the_order_in_which_they_are_applied(digits):
    """Of more than nine, whose names a sort would mix."""
    recipe = MLP.but(hidden=11)
    task = Task.of(recipe, SEED, digits)
    state = loop.fit(task, stop=1).state
    names = layers_of(task.program.net, state.variables, loop.step_ahead(task, state))
    assert names == tuple(f"fc{i}" for i in range(1, 13))


def test_noise_is_the_same_on_all_ways_and_the_step_s_own(digits):
    """Else the noise would be measured, and not what the step does."""
    task = Task.of(MLP.but(norm="batch_noisy", lr=1e-6), SEED, digits)
    state = loop.fit(task, stop=2).state
    step = loop.step_ahead(task, state)
    trained = loop.trained(task, state.variables)
    found = landscape(trained, digits.validation, lambda: step)
    for own in found["shift"].values():
        assert own["distance"] < 1e-3 * own["gradient"] and own["turn"] < 1e-6
    assert max(found["distances"]) < 1e-3 * found["gradient"]
    other = step._replace(key=jax.random.fold_in(step.key, 1))
    assert landscape(trained, digits.validation, lambda: other)["loss"] != found["loss"]


@pytest.mark.parametrize("norm", ["batch_noisy", "batch"])
def test_a_watched_run_resumes_exactly(norm, digits):
    """Weights, statistics and all that was measured, bit for bit: noise is of seed and step."""
    recipe = MLP if norm == "batch" else MLP.but(norm=norm)
    whole = loop.fit(Task.of(recipe, SEED, digits))
    first = loop.fit(Task.of(recipe, SEED, digits), stop=3)
    resumed = loop.fit(Task.of(recipe, SEED, digits), state=first.state, history=first.history)
    assert_same(resumed.state.params, whole.state.params)
    assert_same(resumed.state.batch_stats, whole.state.batch_stats)
    assert len(whole.history) == 3
    assert [r["landscape"] for r in resumed.history] == [r["landscape"] for r in whole.history]


def test_watching_changes_no_weight(digits):
    watched = loop.fit(Task.of(MLP, SEED, digits)).state
    assert_same(loop.fit(Task.of(MLP.but(watch="none"), SEED, digits)).state, watched)
