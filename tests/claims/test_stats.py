"""Intervals against scipy, coverage by simulation, and the papers' rules for verdicts."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vggbn.claims.looks import LEVEL
from vggbn.claims.stats import (
    VERDICTS,
    Interval,
    Judgement,
    as_ratio,
    fisher,
    leave_one_out,
    log_ratio_interval,
    not_worse,
    p_not_worse,
    paired_interval,
    smoothed,
    steps_to_target,
    verdict,
    wilson,
)
from vggbn.errors import UserError


def scipy_stats():
    """Imported here: it takes a second, in every process that only looks for tests too."""
    import scipy.stats

    return scipy.stats


DIFFERENCES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)
BOUNDS = st.floats(-5, 5)
MARGINS = st.none() | st.floats(0, 5)


@given(DIFFERENCES, st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_equals_scipys(differences, level):
    assume(np.ptp(differences) > 1e-6)  # scipy warns about the precision of equal values
    ours = paired_interval(differences, level)
    theirs = scipy_stats().ttest_1samp(differences, 0.0).confidence_interval(level)
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-9, atol=1e-9)


def test_interval_is_that_of_the_paired_test():
    treated, baseline = [0.91, 0.95, 0.93, 0.97], [0.90, 0.91, 0.92, 0.93]
    ours = paired_interval(np.subtract(treated, baseline))
    theirs = scipy_stats().ttest_rel(treated, baseline).confidence_interval(0.95)
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-12)


def test_interval_by_hand():
    # mean 2, standard deviation 1, t(0.975; 2) = 4.302653: half-width 4.302653 / sqrt(3)
    interval = paired_interval([1, 2, 3])
    assert interval == Interval(2.0, pytest.approx(-0.484138), pytest.approx(4.484138), 3)


def test_interval_of_one_value_and_of_equal_values():
    assert paired_interval([3.0]) == Interval(3.0, -math.inf, math.inf, 1)
    assert paired_interval([0.5, 0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 3)
    assert paired_interval([0.5, 0.5]) == Interval(0.5, -math.inf, math.inf, 2)


def test_two_seeds_of_few_images_decide_no_more_often_than_they_may():
    """Two equal differences of quantised accuracies would decide in a tenth of all cases."""
    rng = np.random.default_rng(0)
    right = rng.binomial(20, 0.8, (20_000, 2, 2)) / 20  # of 20 test images: pair, arm, seed
    intervals = [paired_interval(ours - theirs) for ours, theirs in right]
    assert np.mean([i.low > 0 or i.high < 0 for i in intervals]) < 0.055
    equal = log_ratio_interval([(100, False)] * 2, [(50, True)] * 2)
    assert verdict(equal, margin=None) == "inconclusive"


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0], [[1.0, 2.0]]])
def test_interval_refuses_what_is_no_list_of_finite_numbers(values):
    with pytest.raises(UserError, match="Finite numbers"):
        paired_interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_interval_refuses_a_level_outside_0_to_1(level):
    with pytest.raises(UserError, match="level"):
        paired_interval([1.0, 2.0], level)


def test_interval_covers_the_mean_19_times_in_20():
    samples = np.random.default_rng(0).normal(0.3, 2.0, (4000, 5))
    intervals = [paired_interval(sample) for sample in samples]
    coverage = np.mean([i.low <= 0.3 <= i.high for i in intervals])
    assert abs(coverage - 0.95) < 0.015


@given(DIFFERENCES, st.floats(0.01, 100))
def test_interval_scales_with_its_unit(differences, factor):
    one, scaled = paired_interval(differences), paired_interval(factor * np.array(differences))
    np.testing.assert_allclose(
        [scaled.mean, scaled.low, scaled.high],
        [factor * one.mean, factor * one.low, factor * one.high],
        rtol=1e-9, atol=1e-9 * factor,
    )  # fmt: skip


@pytest.mark.parametrize(("successes", "n"), [(0, 3), (3, 3), (2, 5), (7, 7), (40, 90)])
def test_wilson_equals_scipys(successes, n):
    ours = wilson(successes, n)
    theirs = scipy_stats().binomtest(successes, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-12, atol=1e-15)
    assert (ours.mean, ours.n) == (successes / n, n)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(UserError, match="proportion"):
        wilson(successes, n)


@pytest.mark.parametrize("n", [1, 5, 10])
def test_fisher_s_p_equals_scipys(n):
    for more in range(n + 1):
        for fewer in range(n + 1):
            table = [[more, n - more], [fewer, n - fewer]]
            theirs = scipy_stats().fisher_exact(table, alternative="greater").pvalue
            assert fisher(more, fewer, n) == pytest.approx(theirs, rel=1e-9)


def test_fisher_s_test_decides_by_five_of_five_alone_at_the_first_look():
    decides = {
        (more, fewer)
        for more in range(6)
        for fewer in range(6)
        if fisher(more, fewer, 5) < 1 - LEVEL
    }
    assert decides == {(5, 0)}


@pytest.mark.parametrize(("more", "fewer", "n"), [(0, 0, 0), (6, 0, 5), (-1, 0, 5), (0, 6, 5)])
def test_fisher_refuses_impossible_counts(more, fewer, n):
    with pytest.raises(UserError, match="Failures"):
        fisher(more, fewer, n)


def between(low, high):
    return Interval((low + high) / 2, low, high, 5)


@pytest.mark.parametrize(
    ("low", "high", "rules", "expected"),
    [
        (1.0, 3.0, {"margin": None}, "reproduced"),
        (1.0, 3.0, {"margin": 0.5}, "reproduced"),
        (-3.0, -1.0, {"margin": 0.5}, "contradicted"),
        (-1.0, 3.0, {"margin": 0.5}, "inconclusive"),
        (0.1, 0.4, {"margin": 0.5}, "no effect"),  # excludes 0, but the margin is tested first
        (-0.4, -0.1, {"margin": 0.5}, "no effect"),
        (-0.5, 0.5, {"margin": 0.5}, "no effect"),
        (0.1, 0.4, {"margin": None}, "reproduced"),
        (-0.1, 0.4, {"margin": None}, "inconclusive"),
        (0.0, 3.0, {"margin": None}, "inconclusive"),  # 0 itself is not excluded
        (-3.0, 0.0, {"margin": None}, "inconclusive"),
        (1.0, 3.0, {"margin": None, "size": 1.0}, "reproduced"),
        (1.0, 3.0, {"margin": None, "size": 2.0}, "inconclusive"),  # the right side, too small
        (-math.inf, math.inf, {"margin": 0.5}, "inconclusive"),
        (1.0, math.inf, {"margin": 0.5}, "reproduced"),
        (-math.inf, 0.2, {"margin": 0.5}, "inconclusive"),
        (math.nan, math.nan, {"margin": 0.5}, "inconclusive"),
    ],
)
def test_verdict(low, high, rules, expected):
    assert verdict(between(low, high), **rules) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.4, 0.3, "reproduced"),
        (-0.6, 0.3, "inconclusive"),  # "not significant" is not "no difference"
        (0.6, 0.9, "contradicted"),
        (-0.9, -0.6, "contradicted"),
        (0.4, 0.9, "inconclusive"),
        (-math.inf, math.inf, "inconclusive"),
    ],
)
def test_verdict_on_a_claim_of_no_difference(low, high, expected):
    assert verdict(between(low, high), margin=0.5, equivalence=True) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.4, 0.3, "reproduced"),
        (-0.4, 9.0, "reproduced"),  # how far above does not matter
        (2.0, 4.0, "reproduced"),
        (-0.5, 0.3, "inconclusive"),
        (-3.0, 9.0, "inconclusive"),
        (-0.9, -0.5, "inconclusive"),
        (-4.0, -0.6, "contradicted"),
        (-math.inf, math.inf, "inconclusive"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_not_worse_asks_only_that_the_interval_stays_above_the_margin(low, high, expected):
    assert not_worse(between(low, high), 0.5) == expected


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_not_worse_refuses_a_margin_that_is_none(margin):
    with pytest.raises(UserError, match="margin"):
        not_worse(between(0, 1), margin)


@pytest.mark.parametrize("level", [0.95, 0.982])
def test_not_worse_errs_on_one_side_as_often_as_it_says(level):
    """Where the truth lies on the margin: (1 - level) / 2 are called reproduced, as many worse."""
    draws_RN = np.random.default_rng(0).normal(-0.5, 1.0, (20_000, 5))
    found = [not_worse(paired_interval(draw_N, level), 0.5) for draw_N in draws_RN]
    for verdict_ in ("reproduced", "contradicted"):
        share = found.count(verdict_) / len(found)
        assert share == pytest.approx((1 - level) / 2, abs=0.003)


@pytest.mark.parametrize("level", [0.95, 0.982])
@pytest.mark.parametrize("values", [(0.1, -0.3, 0.2, 0.4, -0.1), (-1.0, -2.0, -1.5), (3.0, 2.9)])
def test_p_of_not_worse_is_student_s_one_sided_twice(values, level):
    interval = paired_interval(values, level)
    theirs = scipy_stats().ttest_1samp(values, -0.5, alternative="greater").pvalue
    p = p_not_worse(interval, 0.5)
    assert p == pytest.approx(min(1.0, 2 * theirs), rel=1e-6)
    assert (p < 1 - level) == (not_worse(interval, 0.5) == "reproduced")


def test_p_of_not_worse_of_equal_values_and_of_too_few():
    assert p_not_worse(paired_interval([0.0] * 3), 0.5) == 0
    assert p_not_worse(paired_interval([-0.5] * 3), 0.5) == 1
    assert math.isnan(p_not_worse(paired_interval([1.0]), 0.5))


@given(BOUNDS, BOUNDS, MARGINS)
def test_verdict_turns_around_with_the_sign(a, b, margin):
    low, high = sorted([a, b])
    opposite = {"reproduced": "contradicted", "contradicted": "reproduced"}
    ours = verdict(between(low, high), margin=margin)
    mirrored = verdict(between(-high, -low), margin=margin)
    assert mirrored == opposite.get(ours, ours)


@given(BOUNDS, BOUNDS, st.floats(0, 5), st.floats(0, 5), st.booleans(), st.floats(0.01, 100))
def test_verdict_does_not_depend_on_the_unit(a, b, margin, size, equivalence, factor):
    low, high = sorted([a, b])
    edges = [low, high, margin, size]
    near = [abs(abs(x) - y) for i, x in enumerate(edges) for y in [0.0, *edges[i + 1 :]]]
    assume(all(gap == 0 or gap > 1e-9 for gap in near))  # else rounding may move an edge
    ours = verdict(between(low, high), margin=margin, size=size, equivalence=equivalence)
    scaled = verdict(
        between(factor * low, factor * high),
        margin=factor * margin, size=factor * size, equivalence=equivalence,
    )  # fmt: skip
    assert ours == scaled
    assert ours in VERDICTS


@given(BOUNDS, BOUNDS, MARGINS, st.floats(0, 5), st.floats(0, 5))
def test_a_wider_interval_never_turns_a_verdict_around(a, b, margin, left, right):
    low, high = sorted([a, b])
    before = verdict(between(low, high), margin=margin)
    after = verdict(between(low - left, high + right), margin=margin)
    assert {before, after} != {"reproduced", "contradicted"}


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"margin": None, "equivalence": True}, "needs a margin"),
        ({"margin": -0.1}, "negative"),
        ({"margin": math.nan}, "NaN"),
    ],
)
def test_verdict_refuses_a_rule_that_makes_no_sense(rules, reason):
    with pytest.raises(UserError, match=reason):
        verdict(between(0, 1), **rules)


def judgement(**edits):
    row = {
        "claim": "BN-15",
        "sentence": "s",
        "criterion": "c",
        "paper": "p",
        "verdict": "no effect",
    }
    return Judgement(**(row | {"n": 3, "effect": 0.0, "low": 0.0, "high": 0.0} | edits))


def test_a_judgement_of_few_seeds_is_provisional():
    assert [judgement(n=n).provisional for n in (0, 1, 4, 5)] == [False, True, True, False]


def test_an_exact_judgement_has_no_seeds_and_is_not_provisional():
    exact = judgement(verdict="reproduced", n=0, exact=True)
    assert (exact.exact, exact.provisional, judgement().exact) == (True, False, False)


def test_a_judgement_needs_a_known_verdict():
    with pytest.raises(UserError, match="reproduced"):
        judgement(verdict="reproducd")


def test_smoothing_is_a_centred_median_cut_short_at_the_ends():
    np.testing.assert_array_equal(smoothed([1, 9, 2, 3]), [5, 2, 3, 2.5])
    np.testing.assert_array_equal(smoothed([1, 9, 2, 3, 4], window=5), [2, 2.5, 3, 3.5, 3])
    np.testing.assert_array_equal(smoothed([4, 1], window=1), [4, 1])
    assert smoothed([]).shape == (0,)


def test_smoothing_leaves_nan_where_it_is():
    ours = smoothed([1.0, 3.0, math.nan, 5.0, math.nan])
    np.testing.assert_array_equal(ours, [2, 2, math.nan, 5, math.nan])


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_smoothing_keeps_the_range_and_follows_a_reversal(values):
    ours = smoothed(values)
    assert min(values) <= ours.min() <= ours.max() <= max(values)
    np.testing.assert_array_equal(smoothed(values[::-1]), ours[::-1])


@pytest.mark.parametrize("window", [0, 2, -1])
def test_smoothing_refuses_a_window_without_a_centre(window):
    with pytest.raises(UserError, match="odd"):
        smoothed([1.0], window)


def test_steps_to_target_interpolate_between_evaluations():
    steps, values = [10, 20, 40, 80], [0.1, 0.2, 0.6, 0.6]  # smoothed 0.15, 0.2, 0.6, 0.6
    assert steps_to_target(steps, values, 0.5, 80) == (pytest.approx(35), True)
    assert steps_to_target(steps, values, 0.1, 80) == (10, True)
    assert steps_to_target(steps, values, 0.6, 80) == (pytest.approx(40), True)


def test_steps_to_target_never_reached_are_the_budget():
    assert steps_to_target([10, 20], [0.1, 0.2], 0.5, 100) == (100.0, False)
    assert steps_to_target([], [], 0.5, 100) == (100.0, False)
    assert steps_to_target([10, 20], [math.nan, math.nan], 0.5, 100) == (100.0, False)
    assert steps_to_target([10, 20, 30], [0.1, 0.1, 0.9], 0.5, 20) == (20.0, False)


def test_one_lucky_evaluation_does_not_reach_a_target():
    assert steps_to_target([1, 2, 3, 4], [0.1, 0.9, 0.1, 0.1], 0.55, 4) == (4.0, False)


def test_steps_to_target_do_not_interpolate_over_a_gap():
    curve = [0.1, math.nan, 0.8, 0.8]
    assert steps_to_target([1, 2, 3, 4], curve, 0.5, 4) == (3.0, True)


@pytest.mark.parametrize(
    ("steps", "values", "target"),
    [([1, 2], [0.1], 0.5), ([2, 1], [0.1, 0.2], 0.5), ([1, 2], [0.1, 0.2], math.nan)],
)
def test_steps_to_target_refuse_a_broken_curve(steps, values, target):
    with pytest.raises(UserError):
        steps_to_target(steps, values, target, 10)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_target_never_takes_fewer_steps(values, a, b):
    low, high = sorted([a, b])
    steps = list(range(1, len(values) + 1))
    easy, hard = (steps_to_target(steps, values, t, len(steps)) for t in (low, high))
    assert easy[0] <= hard[0] + 1e-9
    assert easy[1] or not hard[1]


def test_leave_one_out_is_the_mean_of_the_others():
    assert leave_one_out({0: 1.0, 7: 2.0, 3: 6.0}) == {0: 4.0, 7: 3.5, 3: 1.5}


def test_leave_one_out_needs_two_finite_seeds():
    with pytest.raises(UserError, match="at least two seeds"):
        leave_one_out({0: 0.9})
    with pytest.raises(UserError, match="Finite"):
        leave_one_out({0: 0.9, 1: math.nan})


def reached(*steps):
    return [(float(s), True) for s in steps]


def test_ratio_is_geometric_and_judged_on_logarithms():
    logs = log_ratio_interval(reached(400, 100), reached(100, 100))
    ratio = as_ratio(logs)
    assert ratio.mean == pytest.approx(2)
    assert ratio.low * ratio.high == pytest.approx(4)
    assert log_ratio_interval(reached(100, 100), reached(400, 100)).mean == -logs.mean


CENSORED = [(100.0, False), *reached(100, 100, 100)]
FINISHED = reached(20, 25, 22, 24)


def test_a_censored_baseline_makes_the_ratio_a_lower_bound():
    interval = log_ratio_interval(CENSORED, FINISHED)
    assert 0 < interval.low < interval.mean < interval.high == math.inf
    assert verdict(interval, margin=None, size=math.log(2)) == "reproduced"
    assert as_ratio(interval).high == math.inf


def test_a_censored_treatment_makes_the_ratio_an_upper_bound():
    interval = log_ratio_interval(FINISHED, CENSORED)
    assert -math.inf == interval.low < interval.mean < interval.high < 0
    assert verdict(interval, margin=None) == "contradicted"
    assert as_ratio(interval).low == 0


def test_censoring_in_both_arms_tells_nothing():
    interval = log_ratio_interval(CENSORED, CENSORED)
    assert (interval.low, interval.high) == (-math.inf, math.inf)
    assert verdict(interval, margin=10.0) == "inconclusive"


def test_the_bound_of_a_censored_ratio_keeps_its_coverage():
    rng, budget, missed = np.random.default_rng(0), 1000, 0
    for _ in range(2000):
        slow = [(min(s, budget), s < budget) for s in 900 * np.exp(rng.normal(0, 0.4, 5))]
        fast = reached(*300 * np.exp(rng.normal(0, 0.4, 5)))
        missed += log_ratio_interval(slow, fast).low > math.log(3)
    assert missed / 2000 < 0.04  # 0.025 and simulation error


@pytest.mark.parametrize(("slow", "fast"), [(reached(1, 2), reached(1)), (reached(0), reached(1))])
def test_ratio_refuses_unpaired_runs_and_zero_steps(slow, fast):
    with pytest.raises(UserError):
        log_ratio_interval(slow, fast)
