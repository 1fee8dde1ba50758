"""Images tested twice: the interval and its p, against the literature, and by simulation."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom, binomtest, poisson

from vggbn.claims.images import mcnemar, paired_images
from vggbn.claims.stats import verdict
from vggbn.errors import UserError


def two_tests(both, first, second, neither):
    """Which images two tests got right, so many of each kind."""
    counts = (both, first, second, neither)
    a = np.repeat([True, True, False, False], counts)
    return a, np.repeat([True, False, True, False], counts)


def test_the_interval_is_wald_s_with_half_an_image_in_each_cell():
    interval, _ = paired_images(*two_tests(80, 10, 2, 8))
    b, c, n = 10.5, 2.5, 102  # Agresti and Min (2005), section 4.1
    half = 1.959964 * (b + c - (b - c) ** 2 / n) ** 0.5 / n
    assert (interval.mean, interval.n) == (0.08, 100)
    assert (interval.low, interval.high) == pytest.approx(((b - c) / n - half, (b - c) / n + half))


def test_p_is_mcnemar_s_less_half_of_what_was_seen():
    """Fagerland, Lydersen and Laake (2013), table 1 and equation 4."""
    assert mcnemar(1, 7) == pytest.approx(0.039, abs=5e-4)
    for won, lost in itertools.product(range(6), repeat=2):
        exact = binomtest(won, won + lost).pvalue if won + lost else 1.0
        seen = binomtest(won, won + lost).statistic if won + lost else 0.5
        assert mcnemar(won, lost) == mcnemar(lost, won) <= exact
        assert (mcnemar(won, lost) == 1.0) == (seen == 0.5)


def test_few_images_prove_nothing():
    interval, p = paired_images(*two_tests(496, 4, 0, 500))
    assert verdict(interval, margin=None) == "inconclusive" and p > 0.05
    interval, p = paired_images(*two_tests(495, 5, 0, 500))
    assert verdict(interval, margin=None) == "reproduced" and p < 0.05


def test_no_image_that_tells_them_apart_is_no_proof_of_equality():
    small, p = paired_images(*two_tests(7, 0, 0, 13))
    assert (small.mean, p) == (0, 1) and small.low == -small.high < -0.08
    assert verdict(small, margin=0.01, equivalence=True) == "inconclusive"
    large, _ = paired_images(*two_tests(4_000, 0, 0, 1_000))
    assert verdict(large, margin=0.01, equivalence=True) == "reproduced"


def test_what_both_got_right_or_wrong_tells_nothing_but_n():
    few, many = (paired_images(*two_tests(n, 10, 2, n)) for n in (5, 500))
    assert few[1] == many[1] and few[0].mean > many[0].mean
    swapped, p = paired_images(*two_tests(5, 2, 10, 5))
    assert p == few[1] and swapped.mean == -few[0].mean


def test_no_difference_is_found_in_at_most_a_twentieth():
    """Over all numbers of images that tell two equal nets apart, by their distribution."""
    n, most = 2_000, 120
    decides_M = np.zeros(most)
    for m in range(1, most):
        for lost in range(m // 2 + 1):
            interval, p = paired_images(*two_tests(0, m - lost, lost, n - m))
            assert (interval.low > 0) == (p < 0.05) or abs(p - 0.05) < 0.005
            if interval.low > 0:
                decides_M[m] += 2 * binom.pmf(lost, m, 0.5)
    for mean in (0.5, 1, 2, 5, 10, 20, 40, 70):
        assert poisson.pmf(np.arange(most), mean) @ decides_M <= 0.0501


@pytest.mark.parametrize(
    ("n", "won", "lost"),
    [(20, 0.01, 0.01), (100, 0.01, 0.0), (500, 0.002, 0.002), (500, 0.03, 0.01)],
)
def test_the_interval_covers(n, won, lost):
    """Wald's covers 18 to 87 % of the first three (nominal 95)."""
    rng = np.random.default_rng(n)
    draws = rng.multinomial(n, [won, lost, 1 - won - lost], 4_000)
    kinds, counts = np.unique(draws[:, :2], axis=0, return_counts=True)
    covered = 0
    for (first, second), count in zip(kinds, counts, strict=True):
        interval, _ = paired_images(*two_tests(0, first, second, n - first - second))
        covered += count * (interval.low <= won - lost <= interval.high)
    assert covered / 4_000 > 0.94


def test_images_that_are_not_the_same_are_refused():
    with pytest.raises(UserError, match="same ones"):
        paired_images([True, False], [True])
    with pytest.raises(UserError, match="same ones"):
        paired_images([], [])
