"""A net with auxiliary heads and a loss of three terms (as GoogLeNet's) needs no other step."""

import jax
import numpy as np
import pytest
import scipy.special

from vggbn import data
from vggbn.data import batch_indices, pixel_moments
from vggbn.machine.compiling import enable_x64
from vggbn.models import MODELS, Model, Net
from vggbn.models.mlp import mlp
from vggbn.nn import layers
from vggbn.training import loop
from vggbn.training.recipe import Recipe
from vggbn.training.step import init_state
from vggbn.training.task import Task

HEADS, WEIGHT = ("head1", "head2"), 0.3  # GoogLeNet, section 5
MLP = Recipe(
    data="digits", image_size=8, model="mlp", fc=16, hidden=1, steps=40, batch=30, lr=0.1,
    dropout=0.0, evaluations=3, population_batches=1, activation="tanh", norm="batch",
)  # fmt: skip


def three_heads(net: Net) -> Model:
    """An MLP, and beside it two linear classifiers of the pixels."""
    main, (height, width, channels) = mlp(net), net.image

    def init(key, initialiser, scale=1.0):
        variables, shape = main.init(key, initialiser, scale), (height * width * channels, 10)
        for i, head in enumerate(HEADS):
            own = jax.random.fold_in(key, i)
            variables["params"][head] = layers.linear_init(
                own, shape, initialiser="glorot", bias=True
            )
        return variables

    def apply(variables, x_NHWC, *, train, **how):
        logits, batch_stats = main.apply(variables, x_NHWC, train=train, **how)
        if not train:
            return logits, batch_stats
        x = x_NHWC.reshape(len(x_NHWC), -1)
        aux = [layers.dense(variables["params"][head], x) for head in HEADS]
        return (logits, *aux), batch_stats

    def loss(outputs, targets):
        first, *aux = (layers.cross_entropy(logits, targets.labels_N) for logits in outputs)
        return first + WEIGHT * sum(aux)

    return Model(init, apply, loss=loss, scores=lambda outputs: outputs[0])


@pytest.fixture(scope="module")
def task():
    MODELS["three_heads"] = three_heads
    digits = data.load("digits", image_size=8, fit="resize", split="fixed", seed=0, data_dir=None)
    yield Task.of(MLP.but(model="three_heads"), 0, digits)
    del MODELS["three_heads"]


def cross_entropy_64(logits_NK, labels_N):
    return -scipy.special.log_softmax(logits_NK, axis=1)[np.arange(len(labels_N)), labels_N]


def test_the_first_step_s_loss_is_the_sum_of_three_terms(task):
    digits, program = task.dataset, task.program
    start = jax.tree.map(np.float64, init_state(task.recipe, program, 0).variables)
    rows = batch_indices(0, 0, n=len(digits.train), batch=30, shuffle="fresh")
    mean_C, std = pixel_moments(digits.train)
    x_NHWC = (digits.train.images_NHWC[rows] / 255 - mean_C) / std
    with enable_x64():
        outputs, _ = three_heads(program.net).apply(start, x_NHWC, train=True)
    labels_N = digits.train.labels_N[rows]
    main, *aux = (cross_entropy_64(np.float64(logits), labels_N).mean() for logits in outputs)
    found = loop.fit(task, stop=1).state
    assert float(found.loss_sum) == pytest.approx(main + 0.3 * sum(aux), rel=1e-5)
    assert abs(main + 0.3 * sum(aux) - main) > 0.5, "the heads count"
    right = (np.asarray(outputs[0]).argmax(1) == labels_N).sum()
    assert int(found.correct) == right


def test_it_learns_and_is_evaluated_by_its_main_output(task):
    fit = loop.fit(task)
    before, after = init_state(task.recipe, task.program, 0).params, fit.state.params
    for head in HEADS:
        assert np.abs(after[head]["kernel"] - before[head]["kernel"]).max() > 1e-3
    assert fit.history[-1]["val_accuracy"] > 0.5
