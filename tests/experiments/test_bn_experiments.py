"""The BN paper's experiments: their arms and recipes, their judges on made-up results."""

import json
from dataclasses import asdict
from functools import cache, partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import hypergeom

from experiments import (
    bn_ensemble,
    bn_gradient,
    bn_inference,
    bn_mnist,
    bn_placement,
    bn_regularisation,
    bn_scale,
    bn_sigmoid,
    bn_whitening,
)
from experiments.bn_sigmoid import DEPTHS
from tests.support.digits import load_digits
from tests.support.result_lines import SETTING, line
from vggbn.claims.looks import LEVEL
from vggbn.claims.results import Results
from vggbn.claims.stats import paired_interval
from vggbn.experiment.checkout import PUBLISHED
from vggbn.experiment.plan import make_plan
from vggbn.experiment.rates import edge_rates
from vggbn.experiment.summary import build_report
from vggbn.models import folded
from vggbn.training import loop
from vggbn.training.loop import evaluation_steps
from vggbn.training.step import init_state
from vggbn.training.task import Task


@cache
def plan(name, size="full"):
    experiment = import_module(f"experiments.bn_{name}").EXPERIMENT
    return make_plan(experiment, size, out=Path("out"))


def judged(name, lines, claim):
    """The judgement of the claim on these lines of the full size."""
    found = plan(name)
    (judge,) = [c for c in found.experiment.claims if c.id == claim]
    return judge.judged(Results(lines, found.ids(), SETTING), found.baseline)


def made(name, arm, seed, test=0.9, *, history=None, **edits):
    """A line of one of the experiment's arms; edits of "final" are added to it."""
    found = plan(name)
    final = edits.pop("final", {})
    mine = {"id": found.ids()[arm]}
    if arm in found.variants:
        mine["recipe"] = asdict(found.variants[arm])
    if history is not None:
        mine["history"] = [{"train_accuracy": 0.95} | record for record in history]
    one = line(arm, seed, test=test, **mine, **edits)
    return one | {"final": one["final"] | final}


def wobble(seed: int) -> float:
    """A little that differs from seed to seed."""
    return (0.0, 0.001, -0.001, 0.0005, -0.0005)[seed % 5]


SEEDS = range(5)


# --- bn_mnist: Figure 1 --------------------------------------------------------------------------


# {arm: the sweep's}
ARMS_OF_FIGURE_1 = {"base": "no BN", "bn": "BN", "bn fixed": "BN, fixed scale and shift"}


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
def test_the_net_of_figure_1_is_the_paper_s(data):
    found = make_plan(bn_mnist.EXPERIMENT, "full", out=Path("out"), data=data)
    base = found.base
    assert (base.model, base.hidden, base.fc, base.activation) == ("mlp", 3, 100, "sigmoid")
    assert (base.batch, base.steps, base.pixels, base.image_size) == (60, 50_000, "binary", 28)
    assert base.data == data and len(found.seeds) == 20 and min(found.seeds) >= 100
    assert 0 < found.size.target < bn_mnist.SHARE  # of what a net without BN can reach


@pytest.mark.parametrize("arm", ["plain", "bn tuned"])
def test_evaluations_are_dense_where_the_target_is_crossed(arm):
    steps = evaluation_steps(plan("mnist").variants[arm])
    late = [step for step in steps if step > 100]
    assert max(b / a for a, b in pairwise(late)) < 1.125 and steps[-1] == 50_000


def test_the_arms_differ_in_bn_its_rate_and_whether_it_is_trained():
    arms, tuned = plan("mnist").variants, plan("mnist").size.tuned
    assert {name: recipe.norm for name, recipe in arms.items()} == {
        "plain": "none", "bn": "batch", "bn tuned": "batch", "bn fixed": "batch_fixed"
    }  # fmt: skip
    assert arms["plain"].but(norm="batch") == arms["bn"]
    assert arms["bn tuned"].lr == tuned.arms["bn"]["lr"] != arms["bn"].lr
    assert arms["bn fixed"].lr == tuned.arms["bn fixed"]["lr"]
    assert {recipe.init for recipe in arms.values()} == {"normal_0.1"}


