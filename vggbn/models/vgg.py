"""VGG (Simonyan & Zisserman 2014, arXiv 1409.1556), Table 1: the nets A, A-LRN, B, C, D, E.

One set of weights answers for a crop (`apply`: one row of logits an image) and for a whole image of
any size (`score_map`: the fully connected layers as convolutions, section 3.2).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax

from vggbn.models.net import (
    Model,
    Net,
    apply_norm,
    ignore,
    init_linear,
    layer_keys,
    logits,
    nonlinear,
    recomputed,
)
from vggbn.nn import layers

# One string a block, one word a layer: 3 and 1 are 3×3 and 1×1 convolutions, L is LRN. The widths
# are 64, 128, 256, 512, 512; a 2×2 max pool ends each block. Two controls stand below the table:
# B's pairs of 3×3 each replaced by one 5×5 (section 4.1), and C with 1×1 convolutions that add no
# non-linearity (1-). A row each, so that a net's results know its own and no other's.
A = ("3", "3", "3 3", "3 3", "3 3")
A_LRN = ("3 L", "3", "3 3", "3 3", "3 3")
B = ("3 3", "3 3", "3 3", "3 3", "3 3")
C = ("3 3", "3 3", "3 3 1", "3 3 1", "3 3 1")
D = ("3 3", "3 3", "3 3 3", "3 3 3", "3 3 3")
E = ("3 3", "3 3", "3 3 3 3", "3 3 3 3", "3 3 3 3")
B_5X5 = ("5", "5", "5", "5", "5")
C_LINEAR = ("3 3", "3 3", "3 3 1-", "3 3 1-", "3 3 1-")
CONFIGS = {"A": A, "A-LRN": A_LRN, "B": B, "C": C, "D": D, "E": E}  # as Table 1 names them
WIDTHS = (64, 128, 256, 512, 512)


class Block(NamedTuple):
    """convs: (layer name, kernel side, output channels) of each; then LRN and a pool, if so.

    linear: the last convolution is followed by no activation.
    """

    convs: list[tuple[str, int, int]]
    lrn: bool
    pool: bool
    linear: bool


Config = tuple[str, ...]


def vgg(config: Config, net: Net) -> Model:
    """The net of a column of Table 1; width 1 and fc 4096 at 224×224×3 are the paper's."""
    return Model(*(partial(f, config, net) for f in (_init, _apply, _score_map)))


def vgg_blocks(config: Config, net: Net) -> list[Block]:
    """The five blocks. A pool ends the first net.pools of them, while there are sides to halve.

    Differs: with the paper's five pools an image smaller than 224×224 ends on a map of fewer than
    7×7 cells, and dense evaluation has less to slide over. Fewer pools keep the ratio of crop to
    stride: three at 64×64, two at 32×32.
    """
    blocks, side = [], min(net.image[:2])
    for i, (words, width) in enumerate(zip(config, WIDTHS, strict=True)):
        kernels = [int(word[0]) for word in words.split() if word != "L"]
        channels = max(1, round(width * net.width))
        convs = [(f"conv{i + 1}_{j}", kernel, channels) for j, kernel in enumerate(kernels, 1)]
        pool = i < net.pools and side > 1
        blocks.append(Block(convs, "L" in words, pool, linear=words.endswith("-")))
        side = side // 2 if blocks[-1].pool else side
    return blocks


def map_size(config: Config, net: Net) -> tuple[int, int]:
    """(height, width) of the map that fc1 sees whole: 7×7 in the paper."""
    stride = 2 ** sum(block.pool for block in vgg_blocks(config, net))
    return net.image[0] // stride, net.image[1] // stride


def _init(config, net, key, initialiser, scale=1.0):
    params, stats, keys = {}, {}, layer_keys(key)
    add = partial(init_linear, net, params, stats, keys, initialiser=initialiser)
    channels = net.image[2]
    for block in vgg_blocks(config, net):
        for name, side, out in block.convs:
            add(name, (side, side, channels, out), normed=True, scale=scale)
            channels = out
    height, width = map_size(config, net)
    add("fc1", (height * width * channels, net.fc), normed=net.norm_fc, scale=scale)
    add("fc2", (net.fc, net.fc), normed=net.norm_fc, scale=scale)
    add("fc3", (net.fc, net.classes), normed=False)
    return {"params": params, "batch_stats": stats}


