"""Mixed precision: what is bfloat16, what stays float32, and that it learns."""

import math
import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vggbn.commands.evaluate import main as evaluate_main
from vggbn.data import batch_indices
from vggbn.models import MODELS, Net
from vggbn.nn import norms
from vggbn.nn.layers import cross_entropy
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe
from vggbn.training.step import TRACES, hyper_at, init_state, train_step
from vggbn.training.task import Task, keys, static_of

SEED = 3
MLP = Recipe(
    data="digits",
    image_size=8,
    model="mlp",
    norm="batch",
    fc=32,
    steps=150,
    lr=0.05,
    evaluations=3,
    population_batches=2,
    precision="bfloat16",
)
# All layers there are: LRN, BN, pooling, dropout; maps of 8, 4, 2 and 1.
VGG = MLP.but(model="vgg_a_lrn", width=1 / 32, fc=16)
# Without pooling (a side is 1) and with tanh nothing jumps: gradients differ by rounding alone.
SMOOTH = {
    "mlp": Net((4, 5, 3), 6, fc=32, activation="tanh"),
    "vgg_a": Net((1, 12, 3), 6, fc=32, width=1 / 8, activation="tanh", norm="batch"),
}


def initial(model, net, initialiser="glorot"):
    """Variables; XLA's own generator and one program, since compiling is what takes time."""
    key = jax.random.key(0, impl="rbg")
    return jax.jit(lambda key: MODELS[model](net).init(key, initialiser))(key)


def float32_alone(tree) -> bool:
    leaves = jax.tree.leaves(tree)
    return bool(leaves) and all(leaf.dtype == jnp.float32 for leaf in leaves)


# --- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", SMOOTH)
def test_gradients_are_those_of_float32_within_a_few_percent(model):
    net = SMOOTH[model]
    variables = initial(model, net)
    rng = np.random.default_rng(0)
    x_NHWC = rng.standard_normal((16, *net.image), dtype=np.float32)
    labels_N = rng.integers(0, 6, 16)

    def gradient(precision):
        apply = MODELS[model](replace(net, precision=precision)).apply

        def loss(params):
            outputs, _ = apply(variables | {"params": params}, x_NHWC, train=True)
            return cross_entropy(outputs, labels_N).mean()

        return jax.jit(jax.grad(loss))(variables["params"])

    exact, rounded = gradient("float32"), gradient("bfloat16")
    assert float32_alone(rounded)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    distance = np.linalg.norm(flat(rounded) - flat(exact)) / np.linalg.norm(flat(exact))
    assert 1e-4 < distance < 0.04, distance  # 0.008 and 0.025; next to 0, nothing was rounded


def first_step(dataset, recipe):
    """(the jitted step, its arguments at step 0)."""
    fixed, held = static_of(recipe, dataset), on_device(dataset)
    rows = batch_indices(SEED, 0, n=len(dataset.train), batch=recipe.batch, shuffle="fresh")
    state = init_state(recipe, fixed, SEED)
    hyper = hyper_at(recipe, 0, [])
    return train_step(fixed), (state, keys(SEED)[1], held, rows, hyper)


def lowered(dataset, recipe) -> str:
    step, arguments = first_step(dataset, recipe)
    return step.lower(*arguments).as_text()


@pytest.mark.parametrize("recipe", [MLP, VGG], ids=["mlp", "vgg"])
def test_what_a_step_keeps_is_float32(digits, recipe):
    step, arguments = first_step(digits, recipe)
    after = jax.eval_shape(step, *arguments)
    for tree in (after.params, after.batch_stats, after.opt_state, after.loss_sum):
        assert float32_alone(tree)


def test_weights_are_updated_in_float32(digits):
    step, arguments = first_step(digits, MLP)
    state = step(*arguments)
    assert np.isfinite(state.loss_sum) and int(state.diverged_at) == -1
    for leaf in jax.tree.leaves((state.params["fc1"]["kernel"], state.opt_state)):
        values = np.asarray(leaf)
        rounded = values.astype(jnp.bfloat16).astype(np.float32)
        assert (values != rounded).any(), "bfloat16 could hold them all"


OPERANDS = re.compile(
    r"stablehlo\.(convolution|dot_general).*: \(tensor<([^>]*)>, tensor<([^>]*)>\)"
)


def products(text):
    """{(operation, its operands' dtypes)} -> the shapes of its left operands."""
    found = {}
    for operation, *operands in OPERANDS.findall(text):
        shapes, dtypes = zip(*(operand.rsplit("x", 1) for operand in operands), strict=True)
        found.setdefault((operation, dtypes), []).append(shapes[0])
    assert sum(map(len, found.values())) == text.count("stablehlo.convolution") + text.count(
        "stablehlo.dot_general"
    )
    return found


def test_a_step_convolves_in_bfloat16_forward_and_backward(digits):
    found = products(lowered(digits, VGG))
    convolutions = {dtypes for operation, dtypes in found if operation == "convolution"}
    assert convolutions == {("bf16", "bf16")}
    assert "32x16" in found["dot_general", ("bf16", "bf16")], "fc1 and fc2"


