"""The step against float64 by hand, exact resume, one trace for all numbers, the loop."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.support import algorithm_1
from tests.support.trees import assert_same
from vggbn.data import Dataset, batch_indices, pixel_moments
from vggbn.models import build
from vggbn.runs import arrays as checkpoint
from vggbn.training import loop
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe
from vggbn.training.step import TRACES, hyper_at, init_state, train_step
from vggbn.training.task import Task, keys, static_of

SEED = 3
BASE = Recipe(data="digits", image_size=8, steps=20, evaluations=3)
# All there is at once, and small: BN, dropout, crops, colour, momentum, a schedule with a memory.
VGG = BASE.but(
    norm="batch",
    width=1 / 32,
    fc=16,
    crop_pad=1,
    distortion=0.2,
    lr=0.02,
    schedule="plateau",
    lr_every=1,
    lr_factor=0.5,
)
MLP = BASE.but(model="mlp", fc=12, activation="tanh", l2=0.01, lr=0.5)


@pytest.fixture(scope="module")
def straight(digits):
    """The uninterrupted run of VGG: 20 steps."""
    return loop.fit(Task.of(VGG, SEED, digits))


def differ(ours, theirs) -> bool:
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


# --- a step by hand, in float64 -------------------------------------------------------------------


def batch_64(recipe, dataset, step, shuffle=None):
    """The standardised pixels [N, D] and one-hot labels [N, K] of a step without augmentation."""
    n, shuffle = len(dataset.train), shuffle or recipe.shuffle
    rows = batch_indices(SEED, step, n=n, batch=recipe.batch, shuffle=shuffle)
    mean_C, std = pixel_moments(dataset.train)
    x = (dataset.train.images_NHWC[rows] / 255 - mean_C) / std
    return x.reshape(len(rows), -1), np.eye(len(dataset.classes))[dataset.train.labels_N[rows]]


def mlp_64(params, x, labels):
    """(loss, gradients, logits) of the tanh MLP: forward, and backward by the chain rule."""
    inputs, h = [], x
    for i in (1, 2, 3, 4):
        inputs.append(h)
        h = h @ params[f"fc{i}"]["kernel"] + params[f"fc{i}"]["bias"]
        h = np.tanh(h) if i < 4 else h
    log_p = h - h.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    delta, grads = (np.exp(log_p) - labels) / len(x), {}
    for i in (4, 3, 2, 1):
        grads[f"fc{i}"] = {"kernel": inputs[i - 1].T @ delta, "bias": delta.sum(0)}
        if i > 1:
            delta = delta @ params[f"fc{i}"]["kernel"].T * (1 - inputs[i - 1] ** 2)
    return -(log_p * labels).sum(1).mean(), grads, h


def as_64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def test_three_steps_equal_the_formulas(digits):
    fixed = static_of(MLP, digits)
    first = as_64(init_state(MLP, fixed, SEED).params)
    params, loss_sum, correct = first, 0.0, 0
    velocity = jax.tree.map(np.zeros_like, params)
    for step in range(3):
        x, labels = batch_64(MLP, digits, step)
        loss, grads, logits = mlp_64(params, x, labels)
        loss_sum, correct = loss_sum + loss, correct + (logits.argmax(1) == labels.argmax(1)).sum()
        for layer in grads:
            grads[layer]["kernel"] += MLP.l2 * params[layer]["kernel"]  # and not the bias
        velocity = jax.tree.map(lambda v, g: MLP.momentum * v + g, velocity, grads)
        params = jax.tree.map(lambda w, v: w - MLP.lr * v, params, velocity)
    state = loop.fit(Task.of(MLP, SEED, digits), stop=3).state
    assert int(state.step) == 3 and int(state.diverged_at) == -1
    assert float(state.loss_sum) == pytest.approx(loss_sum, rel=1e-5)
    assert float(state.correct) == correct

    def close(new, expected, old):
        moved = np.abs(expected - old).max()
        assert moved > 1e-3 and np.abs(np.asarray(new) - expected).max() <= 1e-4 * moved

    jax.tree.map(close, state.params, params, first)


def test_early_statistics_are_the_mean_of_the_batches_seen(digits):
    # warm_decay: the starting mean 0 and variance 1 are forgotten at the first step
    recipe = MLP.but(norm="batch", lr=1e-30, l2=0.0, momentum=0.0)
    fixed = static_of(recipe, digits)
    kernel = np.asarray(init_state(recipe, fixed, SEED).params["fc1"]["kernel"], np.float64)
    state, moments = None, []
    for step in range(3):
        x, _ = batch_64(recipe, digits, step)
        moments.append(((x @ kernel).mean(0), (x @ kernel).var(0, ddof=1)))
        state = loop.fit(Task.of(recipe, SEED, digits), state=state, stop=step + 1).state
        mean, var = (np.mean(values, axis=0) for values in zip(*moments, strict=True))
        own = state.batch_stats["norm_fc1"]
        np.testing.assert_allclose(own["mean"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(own["var"], var, rtol=1e-4)


@pytest.mark.parametrize("shuffle", ["fixed", "fresh"])
def test_a_step_trains_on_the_batch_of_its_seed_step_and_shuffling(digits, shuffle):
    # a rate that moves no weight: the loss of a step then tells its batch
    small = Dataset(
        **{**vars(digits), "train": digits.train.take(np.arange(4 * MLP.batch)), "digest": ""}
    )
    still = MLP.but(lr=1e-30, l2=0.0)
    recipe = still if shuffle == still.shuffle else still.but(shuffle=shuffle)
    params = as_64(init_state(recipe, static_of(recipe, small), SEED).params)
    state, losses, before = None, [], 0.0
    for step in range(8):  # two epochs
        state = loop.fit(Task.of(recipe, SEED, small), state=state, stop=step + 1).state
        losses.append(float(state.loss_sum) - before)
        before = float(state.loss_sum)
    expected = [mlp_64(params, *batch_64(recipe, small, step))[0] for step in range(8)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(np.unique(np.round(expected[:4], 4))) == 4, "the batches differ in their loss"
    assert np.allclose(sorted(losses[:4]), sorted(losses[4:]), rtol=1e-5) == (shuffle == "fixed")


# --- compilation ---------------------------------------------------------------------------------


def test_variants_that_differ_in_numbers_share_one_trace(digits, straight):
    fixed = static_of(VGG, digits)
    variants = [
        VGG.but(lr=0.7),
        VGG.but(l2=0.0),
        VGG.but(dropout=0.0),
        VGG.but(bn_decay=0.99),
        VGG.but(distortion=0.0),
        VGG.but(momentum=0.0),
        VGG.but(schedule="exponential", lr_every=1.5),
        VGG.but(shuffle="fixed", steps=7),
    ]
    seen = [straight.state.params]
    for recipe in variants:
        assert static_of(recipe, digits) == fixed
        reached = loop.fit(Task.of(recipe, SEED, digits), stop=3).state.params
        assert all(differ(reached, other) for other in seen), "the number does not reach the step"
        seen.append(reached)
    assert TRACES[fixed] == 1


def test_another_architecture_has_its_own_trace(digits):
    every_leaf = MLP.but(l2_on="all")
    states = [loop.fit(Task.of(recipe, SEED, digits), stop=2).state for recipe in (MLP, every_leaf)]
    assert differ(states[0].params["fc1"]["bias"], states[1].params["fc1"]["bias"])
    assert TRACES[static_of(every_leaf, digits)] == 1


# --- restarts ------------------------------------------------------------------------------------

RESUME = """
import json, sys
from pathlib import Path
from tests import conftest
from tests.training.test_train import SEED, VGG
from tests.support.digits import load_digits
from vggbn.runs import arrays as checkpoint
from vggbn.training.loop import fit
from vggbn.training.step import TRACES, init_state
from vggbn.training.task import Task

