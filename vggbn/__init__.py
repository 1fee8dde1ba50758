"""Batch Normalization, VGG and Inception v1 as pure functions, and their claims as experiments.

    batch_norm                             BN of an array: (y, statistics)
    nets                                   the papers' nets: nets.build(nets.Net(...))
    centre, multi_crop, dense, by_batch    ways to test a Trained net; mean_posterior averages them
    evaluate                               the package of these ways, with the scorer of one view

Each is imported when it is first asked for: `import vggbn` alone loads neither jax nor numpy. Their
types stand in __init__.pyi.
"""

from importlib import import_module

__version__ = "0.1.0"

# {name: where it lives}
_HOMES = {
    "nets": "vggbn.models",
    "evaluate": "vggbn.evaluate",
    "batch_norm": "vggbn.nn.batch_norm",
} | dict.fromkeys(
    ("Trained", "by_batch", "centre", "dense", "mean_posterior", "multi_crop"), "vggbn.evaluate"
)
_MODULES = {"nets", "evaluate"}  # handed out themselves
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    globals()[name] = found = home if name in _MODULES else getattr(home, name)  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