def test_only_the_last_layer_and_the_colour_shift_are_float32_products(digits):
    found = products(lowered(digits, MLP))
    # three hidden layers: forward and the kernel's gradient, and the input's but for the first
    assert len(found.pop(("dot_general", ("bf16", "bf16")))) == 8
    assert {key: len(shapes) for key, shapes in found.items()} == {
        ("dot_general", ("f32", "f32")): 3 + 1
    }


@pytest.mark.parametrize("own_norm", ["batch", "none"])
def test_no_sum_is_kept_in_bfloat16(digits, own_norm):
    # a bias's gradient is the sum of as many terms as there are pixels; in bfloat16 256 + 1 is 256
    text = lowered(digits, replace(VGG, norm=own_norm))
    sum_of = r"stablehlo.add across dimensions = \[(.*?)\] : \(tensor<([\dx]+)x(\w+)>"
    found = Counter(
        kind for axes, shape, kind in re.findall(sum_of, text)
        # A sum of one term: so an older jax drops an axis of length 1.
        if math.prod(int(shape.split("x")[int(axis)]) for axis in axes.split(",")) > 1
    )  # fmt: skip
    assert found["f32"] > 5 and not found["bf16"]


def test_a_float32_step_has_no_bfloat16(digits):
    assert "bf16" not in lowered(digits, VGG.but(precision="float32"))


def test_each_precision_is_one_compilation(digits):
    recipes = [MLP.but(fc=20), MLP.but(fc=20, precision="float32")]
    for recipe in [r.but(lr=lr) for r in recipes for lr in (0.1, 0.2)]:
        lowered(digits, recipe)
    fixed = [static_of(recipe, digits) for recipe in recipes]
    assert fixed[0] != fixed[1] and [TRACES[one] for one in fixed] == [1, 1]


# --- where float32 matters -----------------------------------------------------------------------


def test_running_statistics_are_float32_sums_of_bfloat16_activations(monkeypatch):
    seen = []
    monkeypatch.setitem(norms.NORMS, "batch", spying(norms.NORMS["batch"], seen))
    net = Net((8, 8, 1), 10, fc=8, norm="batch", precision="bfloat16")
    variables = initial("mlp", net, "he")
    x_NHWC = np.random.default_rng(0).normal(50, 1, (256, 8, 8, 1)).astype(np.float32)
    _, stats = MODELS["mlp"](net).apply(variables, x_NHWC, train=True, decay=0.0)
    assert [x.dtype for x in seen] == [jnp.bfloat16] * 3
    for i, x in enumerate(seen, 1):
        exact, own = np.asarray(x, np.float64), stats[f"norm_fc{i}"]
        assert float32_alone(own)
        np.testing.assert_allclose(own["mean"], exact.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(own["var"], exact.var(0, ddof=1), rtol=1e-5, atol=1e-6)


def spying(original, seen):
    def apply(x, *arguments, **keywords):
        seen.append(x)
        return original.apply(x, *arguments, **keywords)

    return original._replace(apply=apply)


@pytest.mark.parametrize("model", ["mlp", "vgg_a"])
@pytest.mark.parametrize("train_mode", [True, False])
def test_logits_and_loss_are_float32(model, train_mode):
    net = Net((4, 4, 1), 50, fc=16, width=1 / 16, precision="bfloat16")

    def outputs(key, x_NHWC):
        variables = MODELS[model](net).init(key, "he")
        logits, _ = MODELS[model](net).apply(variables, x_NHWC, train=train_mode)
        return logits, cross_entropy(logits, jnp.zeros(64, jnp.int32))

    x_NHWC = np.random.default_rng(0).standard_normal((64, *net.image), dtype=np.float32)
    key = jax.random.key(0, impl="rbg")
    assert float32_alone(jax.eval_shape(outputs, key, x_NHWC))
    if model == "mlp":  # a few seconds of compiling less: both models share their last layer
        logits = np.asarray(jax.jit(outputs)(key, x_NHWC)[0])
        rounded = logits.astype(jnp.bfloat16).astype(np.float32)
        assert (logits != rounded).mean() > 0.9, "rounded before the loss"


# --- it learns, is found and can be evaluated ----------------------------------------------------


def test_bfloat16_learns_and_can_be_evaluated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = runs.Store(tmp_path / "runs")
    final = {}
    for precision in ("bfloat16", "float32"):
        recipe = replace(MLP, precision=precision)
        final[precision] = runs.train_run(recipe, SEED, store)["final"]["test_accuracy"]
    assert final["bfloat16"] > 0.85  # chance is 0.1
    assert abs(final["bfloat16"] - final["float32"]) < 0.05
    run = runs.get_run(MLP, SEED, store)
    assert run.record["recipe"]["precision"] == "bfloat16"
    assert float32_alone(run.trained.variables)
    with pytest.raises(SystemExit) as done:
        evaluate_main([str(store.folder(MLP, SEED)), "digits"])
    assert done.value.code == 0
    assert f"top-1              {100 * final['bfloat16']:6.2f} %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_convolutional_net_learns_in_bfloat16(digits):
    recipe = VGG.but(norm_fc=True, dropout=0.0, width=1 / 16, steps=300)
    fit = loop.fit(Task.of(recipe, SEED, digits))
    assert fit.history[-1]["val_accuracy"] > 0.75  # chance is 0.1, float32 reaches 0.83 to 0.9
