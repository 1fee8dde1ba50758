"""What stands where in the report's figures."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize

from tests.report.test_report import report
from vggbn.report import Curve, figures
from vggbn.report.opening import LINE, MOST, caption, spread
from vggbn.report.svg import FONT, log_ticks

STEPS = [0, 50, 100, 150, 200]


def learner(best, seeds=(0, 1)):
    return Curve(STEPS, {s: [0.1, best / 2, best - 0.01 * s, best, best] for s in seeds})


def with_arms(**bests):
    curves = {name: learner(best) for name, best in bests.items()}
    return report(curves=curves, opening=list(bests), targets={})


def names_of(svg):
    """{text: (x, y) in points, from above} of the words in a figure."""
    found = re.findall(r'<text [^>]*? x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]+)</text>', svg)
    return {words: (float(x), float(y)) for x, y, words in found}


def test_the_opening_names_every_arm_at_its_curve_and_the_target():
    svg = figures.opening(report(opening=["base", "bn", "x30"]))
    at = names_of(svg)
    assert {"base", "bn", "x30", "target 94.0 %", "training step"} <= at.keys()
    assert at["bn"][1] < at["base"][1] < at["x30"][1], "in the order in which they end"
    assert at["x30"][0] < at["bn"][0], "a curve that ends early has its name where it ends"
    assert "target" not in figures.opening(report(opening=["base"], targets={}))


def test_names_of_curves_that_end_together_do_not_overlap():
    at = names_of(figures.opening(with_arms(a=0.9, b=0.9, c=0.901, d=0.899, e=0.5)))
    heights = sorted(at[name][1] for name in "abcde")
    assert min(b - a for a, b in pairwise(heights)) > 1.2 * FONT


def test_the_opening_has_few_arms_and_none_without_a_curve():
    many = with_arms(**{f"arm {i}": 0.5 + i / 50 for i in range(MOST + 2)})
    at = names_of(figures.opening(many))
    assert [name for name in many.opening if name in at] == many.opening[:MOST]
    assert figures.opening(replace(many, opening=["nobody"])) == ""
    assert figures.opening(replace(many, curves={"arm 0": Curve([1], {0: [float("nan")]})})) == ""


def test_the_caption_says_n_and_the_target():
    assert "(line: mean of n = 3, band: lowest to highest seed)" in caption(
        report(opening=["base", "bn"])
    )
    assert "best smoothed accuracy of base" in caption(report(opening=["base"]))
    mixed = with_arms(a=0.9)
    mixed = replace(mixed, curves=mixed.curves | {"b": learner(0.8, (0,))}, opening=["a", "b"])
    assert "n = 1 to 2," in caption(mixed) and "target" not in caption(mixed)


@pytest.mark.parametrize("seed", range(5))
def test_names_move_as_little_as_they_must(seed):
    """The same quadratic programme, by another solver."""
    wanted, high, gap = np.random.default_rng(seed).uniform(0, 100, 6), 100.0, 12.0
    order = np.argsort(wanted)
    apart = [
        {"type": "ineq", "fun": lambda p, i=i, j=j: p[j] - p[i] - gap} for i, j in pairwise(order)
    ]
    start = np.empty(6)
    start[order] = gap * np.arange(6)
    solved = minimize(
        lambda p: ((p - wanted) ** 2).sum(), start, bounds=[(0, high)] * 6, constraints=apart
    )
    assert spread(wanted, gap, high) == pytest.approx(solved.x, abs=0.01)


def test_few_names_stay_where_their_curves_end():
    wanted = np.array([10.0, 80.0, 40.0])
    assert (spread(wanted, LINE, 100.0) == wanted).all()
    assert spread(np.array([]), LINE, 100.0).size == 0


def colours_of(svg):
    return list(dict.fromkeys(re.findall(r"var\(--s\d\)", svg)))


def test_each_figure_gives_its_colours_in_its_own_order():
    full = report()
    for names in (["base", "bn"], ["x30", "base"], ["bn"]):
        found = colours_of(figures.curves(full, names))
        assert found == [f"var(--s{i})" for i in range(len(names))]


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [
        (8, 22_100, [10, 100, 1000, 10_000]),
        (4, 25, [5, 10, 20]),
        (300, 800, [300, 400, 500]),
        (1e-4, 1e9, [1, 1e4]),
    ],
)
def test_labels_of_a_logarithmic_axis_stay_apart(low, high, some):
    ticks = log_ticks(low, high)
    assert {float(f"{t:.6g}") for t in ticks} >= set(some)
    assert low <= min(ticks) and max(ticks) <= high
    svg = figures.curves(report(curves={"base": Curve([low, high], {0: [0.1, 0.9]})}), ["base"])
    middles = r'anchor: middle[^>]*? x="([\d.]+)"[^>]*rotate\(-0[^>]*>([^<]+)</text>'
    labels = sorted((float(x), words) for x, words in re.findall(middles, svg) if words != "step")
    assert len(labels) > 2
    for (a, left), (b, right) in pairwise(labels):  # around their middles
        assert b - a > 0.6 * FONT * (len(left) + len(right)) / 2
