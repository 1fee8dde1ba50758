"""VGG (Simonyan & Zisserman 2014, arXiv 1409.1556), Table 1: the nets A, A-LRN, B, C, D, E."""

from __future__ import annotations

from functools import partial

import jax

from vggbn import layers
from vggbn.models.net import Model, Net, apply_norm, init_linear, layer_keys, logits

# One string a block, one word a layer: 3 and 1 are 3×3 and 1×1 convolutions, L is LRN. The widths
# are 64, 128, 256, 512, 512; a 2×2 max pool ends each block.
CONFIGS = {
    "A": ("3", "3", "3 3", "3 3", "3 3"),
    "A-LRN": ("3 L", "3", "3 3", "3 3", "3 3"),
    "B": ("3 3", "3 3", "3 3", "3 3", "3 3"),
    "C": ("3 3", "3 3", "3 3 1", "3 3 1", "3 3 1"),
    "D": ("3 3", "3 3", "3 3 3", "3 3 3", "3 3 3"),
    "E": ("3 3", "3 3", "3 3 3 3", "3 3 3 3", "3 3 3 3"),
}
WIDTHS = (64, 128, 256, 512, 512)


def vgg(config: str, net: Net) -> Model:
    """The net of Table 1's column `config`; width 1 and fc 4096 at 224×224×3 are the paper's."""
    return Model(partial(_init, config, net), partial(_apply, config, net))


def vgg_blocks(config: str, net: Net) -> list[tuple[list[tuple[str, int, int]], bool]]:
    """A block = ([(layer name, kernel side, output channels)], ends with LRN)."""
    blocks = []
    for block, (words, width) in enumerate(zip(CONFIGS[config], WIDTHS, strict=True)):
        sides = [int(word) for word in words.split() if word != "L"]
        channels = max(1, round(width * net.width))
        convs = [(f"conv{block + 1}_{i}", side, channels) for i, side in enumerate(sides, 1)]
        blocks.append((convs, "L" in words))
    return blocks


def _init(config, net, key, initialiser):
    params, stats, keys = {}, {}, layer_keys(key)
    add = partial(init_linear, net, params, stats, keys, initialiser=initialiser)
    height, width, channels = net.image
    for convs, _ in vgg_blocks(config, net):
        for name, side, out in convs:
            add(name, (side, side, channels, out), normed=True)
            channels = out
        if min(height, width) > 1:
            height, width = height // 2, width // 2
    add("fc1", (height * width * channels, net.fc), normed=net.norm_fc)
    add("fc2", (net.fc, net.fc), normed=net.norm_fc)
    add("fc3", (net.fc, net.classes), normed=False)
    return params, stats


def _pool(x_NHWC):
    """2×2 max pooling; a map with a side of 1 stays as it is: small images."""
    return layers.max_pool_2x2(x_NHWC) if min(x_NHWC.shape[1:3]) > 1 else x_NHWC


def _apply(config, net, params, stats, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9):
    """x [N, H, W, C] float -> logits [N, classes]. Order: conv, norm, activation, LRN, pool."""
    act = layers.ACTIVATIONS[net.activation]
    x = x_NHWC.astype(net.precision)
    for convs, lrn in vgg_blocks(config, net):
        for i, (name, _, _) in enumerate(convs, 1):
            x = layers.conv(params[name], x)
            x, stats = apply_norm(net, params, stats, name, x, train=train, decay=decay)
            if i < len(convs):
                x = act(x)
        # The maximum of the activations is the activation of the maximum, a quarter of the work.
        x = _pool(layers.local_response_norm(act(x))) if lrn else act(_pool(x))
    x = x.reshape(x.shape[0], -1)
    for i, name in enumerate(("fc1", "fc2")):
        x = layers.dense(params[name], x)
        x, stats = apply_norm(net, params, stats, name, x, train=train, decay=decay)
        x = act(x)
        if train and key is not None:
            x = layers.dropout(jax.random.fold_in(key, i), x, dropout)
    return logits(params["fc3"], x), stats
