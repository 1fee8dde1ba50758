"""A few recipes on data that need no download: for commits that made no published line."""

from __future__ import annotations

from typing import Any

from vggbn.same_numbers.published import Case

SMALL = {"data": "mnist5k", "image_size": 32, "fit": "pad", "width": 0.125, "fc": 32, "steps": 30}
RECIPES: dict[str, dict[str, Any]] = {
    "vgg_a": {},
    "vgg_a, batch norm": {"norm": "batch", "norm_fc": True, "crop_pad": 2},
    "vgg_a_lrn, plateau": {"model": "vgg_a_lrn", "schedule": "plateau", "lr_every": 2.0},
    "vgg_d, bfloat16": {"model": "vgg_d", "precision": "bfloat16", "shuffle": "fixed"},
    "vgg_a, in four parts": {"norm": "batch", "accumulate": 4, "bn_groups": 2},
    "mlp": {"model": "mlp", "activation": "sigmoid", "schedule": "exponential", "lr_every": 7.0},
    "mlp, batch norm": {"model": "mlp", "norm": "batch", "norm_after": True, "watch": "inputs"},
    "mlp, from another": {"model": "mlp", "parent": SMALL | {"model": "mlp"}, "l2_on": "all"},
    "canvas, many scales": {
        "data": "canvas", "fit": "whole", "source_side": 64, "scale_min": 32, "scale_max": 64,
        "distortion": 0.1,
    },
}  # fmt: skip


def cases(commit: str) -> list[Case]:
    """The recipes as cases of this commit, which belong to no line."""
    return [
        Case(
            "canonical",
            commit,
            "cpu",
            name,
            [{"recipe": SMALL | edits, "seed": 1}],
            published=False,
        )
        for name, edits in RECIPES.items()
    ]
