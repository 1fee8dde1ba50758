"""Looks at n = 5, 10, 20: how often seeds without any effect are given one, by simulation."""

import numpy as np
import pytest
from scipy.stats import t

from vggbn.claims import looks
from vggbn.claims.stats import paired_interval, verdict


def errors_by_look(level, runs=40_000):
    """Share of sets of 20 differences without effect whose interval excludes 0 at some look."""
    draws_RN = np.random.default_rng(0).normal(size=(runs, looks.LOOKS[-1]))
    wrong_R = np.zeros(runs, bool)
    for n in looks.LOOKS:
        half = t.ppf((1 + level) / 2, n - 1) / n**0.5
        wrong_R |= np.abs(draws_RN[:, :n].mean(1)) > half * draws_RN[:, :n].std(1, ddof=1)
    return wrong_R.mean()


def test_all_looks_together_err_in_a_twentieth():
    assert errors_by_look(0.95) > 0.10  # what adding seeds at 95 % does
    assert errors_by_look(looks.LEVEL) <= looks.ALPHA + 0.002


def test_the_level_is_no_higher_than_it_must_be():
    assert errors_by_look(0.978) > looks.ALPHA


@pytest.mark.parametrize(
    ("there", "judged"), [(0, 0), (3, 3), (5, 5), (9, 5), (10, 10), (19, 10), (20, 20), (31, 20)]
)
def test_seeds_between_two_looks_wait(there, judged):
    seeds = list(range(100, 100 + there))
    assert looks.judged_seeds(seeds[::-1]) == seeds[:judged]


def test_p_of_all_looks_decides_as_the_interval_does():
    rng = np.random.default_rng(1)
    for _ in range(300):
        sample = rng.normal(1.0, 1.0, 5)
        interval = paired_interval(sample, looks.LEVEL)
        p = 2 * t.sf(abs(sample.mean()) / sample.std(ddof=1) * 5**0.5, 4)
        decided = verdict(interval, margin=None) in ("reproduced", "contradicted")
        assert decided == (looks.adjusted(p) < looks.ALPHA)
    assert looks.adjusted(0.9) == 1.0
