"""What a net is made of, and what every model offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vggbn.nn.layers import ACTIVATIONS, cross_entropy, dense, linear_init
from vggbn.nn.norms import NORMS

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Net:
    """The static description of a net: whatever changes it needs a new compilation.

    model is a name of MODELS; image is (height, width, channels); width multiplies the paper's
    channel counts; fc is the width of the hidden fully connected layers, and hidden how many of
    them an MLP has; norm_after
    puts the norm behind the non-linearity, not before it, and bias_before_norm keeps the bias that
    BN makes redundant (BN 3.2); precision is the dtype that the layers compute in; pools is how
    many of a VGG's blocks end with a pool; remat keeps only what blocks hand on, for the backward
    pass, which computes the rest again (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
    Cost").
    """

    image: tuple[int, int, int]
    classes: int
    model: str = "vgg_a"
    norm: str = "none"
    norm_fc: bool = False
    norm_after: bool = False
    bias_before_norm: bool = False
    activation: str = "relu"
    width: float = 1.0
    fc: int = 4096
    hidden: int = 3
    bn_eps: float = 1e-5
    bn_unbiased: bool = True
    bn_groups: int = 1
    precision: str = "float32"
    pools: int = 5
    remat: bool = False


class Targets(NamedTuple):
    """What the outputs of a batch are compared with. labels_N: int32 [N]."""

    labels_N: Any


def classification_loss(logits_NK, targets: Targets):
    """The cross-entropy of each example: [N]."""
    return cross_entropy(logits_NK, targets.labels_N)


class Model(NamedTuple):
    """`init(key, initialiser, scale=1.0) -> variables` and
    `apply(variables, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9, tap=ignore)
    -> (outputs, batch_stats)`.

    variables: {"params", "batch_stats"}, Flax's collections; batch_stats comes back anew where
    `train`, else as it was. outputs: logits [N, classes], or in training whatever `loss` takes.
    tap(layer, what, x) is called, while tracing, with what every hidden layer takes and makes, in
    the letters of BN 3.2: "u", its input; "sum", Wu + b; "input", what the non-linearity takes.
    scale multiplies the initial kernels of all layers but the last.
    key None means no dropout, whatever the rate, and no noise of a norm. The layers compute in the
    net's precision; variables and logits are float32 in any.

    `score_map(variables, x_NHWC) -> logits [N, h, w, classes]`, where the net has one, is the net
    slid over larger images. `loss(outputs, targets) -> [N]` is what training minimises the mean of;
    `scores(outputs)` are the class scores [N, classes] by which it counts what is right.
    """

    init: Callable
    apply: Callable
    score_map: Callable | None = None
    loss: Callable = classification_loss
    scores: Callable = lambda outputs: outputs


def ignore(layer: str, what: str, x) -> None:
    """The tap of a net that nobody listens to."""


def layer_keys(key):
    """An iterator of keys, one a layer. One split compiles faster than a fold_in for each."""
    return iter(jax.random.split(key, 128))


def init_linear(net, params, stats, keys, name, shape, *, initialiser, normed, scale=1.0):
    """Put layer `name`, its kernel times `scale`, and, where `normed`, its norm under
    `norm_<name>` into params and stats."""
    normed = normed and net.norm != "none"
    bias = net.bias_before_norm or not normed
    params[name] = linear_init(next(keys), shape, initialiser=initialiser, bias=bias, scale=scale)
    if normed:
        params[f"norm_{name}"], stats[f"norm_{name}"] = NORMS[net.norm].init(shape[-1])


def apply_norm(net, params, stats, name, x, *, train, decay, key=None):
    """The norm of layer `name`, if it has one -> (x, stats); stats is a new dict."""
    if f"norm_{name}" not in params:
        return x, stats
    own, norm = f"norm_{name}", NORMS[net.norm]
    x, new = norm.apply(
        x,
        params[own],
        stats[own],
        train=train,
        decay=decay,
        eps=net.bn_eps,
        unbiased=net.bn_unbiased,
        groups=net.bn_groups,
        **({"key": _norm_key(key, params, own)} if norm.draws else {}),
    )
    return x, {**stats, own: new}


def _norm_key(key, params, own):
    """The key of one norm, by its place: that of a traced tree, whose names are sorted. The layers
    come first, so that none has the number of a dropout."""
    return None if key is None else jax.random.fold_in(key, sorted(params).index(own))


def nonlinear(net, params, stats, name, x, *, train, decay, key=None, tap=ignore):
    """The norm of layer `name` and the non-linearity, in the net's order -> (z, stats)."""
    activation, mode = ACTIVATIONS[net.activation], {"train": train, "decay": decay, "key": key}
    if net.norm_after:
        tap(name, "input", x)
        return apply_norm(net, params, stats, name, activation(x), **mode)
    x, stats = apply_norm(net, params, stats, name, x, **mode)
    tap(name, "input", x)
    return activation(x), stats


def recomputed(net, function, tap):
    """function(params, stats, x), of which the backward pass keeps only these where net.remat says
    so. Not in a net that is tapped: what the tap hears could not leave the function."""
    return jax.checkpoint(function) if net.remat and tap is ignore else function


def logits(params, x_NC):
    """The last layer, in float32 at least, whatever x is -> [N, classes].

    The eight bits of a bfloat16 logit can tie two classes, and evaluation counts a tie as wrong;
    the layer is too small for its time to matter.
    """
    return dense(params, x_NC.astype(jnp.promote_types(x_NC.dtype, jnp.float32)))