def _apply(config, net, variables, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9, tap=ignore):
    """x [N, H, W, C] float -> logits [N, classes]. Order: conv, norm, activation, LRN, pool."""
    params, stats = variables["params"], variables["batch_stats"]
    mode = {"train": train, "decay": decay, "key": key, "tap": tap}
    x, stats = _features(config, net, params, stats, x_NHWC, **mode)
    x = x.reshape(x.shape[0], -1)
    tap("fc1", "u", x)
    y = layers.dense(params["fc1"], x)
    return _head(net, params, stats, y, dropout=dropout, **mode)


def _score_map(config, net, variables, x_NHWC):
    """x [N, H, W, C] of any H and W from net.image on -> logits [N, h, w, classes] (section 3.2).

    fc1 becomes a convolution, without padding, with a kernel of the size of the map it was trained
    on, fc2 and fc3 become 1×1 convolutions. The other layers keep their padding. For evaluation.
    """
    params, stats = variables["params"], variables["batch_stats"]
    x, _ = _features(config, net, params, stats, x_NHWC, train=False, decay=0.0)
    # fc1's rows lie in the order height, width, channel, as a kernel does.
    kernel = params["fc1"]["kernel"].reshape(*map_size(config, net), x.shape[-1], net.fc)
    y = layers.conv({**params["fc1"], "kernel": kernel}, x, padding="VALID")
    return _head(net, params, stats, y, train=False, decay=0.0)[0]


def _head(net, params, stats, y, *, train, decay, key=None, dropout=0.0, tap=ignore):
    """From fc1's products y [..., fc] on -> (logits [..., classes], stats)."""
    for i, name in enumerate(("fc1", "fc2")):
        if i:
            tap(name, "u", y)
            y = layers.dense(params[name], y)
        tap(name, "sum", y)
        y, stats = nonlinear(
            net, params, stats, name, y, train=train, decay=decay, key=key, tap=tap
        )
        if train and key is not None:
            y = layers.dropout(jax.random.fold_in(key, i), y, dropout)
    return logits(params["fc3"], y), stats


def _features(config, net, params, stats, x_NHWC, *, train, decay, key=None, tap=ignore):
    """What the convolutions make of x: (map [N, h, w, C], stats)."""
    x = x_NHWC.astype(net.precision)
    for each in vgg_blocks(config, net):
        own = partial(_block, net, each, train=train, decay=decay, key=key, tap=tap)
        x, stats = recomputed(net, own, tap)(params, stats, x)
    return x, stats


def _block(net, each: Block, params, stats, x, *, train, decay, key, tap):
    """One block of Table 1: (map, stats)."""
    mode = {"train": train, "decay": decay, "key": key}
    for i, (name, _, _) in enumerate(each.convs, 1):
        tap(name, "u", x)
        x = layers.conv(params[name], x)
        tap(name, "sum", x)
        if i < len(each.convs) or (net.norm_after and not each.linear):
            x, stats = nonlinear(net, params, stats, name, x, tap=tap, **mode)
        else:  # the block's end activates, if at all
            x, stats = apply_norm(net, params, stats, name, x, **mode)
            tap(name, "input", x)
    return _end(net, each, x), stats


def _end(net, block, x_NHWC):
    """The activation, if it is still to come, the LRN and the pool that end a block."""
    active = block.linear or net.norm_after
    act = (lambda x: x) if active else layers.ACTIVATIONS[net.activation]
    if block.lrn:
        x_NHWC = layers.local_response_norm(act(x_NHWC))
        return layers.max_pool_2x2(x_NHWC) if block.pool else x_NHWC
    # The maximum of the activations is the activation of the maximum, a quarter of the work.
    return act(layers.max_pool_2x2(x_NHWC) if block.pool else x_NHWC)
