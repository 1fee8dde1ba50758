"""What can be watched in a net while it trains: WATCHES, in a recipe's field `watch`.

Each is `watch(trained, split, ahead)` -> lists and dicts of plain numbers, for the history. The net
is in evaluation mode, BN by its moving averages, but for `gradients` and `landscape`. What depends
on images is measured on the first IMAGES of `split`, the validation images: one fixed batch; but
`landscape` asks for the step that lies ahead, `ahead() -> Step`, and takes its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import jax
import numpy as np

from vggbn.data import AnySplit
from vggbn.data.pixels.augment import standardise
from vggbn.evaluate.activations import activations
from vggbn.evaluate.landscape import Step, landscape
from vggbn.evaluate.trained import Trained
from vggbn.machine import compiling
from vggbn.models import Net, build
from vggbn.models.net import Targets

Ahead = Callable[[], Step]

IMAGES = 500
PERCENTILES = (15, 50, 85)  # BN Figure 1(b, c)
UNITS = 20  # of which a record of many seeds keeps percentiles
JACOBIANS = 50  # images whose Jacobians are decomposed
EDGES = np.linspace(-4, 4, 25)  # of a histogram of standardised values


def inputs(trained: Trained, split: AnySplit, ahead: Ahead) -> list[list[float]]:
    """[percentile of PERCENTILES][unit] of the inputs to the last hidden non-linearity.

    Over images and places (BN 4.1).
    """
    found = np.percentile(_last_inputs(trained, split), PERCENTILES, axis=0)
    return [[_short(value) for value in units] for units in found]


def some_inputs(trained: Trained, split: AnySplit, ahead: Ahead) -> list[list[float]]:
    """`inputs` of the first UNITS units, as good a sample as any: all start alike.

    To seven digits: where the percentiles lie close together, four would make them jump.
    """
    found = np.percentile(_last_inputs(trained, split)[:, :UNITS], PERCENTILES, axis=0)
    return [[float(f"{value:.7g}") for value in units] for units in found]


def weights(trained: Trained, split: AnySplit, ahead: Ahead) -> dict[str, dict[str, float]]:
    """{layer: {kernel, bias}}: the Euclidean norms of the weights (BN 3.3)."""
    return {
        layer: {name: _short(np.linalg.norm(np.asarray(leaf))) for name, leaf in own.items()}
        for layer, own in trained.variables["params"].items()
        if "kernel" in own
    }


def jacobians(trained: Trained, split: AnySplit, ahead: Ahead) -> dict[str, dict[str, float]]:
    """{layer: {median, low, high}}: singular values of the layer's Jacobian, and its 15th and 85th
    percentile; over images and values (BN 3.3, last paragraph).

    From the standardised inputs of one non-linearity to those of the next, for dense layers that
    follow one another: J = diag(1/std(Wu)) W^T diag(g'(x)) diag(std(x)). The gain of a norm between
    them cancels against the standardisation.
    """
    heard = _heard(trained, split)
    params = trained.variables["params"]
    slope = SLOPES[trained.net.activation]
    layers, found = list(dict.fromkeys(layer for layer, _ in heard)), {}
    for before, layer in pairwise(layers):
        x_NI, total_NO = heard[before, "input"], heard[layer, "sum"]
        kernel_IO = np.asarray(params[layer]["kernel"])
        if kernel_IO.ndim != 2 or x_NI.ndim != 2:
            continue
        right_NI = slope(x_NI[:JACOBIANS]) * x_NI.std(0)
        left_O = 1 / np.maximum(total_NO.std(0), 1e-12)
        values = np.linalg.svd(right_NI[:, :, None] * kernel_IO * left_O, compute_uv=False)
        low, median, high = (_short(v) for v in np.percentile(values, PERCENTILES))
        found[layer] = {"median": median, "low": low, "high": high}
    return found


def gradients(trained: Trained, split: AnySplit, ahead: Ahead) -> dict[str, float]:
    """{layer: the Euclidean norm of the loss's gradient in its kernel}, of the images as one batch
    of training, without dropout: BN by their own statistics, whose gradient is part of it."""
    images_NHWC = split.images(range(min(IMAGES, len(split))))
    gradients_of = _kernel_gradients(trained.net)
    labels_N = split.labels_N[:IMAGES]
    found = gradients_of(trained.variables, images_NHWC, labels_N, trained.mean_C, trained.std)
    return {layer: _short(np.linalg.norm(np.asarray(g, np.float64))) for layer, g in found.items()}


@lru_cache
def _kernel_gradients(net: Net) -> Callable:
    """{layer: gradient of the mean loss of uint8 images in its kernel}, jitted."""
    model = build(net)

    @compiling.jit
    def found(variables, images_NHWC, labels_N, mean_C, std):
        x_NHWC = standardise(images_NHWC, mean_C, std)

        def loss(params):
            outputs, _ = model.apply(variables | {"params": params}, x_NHWC, train=True, decay=0.0)
            return model.loss(outputs, Targets(labels_N)).mean()

        gradient = jax.grad(loss)(variables["params"])
        return {layer: own["kernel"] for layer, own in gradient.items() if "kernel" in own}

    return found


def gaussianity(trained: Trained, split: AnySplit, ahead: Ahead) -> dict[str, dict]:
    """{layer: {u, sum: {skewness, kurtosis, zeros, negentropy, density}}}: how Gaussian the layer's
    input u and Wu + b are (BN 3.2): mean over units of |skewness|, of |excess kurtosis|, of the
    share of zeros, and of the negentropy as skewness²/12 + kurtosis²/48 estimates it (Hyvärinen
    1998); and the density of all units' standardised values between EDGES.

    Units that are constant have no shape: they are left out, and are zeros where they are zero.
    """
    heard, found = _heard(trained, split), {}
    for (layer, what), x in heard.items():
        if what != "input":
            found.setdefault(layer, {})[what] = shape_of(x.reshape(-1, x.shape[-1]))
    return found


def shape_of(x_MU) -> dict[str, float | list[float]]:
    """The five of `gaussianity` for values of M examples and U units; NaN if all are constant."""
    x_MU = np.asarray(x_MU, np.float64)
    std_U = x_MU.std(0)
    moving = std_U > 1e-9 * np.abs(x_MU).max(initial=1e-300)
    z_MU = (x_MU[:, moving] - x_MU[:, moving].mean(0)) / std_U[moving]
    skewness_U, kurtosis_U = (z_MU**3).mean(0), (z_MU**4).mean(0) - 3
    each = {
        "skewness": np.abs(skewness_U),
        "kurtosis": np.abs(kurtosis_U),
        "zeros": (x_MU == 0).mean(0),
        "negentropy": skewness_U**2 / 12 + kurtosis_U**2 / 48,
    }
    means = {
        name: _short(values.mean()) if len(values) else float("nan")
        for name, values in each.items()
    }
    counts = np.histogram(z_MU, EDGES)[0]
    shares = counts / z_MU.size if z_MU.size else np.full(len(counts), np.nan)
    return means | {"density": [_short(share) for share in shares / np.diff(EDGES)]}


SLOPES: dict[str, Callable] = {
    "relu": lambda x: (x > 0).astype(x.dtype),
    "sigmoid": lambda x: 1 / (2 + np.exp(np.clip(x, -80, 80)) + np.exp(-np.clip(x, -80, 80))),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
}

WATCHES: dict[str, Callable | None] = {
    "none": None,
    "inputs": inputs,
    "some_inputs": some_inputs,
    "weights": weights,
    "jacobians": jacobians,
    "gradients": gradients,
    "gaussianity": gaussianity,
    "landscape": landscape,
}


def _last_inputs(trained: Trained, split: AnySplit):
    """[images and places, units] of the inputs to the last hidden non-linearity."""
    heard = _heard(trained, split)
    x = [x for (_, what), x in heard.items() if what == "input"][-1]
    return x.reshape(-1, x.shape[-1])


def _heard(trained: Trained, split: AnySplit):
    images_NHWC = split.images(range(min(IMAGES, len(split))))
    return activations(trained, images_NHWC)


def _short(value) -> float:
    """Four digits: a history holds many of them."""
    return float(f"{value:.4g}")
