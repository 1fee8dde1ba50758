"""The net of BN 4.1: three fully connected sigmoid layers of 100 units and a 10-way softmax."""

from __future__ import annotations

from functools import partial

from vggbn.models.net import (
    Model,
    Net,
    ignore,
    init_linear,
    layer_keys,
    logits,
    nonlinear,
    recomputed,
)
from vggbn.nn import layers


def mlp(net: Net) -> Model:
    """784-100-100-100-10 on 28×28 images with fc = 100, hidden = 3 and activation = "sigmoid"."""
    return Model(partial(_init, net), partial(_apply, net))


def hidden_layers(net: Net) -> list[str]:
    """The names of the hidden layers; the output layer's is one number higher."""
    return [f"fc{i + 1}" for i in range(net.hidden)]


def _init(net, key, initialiser, scale=1.0):
    params, stats, keys = {}, {}, layer_keys(key)
    add = partial(init_linear, net, params, stats, keys, initialiser=initialiser)
    height, width, channels = net.image
    inputs = height * width * channels
    for name in hidden_layers(net):
        add(name, (inputs, net.fc), normed=True, scale=scale)
        inputs = net.fc
    add(f"fc{net.hidden + 1}", (inputs, net.classes), normed=False)
    return {"params": params, "batch_stats": stats}


def _apply(net, variables, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9, tap=ignore):
    """x [N, H, W, C] float -> logits [N, classes]. The paper's net has no dropout: none here, and
    the key is the norms'."""
    params, stats = variables["params"], variables["batch_stats"]
    x = x_NHWC.reshape(x_NHWC.shape[0], -1).astype(net.precision)
    for name in hidden_layers(net):
        own = partial(_layer, net, name, train=train, decay=decay, key=key, tap=tap)
        x, stats = recomputed(net, own, tap)(params, stats, x)
    return logits(params[f"fc{net.hidden + 1}"], x), stats


def _layer(net, name, params, stats, x, *, train, decay, key, tap):
    """A hidden layer: (activations, stats)."""
    tap(name, "u", x)
    x = layers.dense(params[name], x)
    tap(name, "sum", x)
    return nonlinear(net, params, stats, name, x, train=train, decay=decay, key=key, tap=tap)
