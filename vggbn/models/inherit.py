"""A trained net's weights as another's start: fine-tuning, and VGG's initialisation from net A."""

from __future__ import annotations

from typing import Any

import jax

from vggbn.errors import UserError

# VGG 3.1: "the first four convolutional layers and the last three fully connected layers". In the
# order of their index A's four do not fit D's, so the layers of the same stage are meant: those
# that Table 1 has in every net, under one name.
STAGES = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc1", "fc2", "fc3")

Variables = dict[str, dict[str, Any]]  # {"params", "batch_stats"}


def inherit(how: str, new: Variables, parent: Variables) -> Variables:
    """The variables of a net with the parent's in the place of its own.

    how: "all": every layer, or "stages": STAGES with their norms. UserError: a layer that is to be
    copied is missing in one of the two nets, or has another shape there.
    """
    return {name: _taken(how, own, parent[name]) for name, own in new.items()}


def _taken(how: str, own: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    names = list(own | theirs)
    if how == "stages":
        wanted = {*STAGES, *(f"norm_{name}" for name in STAGES)}
        names = [name for name in names if name in wanted]
    for name in names:
        if _shapes(own.get(name)) != _shapes(theirs.get(name)):
            raise UserError(
                f"layer {name} cannot be inherited: its shape is {_shapes(own.get(name))} here and "
                f"{_shapes(theirs.get(name))} in the parent. Give the parent the same widths, norm "
                "and image size."
            )
    return own | {name: theirs[name] for name in names}


def _shapes(tree) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
