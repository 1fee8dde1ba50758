"""--dry-run --on: TPUs by their own compiler where that is installed, what is said everywhere."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import jax
import pytest

from benchmarks import tpu_check
from vggbn.commands.experiment import run
from vggbn.errors import UserError
from vggbn.evaluate import single
from vggbn.forecast import on_tpu, topology, tpu
from vggbn.forecast.collectives import GRADIENTS, STATISTICS, Collective
from vggbn.forecast.compiled import shapes
from vggbn.forecast.dry_run import KNOWN, Facts
from vggbn.forecast.fit import Bounds
from vggbn.machine import mesh
from vggbn.models import MODELS
from vggbn.training.recipe import Recipe, static

with_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu: EXTRAS=tpu")

GIB = 2**30
V5E = topology.Topology("v5e", (2, 2))
NET = Recipe(model="mlp", fc=16, hidden=1, image_size=8, norm="batch", batch=64)


def fixed(recipe: Recipe):
    side = recipe.image_size
    return static(recipe, image=(side, side, 3), classes=10, flip=True)


def wanted(recipe: Recipe, held=None, on=V5E, capacity=16 * GIB) -> tpu.Wanted:
    return tpu.Wanted(on, capacity, recipe, fixed(recipe), held)


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(topology, "find_spec", lambda name: name == "libtpu")


def test_a_slice_is_named_as_libtpu_names_it(installed):
    found = topology.parse("tpu:v4:2x2x4")
    assert found == ("v4", (2, 2, 4)) and found.layout == "2x2x4" and found.chips == 16
    assert str(found) == "tpu:v4:2x2x4"


@pytest.mark.parametrize(
    "name",
    ["", "tpu", "v5e:2x2", "tpu:v5e", "tpu:v5e:4", "tpu:v5e:2x", "gpu:h100:2x4", "tpu:v5e:2x2x2x2"],
)
def test_another_name_is_told_what_to_write(installed, name):
    with pytest.raises(UserError, match=r"write tpu:CHIP:LAYOUT, such as tpu:v5e:1x1"):
        topology.parse(name)


def test_without_libtpu_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(topology, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs libtpu, .* `make install EXTRAS=tpu`"):
        topology.parse("tpu:v5e:2x2")


# --- what the compiler says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 22.50G of 15.75G hbm. Exceeded hbm capacity by 6.75G.",
            (22.5 * GIB, 15.75 * GIB),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (8.00T) exceeds available HBM (15.75G). ",
            (8 * 2**40, 15.75 * GIB),
        ),
        ("Used 512.0M of 7.48G hbm", (2**29, int(7.48 * GIB))),
        ("INTERNAL: something else", None),
    ],
)
def test_the_refusal_says_what_is_needed_and_what_there_is(text, found):
    assert topology.too_much(text) == found


# --- what is compiled, here for one CPU ----------------------------------------------------------


def arguments(lowered) -> int:
    return lowered.compile().memory_analysis().argument_size_in_bytes


def weights_and_momentum(recipe: Recipe) -> int:
    variables = shapes(fixed(recipe))
    params, stats = (
        sum(leaf.size for leaf in jax.tree.leaves(variables[name]))
        for name in ("params", "batch_stats")
    )
    return 4 * (2 * params + stats)


def test_all_that_lies_on_a_chip_is_an_argument():
    """The held set, or two batches of a streamed one; in evaluation too, beside its own batch."""
    state, image = weights_and_momentum(NET), 8 * 8 * 3
    batches = 2 * NET.batch * (image + 4)
    own = single.batch_size() * (image + 4 + 1)
    held, streamed = wanted(NET, (1000, 8, 8)), wanted(NET)
    for lowered, size in (
        (tpu.lower_training(held, held.fixed), 1000 * (image + 4) + 4 * NET.batch),
        (tpu.lower_training(streamed, streamed.fixed), batches),
        (tpu.lower_evaluation(held), 1000 * (image + 4) + own),
        (tpu.lower_evaluation(streamed), batches + own),
    ):
        assert 0 < arguments(lowered) - state - size < 300  # scalars


def test_the_devices_of_a_slice_stand_in_for_those_of_this_machine():
    here = jax.devices()
    with pytest.raises(ZeroDivisionError), mesh.absent(2 * here):
        assert mesh.devices() == 2 * len(here)
        1 / 0  # noqa: B018
    assert mesh.devices() == len(here) and mesh.everywhere().mesh.size == len(here)


def test_a_batch_is_cut_into_parts_groups_and_shares():
    recipe = NET.but(batch=96, accumulate=2, bn_groups=6)
    assert tpu.smallest_batch(fixed(recipe), 4) == 2 * 12


@pytest.mark.parametrize(
    ("edits", "facts", "held"),
    [
        ({}, Facts(3500, 500, 10, 1, False, (16, 16)), (3500, 16, 16)),
        ({}, KNOWN["imagenet2012"], (1_281_167, 8, 8)),
        ({"loading": "stream"}, KNOWN["imagenet2012"], None),
        (
            {"fit": "whole", "source_side": 90, "scale_min": 20, "scale_max": 30},
            KNOWN["imagenet2012"],
            (1_281_167, 90, 160),
        ),
    ],
)
def test_what_lies_on_every_device_is_known(edits, facts, held):
    recipe = NET.but(**edits) if edits else NET
    assert on_tpu.held(recipe, fixed(recipe), facts) == held


# --- the plan ------------------------------------------------------------------------------------

SUMS = [Collective("all-reduce", 6_000_000, GRADIENTS), Collective("all-reduce", 600, STATISTICS)]
FITS = tpu.Program(4 * 10**9, True, 100.0, SUMS)
NEEDS = tpu.Program(20 * 10**9, False, 100.0, [])


@pytest.fixture
def planned(installed, monkeypatch, tmp_path, capsys):
    """planned(steps, *flags) -> (status, what is printed), where every net's are `steps`."""

    def call(steps: tpu.Steps, *flags: str, devices: int = 4):
        there = topology.Slice(devices, 16 * 10**9)
        monkeypatch.setattr(on_tpu, "describe", lambda slice_: there)
        monkeypatch.setattr(on_tpu, "compile_all", lambda wanted: dict.fromkeys(wanted, steps))
        experiment = import_module("experiments.bn_ablation").EXPERIMENT
        flags = ("--size", "smoke", "--only", "base", "--dry-run", "--out", str(tmp_path), *flags)
        return run(experiment, flags), capsys.readouterr().out

    return call


