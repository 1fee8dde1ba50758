"""BN-32 … 34: what is compared, and every verdict on made-up results."""

import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from experiments import bn_landscape
from tests.support.result_lines import SETTING, line
from vggbn.claims.results import Results
from vggbn.evaluate.landscape import LENGTHS
from vggbn.experiment.design import Tuned
from vggbn.experiment.plan import make_plan

SEEDS, TARGET = range(100, 105), bn_landscape.SIZES["full"].target
LAYERS = tuple(f"fc{i}" for i in range(2, 5))


@cache
def plan():
    """As in full, but that BN and noisy BN each have a best rate of their own."""
    best = Tuned({"lr": 2.0}, arms={"bn": {"lr": 1.0}, "noisy": {"lr": 0.5}})
    sizes = {"full": replace(bn_landscape.SIZES["full"], tuned=best)}
    return make_plan(replace(bn_landscape.EXPERIMENT, sizes=sizes), "full", out=Path("out"))


def point(shift=1.0, turn=1.0, loss=1.0, gradient=1.0) -> dict:
    """A measurement, of which each of the four measures is what is asked for."""
    own = {"gradient": 2.0, "distance": 2.0 * shift, "turn": turn}
    lengths = np.array(LENGTHS) / LENGTHS[-1]
    departures = 0.5 * loss * lengths
    return {
        "loss": 1.0,
        "gradient": 3.0,
        "predicted": 0.5,
        "changes": (departures - 0.5 * np.array(LENGTHS)).tolist(),
        "departures": (-departures).tolist(),
        "distances": (3.0 * gradient * lengths).tolist(),
        "shift": dict.fromkeys(LAYERS, own),
    }


def made(arm, seed, *, crossing=1000, **measures) -> dict:
    """A run that comes to the target at the step `crossing`, as near as evaluations are dense."""
    recipe = plan().variants[arm]
    steps = np.linspace(0, recipe.steps, recipe.evaluations + 1)[1:]
    values = TARGET + 0.04 * np.tanh((steps - crossing) / 200)
    wobble = 1 + 0.01 * (seed % 3)
    own = point(**{name: value * wobble for name, value in measures.items()})
    history = [
        {"step": int(s), "lr": recipe.lr, "val_accuracy": v, "train_accuracy": 0.99}
        | {"landscape": own}
        for s, v in zip(steps, values, strict=True)
    ]
    return line(arm, seed, id=plan().ids()[arm], recipe=asdict(recipe), history=history, test=0.97)


def judged(claim, target=TARGET, **of_arm) -> tuple[str, str]:
    """(verdict, detail) where the arms are as `made` is told; "bn" is of "bn tuned" too."""
    lines = []
    for arm in plan().variants:
        measures = of_arm.get(arm.replace(" ", "_"), of_arm.get(arm.split()[0], {}))
        lines += [made(arm, seed, **measures) for seed in SEEDS]
    results = Results(lines, plan().ids(), SETTING, target=target)
    (its,) = [c for c in bn_landscape.CLAIMS if c.id == claim]
    row = its.judged(results, plan().baseline)
    return row.verdict, row.detail


def test_the_protocol_is_the_one_that_was_promised():
    full = make_plan(bn_landscape.EXPERIMENT, "full", out=Path("out"))
    assert (full.base.data, full.size.first_seed, len(full.seeds)) == ("mnist", 100, 10)
    assert full.base.spacing == "even" and 60 <= full.base.evaluations <= 80
    assert full.base.momentum == full.base.l2 == full.base.dropout == 0
    for arm, recipe in full.variants.items():
        norm = {"plain": "none", "bn": "batch", "noisy": "batch_noisy"}[arm.split()[0]]
        assert recipe.norm == norm and recipe.watch == "landscape"
        assert "tuned" in arm or recipe.lr == full.base.lr


def test_measures_are_what_they_are_called():
    own = point(shift=0.3, turn=0.2, loss=0.7, gradient=1.4)
    assert bn_landscape.distance(own) == pytest.approx(0.3)
    assert bn_landscape.turn(own) == pytest.approx(0.2)
    assert bn_landscape.departure(own) == pytest.approx(0.7)
    assert bn_landscape.bend(own) == pytest.approx(1.4)
    assert bn_landscape.gradient_distance(own) == pytest.approx(4.2)
    assert bn_landscape.smoothness(own) == pytest.approx(4.2 / (4 * 0.5 / 3))
    assert bn_landscape.loss_range(own) == pytest.approx(max(own["changes"]) - min(own["changes"]))


