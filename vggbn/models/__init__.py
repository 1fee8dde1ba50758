"""The nets of the papers: `build(net)` gives a Model, `init`, `apply` and what else it offers."""

from functools import partial

from vggbn.models.mlp import mlp
from vggbn.models.net import PRECISIONS, Model, Net, Targets
from vggbn.models.vgg import CONFIGS, vgg

MODELS = {
    **{"vgg_" + name.lower().replace("-", "_"): partial(vgg, name) for name in CONFIGS},
    "mlp": mlp,
}


def build(net: Net) -> Model:
    """The model that `net` describes. KeyError: net.model is no name of MODELS."""
    return MODELS[net.model](net)


__all__ = ["MODELS", "PRECISIONS", "Model", "Net", "Targets", "build"]