def test_what_fits_is_described(planned):
    status, out = planned(tpu.Steps(FITS, FITS, None), "--on", "tpu:v5e:2x2")
    assert status == 0 and "All of it fits on tpu:v5e:2x2." in out
    assert "on tpu:v5e:2x2: 4 chip(s)" in out and "cores" not in out
    assert "batch of 128, 32 a device: 4 GB, fits (compiled in 100 s)" in out
    assert "room                 for a batch of 512 at least" in out
    assert (
        "all-reduced a step   6 MB in 2 exchange(s)\n" in out and "besides         nothing" in out
    )


def test_room_is_not_foretold_beyond_what_is_in_proportion(planned):
    _, out = planned(tpu.Steps(FITS._replace(size=10**6), FITS, None), "--on", "tpu:v5e:2x2")
    assert "room                 for a batch of 1,024 at least" in out
    _, out = planned(tpu.Steps(FITS._replace(size=15 * 10**9), FITS, None), "--on", "tpu:v5e:2x2")
    assert "room                 for a batch of 136 at least" in out
    _, out = planned(tpu.Steps(FITS._replace(size=16 * 10**9), FITS, None), "--on", "tpu:v5e:2x2")
    assert "room" not in out


def test_a_batch_that_does_not_fit_is_told_the_largest_that_would(planned):
    status, out = planned(tpu.Steps(NEEDS, None, Bounds(96, 104)), "--on", "tpu:v5e:2x2")
    assert status == 1 and "All of it fits" not in out
    assert out.splitlines()[-1] == (
        "base: a batch of 128 does NOT fit, for its training step needs 20 GB and a device of "
        "tpu:v5e:2x2 has 16 GB; the largest that does is 96, and 104 does not."
    )


def test_a_net_of_which_nothing_fits_is_told_so(planned):
    status, out = planned(tpu.Steps(NEEDS, None, Bounds(0, 4)), "--on", "tpu:v5e:2x2")
    assert status == 1 and "no batch does; another --on or --set remat=true may help." in out


def test_an_evaluation_that_does_not_fit_is_told(planned):
    status, out = planned(tpu.Steps(FITS, NEEDS, None), "--on", "tpu:v5e:2x2")
    assert status == 1 and "its evaluation does NOT fit beside what training holds" in out


def test_cores_that_are_devices_are_told(planned):
    _, out = planned(tpu.Steps(FITS, FITS, None), "--on", "tpu:v2:2x2", devices=8)
    assert "on tpu:v2:2x2: 4 chip(s) of 2 cores each" in out and "16 a device" in out


def test_a_batch_that_the_slice_cannot_share_is_refused(planned):
    with pytest.raises(UserError, match=r"128 cannot be shared evenly by 12 devices: choose --on"):
        planned(tpu.Steps(FITS, FITS, None), "--on", "tpu:v5e:2x6", devices=12)


