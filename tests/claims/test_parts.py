"""Claims of several parts: the rule, and how often it errs where there is no effect."""

import itertools

import numpy as np
import pytest

from vggbn.claims.parts import Part, part_level, whole
from vggbn.claims.stats import Interval, paired_interval, verdict
from vggbn.errors import UserError


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["contradicted", "contradicted"], "contradicted"),
        (["no effect", "no effect"], "no effect"),
        (["reproduced", "inconclusive"], "partly"),
        (["reproduced", "contradicted"], "partly"),
        (["contradicted", "inconclusive"], "inconclusive"),
        (["contradicted", "no effect"], "inconclusive"),
        (["not tested"], "not tested"),
    ],
)
def test_the_whole_follows_from_all_parts(parts, expected):
    assert {whole(list(order)) for order in itertools.permutations(parts)} == {expected}


def test_a_claim_without_parts_is_refused():
    with pytest.raises(UserError):
        whole([])


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("k", [2, 4])
def test_without_effect_no_side_is_taken_more_often_than_it_may(n, k):
    """The minimum of k parts, taken as one number, would be found below 0 in 14 to 70 %."""
    draws_RKN = np.random.default_rng(k * n).normal(size=(4_000, k, n))
    level = part_level(0.95, k)
    found = [
        whole([verdict(paired_interval(part_N, level), margin=None) for part_N in parts_KN])
        for parts_KN in draws_RKN
    ]
    for one in ("reproduced", "contradicted"):
        assert found.count(one) / len(found) <= 0.025
    assert 0 < found.count("partly") / len(found) <= 0.025 + 0.008  # one side of 5 %
    minimum = [paired_interval(parts_KN.min(0)).high < 0 for parts_KN in draws_RKN[:1_000]]
    assert np.mean(minimum) > 0.1


def test_a_part_shows_its_own_interval():
    part = Part("early", Interval(1.2, 0.31, 2.09, 5), "")
    assert part.text("+.2f") == "early +1.20 [+0.31, +2.09]"