@pytest.mark.parametrize(
    "name, size, arms",
    [
        *(("mnist", size, ARMS_OF_FIGURE_1) for size in ("full", "full-fashion_mnist")),
        ("sigmoid", "full", {"base": "BN, 32 layers"}),
    ],
)
def test_the_rates_are_those_the_sweep_chose(name, size, arms):
    of_all, _, data = size.partition("-")
    experiment = import_module(f"experiments.bn_{name}").EXPERIMENT
    found = make_plan(experiment, of_all, out=Path("out"), data=data or None)
    record = json.loads(
        (PUBLISHED / experiment.name / found.folder.name / "sweep.json").read_text()
    )
    tuned = {"base": found.size.tuned.base, **found.size.tuned.arms}
    assert {arm: record["best"][searched][0] for arm, searched in arms.items()} == {
        arm: edits["lr"] for arm, edits in tuned.items()
    }
    assert record["accuracy"].keys() == experiment.sweep.arms.keys()
    if found.base.data == bn_mnist.PRIMARY:  # elsewhere the gate refuses what was chosen at an edge
        assert not edge_rates(record)
    if found.size.finalists:
        assert record["finals"]["steps"] == found.base.steps
    if name == "mnist" and found.size.finalists:  # what the net without BN reached
        reached = record["best"]["no BN"][1]
        assert found.size.target == pytest.approx(bn_mnist.SHARE * reached, abs=5e-5)


def figure_1(gaps, seeds=5, moves=(4.0, 1.0)):
    """Lines of all arms: bn needs a `gaps[0]`-th of the steps of plain, and ends `gaps[1]` points
    higher; the inputs of plain and bn drift by twice `moves`, there and back."""
    ratio, points = gaps
    found = []
    for name, recipe in plan("mnist").variants.items():
        bn = name.startswith("bn")
        for seed in range(seeds):
            noise = 1 + 0.002 * seed
            reached = 1000 * noise / (ratio * noise if bn else 1)
            end = 0.9 + 0.001 * seed + (points / 100 * noise if bn else 0)
            steps = [10, reached / 2, reached, 25_000, 45_000, 50_000]
            moved = moves[bn] * (1 + 0.01 * seed)
            history = [
                {
                    "step": step,
                    "lr": recipe.lr,
                    "train_loss": 1.0,
                    "train_accuracy": 0.9,
                    "val_loss": 1.0,
                    "val_accuracy": 0.9 if step >= reached else 0.5,
                    "some_inputs": inputs_after(moved if i == 2 else 0),
                }
                for i, step in enumerate(steps)
            ]
            mine = {"id": recipe.id, "recipe": asdict(recipe), "history": history}
            found.append(line(name, seed, test=end, **mine))
    return found


def inputs_after(drift):
    """Percentiles of four units with the spread 2 exp(drift), drift mean spreads away from 0."""
    spread = 2 * np.exp(drift)
    middle = drift * (2 + spread) / 2
    return [[middle + share * spread] * 4 for share in (-0.5, 0, 0.5)]


@pytest.mark.parametrize(
    "gaps, verdict, unit",
    [
        ((3, 2), "reproduced", "ratio"),
        ((1.01, 0.02), "no effect", "ratio"),
        ((1 / 3, -2), "contradicted", "ratio"),
        ((3, 0.02), "partly", "points"),
        ((3, -2), "partly", "points"),
        ((1 / 3, 2), "partly", "ratio"),
        ((1 / 3, 0.02), "inconclusive", "ratio"),
    ],
)
def test_bn_13_wants_bn_faster_and_higher_at_the_end(gaps, verdict, unit):
    found = judged("mnist", figure_1(gaps), "BN-13")
    assert (found.verdict, found.n, found.unit) == (verdict, 5, unit)
    assert found.effect == pytest.approx(gaps[unit == "points"], rel=0.02)
    assert found.level == pytest.approx(1 - (1 - LEVEL) / 4)  # four parts
    assert all(f"{when} " in found.detail for when in ("one rate, speed", "each its best, end"))


def test_bn_13_waits_until_the_net_without_bn_has_learned():
    lines = figure_1((3, 2))
    for one in lines:
        if one["variant"] == "plain":
            for record in one["history"][:-1]:  # 10 points below the end; half, smoothed
                record["val_accuracy"] -= 0.1
    found = judged("mnist", lines, "BN-13")
    assert found.verdict == "not tested" and found.detail.startswith("plain still gains 5.0 points")


def test_bn_13_at_one_rate_only_is_partly():
    lines = figure_1((3, 2))
    assert judged("mnist", lines, "BN-13").verdict == "reproduced"
    for made in lines:
        if made["variant"] == "bn tuned":
            made["final"]["test_accuracy"] -= 0.05
    found = judged("mnist", lines, "BN-13")
    assert found.verdict == "partly" and found.effect == pytest.approx(-3, abs=0.1)


def test_speed_is_to_a_share_of_what_the_net_without_bn_reaches():
    """Here plain rises from 50 % at step 500 to 90 % at 1000, and BN in a fourth of the steps."""
    lines, ids = figure_1((4, 2)), plan("mnist").ids()
    for target, whole in ((None, 0.9), (0.95 * 0.8, 0.8)):
        results = Results(lines, ids, SETTING, target=target)
        for share in (0.95, 0.9):
            found = bn_mnist.speed_up(results, "bn", share, parts=4)
            assert (np.exp(found.mean), found.n) == (pytest.approx(4, rel=0.01), 5)
            (steps, reached) = results.to_target("plain", {0: share * whole})[0]
            assert reached and steps == pytest.approx(500 + 500 * (share * whole - 0.5) / 0.4)


