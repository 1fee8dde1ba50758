"""The nets of the papers: `build(net)` gives a Model, `init`, `apply` and what else it offers."""

from functools import partial

from vggbn.models.mlp import mlp
from vggbn.models.net import PRECISIONS, Model, Net, Targets
from vggbn.models.vgg import A_LRN, B_5X5, C_LINEAR, A, B, C, D, E, vgg

MODELS = {
    "vgg_a": partial(vgg, A),
    "vgg_a_lrn": partial(vgg, A_LRN),
    "vgg_b": partial(vgg, B),
    "vgg_c": partial(vgg, C),
    "vgg_d": partial(vgg, D),
    "vgg_e": partial(vgg, E),
    "vgg_b_5x5": partial(vgg, B_5X5),
    "vgg_c_linear": partial(vgg, C_LINEAR),
    "mlp": mlp,
}


def build(net: Net) -> Model:
    """The model that `net` describes. KeyError: net.model is no name of MODELS."""
    return MODELS[net.model](net)


__all__ = ["MODELS", "PRECISIONS", "Model", "Net", "Targets", "build"]