folder, task = Path(sys.argv[1]), Task.of(VGG, SEED, load_digits())
template = init_state(VGG, task.program, SEED)
state = checkpoint.load(folder / "part", like=template)
history = json.loads((folder / "part.json").read_text())
assert int(state.step) == 13 and len(history) == 2
found = fit(task, state=state, history=history)
checkpoint.save(folder / "twenty", found.state)
(folder / "twenty.json").write_text(json.dumps(found.history))
assert TRACES[task.program] == 1
"""


def test_twenty_steps_equal_thirteen_a_new_process_and_seven_more(digits, straight, tmp_path):
    part = loop.fit(Task.of(VGG, SEED, digits), stop=13)
    assert [record["step"] for record in part.history] == [7, 13]
    checkpoint.save(tmp_path / "part", part.state)
    (tmp_path / "part.json").write_text(json.dumps(part.history))
    run = subprocess.run(
        [sys.executable, "-c", RESUME, str(tmp_path)],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert_same(checkpoint.load(tmp_path / "twenty", like=straight.state), straight.state)
    assert json.loads((tmp_path / "twenty.json").read_text()) == straight.history


def test_a_restart_in_the_middle_of_an_interval_changes_no_weight(digits, straight):
    part = loop.fit(Task.of(VGG, SEED, digits), stop=11)
    rest = loop.fit(Task.of(VGG, SEED, digits), state=part.state, history=part.history)
    assert_same(rest.state, straight.state)
    assert [record["step"] for record in rest.history] == [7, 13, 20]
    assert [r["val_loss"] for r in rest.history] == [r["val_loss"] for r in straight.history]


def test_a_plateau_schedule_resumes_from_the_history(digits):
    stale = [{"val_accuracy": 0.5}, {"val_accuracy": 0.4}, {"val_accuracy": 0.4}]
    rates = [float(hyper_at(VGG, 5, stale[:n]).lr) for n in range(4)]
    assert rates == [np.float32(0.02 * drop) for drop in (1, 1, 0.5, 0.25)]
    history = [{"step": n, **record} for n, record in enumerate(stale)]
    resumed = loop.fit(Task.of(VGG, SEED, digits), history=history, stop=10)
    assert resumed.history[:3] == history
    assert resumed.history[3]["step"] == 7 and resumed.history[3]["lr"] == rates[3]


def test_hyper_holds_the_recipes_numbers():
    hyper = hyper_at(VGG.but(l2=0.03, momentum=0.7, dropout=0.2, bn_decay=0.8), 0, [])
    numbers = {"lr": 0.02, "l2": 0.03, "momentum": 0.7, "dropout": 0.2, "decay": 0.8}
    numbers |= {"distortion": 0.2, "scale_min": 0, "scale_max": 0}
    assert hyper._asdict() == {name: np.float32(value) for name, value in numbers.items()}
    assert all(value.dtype == np.float32 for value in hyper[:-2])
    whole = {"fit": "whole", "source_side": 9, "scale_min": 8, "scale_max": 12}
    scales = hyper_at(BASE.but(**whole), 0, [])[-2:]
    assert scales == (8, 12) and all(value.dtype == np.int32 for value in scales)
    falling = MLP.but(schedule="exponential", lr_every=2.5, lr_factor=0.5)
    rates = [float(hyper_at(falling, step, []).lr) for step in (0, 2, 3, 5)]
    assert rates == [0.5, 0.5, 0.25, 0.125]


# --- the learning curve --------------------------------------------------------------------------


def test_evaluation_steps_are_log_spaced_and_end_at_the_last_step():
    recipe = BASE.but(steps=1000, evaluations=5)
    assert loop.evaluation_steps(recipe) == [10, 32, 100, 316, 1000]
    for steps, evaluations in ((1200, 25), (370_000, 25), (11, 25), (10, 25), (3, 25), (1, 2)):
        spaced = loop.evaluation_steps(Recipe(steps=steps, evaluations=evaluations))
        assert spaced[-1] == steps and spaced[0] == min(10, steps)
        assert spaced == sorted(set(spaced)) and len(spaced) <= evaluations
    assert len(loop.evaluation_steps(Recipe(steps=370_000))) == 25


def test_a_plateau_is_judged_at_even_steps():
    recipe = BASE.but(schedule="plateau", steps=1000, evaluations=4)
    assert loop.evaluation_steps(recipe) == [250, 500, 750, 1000]
    assert loop.evaluation_steps(recipe.but(steps=2)) == [1, 2]


def test_evaluation_steps_are_even_where_the_recipe_says_so():
    recipe = BASE.but(steps=600, evaluations=60, spacing="even")
    assert loop.evaluation_steps(recipe) == list(range(10, 601, 10))
    assert loop.evaluation_steps(recipe.but(watch="weights"))[0] == 10


def test_the_last_step_is_evaluated_even_if_only_one_is():
    assert loop.evaluation_steps(BASE.but(steps=1000, evaluations=1)) == [1000]


def test_records_hold_means_since_the_record_before(digits, straight):
    assert [record["step"] for record in straight.history] == [7, 13, 20]
    steps = np.diff([0, 7, 13, 20])
    totals = sum(
        n * record["train_loss"] for n, record in zip(steps, straight.history, strict=True)
    )
    assert totals == pytest.approx(float(straight.state.loss_sum), rel=1e-5)
    hits = sum(n * r["train_accuracy"] for n, r in zip(steps, straight.history, strict=True))
    assert hits * VGG.batch == pytest.approx(float(straight.state.correct), rel=1e-6)
    for record in straight.history:
        assert 0 <= record["val_accuracy"] <= 1 and record["val_loss"] > 0
        n = len(digits.validation)
        assert record["val_accuracy"] * n == pytest.approx(round(record["val_accuracy"] * n))


def test_the_loss_falls_and_the_net_learns(digits):
    seen = []
    recipe = MLP.but(steps=300, lr=0.05, evaluations=4)
    fit = loop.fit(Task.of(recipe, SEED, digits), on_evaluation=seen.append)
    assert seen == fit.history
    losses = [record["train_loss"] for record in fit.history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 4
    assert fit.history[-1]["val_accuracy"] > 0.8  # chance is 0.1
    parts = {"compile", "data", "python", "step", "evaluation"}
    assert set(fit.seconds) == parts | {"total"}
    # Nothing is compiled where another test has had the same programs.
    assert (
        all(fit.seconds[part] > 0 for part in parts - {"compile"}) and fit.seconds["compile"] >= 0
    )
    assert fit.seconds["total"] == pytest.approx(sum(fit.seconds[part] for part in parts))


def test_a_diverging_run_stops_and_names_its_first_bad_step(digits):
    # l2·lr = 1e4: the weights grow by that at every step, until they overflow
    recipe = MLP.but(lr=1e6, steps=200, evaluations=6)
    fixed, held = static_of(recipe, digits), on_device(digits)
    state, key = init_state(recipe, fixed, SEED), keys(SEED)[1]
    step_fn, bad = train_step(fixed), []
    for step in range(30):
        rows = batch_indices(SEED, step, n=len(digits.train), batch=recipe.batch, shuffle="fresh")
        state = state.replace(loss_sum=np.float32(0))  # so that each step shows its own loss
        state = step_fn(state, key, held, rows, hyper_at(recipe, step, []))
        if not np.isfinite(state.loss_sum):
            bad.append(step)
    assert bad and 0 < bad[0] < 29, "the test wants a run that breaks on its way"
    assert int(state.diverged_at) == bad[0]
    fit = loop.fit(Task.of(recipe, SEED, digits))
    due = [step for step in loop.evaluation_steps(recipe) if step > bad[0]]
    assert int(fit.state.diverged_at) == bad[0]
    assert int(fit.state.step) == fit.history[-1]["step"] == due[0] < recipe.steps
    assert all(np.isfinite(r["train_loss"]) for r in fit.history if r["step"] <= bad[0])
    assert not np.isfinite(fit.history[-1]["train_loss"])
    healthy = loop.fit(Task.of(recipe.but(lr=0.01), SEED, digits), stop=10)
    assert int(healthy.state.diverged_at) == -1


def test_steps_of_one_program_are_the_steps_one_by_one(digits):
    """Across the ends of programs and evaluations, and from a state that ends within one."""
    most = loop.TOGETHER["mlp"]
    recipe = MLP.but(norm="batch", steps=2 * most + 5, schedule="exponential", lr_every=3, lr=0.05)
    fixed, held = static_of(recipe, digits), on_device(digits)
    state, key = init_state(recipe, fixed, SEED), keys(SEED)[1]
    for step in range(recipe.steps):
        rows = batch_indices(SEED, step, n=len(digits.train), batch=recipe.batch, shuffle="fresh")
        hyper = hyper_at(recipe, step, [])
        state = train_step(fixed)(state, key, held, rows, hyper)
    together = loop.fit(Task.of(recipe, SEED, digits)).state
    part = loop.fit(Task.of(recipe, SEED, digits), stop=most + 3).state
    assert int(part.step) == most + 3
    assert_same(loop.fit(Task.of(recipe, SEED, digits), state=part).state, together)
    assert int(together.step) == recipe.steps and int(together.correct) == int(state.correct)
    for ours, theirs in zip(
        jax.tree.leaves(together.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_initial_kernels_of_hidden_layers_are_scaled_and_nothing_else(digits):
    for recipe in (MLP, VGG):
        fixed = static_of(recipe, digits)
        one = init_state(recipe, fixed, SEED).params
        ten = init_state(recipe.but(init_scale=10), fixed, SEED).params
        last = max(name for name in one if name.startswith("fc"))
        hidden = {name for name in one if "kernel" in one[name]} - {last}
        for name in hidden:
            np.testing.assert_allclose(ten[name]["kernel"], 10 * one[name]["kernel"], rtol=1e-6)
        assert_same(
            {k: v for k, v in ten.items() if k not in hidden},
            {k: v for k, v in one.items() if k not in hidden},
        )


def test_another_draw_changes_weights_and_batches_and_keeps_the_data(digits):
    fixed = static_of(MLP, digits)
    assert MLP.stream(4) == 4 != MLP.but(draw=1).stream(4)
    one, other = (init_state(r, fixed, SEED).params for r in (MLP, MLP.but(draw=1)))
    assert differ(one["fc1"], other["fc1"])
    n = len(digits.train)
    rows = [
        batch_indices(r.stream(SEED), 0, n=n, batch=32, shuffle="fresh")
        for r in (MLP, MLP.but(draw=1))
    ]
    assert (rows[0] != rows[1]).any()
    fits = [loop.fit(Task.of(r, SEED, digits), stop=2).state for r in (MLP, MLP.but(draw=1))]
    assert float(fits[0].loss_sum) != float(fits[1].loss_sum)


# --- seeds and pairs -----------------------------------------------------------------------------


def test_a_seed_decides_everything(digits, straight):
    assert_same(loop.fit(Task.of(VGG, SEED, digits)).state, straight.state)
    other = loop.fit(Task.of(VGG, SEED + 1, digits), stop=1).state
    same = loop.fit(Task.of(VGG, SEED, digits), stop=1).state
    assert differ(other.params, same.params)
    assert int(other.correct) != int(same.correct) or float(other.loss_sum) != float(same.loss_sum)


def test_what_is_drawn_at_a_step_depends_on_seed_and_step(digits):
    fixed, held = static_of(VGG, digits), on_device(digits)
    rows = np.arange(VGG.batch, dtype=np.int32)

    def loss(seed, step):
        """Of the same weights on the same images: crops, colours and dropout alone differ."""
        state = init_state(VGG, fixed, SEED).replace(step=jax.numpy.int32(step))
        key, hyper = keys(seed)[1], hyper_at(VGG, 0, [])
        return float(train_step(fixed)(state, key, held, rows, hyper).loss_sum)

    losses = [loss(SEED, 0), loss(SEED, 1), loss(SEED, 2), loss(SEED + 1, 0)]
    assert len(set(losses)) == 4
    assert loss(SEED, 1) == losses[1]


@pytest.mark.parametrize("recipe", [VGG, MLP], ids=["vgg", "mlp"])
def test_paired_arms_start_from_the_same_weights(digits, recipe):
    def kernels(**edits):
        arm = recipe.but(**edits) if edits else recipe
        fixed = static_of(arm, digits)
        # without jit: all arms have the same shapes, and so share what is compiled
        variables = build(fixed.net).init(keys(SEED)[0], arm.init)
        params = variables["params"]
        return {name: p["kernel"] for name, p in params.items() if "kernel" in p}

    other = "none" if recipe.norm == "batch" else "batch"
    arms = [{"lr": 5.0}, {"dropout": 0.0}, {"norm": other}, {"norm": "layer"}, {"bn_groups": 2}]
    if recipe is VGG:
        arms += [{"norm_fc": True}, {"model": "vgg_a_lrn"}, {"activation": "sigmoid"}]
    for edits in arms:
        assert_same(kernels(**edits), kernels())
    firsts = {round(float(kernel.ravel()[0] / np.std(kernel)), 4) for kernel in kernels().values()}
    assert len(firsts) == len(kernels()), "two layers share a key"


def test_a_run_starts_from_its_seeds_weights(digits):
    def kernel(recipe, seed):
        return init_state(recipe, static_of(recipe, digits), seed).params["fc1"]["kernel"]

    first = kernel(MLP, SEED)
    assert_same(kernel(MLP.but(lr=0.1), SEED), first)
    assert differ(kernel(MLP, SEED + 1), first)
    assert differ(kernel(MLP.but(init="glorot"), SEED), first)
    state = init_state(MLP, static_of(MLP, digits), SEED)
    assert (int(state.step), float(state.loss_sum), int(state.diverged_at)) == (0, 0.0, -1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.opt_state))


# --- Algorithm 2 ---------------------------------------------------------------------------------


def test_population_statistics_are_the_float64_average(digits):
    recipe = MLP.but(norm="batch", steps=5, population_batches=4)
    state = loop.fit(Task.of(recipe, SEED, digits)).state
    params, moments = as_64(state.params), []
    for step in range(5, 9):  # fresh batches that follow the last step's
        h, _ = batch_64(recipe, digits, step, shuffle="fresh")
        own = {}
        for i in (1, 2, 3):
            h = h @ params[f"fc{i}"]["kernel"]
            scale, bias = (params[f"norm_fc{i}"][name] for name in ("scale", "bias"))
            bn = algorithm_1.forward(h, scale, bias, recipe.bn_eps)
            var = algorithm_1.unbiased(bn.var, len(h))
            own[f"norm_fc{i}"] = {"mean": bn.mean, "var": var}
            h = np.tanh(bn.y)
        moments.append(own)
    expected = jax.tree.map(lambda *values: np.mean(values, axis=0), *moments)
    found = loop.population_stats(Task.of(recipe, SEED, digits), state)
    assert jax.tree.structure(found) == jax.tree.structure(state.batch_stats)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, found, expected)
    assert differ(found, state.batch_stats)


def test_population_statistics_leave_the_state_alone_and_follow_the_seed(digits, straight):
    before = jax.tree.map(np.array, straight.state)
    found = loop.population_stats(
        Task.of(VGG.but(population_batches=2), SEED, digits), straight.state
    )
    assert_same(straight.state, before)
    again = loop.population_stats(
        Task.of(VGG.but(population_batches=2), SEED, digits), straight.state
    )
    assert_same(found, again)
    more = loop.population_stats(
        Task.of(VGG.but(population_batches=3), SEED, digits), straight.state
    )
    assert differ(found, more)
