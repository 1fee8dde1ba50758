"""A Recipe holds everything that decides the numbers of a run; a variant is an edit of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from vggbn.data.binary import PIXELS
from vggbn.data.lazy import LOADINGS
from vggbn.data.pixels.scale import window_side
from vggbn.errors import UserError, unknown
from vggbn.evaluate.watch import WATCHES
from vggbn.models import MODELS, PRECISIONS, Net
from vggbn.nn.layers import ACTIVATIONS, INITIALISERS
from vggbn.nn.norms import NORMS
from vggbn.training.optim import L2_ON, SCHEDULES

NUMERICS = 1  # rises when a default below or a formula changes, so that old runs get new ids


@dataclass(frozen=True)
class Recipe:
    """One run's numbers. Durations are in steps; rates, decays and amounts are plain fractions."""

    # data
    data: str = "mnist5k"  # embedded, a TFDS name or folder:PATH
    image_size: int = 16  # of the net's input
    fit: str = "resize"  # resize | pad | whole: images of many scales, from which crops are cut
    source_side: int = 0  # whole: the smallest side that images are kept at
    scale_min: int = 0  # whole: the smallest side S that a step rescales an image to is drawn
    scale_max: int = 0  # from scale_min … scale_max for each image; equal: S is fixed
    pixels: str = "standardised"  # standardised | binary: 0 or 1, as in BN 4.1
    damaged: str = "refuse"  # refuse | skip: what cannot be read, or is missing
    loading: str = "memory"  # memory: the whole set on each device | stream: decoded as it is used
    split: str = "folds"  # folds: seed s tests fold s of 5 | fixed
    train_size: int = 0  # so many training images, stratified; 0: all
    batch: int = 32
    shuffle: str = "fresh"  # fresh: a new permutation each epoch | fixed: the same batches
    crop_pad: int = 0  # random crops after padding by this many pixels
    flip: bool = False  # mirror at random, where the data set's labels allow it
    distortion: float = 0.0  # standard deviation of the colour shift along each principal axis
    # net
    model: str = "vgg_a"
    norm: str = "none"
    norm_fc: bool = False
    norm_after: bool = False  # behind the non-linearity, not before it
    bias_before_norm: bool = False
    activation: str = "relu"
    width: float = 1.0
    fc: int = 4096
    hidden: int = 3  # hidden layers of an MLP
    pools: int = 5  # blocks of a VGG that end with a pool: fewer on small images
    init: str = "he"
    init_scale: float = 1.0  # times the initial kernels of hidden layers
    bn_eps: float = 1e-5
    bn_decay: float = 0.9  # weight of the OLD value in the moving averages
    bn_unbiased: bool = True
    bn_groups: int = 1
    precision: str = "float32"  # of the layers' arithmetic; weights, statistics, loss stay float32
    remat: bool = False  # blocks are computed again in the backward pass: less memory, more time
    draw: int = 0  # another draw of all that is random, for the same seed's data
    # where training starts
    parent: Recipe | None = None  # from the trained net of this recipe and the same seed
    inherit: str = "all"  # all: every layer of the parent's | stages: those of VGG 3.1
    # optimisation
    steps: int = 1000
    lr: float = 0.01
    schedule: str = "constant"  # constant | exponential | plateau
    lr_factor: float = 0.96
    lr_every: float = 100.0  # steps (exponential) or validations (plateau) between two drops
    momentum: float = 0.9
    l2: float = 5e-4
    l2_on: str = "kernels"  # kernels | all
    dropout: float = 0.5
    accumulate: int = 1  # parts of a batch, one after another; BN sees each by itself
    # evaluation
    evaluations: int = 25  # points of the learning curve
    watch: str = "none"  # what each point tells besides scores: evaluate/watch.py
    population_batches: int = 32  # training batches of Algorithm 2
    spacing: str = "log"  # of the curve's points: log | even (always, for a plateau)

    def but(self, **edits: Any) -> Recipe:
        """The recipe with these fields changed. UserError: unknown field, bad value, no change."""
        for name, value in edits.items():
            if name not in FIELDS:
                raise unknown("recipe field", name, FIELDS)
            if value == getattr(self, name):
                raise UserError(f"the edit {name}={value!r} changes nothing: leave it out.")
        return replace(self, **edits)

    def __post_init__(self):
        _check(self)

    @property
    def id(self) -> str:
        """Hash of the fields that differ from their defaults, and of the numerics version."""
        text = json.dumps([NUMERICS, diff(Recipe(), self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def test_side(self) -> int:
        """The smallest side Q at which a net of many scales is tested: the middle of S's range.

        VGG 4.1: Q = S where S is fixed, Q = 0.5 (Smin + Smax) where it is drawn.
        """
        return (self.scale_min + self.scale_max + 1) // 2

    @property
    def part(self) -> int:
        """How many examples of a batch are computed at once."""
        return self.batch // self.accumulate

    def stream(self, seed: int) -> int:
        """The seed of all that is random in a run: initial weights, batches, crops, dropout."""
        return seed + 1_000_000 * self.draw

    @property
    def ancestors(self) -> list[Recipe]:
        """The parent, its parent and so on: what has to be trained before, last first."""
        return [] if self.parent is None else [self.parent, *self.parent.ancestors]

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> Recipe:
        """The recipe of a record; of another version, it may lack a field or have one more."""
        known = {name: saved[name] for name in FIELDS if name in saved}
        if known.get("parent"):
            known["parent"] = Recipe.from_dict(known["parent"])
        return Recipe(**known)


FIELDS = {field.name: field for field in fields(Recipe)}
TYPES = {name: type(field.default) for name, field in FIELDS.items()}
# What a field may be: words, or the names in a table. Of a table a run's identity knows only the
# entry that the recipe names (see identity.py): it must be a dict literal.
CHOICES = {
    "fit": ("resize", "pad", "whole"),
    "pixels": PIXELS,
    "damaged": ("refuse", "skip"),
    "loading": LOADINGS,
    "split": ("folds", "fixed"),
    "shuffle": ("fresh", "fixed"),
    "model": MODELS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "init": INITIALISERS,
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "l2_on": L2_ON,
    "spacing": ("log", "even"),
    "watch": WATCHES,
    "inherit": ("all", "stages"),
}
POSITIVE = (
    "image_size batch width fc hidden pools init_scale bn_eps bn_groups steps lr lr_factor "
    "lr_every evaluations population_batches accumulate"
).split()
NOT_NEGATIVE = "draw train_size crop_pad distortion l2 source_side scale_min scale_max".split()
FRACTION = "bn_decay momentum dropout".split()  # in [0, 1)


def _check(recipe: Recipe) -> None:
    for name, kind in TYPES.items():
        value = getattr(recipe, name)
        if kind is float and type(value) in (int, float):
            # 1 and 1.0, and 30 * 0.03 and 0.9, are one recipe with one id.
            object.__setattr__(recipe, name, float(f"{value:.12g}"))
        elif type(value) is not kind and not (name == "parent" and isinstance(value, Recipe)):
            raise UserError(f"recipe field {name} takes {kind.__name__}, not {value!r}.")
    for name, choices in CHOICES.items():
        if getattr(recipe, name) not in choices:
            raise unknown(f"value for {name}", getattr(recipe, name), choices)
    for names, good, rule in (
        (POSITIVE, lambda v: v > 0, "positive"),
        (NOT_NEGATIVE, lambda v: v >= 0, "zero or more"),
        (FRACTION, lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ):
        for name in names:
            value = getattr(recipe, name)
            if not good(value) or value == float("inf"):
                raise UserError(f"recipe field {name} must be {rule} and finite, not {value!r}.")
    _check_scales(recipe)
    if recipe.inherit != "all" and recipe.parent is None:
        raise UserError("recipe field inherit needs a parent to inherit from.")
    if recipe.pools > 5:
        raise UserError(f"recipe field pools must be 1 to 5, not {recipe.pools}: VGG has 5 blocks.")
    if recipe.batch % recipe.accumulate:
        raise UserError(
            f"batch {recipe.batch} cannot be cut into accumulate={recipe.accumulate} equal parts."
        )
    if recipe.part % recipe.bn_groups:
        whole = recipe.accumulate == 1
        what = f"batch {recipe.batch}" if whole else f"a part of {recipe.part} examples"
        raise UserError(f"{what} cannot be cut into bn_groups={recipe.bn_groups} equal groups.")


def _check_scales(recipe: Recipe) -> None:
    scales = (recipe.source_side, recipe.scale_min, recipe.scale_max)
    if recipe.fit != "whole":
        if any(scales):
            raise UserError('source_side, scale_min and scale_max are for fit="whole" only.')
        return
    if not (recipe.source_side > 0 and recipe.image_size <= recipe.scale_min <= recipe.scale_max):
        raise UserError(
            'fit="whole" needs source_side > 0 and image_size <= scale_min <= scale_max, not '
            f"source_side={scales[0]}, scale_min={scales[1]}, scale_max={scales[2]}, "
            f"image_size={recipe.image_size}."
        )
    if recipe.crop_pad:
        raise UserError('crop_pad must be 0 with fit="whole": its crops lie inside the image.')


def field_values(recipe: Recipe) -> dict[str, Any]:
    """{field: value}, the parent by its id."""
    values = {name: getattr(recipe, name) for name in FIELDS}
    return values | {"parent": recipe.parent and recipe.parent.id}


def diff(old: Recipe, new: Recipe) -> dict[str, Any]:
    """{field: new value} where the two differ, in the order of the fields; a parent is its id."""
    before, after = field_values(old), field_values(new)
    return {name: after[name] for name in FIELDS if after[name] != before[name]}


def parse_edit(text: str) -> tuple[str, Any]:
    """("lr", 0.1) from "lr=0.1", by the field's type. UserError: no such field or value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set takes field=value, not {text!r}.")
    if name not in FIELDS:
        raise unknown("recipe field", name, FIELDS)
    kind = TYPES[name]
    if name == "parent":
        raise UserError("recipe field parent is a recipe: an experiment's file sets it.")
    try:
        if kind is bool:
            return name, {"true": True, "false": False}[value.lower()]
        return name, kind(value)
    except (KeyError, ValueError):
        raise UserError(f"recipe field {name} takes {kind.__name__}, not {value!r}.") from None


class Static(NamedTuple):
    """The part of a recipe that is compiled in; runs that share it share one compilation."""

    net: Net
    batch: int
    crop_pad: int
    flip: bool
    l2_on: str
    accumulate: int = 1
    window: int = 0  # the side of what a crop of an image of many scales may need; 0: of one scale


def static(recipe: Recipe, *, image: tuple[int, int, int], classes: int, flip: bool) -> Static:
    """`image` and `classes` are the data set's; `flip` says whether its labels allow mirroring."""
    net = Net(
        model=recipe.model,
        image=image,
        classes=classes,
        norm=recipe.norm,
        norm_fc=recipe.norm_fc,
        norm_after=recipe.norm_after,
        bias_before_norm=recipe.bias_before_norm,
        activation=recipe.activation,
        width=recipe.width,
        fc=recipe.fc,
        hidden=recipe.hidden,
        bn_eps=recipe.bn_eps,
        bn_unbiased=recipe.bn_unbiased,
        bn_groups=recipe.bn_groups,
        precision=recipe.precision,
        pools=recipe.pools,
        remat=recipe.remat,
    )
    window = 0
    if recipe.fit == "whole" and recipe.loading == "memory":  # a streamed set's crops come rescaled
        window = window_side(recipe.source_side, recipe.scale_min, recipe.image_size)
    return Static(
        net=net,
        batch=recipe.batch,
        crop_pad=recipe.crop_pad,
        flip=recipe.flip and flip,
        l2_on=recipe.l2_on,
        accumulate=recipe.accumulate,
        window=window,
    )
