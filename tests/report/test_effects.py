"""The figure of effects: dots, bars, and the line of no effect."""

import math

import pytest

from tests.report.test_report import report
from vggbn.claims.stats import Interval
from vggbn.report import Effects, stills
from vggbn.report.effects import draw, limits
from vggbn.report.html import page

POINTS = Effects(
    "points behind", {"no LRN": Interval(1.0, -0.5, 2.5, 5), "no dropout": Interval(3, 2, 4, 5)}
)
RATIOS = Effects(
    "times the steps",
    {"no LRN": Interval(1.5, 1.2, math.inf, 5), "neither": Interval(2.0, 0.0, 4.0, 5)},
    ratios=True,
)


def test_the_axis_holds_what_is_known_and_no_effect():
    left, right = limits(POINTS)
    assert left < -0.5 and right > 4
    left, right = limits(RATIOS)
    assert 0 < left < 1 and 4 < right < 10, "a side that is not known takes no room"
    far = Effects("points", {"a": Interval(5, 4, 6, 5)})
    assert limits(far)[0] < 0 < 6 < limits(far)[1]


def test_every_change_is_named_and_a_side_that_is_not_known_is_an_arrow():
    known, unknown = draw(POINTS), draw(RATIOS)
    assert all(f">{name}<" in known for name in POINTS.rows)
    assert unknown.count("<use") - known.count("<use") == 2, "one arrow of each interval"
    assert draw(POINTS) == known


def test_the_page_shows_effects_and_its_tables_without_a_click():
    shown = page(report(charts={"What it gives": POINTS}))
    effects = shown.index("<h2>Effects</h2>")
    assert (
        effects < shown.index("What it gives") and "<details>" not in shown[effects - 8 : effects]
    )


@pytest.mark.parametrize("high", [2.5, 2.6])
def test_a_still_is_drawn_anew_when_its_numbers_change(high):
    other = Effects(POINTS.x, POINTS.rows | {"no LRN": Interval(1.0, -0.5, high, 5)})
    assert (stills.digest_of(other) == stills.digest_of(POINTS)) == (high == 2.5)