@pytest.mark.parametrize(
    "moved, verdict, ratio",
    [((4, 1), "reproduced", 4.0), ((1, 4), "contradicted", 0.25)],
)
def test_bn_14_compares_drifts(moved, verdict, ratio):
    found = judged("mnist", figure_1((3, 2), moves=moved), "BN-14")
    assert (found.verdict, found.unit) == (verdict, "ratio")
    assert found.effect == pytest.approx(ratio, rel=1e-6)
    assert "total variation, which depends on the unit: median" in found.detail


def test_drift_is_counted_in_spreads_whatever_the_unit():
    drifts, variations = [], []
    for unit in (1, 10):
        lines = figure_1((3, 2), moves=(1.5, 1))
        for one in lines:
            for record in one["history"]:
                record["some_inputs"] = (unit * np.array(record["some_inputs"])).tolist()
        results = Results(lines, plan("mnist").ids(), SETTING)
        drifts.append(bn_mnist.drift(results, "plain", 0))
        variations.append(bn_mnist.variation(results, "plain", 0))
    for found in drifts:
        np.testing.assert_allclose(found["median"], [3] * 4)  # 1.5 there, 1.5 back
        np.testing.assert_allclose(found["spread"], [3] * 4)
    spread = 2 * (2 * np.exp(1.5) - 2)
    np.testing.assert_allclose(variations[0]["spread"], [spread] * 4)
    np.testing.assert_allclose(variations[1]["spread"], [10 * spread] * 4)


def test_inputs_that_are_the_same_for_all_images_drift_finitely():
    lines = figure_1((3, 2))
    for one in lines:
        one["history"][0]["some_inputs"] = [[0.0] * 4] * 3
    results = Results(lines, plan("mnist").ids(), SETTING)
    assert all(np.isfinite(v).all() for v in bn_mnist.drift(results, "plain", 0).values())


@pytest.mark.parametrize(
    "points, verdict", [(2, "reproduced"), (0, "no effect"), (-2, "contradicted")]
)
def test_what_scale_and_shift_are_for(points, verdict):
    lines = figure_1((3, 2))
    for one in lines:
        if one["variant"] == "bn fixed":
            one["final"]["test_accuracy"] -= points / 100 + wobble(one["seed"]) / 10
    found = judged("mnist", lines, "BN-3 in training")
    assert (found.verdict, found.unit) == (verdict, "points")
    assert found.effect == pytest.approx(points, abs=0.1)


def test_figure_1_has_the_paper_s_panels():
    report = build_report(plan("mnist"), Results(figure_1((3, 2)), plan("mnist").ids(), SETTING))
    assert [title[:3] for title in report.charts] == ["(a)", "(b)", "(c)", "all"]
    for title in list(report.charts)[1:3]:
        assert list(report.charts[title].series) == ["15th percentile", "median", "85th percentile"]
    b, c = (report.charts[title] for title in list(report.charts)[1:3])
    drawn = [v for one in (b, c) for line in one.series.values() for v in line.values()]
    assert b.range == c.range == (np.min(drawn), np.max(drawn))
    units = report.charts["all units, the least moved first"].series["plain"]
    assert list(units) == [1, 2, 3, 4] and all(len(values) == 5 for values in units.values())


# --- bn_sigmoid: BN-19 ---------------------------------------------------------------------------


def depths(trains, bn_trains=DEPTHS):
    """Lines of bn_sigmoid: at the depths of `trains` one cell without BN gets to 60 %."""
    found = []
    for depth in DEPTHS:
        for seed in SEEDS:
            own = 0.85 if depth in bn_trains else 0.1
            found.append(made("sigmoid", bn_sigmoid.bn(depth), seed, own + wobble(seed)))
            for i, name in enumerate(bn_sigmoid.cells(depth)):
                value = 0.6 if depth in trains and i == 2 else 0.1
                found.append(made("sigmoid", name, seed, value + wobble(seed)))
    return found


@pytest.mark.parametrize(
    "trains, bn_trains, verdict, share",
    [
        (DEPTHS[:2], DEPTHS, "reproduced", 1),
        (DEPTHS, DEPTHS, "inconclusive", 0),  # no finite list contradicts that there is one
        (DEPTHS[:2], DEPTHS[:2], "inconclusive", 1),  # neither trains
    ],
)
def test_bn_19_wants_a_depth_at_which_no_cell_trains(trains, bn_trains, verdict, share):
    found = judged("sigmoid", depths(trains, bn_trains), "BN-19 in MLPs")
    assert (found.verdict, found.n, found.effect) == (verdict, 5, share)
    p = hypergeom.sf(4, 10, 5, 5) if verdict == "reproduced" else 1  # 5 of 5 against 0 of 5
    assert found.p == pytest.approx(min(1, len(DEPTHS) * p))


