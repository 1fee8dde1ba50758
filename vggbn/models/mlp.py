"""The net of BN 4.1: three fully connected sigmoid layers of 100 units and a 10-way softmax."""

from __future__ import annotations

from functools import partial

from vggbn import layers
from vggbn.models.net import Model, Net, apply_norm, init_linear, layer_keys, logits

HIDDEN = ("fc1", "fc2", "fc3")


def mlp(net: Net) -> Model:
    """784-100-100-100-10 on 28×28 images with fc = 100 and activation = "sigmoid"."""
    return Model(partial(_init, net), partial(_apply, net))


def _init(net, key, initialiser):
    params, stats, keys = {}, {}, layer_keys(key)
    add = partial(init_linear, net, params, stats, keys, initialiser=initialiser)
    height, width, channels = net.image
    inputs = height * width * channels
    for name in HIDDEN:
        add(name, (inputs, net.fc), normed=True)
        inputs = net.fc
    add("fc4", (inputs, net.classes), normed=False)
    return params, stats


def _apply(net, params, stats, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9):
    """x [N, H, W, C] float -> logits [N, classes]. The paper's net has no dropout: none here."""
    x = x_NHWC.reshape(x_NHWC.shape[0], -1).astype(net.precision)
    for name in HIDDEN:
        x = layers.dense(params[name], x)
        x, stats = apply_norm(net, params, stats, name, x, train=train, decay=decay)
        x = layers.ACTIVATIONS[net.activation](x)
    return logits(params["fc4"], x), stats
