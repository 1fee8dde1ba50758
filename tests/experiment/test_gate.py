"""What must be true of the runs before a claim is judged: each condition alone, and its reason."""

import math

import pytest

from tests.support.result_lines import SETTING, diverged, line
from vggbn.claims.results import Results
from vggbn.claims.stats import Interval
from vggbn.experiment.design import Claim, Verdict
from vggbn.experiment.gate import (
    FOR_ANY_NET,
    FOR_FAILURES,
    FOR_FITTED_NETS,
    FOR_SPEEDS,
    SETTLED,
    TRAINED_NETS,
    last_gain,
    training_fit,
    untrained,
)

SEEDS = range(5)
STILL_LEARNS = (0.2, 0.5, 0.8, 0.9)  # smoothed: 0.8, and at the end 0.85


def results(*lines):
    names = dict.fromkeys(one["variant"] for one in lines)
    return Results(lines, {name: f"id of {name}" for name in names}, SETTING)


def arm(name, **edits):
    return [line(name, seed, **edits) for seed in SEEDS]


def view(seed=0, *, test=0.9):
    """A line without a history, as a way of testing a net leaves it."""
    found = line("one crop", seed, test=test, view={})
    return {name: value for name, value in found.items() if name not in ("history", "diverged_at")}


# --- a net that did not train --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (line(), False),
        (line(fit=0.13), False),
        (line(fit=0.12), True),  # 1.2 times the most common class, which is 10 %
        (line(fit=math.nan), True),
        (line(fit=0.95, diverged_at=1), True),
        (diverged(), True),
        (line(history=[], diverged_at=1), True),  # before its first evaluation
        (view(test=0.13), False),
        (view(test=0.12), True),
    ],
)
def test_a_net_is_untrained_that_diverged_or_stayed_at_the_most_common_class(one, expected):
    assert untrained(one) == expected


def test_chance_is_the_most_common_class_or_else_one_of_all():
    common = line(fit=0.3)
    common["data"]["majority"] = 0.25
    assert untrained(common)
    del common["data"]["majority"]
    assert not untrained(common) and untrained(line(fit=0.11))


# --- the end of learning, and the fit ------------------------------------------------------------


def test_the_last_gain_is_of_the_smoothed_curve_and_the_mean_over_seeds():
    one, other = line(seed=0, curve=STILL_LEARNS), line(seed=1)
    assert last_gain(results(one, other), "base") == pytest.approx((5.0 + 0.0) / 2)
    falls = line(curve=(0.2, 0.9, 0.9, 0.7))
    assert last_gain(results(falls), "base") == pytest.approx(-10.0)


def test_the_last_gain_counts_from_nine_tenths_of_the_budget():
    values = {100: 0.5, 890: 0.6, 900: 0.6, 910: 0.6, 1000: 0.64}
    history = [{"step": s, "val_accuracy": v} for s, v in values.items()]
    assert last_gain(results(line(history=history)), "base") == pytest.approx(2.0)  # 0.6, 0.62


@pytest.mark.parametrize("found", [results(), results(line(history=[])), results(line("bn"))])
def test_without_a_curve_there_is_no_gain_and_no_fit(found):
    assert math.isnan(last_gain(found, "base")) and math.isnan(training_fit(found, "base"))


def test_the_fit_is_that_of_evaluation_mode_where_a_run_recorded_it():
    with_dropout, without = line(seed=0, fit=0.8), line(seed=1, fit=0.8)
    without["final"]["train_accuracy"] = 0.96
    assert training_fit(results(with_dropout), "base") == pytest.approx(0.8)
    assert training_fit(results(with_dropout, without), "base") == pytest.approx((0.8 + 0.96) / 2)


# --- what each gate refuses ----------------------------------------------------------------------

LOST = [*arm("bn")[:4], diverged("bn", 4)]
RUNS = {
    "sound": (*arm("base"), *arm("bn")),
    "a seed diverged": (*arm("base"), *LOST),
    "the baseline still gains": (*arm("base", curve=STILL_LEARNS), *arm("bn")),
    "the baseline misfits": (*arm("base", fit=0.89), *arm("bn")),
    "no baseline": arm("bn"),
}
REFUSALS = {
    "a seed diverged": "untrained: bn",
    "the baseline still gains": "base still gains 5.0 points in the last tenth of its budget",
    "the baseline misfits": "base fits only 89 % of its training images",
    "no baseline": "base has no learning curve that shows its end",
}


