"""Batch Normalization, VGG and Inception v1 as pure functions, and their claims as experiments.

    batch_norm                             BN of an array: (y, statistics)
    nets                                   the papers' nets: nets.build(nets.Net(...))
    centre, multi_crop, dense, by_batch    ways to test a Trained net; mean_posterior averages them
    evaluate                               the package of these ways, with the scorer of one view

Each is imported when it is first asked for: `import vggbn` alone loads neither jax nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vggbn import evaluate
    from vggbn import models as nets
    from vggbn.evaluate import Trained, by_batch, centre, dense, mean_posterior, multi_crop
    from vggbn.nn.batch_norm import batch_norm

__all__ = [
    "Trained",
    "__version__",
    "batch_norm",
    "by_batch",
    "centre",
    "dense",
    "evaluate",
    "mean_posterior",
    "multi_crop",
    "nets",
]

_MODULES = {"nets": "vggbn.models", "evaluate": "vggbn.evaluate"}  # handed out as they are


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        found = import_module(_MODULES[name])
    else:
        home = "vggbn.nn.batch_norm" if name == "batch_norm" else "vggbn.evaluate"
        found = getattr(import_module(home), name)
    globals()[name] = found  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