def test_bn_19_one_seed_of_one_cell_is_enough_to_train():
    lines = depths(DEPTHS[:-1])
    assert judged("sigmoid", lines, "BN-19 in MLPs").verdict == "reproduced"
    one = next(x for x in lines if x["variant"] == bn_sigmoid.cells(DEPTHS[-1])[0])
    one["final"]["test_accuracy"] = 0.3
    found = judged("sigmoid", lines, "BN-19 in MLPs")
    assert found.verdict == "inconclusive" and found.effect == pytest.approx(0.8)
    assert f"no such depth up to {DEPTHS[-1]} layers was found" in found.detail
    assert f"{DEPTHS[-1]}: with BN 0 of 5, without 4 ({one['variant']})" in found.detail


def test_without_bn_every_depth_gets_the_whole_grid():
    arms = plan("sigmoid").variants
    for depth in DEPTHS:
        grid = [arms[name] for name in bn_sigmoid.cells(depth)]
        assert {(r.init_scale, r.lr) for r in grid} == {
            (scale, rate) for scale in (1.0, 4.0) for rate in bn_sigmoid.RATES
        }
        assert {r.norm for r in grid} == {"none"} and {r.hidden for r in grid} == {depth}
        assert arms[bn_sigmoid.bn(depth)].norm == "batch"


# --- bn_scale: BN-8, BN-9, BN-26 -----------------------------------------------------------------


def test_bn_8_holds_and_shows_what_eps_does():
    claim, _ = plan("scale").experiment.exact
    assert claim.check()[0]
    worst = bn_scale.identities(1e-5)
    assert max(worst[0.1]) > 100 * max(worst[2.0]) > 0  # eps matters where the weights are small


def scales(plain, bn):
    """Lines of bn_scale whose accuracies at the four scales are given."""
    growth = [
        {"step": step, "val_accuracy": 0.5, "weights": {"fc1": {"kernel": norm}}}
        for step, norm in ((1, 2.0), (100, 3.0))
    ]
    return [
        made("scale", f"{arm} ×{scale:g}", seed, value + wobble(seed), history=growth)
        for arm, values in (("plain", plain), ("bn", bn))
        for scale, value in zip(bn_scale.SCALES, values, strict=True)
        for seed in SEEDS
    ]


def test_bn_9_compares_spreads_over_scales_in_every_seed():
    wide, narrow = (0.9, 0.9, 0.5, 0.1), (0.9, 0.9, 0.89, 0.88)
    found = judged("scale", scales(wide, narrow), "BN-9")
    assert found.verdict == "reproduced" and found.effect == pytest.approx(78, abs=1)
    assert "grow 1.5×" in found.detail
    assert judged("scale", scales(narrow, wide), "BN-9").verdict == "contradicted"
    one_seed = scales(wide, narrow)
    for x in one_seed:
        if x["variant"].startswith("plain") and x["seed"] == 3:
            x["final"]["test_accuracy"] = 0.9
    assert judged("scale", one_seed, "BN-9").verdict == "reproduced"  # by the mean, not each seed
    for x in one_seed:
        if x["variant"].startswith("plain") and x["seed"] > 1:
            x["final"]["test_accuracy"] = 0.9
    assert judged("scale", one_seed, "BN-9").verdict == "inconclusive"


@pytest.mark.parametrize(
    "plain, bn, verdict",
    [
        ((0.1, 0.05, 0.5), (0.9, 0.6, 1.4), "reproduced"),
        ((0.9, 0.6, 1.4), (0.1, 0.05, 0.5), "contradicted"),
        ((10.0, 5.0, 50.0), (0.9, 0.6, 1.4), "reproduced"),  # above 1 is as far as below it
        ((0.1, 0.09, 0.11), (0.9, 0.6, 1.4), "partly"),  # nearer to 1, and wider
    ],
)
def test_bn_26_wants_medians_near_1_and_narrow_spectra(plain, bn, verdict):
    lines = [one for seed in SEEDS for one in spectra("Jacobians", seed, plain, bn)]
    settled = [made("scale", "plain ×1", seed) for seed in SEEDS]  # the gate's baseline
    assert judged("scale", [*settled, *lines], "BN-26").verdict == verdict


def spectra(rest, seed, plain, bn):
    """Lines of the two arms whose names end with `rest`; of each (median, 15th, 85th)."""
    for arm, (median, low, high) in (("plain", plain), ("bn", bn)):
        values = {"median": median + wobble(seed), "low": low, "high": high + wobble(seed)}
        history = [
            {"step": step, "val_accuracy": 0.9, "jacobians": {"fc2": found}}
            for step, found in ((1, {"median": 9.0, "low": 1.0, "high": 9.0}), (100, values))
        ]
        yield made("scale", f"{arm} {rest}", seed, history=history)