@pytest.mark.parametrize(
    ("gate", "refused"),
    [
        (TRAINED_NETS, {"a seed diverged", "the baseline still gains", "no baseline"}),
        (FOR_FAILURES, set()),
        (FOR_ANY_NET, {"a seed diverged"}),
        (FOR_SPEEDS, {"a seed diverged"}),
        (FOR_FITTED_NETS, set(REFUSALS)),
    ],
)
@pytest.mark.parametrize("runs", RUNS)
def test_a_gate_refuses_what_its_claims_cannot_do_without(gate, refused, runs):
    found = results(*RUNS[runs])
    found.asked = {"bn"}
    assert gate.refusal(found, "base") == (REFUSALS[runs] if runs in refused else "")


def test_a_gain_of_half_a_point_is_settled_and_more_is_not():
    for gain, refused in ((SETTLED - 0.1, False), (SETTLED + 0.1, True)):
        history = [
            {"step": step, "val_accuracy": value, "train_accuracy": 0.95}
            for step, value in ((100, 0.8), (800, 0.8), (1000, 0.8 + 2 * gain / 100))
        ]
        found = results(*arm("base", history=history))
        assert bool(TRAINED_NETS.refusal(found, "base")) == refused


def with_schedule(name, *, every, schedule="exponential", steps=1000):
    fields = {"schedule": schedule, "lr_factor": 0.96, "lr_every": every, "steps": steps}
    return arm(name, recipe={**line()["recipe"], **fields})


@pytest.mark.parametrize(
    ("bn", "refused"),
    [
        (with_schedule("bn", every=17.5 / 6), True),  # six times the decay, as many steps
        (with_schedule("bn", every=17.5 / 2), False),  # a tenth of what is left
        (with_schedule("bn", every=17.5 / 6, steps=1000 // 6), False),  # a budget of its own
        (with_schedule("bn", every=17.5 / 6, schedule="constant"), False),
    ],
)
@pytest.mark.parametrize("gate", [TRAINED_NETS, FOR_FAILURES, FOR_ANY_NET])
def test_a_schedule_that_spends_the_rate_in_the_baseline_s_budget_decides_nothing(
    gate, bn, refused
):
    found = results(*with_schedule("base", every=17.5), *bn)
    found.asked = {"bn"}
    reason = "bn: the rate falls too far for the steps of base"
    assert gate.refusal(found, "base") == (reason if refused else "")
    found.asked = {"base"}
    assert gate.refusal(found, "base") == ""


@pytest.mark.parametrize("gate", [TRAINED_NETS, FOR_FAILURES, FOR_SPEEDS, FOR_FITTED_NETS])
def test_a_rate_from_the_edge_of_its_grid_decides_nothing(gate):
    found = results(*arm("base"), *arm("bn"))
    found.asked = {"base"}
    assert gate.refusal(found, "base", {"bn": 0.1}) == ""
    found.asked = {"base", "bn"}
    said = "the best rate lies at the edge of those that were tried: 0.1 of bn"
    assert gate.refusal(found, "base", {"bn": 0.1}) == said
    assert FOR_ANY_NET.refusal(found, "base", {"bn": 0.1}) == ""


def test_seeds_between_two_looks_are_not_asked():
    """The sixth seed diverged; the look is at five."""
    six = results(*arm("base"), *arm("bn"), line("base", 5), diverged("bn", 5))
    six.asked = {"bn"}
    assert TRAINED_NETS.refusal(six, "base") == ""
    ten = [line(name, seed) for name in ("base", "bn") for seed in range(6, 10)]
    at_ten = results(*six.lines(), *ten)
    at_ten.asked = {"bn"}
    assert TRAINED_NETS.refusal(at_ten, "base") == "untrained: bn"


# --- what a judge asks for -----------------------------------------------------------------------


def by(judge, *lines):
    claim = Claim(id="X", sentence="s", judge=judge)
    return claim.judged(results(*lines), "base")


FOUND = Verdict("reproduced", Interval(1.0, 0.5, 1.5, 5), "points", "words")
ONE_LOST = (*arm("base"), *arm("bn"), *arm("beside")[:4], diverged("beside", 4))


@pytest.mark.parametrize("how", ["seeds", "final"])
def test_an_arm_that_a_judge_reads_must_have_trained(how):
    def judge(results):
        getattr(results, how)("beside")
        return FOUND

    assert by(judge, *ONE_LOST).verdict == "not tested"
    assert by(judge, *ONE_LOST).detail == "untrained: beside; words"


def test_an_arm_that_a_judge_reads_aside_may_fail():
    def judge(results):
        results.seeds("base", "bn")
        results.for_verdict().final("beside")
        return FOUND

    assert by(judge, *ONE_LOST).verdict == "reproduced"


def test_a_view_of_a_net_at_chance_decides_nothing():
    def judge(results):
        results.seeds("one crop")
        return FOUND

    views = [view(seed) for seed in SEEDS]
    assert by(judge, *arm("base"), *views).verdict == "reproduced"
    views[2] = view(2, test=0.1)
    assert by(judge, *arm("base"), *views).detail == "untrained: one crop; words"
