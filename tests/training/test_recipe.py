"""Recipes: edits, refusals, ids, and what is compiled in."""

import hashlib
import json
import math
from dataclasses import FrozenInstanceError, asdict

import pytest

from vggbn.errors import UserError
from vggbn.training.recipe import CHOICES, FIELDS, NUMERICS, Recipe, diff, parse_edit, static

BASE = Recipe()
WHOLE = {"fit": "whole", "source_side": 40, "scale_min": 20, "scale_max": 30}


def refused(act, *words):
    """The refusal is one sentence (or a question and a list) that holds the words."""
    with pytest.raises(UserError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message, message
    return message


# --- but -----------------------------------------------------------------------------------------


def test_but_changes_what_is_named_and_nothing_else():
    edited = BASE.but(lr=0.3, norm="batch")
    assert (edited.lr, edited.norm) == (0.3, "batch")
    assert diff(BASE, edited) == {"norm": "batch", "lr": 0.3}
    assert Recipe() == BASE
    with pytest.raises(FrozenInstanceError):
        BASE.lr = 1.0


@pytest.mark.parametrize(
    "wrong, close", [("droput", "dropout"), ("lrr", "lr"), ("steps_", "steps"), ("Norm", "norm")]
)
def test_but_refuses_an_unknown_field_and_names_the_closest(wrong, close):
    refused(lambda: BASE.but(**{wrong: 1}), repr(wrong), f"Did you mean {close!r}?", "bn_decay")


def test_but_refuses_an_unknown_field_that_is_close_to_none():
    assert "Did you mean" not in refused(lambda: BASE.but(qqqq=1), "'qqqq'", "Valid: accumulate")


@pytest.mark.parametrize("edit", [{"lr": 0.01}, {"width": 1}, {"norm": "none"}, {"flip": False}])
def test_but_refuses_an_edit_that_changes_nothing(edit):
    refused(lambda: BASE.but(**edit), f"{next(iter(edit))}=", "changes nothing")
    refused(lambda: BASE.but(steps=7, **edit), "changes nothing")


BAD = {
    "image_size": (0, -1, 16.0, True, "16", None),
    "batch": (0, -32),
    "steps": (0, 1e3),
    "evaluations": (0,),
    "population_batches": (0,),
    "fc": (0,),
    "crop_pad": (-1, 0.5),
    "width": (0.0, -1.0, math.inf, math.nan),
    "lr": (0, -0.1, math.nan, math.inf, "0.1", None, True),
    "lr_factor": (0.0, math.nan),
    "lr_every": (0.0, math.inf),
    "l2": (-1e-4, math.nan, math.inf),
    "distortion": (-0.1, math.inf),
    "dropout": (-0.1, 1.0, 1.5, math.nan),
    "momentum": (-0.1, 1, math.nan),
    "bn_decay": (-0.1, 1.0),
    "bn_eps": (0.0, -1e-5),
    "pools": (0, 6, 2.0),
    "bn_groups": (0, 3, 64),  # 3 and 64 do not cut a batch of 32 into equal groups
    "flip": (1, "true", None),
    "norm_fc": (1,),
    "data": (5, None),
}


@pytest.mark.parametrize("field, value", [(f, v) for f, values in BAD.items() for v in values])
def test_bad_values_are_refused(field, value):
    refused(lambda: BASE.but(**{field: value}), field)
    refused(lambda: Recipe(**{field: value}), field)


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choices_are_refused_and_the_valid_ones_named(field):
    wrong = next(iter(CHOICES[field])) + "x"
    refused(lambda: BASE.but(**{field: wrong}), field, repr(wrong), "Did you mean", *CHOICES[field])
    for choice in CHOICES[field]:
        more = WHOLE if choice == "whole" else {"parent": BASE} if field == "inherit" else {}
        assert getattr(Recipe(**{**more, field: choice}), field) == choice


def test_the_edges_of_every_range_are_allowed():
    assert BASE.but(dropout=0, momentum=0, l2=0, bn_decay=0, crop_pad=2, bn_groups=32).dropout == 0
    assert BASE.but(batch=6, bn_groups=3).bn_groups == 3


# --- ids -----------------------------------------------------------------------------------------


def test_ids_are_stable():
    # Results on disk are found by these. A new default or formula raises NUMERICS, and only then
    # do these two change.
    assert NUMERICS == 1
    assert BASE.id == "7674a781fc38"
    assert BASE.but(model="vgg_a_lrn", norm="batch", lr=0.05, steps=1200).id == "3881702de458"


def test_a_field_that_came_later_changes_no_id_at_its_default():
    # by hand, as it was before `precision`: results on disk are found by these
    edits = {"model": "vgg_d", "lr": 0.3}
    text = json.dumps([NUMERICS, edits], sort_keys=True)
    assert BASE.but(**edits).id == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert Recipe(precision="float32").id == BASE.id != BASE.but(precision="bfloat16").id


def test_an_id_knows_every_field():
    other = {
        str: lambda name, value: next((c for c in CHOICES.get(name, ()) if c != value), "digits"),
        int: lambda name, value: value * 2 or 2,
        float: lambda name, value: value / 2 or 0.5,
        bool: lambda name, value: not value,
    }
    parent, scaled = BASE.but(lr=0.7), BASE.but(**WHOLE)
    other[type(None)] = lambda name, value: parent
    edits = {name: other[type(f.default)](name, f.default) for name, f in FIELDS.items()}
    edits["pools"] = 3  # of at most 5
    start = dict.fromkeys(("source_side", "scale_min", "scale_max"), scaled)
    start["inherit"] = BASE.but(parent=parent)
    del edits["fit"]  # it comes with the three scales
    edits |= {"source_side": 41, "scale_min": 21, "scale_max": 31}
    ids = {start.get(name, BASE).but(**{name: value}).id for name, value in edits.items()}
    assert len(ids | {BASE.id, scaled.id}) == len(FIELDS) + 1


def test_a_parent_is_known_by_its_id():
    child = BASE.but(parent=BASE.but(lr=0.7), lr=0.1)
    assert diff(BASE, child) == {"parent": BASE.but(lr=0.7).id, "lr": 0.1}
    grandchild = child.but(parent=child)
    assert grandchild.ancestors == [child, child.parent] and BASE.ancestors == []
    assert len({child.id, child.but(parent=BASE).id, grandchild.id}) == 3


def test_a_recipe_comes_back_from_its_record():
    child = BASE.but(parent=BASE.but(lr=0.7, **WHOLE), lr=0.1)
    saved = json.loads(json.dumps(asdict(child)))
    assert Recipe.from_dict(saved) == child and Recipe.from_dict(saved).id == child.id
    del saved["pools"], saved["parent"]["norm"]
    assert Recipe.from_dict(saved | {"a_later_field": 1}) == child


@pytest.mark.parametrize(
    "edits, words",
    [
        ({"scale_min": 20}, ['for fit="whole" only']),
        ({**WHOLE, "scale_max": 19}, ["scale_max=19", "image_size=16"]),
        ({**WHOLE, "scale_min": 15}, ["image_size <= scale_min"]),
        ({k: v for k, v in WHOLE.items() if k != "source_side"}, ["source_side > 0"]),
        ({"fit": "whole"}, ["source_side=0"]),
        ({**WHOLE, "crop_pad": 1}, ["crop_pad must be 0"]),
        ({"inherit": "stages"}, ["needs a parent"]),
        ({"parent": "7674a781fc38"}, ["recipe field parent"]),
    ],
)
def test_scales_and_parents_that_do_not_fit_are_refused(edits, words):
    refused(lambda: BASE.but(**edits), *words)


def test_q_is_the_middle_of_the_training_scales():
    assert BASE.but(**WHOLE).test_side == 25
    assert BASE.but(**WHOLE | {"scale_max": 20}).test_side == 20
    paper = Recipe(image_size=224, fit="whole", source_side=512, scale_min=256, scale_max=512)
    assert paper.test_side == 384


def test_an_id_ignores_defaults_order_and_the_kind_of_number():
    assert BASE.but(lr=0.5).but(lr=0.01).id == Recipe(lr=0.01, norm="none").id == BASE.id
    assert BASE.but(lr=0.5, steps=9).id == BASE.but(steps=9).but(lr=0.5).id
    assert BASE.but(lr=1).id == BASE.but(lr=1.0).id
    assert BASE.but(lr=1) == BASE.but(lr=1.0) and type(BASE.but(lr=1).lr) is float
    assert len(BASE.id) == 12 and int(BASE.id, 16) >= 0


# --- diff and parse_edit -------------------------------------------------------------------------


def test_diff_lists_the_new_values_in_the_order_of_the_fields():
    new = BASE.but(l2=0.0, model="mlp", flip=True)
    assert list(diff(BASE, new).items()) == [("flip", True), ("model", "mlp"), ("l2", 0.0)]
    assert list(diff(new, BASE).items()) == [("flip", False), ("model", "vgg_a"), ("l2", 5e-4)]
    assert diff(new, new) == {}
    assert BASE.but(**diff(BASE, new)) == new


@pytest.mark.parametrize(
    "text, edit",
    [
        ("lr=0.1", ("lr", 0.1)),
        ("lr=1e-3", ("lr", 1e-3)),
        ("lr=1", ("lr", 1.0)),
        ("batch=64", ("batch", 64)),
        ("flip=true", ("flip", True)),
        ("flip=FALSE", ("flip", False)),
        ("norm=batch", ("norm", "batch")),
        ("data=folder:pictures/a=b", ("data", "folder:pictures/a=b")),
    ],
)
def test_parse_edit(text, edit):
    parsed = parse_edit(text)
    assert parsed == edit and type(parsed[1]) is type(edit[1])


@pytest.mark.parametrize(
    "text, words",
    [
        ("lr", ["field=value", "'lr'"]),
        ("", ["field=value"]),
        ("lrr=1", ["'lrr'", "Did you mean 'lr'?"]),
        ("=1", ["unknown recipe field"]),
        ("batch=6.5", ["batch takes int", "'6.5'"]),
        ("batch=", ["batch takes int"]),
        ("lr=fast", ["lr takes float", "'fast'"]),
        ("flip=yes", ["flip takes bool", "'yes'"]),
        ("flip=1", ["flip takes bool"]),
        ("parent=7674a781fc38", ["parent is a recipe"]),
    ],
)
def test_parse_edit_refuses(text, words):
    refused(lambda: parse_edit(text), *words)


def test_what_parses_may_still_be_refused_by_the_recipe():
    for text in ("lr=nan", "lr=inf", "norm=bach", "dropout=1"):
        refused(lambda text=text: BASE.but(**dict([parse_edit(text)])), text.partition("=")[0])


# --- static --------------------------------------------------------------------------------------

# What a step is compiled for; all other fields are numbers given to it or decide its inputs.
STATIC = {
    "batch": 64,
    "crop_pad": 2,
    "flip": True,
    "model": "vgg_d",
    "norm": "batch",
    "norm_fc": True,
    "norm_after": True,
    "bias_before_norm": True,
    "activation": "sigmoid",
    "width": 0.5,
    "fc": 64,
    "hidden": 2,
    "pools": 3,
    "bn_eps": 1e-3,
    "bn_unbiased": False,
    "bn_groups": 2,
    "precision": "bfloat16",
    "l2_on": "all",
    "accumulate": 2,
    "remat": True,
}
FREE = {
    "data": "digits",
    "image_size": 32,  # the images' own shape is passed
    "fit": "pad",
    "split": "fixed",
    "train_size": 100,
    "shuffle": "fixed",
    "distortion": 0.1,
    "init": "glorot",
    "init_scale": 10.0,
    "draw": 1,
    "bn_decay": 0.99,
    "steps": 5,
    "lr": 0.5,
    "schedule": "plateau",
    "lr_factor": 0.1,
    "lr_every": 3.5,
    "momentum": 0.0,
    "l2": 0.0,
    "dropout": 0.0,
    "evaluations": 3,
    "spacing": "even",
    "watch": "weights",
    "population_batches": 4,
    "pixels": "binary",
    "damaged": "skip",
    "loading": "stream",
    "parent": BASE.but(lr=0.7),
}
# Those of images of many scales: they come together, see below.
SCALES = {"source_side", "scale_min", "scale_max"}


def compiled(recipe, image=(16, 16, 1), classes=10, flip=True):
    return static(recipe, image=image, classes=classes, flip=flip)


def test_every_field_is_either_compiled_in_or_free():
    assert set(STATIC) | set(FREE) | SCALES | {"inherit"} == set(FIELDS) and not set(STATIC) & set(
        FREE
    )


@pytest.mark.parametrize("field", FREE)
def test_variants_that_differ_in_numbers_share_a_compilation(field):
    variant = BASE.but(**{field: FREE[field]})
    assert compiled(variant) == compiled(BASE)
    assert hash(compiled(variant)) == hash(compiled(BASE))


@pytest.mark.parametrize("field", STATIC)
def test_variants_that_differ_in_architecture_do_not(field):
    value = STATIC[field]
    fixed = compiled(BASE.but(**{field: value}))
    assert fixed != compiled(BASE)
    assert getattr(fixed.net if field in asdict(fixed.net) else fixed, field) == value


def test_the_smallest_scale_decides_how_large_a_window_is_compiled_in():
    whole = BASE.but(**WHOLE)
    assert compiled(whole) == compiled(whole.but(scale_max=40))
    windows = [compiled(r).window for r in (BASE, whole, whole.but(scale_min=25))]
    assert windows[0] == 0 and windows[1] > windows[2] > 16
    assert compiled(whole.but(source_side=80)).window > windows[1]


def test_where_a_net_starts_is_not_compiled_in():
    child = BASE.but(parent=BASE.but(lr=0.7))
    assert compiled(child) == compiled(child.but(inherit="stages"))


def test_the_data_decide_shape_classes_and_whether_mirroring_is_allowed():
    flipping = BASE.but(flip=True)
    assert compiled(flipping).flip and not compiled(flipping, flip=False).flip
    assert not compiled(BASE).flip
    fixed = compiled(BASE, image=(8, 6, 3), classes=4)
    assert (fixed.net.image, fixed.net.classes) == ((8, 6, 3), 4)
