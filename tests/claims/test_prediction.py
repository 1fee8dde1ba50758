"""Prediction intervals: by scipy's quantiles and by simulation; counts by Fisher's test."""

import math

import numpy as np
import pytest
from scipy.stats import fisher_exact, hypergeom, nct, t

from vggbn.claims.prediction import LEVEL, prediction_counts, prediction_interval
from vggbn.claims.stats import paired_interval
from vggbn.errors import UserError

VALUES = (1.0, 2.5, 0.5, 3.0, 1.5, 2.0, 0.0, 1.0, 2.0, 1.5)


@pytest.mark.parametrize("new", [1, 3, 10])
@pytest.mark.parametrize("level", [0.95, 0.975])
def test_the_interval_is_student_s(new, level):
    found = prediction_interval(VALUES, new, level)
    n, spread = len(VALUES), float(np.std(VALUES, ddof=1))
    half = t.ppf(0.5 + level / 2, n - 1) * spread * math.sqrt(1 / n + 1 / new)
    assert (found.mean, found.n, found.level) == (1.5, 10, level)
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half))


def test_of_very_many_new_values_it_is_the_interval_of_the_mean():
    many, mean = prediction_interval(VALUES, 10**9), paired_interval(VALUES, LEVEL)
    assert (many.low, many.high) == pytest.approx((mean.low, mean.high), rel=1e-6)


def outside(shift: float, sets: int, n: int = 10, new: int = 3) -> float:
    """The share of made-up sets whose new seeds lie outside; shift: of theirs, in predictive
    standard deviations."""
    reference_SN = np.random.default_rng(0).normal(7.0, 3.0, (sets, n))
    predictive = 3.0 * math.sqrt(1 / n + 1 / new)
    new_SM = np.random.default_rng(1).normal(7.0 + shift * predictive, 3.0, (sets, new))
    found = [prediction_interval(reference_N, new) for reference_N in reference_SN]
    low_S, high_S = np.array([(each.low, each.high) for each in found]).T
    mean_S = new_SM.mean(1)
    return float(((mean_S < low_S) | (mean_S > high_S)).mean())


def test_an_honest_reference_holds_in_95_percent_and_a_shifted_one_hardly_ever():
    assert 0.03 < outside(0, 2_000) < 0.07
    power = nct.sf(t.ppf(0.975, 9), 9, 5)  # of Student's test at a shift of five
    assert power > 0.98 and outside(5, 500) == pytest.approx(power, abs=0.015)


@pytest.mark.parametrize("values", [(1.0,), (2.0, 2.0), (2.0,) * 10, (1.0, math.nan), ()])
def test_values_that_tell_no_spread_predict_nothing(values):
    with pytest.raises(UserError):
        prediction_interval(values, 3)


@pytest.mark.parametrize("new", [0, -1])
def test_there_are_new_values(new):
    with pytest.raises(UserError, match="1 or more new"):
        prediction_interval(VALUES, new)
    with pytest.raises(UserError, match="say nothing of"):
        prediction_counts(5, 10, new)


@pytest.mark.parametrize(("shown", "n"), [(11, 10), (-1, 10), (0, 0)])
def test_a_count_is_one_of_the_seeds(shown, n):
    with pytest.raises(UserError, match="say nothing of"):
        prediction_counts(shown, n, 3)


def test_of_ten_seeds_that_all_show_it_three_new_ones_must_have_two():
    assert prediction_counts(10, 10, 3) == [2, 3]
    assert prediction_counts(0, 10, 3) == [0, 1]
    two_missing = math.comb(3, 2) / math.comb(13, 2)  # both of them among the new
    assert two_missing < 0.05 < 3 / 13


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("new", [1, 3, 8])
def test_counts_are_those_that_fisher_s_test_does_not_refuse_without_a_gap(n, new):
    for shown in range(n + 1):
        found = prediction_counts(shown, n, new)
        assert found == list(range(found[0], found[-1] + 1))
        for count in range(new + 1):
            p = fisher_exact([[shown, n - shown], [count, new - count]]).pvalue
            assert (count in found) == (p >= 0.05)


@pytest.mark.parametrize("total", range(14))
def test_an_honest_count_is_outside_in_a_twentieth_at_most(total):
    """Whatever number of all 13 seeds shows it: exactly, by the hypergeometric distribution."""
    lost = sum(
        hypergeom.pmf(new, 13, total, 3)
        for new in range(max(0, total - 10), min(3, total) + 1)
        if new not in prediction_counts(total - new, 10, 3)
    )
    assert lost <= 0.05
