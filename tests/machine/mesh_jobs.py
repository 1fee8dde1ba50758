"""What test_mesh.py runs: `python -m tests.machine.mesh_jobs FOLDER JOIN NAME...`.

All NAMEs of WHAT in one process, since to start one takes longer than most of them. JOIN: how this
process joins others; empty, if it is alone.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.photographs import encoded, split_of, texture
from vggbn.data import Dataset
from vggbn.machine import mesh
from vggbn.machine.compiling import enable_x64
from vggbn.models import MODELS, Net
from vggbn.models.vgg import vgg
from vggbn.nn.layers import cross_entropy
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.recipe import Recipe
from vggbn.training.task import Task

# 100 steps, one of the loop's evaluations at the last: a run that is stopped before has none.
SMALL = Recipe(
    data="digits", image_size=8, batch=32, steps=100, evaluations=1, lr=0.1, lr_every=100.0
)
# Two convolutions and three dense layers show what eleven layers do, in a third of the time.
SHORT = ("3", "3", "", "", "")
# Smooth: the gradient does not jump where rounding differs.
MLP = replace(SMALL, model="mlp", fc=24, hidden=1, activation="tanh", norm="batch")
NETS = {
    "parts": replace(MLP, accumulate=2, bn_groups=8, steps=1),
    "vgg": replace(SMALL,
        model="vgg_a", width=1 / 32, fc=8, norm="batch", norm_fc=True, activation="tanh",
        crop_pad=1, distortion=0.1,
    ),
    "stream": replace(MLP, loading="stream",
        fit="whole", source_side=16, scale_min=10, scale_max=14, distortion=0.1,
    ),
}  # fmt: skip


def fitted(name: str, steps: int):
    """The parameters and statistics after `steps` of loop.fit, in float32."""
    recipe = NETS[name]
    stored = recipe.loading == "memory"
    dataset = runs.load_data(recipe, 0, runs.Store(Path("runs"))) if stored else photographs()
    fit = loop.fit(Task.of(recipe, 0, dataset), stop=steps)
    assert len(fit.history) == (steps == recipe.steps)
    for leaf in jax.tree.leaves(fit.state):
        assert leaf.sharding.is_fully_replicated and len(leaf.devices()) == mesh.devices()
    return fit.state.params, fit.state.batch_stats


def photographs() -> Dataset:
    """A streamed set whose encoded images lie in this process."""
    split = split_of([encoded(texture(20 + i, 60 - i, i)) for i in range(40)], image_size=16)
    split = replace(split, labels_N=split.labels_N % 2)
    return Dataset("photographs", split, split, split, ("a", "b"), True, "", "")


def float64(norm: str, groups: int = 1, steps: int = 50):
    """A short VGG's parameters and statistics after 50 steps of SGD in float64, batches shared out
    over all devices. Convolutions have the norm, dense layers have none. One program: to start one
    on eight devices takes longer than this net's step."""
    net = Net((4, 4, 2), 5, norm=norm, width=1 / 32, fc=8, pools=1, precision="float64",
              bn_groups=groups)  # fmt: skip
    model = vgg(SHORT, net)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), "he"))
    draw = lambda leaf: rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))  # noqa: E731
    params = jax.tree.map(draw, shapes["params"])
    stats = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes["batch_stats"])
    x_NHWC, labels_N = rng.normal(size=(48, *net.image)), rng.integers(0, 5, 48)

    def step(state, rows_N):
        def loss(params, stats):
            logits, new = model.apply(
                {"params": params, "batch_stats": stats}, jnp.asarray(x_NHWC)[rows_N], train=True
            )
            return cross_entropy(logits, jnp.asarray(labels_N)[rows_N]).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(*state)
        params = jax.tree.map(lambda p, g: p - 0.02 * g, state[0], grads)
        return mesh.keep_replicated((params, new)), None

    rows_TN = np.stack([rng.permutation(48)[:32] for _ in range(steps)])
    train = jax.jit(lambda state, rows_TN: jax.lax.scan(step, state, rows_TN)[0])
    return train(mesh.replicate((params, stats)), mesh.share_out(rows_TN))


# Fifty steps in float64, and one or three of each net in float32.
WHAT = {
    "none": partial(float64, "none"),
    "batch": partial(float64, "batch"),
    "batch:8": partial(float64, "batch", groups=8),
    "parts:1": partial(fitted, "parts", 1),
    "vgg:1": partial(fitted, "vgg", 1),
    "stream:3": partial(fitted, "stream", 3),
}


def main(folder: str, join: str, *names: str) -> None:
    if join:
        mesh.join(join)
    MODELS["vgg_a"] = partial(vgg, SHORT)
    for name in names:
        compute = WHAT[name]
        with enable_x64(compute.func is float64):
            leaves = jax.tree_util.tree_leaves_with_path(compute())
        found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        np.savez(Path(folder) / f"{name}.npz", **found)
    print(mesh.devices())


if __name__ == "__main__":
    main(*sys.argv[1:])