def test_bn_26_at_the_start_judges_every_initial_scale_by_itself():
    better, worse = ((0.1, 0.05, 0.5), (0.9, 0.6, 1.4)), ((0.9, 0.6, 1.4), (0.1, 0.05, 0.5))

    def verdict(of_scale):
        lines = []
        for scale, (plain, bn) in zip(bn_scale.SCALES, of_scale, strict=True):
            for seed in SEEDS:
                lines += spectra(f"×{scale:g} at the start", seed, plain, bn)
        for one in lines:
            one["history"][-1]["train_accuracy"] = 0.1  # nothing has been trained
        return judged("scale", lines, "BN-26 at the start").verdict

    assert verdict([better] * 4) == "reproduced"
    assert verdict([worse, worse, better, better]) == "partly"
    assert verdict([worse] * 4) == "contradicted"


def test_before_training_no_weight_moves_and_bn_has_a_batch_s_statistics(tmp_path):
    edits = {"data": "digits", "image_size": 8, "fc": 6, "batch": 20}
    arms = make_plan(bn_scale.EXPERIMENT, "small", out=tmp_path, edits=edits).variants
    for name in ("plain ×100 at the start", "bn ×0.1 at the start"):
        recipe = arms[name]
        task = Task.of(recipe, 3, load_digits(seed=0))
        first = init_state(recipe, task.program, 3)
        found = loop.fit(task)
        same = partial(np.testing.assert_allclose, rtol=0, atol=1e-30)  # zeros became 1e-38
        jax.tree.map(same, found.state.params, first.params)
        assert [record["step"] for record in found.history] == [1]
        for own in found.state.batch_stats.values():
            assert np.abs(own["mean"]).min() > 0


def growths(rest, per_layer):
    """Lines whose gradients, squared, grow so much a layer: {arm: factor}."""
    for arm, factor in per_layer.items():
        for seed in SEEDS:
            exact = (factor + wobble(seed)) ** 0.5
            norms = {f"fc{i + 1}": exact**-i for i in range(1, bn_scale.LAYERS)} | {"fc1": 1e9}
            history = [
                {"step": step, "val_accuracy": 0.9, "gradients": found}
                for step, found in ((1, dict.fromkeys(norms, 1.0)), (100, norms))
            ]
            yield made("scale", f"{arm} {rest}", seed, history=history)


@pytest.mark.parametrize(
    "claim, rest", [("BN-36 at the start", "deep at the start"), ("BN-36 after training", "deep")]
)
def test_bn_36_compares_the_growth_of_squared_gradients_a_layer(claim, rest):
    found = judged("scale", growths(rest, {"plain": 1.0, "bn": 1.44}), claim)
    assert found.verdict == "reproduced" and found.effect == pytest.approx(1.44, abs=0.01)
    assert judged("scale", growths(rest, {"plain": 1.2, "bn": 0.9}), claim).verdict == (
        "contradicted"
    )


def test_the_gradients_of_random_nets_grow_as_in_theory(monkeypatch):
    """π/(π − 1) is of wide nets and large batches; these are met to 5 %. Without BN twice the
    deviation is four times the square."""
    monkeypatch.setattr(bn_scale, "UNITS", 200)
    monkeypatch.setattr(bn_scale, "INPUTS", 60)
    with_bn = bn_scale.growth_of_random_nets(bn=True, gain=2.0)
    assert with_bn == pytest.approx(np.pi / (np.pi - 1), rel=0.05)
    he, double = (bn_scale.growth_of_random_nets(bn=False, gain=gain) for gain in (1.0, 2.0))
    assert he == pytest.approx(1, rel=0.05) and double == pytest.approx(4 * he, rel=1e-3)


# --- bn_gradient: BN-10, BN-11 -------------------------------------------------------------------


def test_bn_10_holds_and_its_control_is_no_formality():
    (claim,) = plan("gradient").experiment.exact
    assert claim.check()[0]
    b, loss = bn_gradient.toy(whole=False)
    control, same = bn_gradient.toy(whole=True)
    # dl/dx_hat summed: the mean of x_hat - target, a constant; so b falls by it at every step
    assert np.ptp(np.diff(b)) < 1e-9 and np.abs(b[-1]) > 20
    assert np.abs(control).max() < 1e-9 and loss[0] == pytest.approx(same[0])


