"""What n seeds see: against simulation, and against tables of Student's power."""

import math

import numpy as np
import pytest

from vggbn.claims.power import MOST, seeds_needed, smallest_effect, spread_of
from vggbn.claims.stats import Judgement, as_ratio, paired_interval
from vggbn.errors import UserError


@pytest.mark.parametrize("level", [0.95, 0.982])
@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_smallest_effect_is_found_as_often_as_said(n, level):
    effect = smallest_effect(1.5, n, level)
    draws_RN = np.random.default_rng(n).normal(effect, 1.5, (4_000, n))
    found = np.mean([paired_interval(draws_N, level).low > 0 for draws_N in draws_RN])
    assert abs(found - 0.8) < 0.02


def test_the_number_of_a_textbook():
    """Cohen (1988), table 2.4.1, paired: d = 0.5 at 80 % takes 34, d = 1 takes 10."""
    assert (seeds_needed(2.0, 1.0), seeds_needed(1.0, -1.0)) == (34, 10)


@pytest.mark.parametrize(("spread", "effect"), [(1.0, 0.4), (1.0, 3.0), (0.7, 0.5)])
def test_one_seed_fewer_would_not_do(spread, effect):
    n = seeds_needed(spread, effect)
    assert smallest_effect(spread, n) <= effect < smallest_effect(spread, n - 1)


def test_what_no_number_of_seeds_sees():
    assert smallest_effect(1.0, 1) == math.inf
    assert seeds_needed(1.0, 0.0) == seeds_needed(1.0, 0.5 / math.sqrt(MOST)) == math.inf
    for bad in ({"level": 1.0}, {"power": 0.0}, {"spread": -1.0}, {"spread": math.nan}):
        with pytest.raises(UserError):
            smallest_effect(**{"spread": 1.0, "n": 5} | bad)


VALUES = (0.3, -0.1, 0.5, 0.2, 0.9)


def judgement(interval, unit="points", **edits):
    row = {"claim": "X", "sentence": "", "criterion": "", "paper": "", "verdict": "inconclusive"}
    row |= {"n": interval.n, "effect": interval.mean, "low": interval.low, "high": interval.high}
    return Judgement(**(row | {"unit": unit, "level": interval.level} | edits))


@pytest.mark.parametrize("level", [0.95, 0.982, 0.991])
def test_the_spread_behind_an_interval_is_that_of_its_values(level):
    interval, spread = paired_interval(VALUES, level), np.std(VALUES, ddof=1)
    assert spread_of(judgement(interval)) == pytest.approx(spread)
    assert spread_of(judgement(as_ratio(interval), "ratio")) == pytest.approx(spread)
    for open_side in ({"low": -math.inf}, {"high": math.inf}):
        assert spread_of(judgement(interval, **open_side)) == pytest.approx(spread)


def test_what_no_student_interval_judged_has_no_spread():
    interval = paired_interval(VALUES)
    assert math.isnan(spread_of(judgement(interval, "share of seeds")))
    assert math.isnan(spread_of(judgement(interval, low=-math.inf, high=math.inf)))
    assert math.isnan(spread_of(judgement(paired_interval([1.0]))))