MEASURES = {"BN-32": ("shift", "turn"), "BN-34": ("loss", "gradient")}


@pytest.mark.parametrize("claim", MEASURES)
def test_both_measures_count_at_both_rates(claim):
    first, second = MEASURES[claim]
    lower, higher = {first: 0.5, second: 0.5}, {first: 2.0, second: 2.0}
    plain = {"plain": {first: 1.0, second: 1.0}}
    assert judged(claim, **plain, bn=lower)[0] == "reproduced"
    assert judged(claim, **plain, bn=higher)[0] == "contradicted"
    assert judged(claim, **plain, bn={first: 1.02, second: 0.99})[0] == "no effect"
    for mixed in (
        {"bn": {first: 0.5, second: 2.0}},
        {"bn": lower, "bn_tuned": higher},
    ):
        assert judged(claim, **plain, **mixed)[0] == "partly"


@pytest.mark.parametrize("claim", MEASURES)
def test_the_other_claim_s_measures_do_not_count(claim):
    own, others = MEASURES[claim], next(v for k, v in MEASURES.items() if k != claim)
    plain = dict.fromkeys((*own, *others), 1.0)
    bn = dict.fromkeys(own, 0.5) | dict.fromkeys(others, 3.0)
    assert judged(claim, plain=plain, bn=bn)[0] == "reproduced"


@pytest.mark.parametrize(
    "noisy, verdict", [(3000, "reproduced"), (1500, "reproduced"), (600, "contradicted")]
)
def test_noise_takes_speed_away_if_more_than_half_of_it(noisy, verdict):
    """Halfway from 500 to 2,000 steps, in logarithms, are 1,000."""
    speeds = {"plain": {"crossing": 2000}, "bn": {"crossing": 500}}
    found, detail = judged("BN-33", **speeds, noisy={"crossing": noisy})
    assert found == verdict
    ratio = float(re.search(r"plain / bn ([\d.]+) ", detail)[1])
    assert ratio == pytest.approx(4, rel=0.05)


def test_where_bn_is_no_faster_there_is_no_speed_to_take_away():
    same = {"plain": {"crossing": 1000}, "bn": {"crossing": 1000}, "noisy": {"crossing": 2000}}
    found, detail = judged("BN-33", **same)
    assert found == "not tested" and "no speed" in detail
    found, _ = judged("BN-33", **same | {"bn_tuned": {"crossing": 300}})
    assert found == "reproduced"  # by the rate at which there is


def test_a_noisy_net_that_never_comes_there_has_lost_its_speed():
    never = {"crossing": 10**9}
    speeds = {"plain": {"crossing": 2000}, "bn": {"crossing": 500}}
    assert judged("BN-33", **speeds, noisy=never)[0] == "reproduced"
    speeds["plain"] = never  # the halfway point is a lower bound
    assert judged("BN-33", **speeds, noisy={"crossing": 4000})[0] == "inconclusive"
    assert judged("BN-33", **speeds, noisy={"crossing": 600})[0] == "contradicted"


def test_without_a_pilot_s_target_there_is_no_verdict_on_speed():
    speeds = {"plain": {"crossing": 2000}, "bn": {"crossing": 500}}
    found, detail = judged("BN-33", target=None, **speeds)
    assert found == "not tested" and "no pilot" in detail


@pytest.mark.parametrize("broken", [0.0, float("nan"), float("inf")])
def test_what_is_no_positive_number_is_not_judged(broken):
    found, detail = judged("BN-32", plain={"shift": broken, "turn": 1.0}, bn={"shift": 1.0})
    assert found == "not tested" and "plain has nothing to measure" in detail


def test_rates_that_are_the_same_are_judged_once():
    """Each at its best is then the comparison at one rate, whose interval is not made wider."""
    best = {"lr": 2.0}
    size = replace(
        bn_landscape.SIZES["full"], tuned=Tuned(best, arms={"bn": best, "noisy": {"lr": 0.5}})
    )
    arms = bn_landscape.variants(plan().base, size)
    assert list(arms) == ["plain", "bn", "noisy", "noisy tuned"]
    ids = {arm: recipe.id for arm, recipe in arms.items()}
    results = Results([made(arm, seed) for arm in arms for seed in SEEDS], ids, SETTING)
    assert bn_landscape.rivals(results, "bn") == [("bn",)]
    assert bn_landscape.rivals(results, "bn", "noisy") == [("bn", "noisy"), ("bn", "noisy tuned")]
    (judge,) = [claim.judge for claim in bn_landscape.CLAIMS if claim.id == "BN-32"]
    assert judge(results).detail.count("[") == 2
