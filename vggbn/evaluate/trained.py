"""A trained net, as every protocol takes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from vggbn.models import Net


class Trained(NamedTuple):
    """A net, its variables and what its training pixels were standardised by.

    variables: {"params", "batch_stats"}, Flax's collections. mean_C [C] and std, float32, are of
    the training set (`data.input_moments`), on uint8 pixels divided by 255.
    """

    net: Net
    variables: dict[str, Any]
    mean_C: Any
    std: Any