def outside(of_arm):
    """Lines of all nets of bn_gradient, ten seeds: of_arm(norm, depth, rate, seed) -> edits of a
    net that trains."""
    for depth in bn_gradient.DEPTHS:
        for rate in bn_gradient.RATES:
            for norm in ("bn", "moving"):
                for seed in range(10):
                    name = bn_gradient.arm(norm, depth, rate)
                    history = [
                        {"step": 1, "val_accuracy": 0.5, "val_loss": 2.0, **grown(depth, 1, 1)},
                        {"step": 1000, "val_accuracy": 0.9, "val_loss": 0.3, **grown(depth, 2, 2)},
                        {"step": 10_000, "val_accuracy": 0.9, "val_loss": 0.3},
                    ]
                    own = of_arm(norm, depth, rate, seed)
                    history[-1] |= grown(depth, *own.pop("grown", (4, 4 + wobble(seed))))
                    history[-1] |= own.pop("end", {})
                    yield made("gradient", name, seed, history=history, **own)


def grown(depth, bias, kernel):
    return {"weights": {f"fc{i + 1}": {"bias": bias, "kernel": kernel} for i in range(depth)}}


BLOWN = {
    "not finite": {"diverged_at": 40},
    "at chance": {"end": {"train_accuracy": 0.11}},
    "knows nothing": {"end": {"val_loss": 2.31}},
    "NaN": {"end": {"val_loss": float("nan")}},
}


@pytest.mark.parametrize("how", BLOWN)
def test_bn_11_counts_blow_ups_at_the_worst_rate_of_each_depth(how):
    def verdict(lost, at=(3, 9), bn=0):
        """With `lost` of ten moving nets, and `bn` with BN, blown up at rate 1 and these depths."""

        def of_arm(norm, depth, rate, seed):
            many = lost if norm == "moving" else bn
            blown = rate == 1 and depth in at and seed < many
            return {k: dict(v) if k == "end" else v for k, v in BLOWN[how].items()} if blown else {}

        return judged("gradient", outside(of_arm), "BN-11 blow-up")

    found = verdict(10)
    assert found.verdict == "reproduced" and found.effect == 1 and found.n == 10
    assert "9 layers, rate 1: 10 of 10, with BN 0" in found.detail
    assert verdict(7).verdict == "reproduced" and verdict(6).verdict == "inconclusive"
    assert verdict(10, at=(9,)).verdict == "partly"
    assert verdict(10, bn=8).verdict == "inconclusive"
    assert verdict(0, bn=10).verdict == "inconclusive"  # no finite list contradicts it


def test_a_net_that_trains_badly_has_not_blown_up():
    poor = {"end": {"val_loss": 2.2, "train_accuracy": 0.2}}
    lines = outside(lambda norm, *_: dict(poor, end=dict(poor["end"])) if norm != "bn" else {})
    assert judged("gradient", lines, "BN-11 blow-up").verdict == "inconclusive"


@pytest.mark.parametrize(
    "bias, kernel, verdict",
    [
        (4, 8, "reproduced"),
        (4, 2, "partly"),
        (1, 8, "partly"),
        (1, 2, "contradicted"),
        (2, 4, "no effect"),
    ],
)
def test_bn_11_wants_a_bias_that_still_grows_and_weights_that_grow_more_than_with_bn(
    bias, kernel, verdict
):
    """The bias is 2 after a tenth of the budget; BN's weights grow fourfold, its bias as well."""

    def found(*rates):
        def of_arm(norm, depth, rate, seed):
            mine = norm == "moving" and rate in rates
            return {"grown": (bias + wobble(seed), kernel + 2 * wobble(seed))} if mine else {}

        return judged("gradient", outside(of_arm), "BN-11 growth")

    both = found(*bn_gradient.GROWTH_RATES)
    assert both.verdict == verdict and both.n == 10
    assert found(bn_gradient.GROWTH_RATES[1]).verdict == "partly"


# --- bn_placement: BN-27 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "negentropy, verdict",
    [((0.1, 0.5), "reproduced"), ((0.5, 0.1), "contradicted")],
)
def test_bn_27_counts_layers_without_the_first(negentropy, verdict):
    total, u = negentropy
    lines = []
    for arm in ("before", "behind", "no BN"):
        for seed in SEEDS:
            layer = {"sum": {"negentropy": total}, "u": {"negentropy": u}}
            odd = {"sum": {"negentropy": u}, "u": {"negentropy": total}}
            layers = {"conv1_1": odd, "conv2_1": layer, "conv3_1": layer, "fc1": layer}
            if seed:  # so that seeds differ
                layers["fc2"] = odd if seed % 2 else layer
            history = [{"step": 9, "val_accuracy": 0.5, "gaussianity": layers}]
            lines.append(made("placement", arm, seed, history=history))
    found = judged("placement", lines, "BN-27")
    assert found.verdict == verdict and found.n == 5


