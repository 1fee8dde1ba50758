"""What judges share: the level of an interval, claims of several parts, counted failures."""

import math

import pytest
from scipy.stats import ttest_1samp

from tests.support.result_lines import SETTING, line
from vggbn.claims.looks import LEVEL
from vggbn.claims.parts import Part
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import as_ratio, verdict
from vggbn.experiment.judges import (
    judge_gaps,
    verdict_interval,
    verdict_on,
    verdict_on_failures,
)

CLEAR, WEAK, UNSURE = (3.0, 3.1, 2.9, 3.2, 3.0), (1.0, 1.4, 0.6, 1.3, 0.9), (1.0, -1.0, 2.0, 0, 1)


def part(name, values, parts, **more):
    interval = verdict_interval(values, parts)
    return Part(name, interval, verdict(interval, margin=None), **more)


def student_p(values):
    return ttest_1samp(values, 0).pvalue


def test_an_interval_has_the_level_of_a_look_and_parts_share_its_error():
    assert verdict_interval(WEAK).level == LEVEL
    assert 1 - verdict_interval(WEAK, parts=4).level == pytest.approx((1 - LEVEL) / 4)


def test_of_a_claim_s_parts_the_first_that_stands_in_its_way_is_shown():
    found = verdict_on([part("a", CLEAR, 3), part("b", UNSURE, 3), part("c", UNSURE, 3)])
    assert (found.verdict, found.unit, found.interval.mean) == ("partly", "points", 0.6)
    assert found.detail.startswith("a +3.04 [+2.")
    assert [text.split()[0] for text in found.detail.split("; ")] == ["a", "b", "c"]
    assert verdict_on([part("a", UNSURE, 1)], words="why").detail == "why"


def test_a_part_may_have_a_unit_of_its_own():
    speed = Part("speed", as_ratio(verdict_interval(WEAK, 2)), "reproduced", unit="ratio")
    for second, unit in ((CLEAR, "ratio"), (UNSURE, "points")):  # of the part that is shown
        found = verdict_on([speed, part("end", second, 2)])
        assert found.unit == unit and found.detail.startswith("speed 2.83 [")
        assert "; end +" in found.detail
    found = verdict_on([speed, part("end", CLEAR, 2)])
    assert found.p == pytest.approx(student_p(WEAK))


def test_the_p_of_a_claim_is_that_of_its_least_certain_part():
    for parts in ((CLEAR, WEAK), (WEAK, CLEAR)):
        found = verdict_on([part("of", values, 2) for values in parts])
        assert found.verdict == "reproduced" and found.p == pytest.approx(student_p(WEAK))
    ratios = [Part("r", as_ratio(verdict_interval(v, 2)), "reproduced") for v in (CLEAR, WEAK)]
    assert verdict_on(ratios, "ratio").p == pytest.approx(student_p(WEAK))
    own = [part("a", CLEAR, 2, p=0.5), part("b", WEAK, 2)]
    assert verdict_on(own).p == 0.5
    assert math.isnan(verdict_on([part("a", CLEAR, 2), part("b", (1.0,), 2)]).p)


def results(**arms):
    """{arm: test accuracies by seed}; a net at 0.1 is one that did not train."""
    lines = [
        line(arm, seed, test=test, fit=test)
        for arm, tests in arms.items()
        for seed, test in enumerate(tests)
    ]
    return Results(lines, {arm: f"id of {arm}" for arm in arms}, SETTING)


def test_gaps_of_several_pairs_are_parts_of_one_claim():
    found = results(a=(0.9, 0.91, 0.92), b=(0.8, 0.81, 0.821), c=(0.95, 0.96, 0.969))
    judged = judge_gaps([("a", "b"), ("a", "c")], margin=1.0)(found)
    assert judged.verdict == "partly" and judged.interval.mean == pytest.approx(-4.97, abs=0.01)
    assert judged.interval.level == pytest.approx(1 - (1 - LEVEL) / 2)
    equal = judge_gaps([("a", "b")], ["c"], margin=11.0, equal=True)
    seen = found.for_verdict()  # as nobody has asked for an arm of it yet
    assert equal(seen).verdict == "reproduced" and seen.asked == {"a", "b", "c"}
    with pytest.raises(MissingRuns):
        judge_gaps([], margin=1.0)(found)


@pytest.mark.parametrize(
    ("worse", "better", "expected"),
    [(5, 0, "reproduced"), (4, 0, "inconclusive"), (4, 1, "inconclusive"), (5, 5, "inconclusive"),
     (0, 0, "inconclusive"), (0, 5, "inconclusive")],
)  # fmt: skip
def test_failures_are_compared_by_their_number(worse, better, expected):
    arms = {"worse": worse, "better": better, "best": 0}
    found = results(**{arm: [0.1] * lost + [0.9] * (5 - lost) for arm, lost in arms.items()})
    judged = verdict_on_failures(found, ["worse"], ["better", "best"])
    assert (judged.verdict, judged.unit) == (expected, "share of seeds")
    assert (judged.interval.mean, judged.interval.level) == (worse / 5, LEVEL)
    assert f"worse {worse} of 5, better {better} of 5" in judged.detail
    assert (judged.p < 1 - LEVEL) == (expected == "reproduced")


def test_that_none_fails_takes_more_than_five_seeds():
    def verdict(n):
        arms = {arm: [0.9] * n for arm in ("worse", "better")}
        return verdict_on_failures(results(**arms), ["worse"], ["better"]).verdict

    assert (verdict(1), verdict(5), verdict(10)) == ("inconclusive", "inconclusive", "contradicted")


def test_failures_of_several_arms_are_those_of_any_of_them_in_a_seed():
    found = results(a=[0.1] * 3 + [0.9] * 2, b=[0.9] * 3 + [0.1] * 2, mended=[0.9] * 5)
    assert verdict_on_failures(found, ["a", "b"], ["mended"]).verdict == "reproduced"
    assert verdict_on_failures(found, ["a"], ["mended"]).verdict == "inconclusive"
