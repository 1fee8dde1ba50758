"""Algorithm 2, lines 10 and 11, for a whole net: at inference BN is part of the layer before it."""

from __future__ import annotations

from typing import Any

from vggbn.errors import UserError
from vggbn.models import Net
from vggbn.nn.batch_norm import fold

Tree = dict[str, Any]
# They share BN's inference; the others' depends on the example, or mixes channels.
FOLDABLE = {"batch", "batch_fixed", "batch_detached", "batch_moving", "batch_renorm"}


def fold_net(net: Net, variables: Tree) -> Tree:
    """The variables of the same net without norms: `apply(fold_net(...), x, train=False)`.

    variables: of one of `MODELS`. The logits are the same up to rounding, and
    the net saves a pass over every layer's output. UserError for a norm that does not fold: an
    affine map of fixed numbers, before the non-linearity, does.
    """
    if net.norm not in FOLDABLE:
        raise UserError(
            f"norm={net.norm} does not fold into a layer: {', '.join(sorted(FOLDABLE))} do."
        )
    if net.norm_after:
        raise UserError("BN behind the non-linearity does not fold into the layer before it.")
    params, stats = variables["params"], variables["batch_stats"]
    folded = {
        name: _folded(net, layer, params.get(f"norm_{name}"), stats.get(f"norm_{name}"))
        for name, layer in params.items()
        if not name.startswith("norm_")
    }
    return {"params": folded, "batch_stats": {}}


def _folded(net: Net, layer: Tree, norm: Tree | None, stats: Tree | None) -> Tree:
    if norm is None or stats is None:
        return layer
    return fold(layer, norm, stats, eps=net.bn_eps)
