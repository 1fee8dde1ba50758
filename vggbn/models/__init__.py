"""The nets of the papers. `MODELS[name](net)` gives a Model: `init` and `apply`."""

from functools import partial

from vggbn.models.mlp import mlp
from vggbn.models.net import PRECISIONS, Model, Net
from vggbn.models.vgg import CONFIGS, vgg

MODELS = {
    **{"vgg_" + name.lower().replace("-", "_"): partial(vgg, name) for name in CONFIGS},
    "mlp": mlp,
}

__all__ = ["MODELS", "PRECISIONS", "Model", "Net"]