def test_the_pictures_of_distributions_show_both_beside_the_gaussian():
    def layer(seed):
        return {what: {"density": [seed + i] * 24} for i, what in enumerate(("u", "sum"))}

    lines = []
    for seed in SEEDS:
        layers = {name: layer(seed) for name in ("conv1_1", "conv2_1", "conv3_1", "fc1")}
        history = [{"step": 9, "val_accuracy": 0.5, "gaussianity": layers}]
        lines.append(made("placement", "behind", seed, history=history))
    found = bn_placement.charts(Results(lines, plan("placement").ids(), SETTING))
    assert list(found) == ["behind: conv3_1", "behind: fc1"]  # of three without the first
    series = found["behind: fc1"].series
    assert all(values == [0, 1, 2, 3, 4] for values in series["u"].values())
    assert all(values == [1, 2, 3, 4, 5] for values in series["Wu + b"].values())
    bell = np.array([[x, *y] for x, y in series["Gaussian"].items()])
    assert np.trapezoid(bell[:, 1], bell[:, 0]) == pytest.approx(1, abs=1e-3)
    assert bell[:, 1].max() == pytest.approx(0.3989, rel=0.02)


# --- bn_shuffle: BN-23 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bn_gain, plain_gain, verdict",
    [(2, 0, "reproduced"), (0, 2, "contradicted"), (2, 2, "no effect")],
)
def test_bn_23_is_the_gain_with_bn_less_the_gain_without(bn_gain, plain_gain, verdict):
    lines = [
        made(
            "shuffle",
            f"{arm} {how}",
            seed,
            0.7 + (gain / 100 if how == "fresh" else 0) + wobble(seed + len(arm)),
        )
        for arm, gain in (("plain", plain_gain), ("bn", bn_gain))
        for how in ("fixed", "fresh")
        for seed in SEEDS
    ]
    found = judged("shuffle", lines, "BN-23")
    assert found.verdict == verdict and found.effect == pytest.approx(bn_gain - plain_gain, abs=0.2)


# --- bn_inference: BN-4, BN-5, BN-30 -------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow_net():
    """A quarter of the width; weights from a generator that compiles quickly."""
    with pytest.MonkeyPatch.context() as patch, jax.default_prng_impl("rbg"):
        patch.setattr(bn_inference, "BASE", bn_inference.BASE.but(width=1 / 32, fc=16))
        yield


@pytest.fixture(autouse=True)
def one_call_to_time(monkeypatch):
    """Which takes how long is printed, not judged."""
    once = partial(bn_inference.time_per_image, rounds=1)
    monkeypatch.setattr(bn_inference, "time_per_image", once)


def test_bn_4_and_bn_5_hold(narrow_net):
    for claim in plan("inference").experiment.exact:
        assert claim.check()[0], claim.id


@pytest.mark.parametrize("wrong", [0.999, float("nan")])
def test_bn_4_fails_with_a_net_that_is_folded_wrongly(monkeypatch, narrow_net, wrong):
    right = folded.fold_net
    off = lambda *net: jax.tree.map(lambda a: wrong * a, right(*net))  # noqa: E731
    monkeypatch.setattr(folded, "fold_net", off)
    assert not plan("inference").experiment.exact[0].check()[0]


@pytest.mark.parametrize(
    "gap, verdict", [(0.1, "reproduced"), (3, "contradicted"), (-3, "contradicted")]
)
def test_bn_30_is_an_equivalence(gap, verdict):
    lines = [
        made(
            "inference",
            "base",
            seed,
            0.7 + gap / 100 + wobble(seed),
            final={"test_accuracy_population": 0.7},
        )
        for seed in SEEDS
    ]
    found = judged("inference", lines, "BN-30")
    assert found.verdict == verdict and found.effect == pytest.approx(gap, abs=0.05)


# --- bn_regularisation: BN-20, BN-21 -------------------------------------------------------------


def fits(**accuracies):
    """Lines of bn_regularisation: arm -> (training, test) accuracy in %."""
    return [
        made("regularisation", arm.replace("_", " "), seed, test / 100 + wobble(seed + len(arm)),
             final={"train_accuracy": fit / 100})
        for arm, (fit, test) in accuracies.items()
        for seed in SEEDS
    ]  # fmt: skip


@pytest.mark.parametrize(
    "plain, bn, verdict",
    [
        ((50, 55), (60, 60), "reproduced"),  # dropout helps without BN only
        ((50, 55), (60, 56), "reproduced"),  # and harms with it
        ((50, 50), (60, 65), "contradicted"),  # it helps with BN only
        ((50, 58), (60, 64), "partly"),  # less with BN, but it is still wanted
        ((50, 50), (60, 60), "partly"),  # no less with BN, and it is not missed
    ],
)
def test_bn_20_dropout_gains_less_and_is_not_missed(plain, bn, verdict):
    arms = ("plain", "plain_dropout", "bn", "bn_dropout")
    lines = fits(**{arm: (99, test) for arm, test in zip(arms, (*plain, *bn), strict=True)})
    assert judged("regularisation", lines, "BN-20").verdict == verdict