@pytest.mark.parametrize("flags", [["--devices", "4", "--dry-run"], []])
def test_a_slice_says_how_many_devices_there_are_and_trains_nothing(flags):
    experiment = import_module("experiments.bn_ablation").EXPERIMENT
    with pytest.raises(UserError, match="--on goes with --dry-run, without --devices"):
        run(experiment, ["--on", "tpu:v5e:2x2", *flags])


# --- make tpu-check ------------------------------------------------------------------------------


def test_every_net_is_checked():
    names = {case.recipe.model for case in tpu_check.cases(small=False).values()}
    assert names == set(MODELS)
    assert len(tpu_check.cases(small=True)) == 2


def steps_that_sum(size: int, *more: Collective) -> tpu.Steps:
    training = FITS._replace(exchanged=[Collective("all-reduce", size, GRADIENTS), *more])
    return tpu.Steps(training, FITS, None)


def test_a_check_goes_by_the_closed_form():
    """An MLP of 192 inputs, 16 units with BN and no bias, 10 outputs."""
    form = 4 * (192 * 16 + 2 * 16 + 16 * 10 + 10) + 12 * 16 + 8
    assert tpu_check.check(steps_that_sum(form), fixed(NET), 4) == []
    half = fixed(NET.but(precision="bfloat16"))  # the hidden kernel, and it alone
    assert tpu_check.check(steps_that_sum(form - 2 * 192 * 16), half, 4) == []
    assert tpu_check.check(steps_that_sum(4), half, 1) == ["4 bytes are all-reduced, not 0"]
    assert "not" in tpu_check.check(steps_that_sum(form - 4), fixed(NET), 4)[0]
    assert tpu_check.sizes(steps_that_sum(form)) == (
        f"4 GB to train, 4 GB to test, {form:,} bytes all-reduced a step"
    )
    gathered = Collective("all-gather", 1, GRADIENTS)
    assert tpu_check.check(steps_that_sum(form, gathered), fixed(NET), 4) == [
        "there is all-gather besides"
    ]
    assert tpu_check.check(tpu.Steps(NEEDS, None, Bounds(1, 2)), fixed(NET), 4)
    assert tpu_check.check(replace_evaluation(steps_that_sum(form)), fixed(NET), 4)


def replace_evaluation(steps: tpu.Steps) -> tpu.Steps:
    return steps._replace(evaluation=NEEDS)


# --- the compiler itself -------------------------------------------------------------------------


@with_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "gib"),
    # What their pages at cloud.google.com/tpu/docs give a chip, less what the system keeps:
    # v2 16 GiB and v3 32 of two cores, v4 32 of one device, v5e 16, v5p 95, v6e 32.
    [("v2:2x2", 8, 8), ("v3:2x2", 8, 16), ("v4:2x2x1", 4, 32), ("v5e:1x1", 1, 16),
     ("v5e:16x16", 256, 16), ("v5p:2x2x1", 4, 96), ("v6e:2x2", 4, 32)],
)  # fmt: skip
def test_the_compiler_knows_what_a_chip_has(name, devices, gib):
    found = on_tpu.describe(topology.parse(f"tpu:{name}"))
    assert found.devices == devices and 0.93 * gib < found.capacity / GIB < gib


@with_libtpu
@pytest.mark.parametrize("name", ["tpu:v9:2x2", "tpu:v5e:3x3"])
def test_a_slice_that_there_is_not_is_refused(name):
    with pytest.raises(UserError, match=r"libtpu knows no slice .*: write tpu:CHIP:LAYOUT"):
        on_tpu.describe(topology.parse(name))


@with_libtpu
def test_a_net_compiles_and_sums_what_the_closed_form_says():
    asked = wanted(NET.but(precision="bfloat16"), (1000, 8, 8))
    found = on_tpu.compile_all({0: ("net", asked)})[0]
    assert tpu_check.check(found, asked.fixed, 4) == []
    assert found.training.size > weights_and_momentum(NET) + 1000 * 8 * 8 * 3


@with_libtpu
def test_a_batch_that_is_too_large_gets_the_largest_that_is_not(capsys):
    asked = wanted(replace(NET, batch=2**25), on=topology.Topology("v5e", (1, 1)))
    found = on_tpu.compile_all({0: ("net", asked)})[0]
    assert not found.training.fits and found.evaluation is None and found.bounds
    assert 0 < found.bounds.fits < found.bounds.fails <= 2**25
    assert "does NOT fit" in capsys.readouterr().err