@pytest.mark.parametrize("claim", ["BN-20", "BN-21"])
def test_nothing_is_said_of_regularisation_where_the_baseline_does_not_fit(claim):
    arms = {arm.replace(" ", "_"): (99, 55) for arm in plan("regularisation").variants}
    assert judged("regularisation", fits(**arms), claim).verdict != "not tested"
    found = judged("regularisation", fits(**arms | {"plain": (80, 55)}), claim)
    assert found.verdict == "not tested"
    assert found.detail.startswith("plain fits only 80 % of its training images")


@pytest.mark.parametrize(
    "renorm, bn, verdict",
    [((100, 50), (95, 60), "reproduced"), ((95, 60), (100, 50), "contradicted")],
)
def test_bn_21_compares_the_gap_between_training_and_test_images(renorm, bn, verdict):
    groups = {arm.replace(" ", "_"): bn for arm in bn_regularisation.GROUPS}
    lines = fits(plain=(100, 50), renorm=renorm, bn=bn, **groups)
    found = judged("regularisation", lines, "BN-21")
    expected = (renorm[0] - renorm[1]) - (bn[0] - bn[1])
    assert found.verdict == verdict and found.effect == pytest.approx(expected, abs=0.3)


# --- bn_ensemble: BN-28 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "best, verdict", [(70, "reproduced"), (75.2, "no effect"), (80, "contradicted")]
)
def test_bn_28_the_ensemble_has_to_beat_its_best_member(best, verdict):
    names = [f"{bn_ensemble.member(i)}, one crop" for i in range(bn_ensemble.MEMBERS)]
    lines = [
        made("ensemble", name, seed, (best if i == seed else 60) / 100)
        for i, name in enumerate(names)
        for seed in SEEDS
    ]
    lines += [made("ensemble", "ensemble, one crop", s, 0.75 + wobble(s)) for s in SEEDS]
    found = judged("ensemble", lines, "BN-28")
    assert found.verdict == verdict and found.effect == pytest.approx(75 - best, abs=0.1)


def test_the_six_nets_differ_in_their_draw_alone():
    arms = list(plan("ensemble").variants.values())
    assert len(arms) == 6 and {r.norm for r in arms} == {"batch"}
    assert [r.draw for r in arms] == list(range(6))
    assert len({r.but(draw=9) for r in arms}) == 1
    views = plan("ensemble").views
    assert {look.net for look in views["ensemble, 150 crops"].looks} == set(
        plan("ensemble").variants
    )


# --- bn_whitening: BN-12 -------------------------------------------------------------------------


def test_the_rank_of_a_small_batch_s_covariance_is_one_less_than_the_batch():
    assert [bn_whitening.rank(m, 16) for m in (4, 8, 16, 40)] == [3, 7, 15, 16]


@pytest.mark.parametrize("times, holds", [((2, 40), True), ((40, 2), False)])
def test_bn_12_wants_the_cost_to_grow_with_the_channels(monkeypatch, times, holds):
    low, high = times
    costs = {c: (1.0, low + (high - low) * i / 5) for i, c in enumerate(bn_whitening.CHANNELS)}
    monkeypatch.setattr(bn_whitening, "costs", lambda: costs)
    assert bn_whitening.check_cost()[0] is holds


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost, accuracy, step",
    [(0, "90.0 ± 0.1", "2.50"), (1, "90.0 ± 0.1 (1 of 5 diverged)", "2.50"),
     (5, "– (5 of 5 diverged)", "–")],
)  # fmt: skip
def test_a_norm_that_diverged_has_neither_accuracy_nor_time(lost, accuracy, step):
    history = [{"step": 4, "val_accuracy": 0.5}]
    lines = [
        made("whitening", "BN", seed, 0.9 + wobble(seed), history=history, seconds={"step": 0.01})
        for seed in SEEDS
    ]
    for one in lines[5 - lost :]:
        one["diverged_at"], one["seconds"] = 0, {"step": 9}
        one["final"]["test_accuracy"] = 0.0
    ((_, *cells),) = bn_whitening.tables(Results(lines, plan("whitening").ids(), SETTING))[0].rows
    assert cells == [accuracy, step]


@pytest.mark.parametrize("name", ["batch_size", "inference", "regularisation", "whitening"])
def test_tables_give_means_over_seeds_with_half_their_interval(name):
    found = plan(name)
    lines = []
    for arm in found.ids():
        for seed in SEEDS:
            more = {"train_accuracy": 1.0, "test_accuracy_population": 0.5}
            one = made(name, arm, seed, 0.7 + wobble(seed), final=more)
            lines.append(one | {"seconds": one["seconds"] | {"step": 2.0}})
    half = paired_interval([100 * wobble(seed) for seed in SEEDS]).high
    tables = found.experiment.tables(Results(lines, found.ids(), SETTING))
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert cells.count(f"70.0 ± {half:.1f}") >= len(found.variants)
    assert ("50.0 ± 0.0" in cells) == (name in ("batch_size", "inference"))
