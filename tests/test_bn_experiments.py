"""The BN paper's experiments: their arms and recipes, their judges on made-up results.

    RENEW_GOLDEN=1 python -m pytest tests/test_bn_experiments.py -k golden

writes their golden texts anew; read the diff before you commit it.
"""

import os
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments import bn_mnist
from tests.conftest import ROOT
from tests.result_lines import SETTING, line
from vggbn.experiment import build_report, make_plan
from vggbn.results import Results
from vggbn.run_experiment import listing

GOLDEN = ROOT / "tests" / "golden"
RENEW = "RENEW_GOLDEN=1 python -m pytest tests/test_bn_experiments.py -k golden"
NAMES = ("mnist",)
SIZES = ("small", "full")


@cache
def plan(name, size="full"):
    experiment = import_module(f"experiments.bn_{name}").EXPERIMENT
    return make_plan(experiment, size, out=Path("out"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_the_listing_is_the_golden_text(name, size):
    path, text = GOLDEN / f"bn_{name}_{size}.txt", listing(plan(name, size)) + "\n"
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.exists() and text == path.read_text(encoding="utf-8"), (
        f"the resolved recipes are no longer those of {path.name}. If you mean it:\n{RENEW}"
    )


def judged(name, lines, claim):
    """(Judgement of the claim on these lines of the full size)."""
    found = plan(name)
    (judge,) = [c for c in found.experiment.claims if c.id == claim]
    return judge.judged(Results(lines, found.ids(), SETTING))


# --- bn_mnist: Figure 1 --------------------------------------------------------------------------


def test_the_net_of_figure_1_is_the_paper_s():
    base = plan("mnist").base
    assert (base.model, base.hidden, base.fc, base.activation) == ("mlp", 3, 100, "sigmoid")
    assert (base.batch, base.steps, base.pixels, base.image_size) == (60, 50_000, "binary", 28)
    assert base.data == bn_mnist.PRIMARY and len(plan("mnist").seeds) >= 5


def figure_1(gaps, seeds=5, variation=(4.0, 1.0)):
    """Lines of all arms: bn ahead of plain by `gaps` (early, end) points; the inputs of plain and
    bn wander by `variation` altogether."""
    found, arms = [], plan("mnist").variants
    for name, recipe in arms.items():
        bn = name.startswith("bn")
        for seed in range(seeds):
            noise = 0.0005 * seed
            early, end = (0.8 + noise + (gap / 100 + noise / 9 if bn else 0) for gap in gaps)
            steps = [1000, 10_000, 50_000]
            moved = variation[bn] * (1 + 0.01 * seed)
            middle = [0.0, moved / 2, 0.0]  # there and back
            history = [
                {
                    "step": step,
                    "lr": recipe.lr,
                    "train_loss": 1.0,
                    "train_accuracy": 0.9,
                    "val_loss": 1.0,
                    "val_accuracy": value,
                    "inputs": [[m - 1 - m / 2] * 4, [m] * 4, [m + 1 + m / 2] * 4],
                }
                for step, value, m in zip(steps, (0.5, early, end), middle, strict=True)
            ]
            mine = {"id": recipe.id, "recipe": asdict(recipe), "history": history}
            found.append(line(name, seed, test=end, **mine))
    return found


@pytest.mark.parametrize(
    "gaps, verdict",
    [
        ((5, 2), "reproduced"),
        ((5, 0.1), "no effect"),
        ((5, -2), "contradicted"),
        ((-3, 2), "contradicted"),
    ],
)
def test_bn_13_wants_bn_ahead_early_and_at_the_end(gaps, verdict):
    found = judged("mnist", figure_1(gaps), "BN-13")
    assert found.verdict == verdict and found.n == 5 and found.unit == "points"


def test_bn_13_at_one_rate_only_is_called_partly():
    lines = figure_1((5, 2))
    assert "partly" not in judged("mnist", lines, "BN-13").detail
    if "bn tuned" in plan("mnist").variants:
        for made in lines:
            if made["variant"] == "bn tuned":
                made["final"]["test_accuracy"] -= 0.05
        found = judged("mnist", lines, "BN-13")
        assert found.verdict == "contradicted" and found.detail.startswith("partly")


def test_a_fifth_of_the_budget_lies_between_two_evaluations():
    made = figure_1((5, 2))
    for one in made:
        one["history"][1] |= {"step": 6_000, "val_accuracy": 0.6}
    results = Results(made, plan("mnist").ids(), SETTING)
    expected = 0.6 + (10_000 - 6_000) / (50_000 - 6_000) * (0.8 - 0.6)
    assert bn_mnist.early(results, "plain", 0) == pytest.approx(expected)


@pytest.mark.parametrize(
    "moved, verdict, ratio",
    [((4, 1), "reproduced", 0.25), ((1, 4), "contradicted", 4.0)],
)
def test_bn_14_compares_total_variations(moved, verdict, ratio):
    found = judged("mnist", figure_1((5, 2), variation=moved), "BN-14")
    assert (found.verdict, found.unit) == (verdict, "ratio")
    assert found.effect == pytest.approx(ratio, rel=1e-6)


def test_total_variation_is_the_length_of_the_way():
    results = Results(figure_1((5, 2), variation=(6, 1)), plan("mnist").ids(), SETTING)
    found = bn_mnist.variation(results, "plain", 0)
    np.testing.assert_allclose(found["median"], [6] * 4)
    np.testing.assert_allclose(found["spread"], [6] * 4)  # 2 + m: 2, 5, 2
    np.testing.assert_allclose(found["spread relative"], [3] * 4)


def test_figure_1_has_the_paper_s_panels():
    report = build_report(plan("mnist"), Results(figure_1((5, 2)), plan("mnist").ids(), SETTING))
    assert [title[:3] for title in report.charts] == ["(a)", "(b)", "(c)", "all"]
    for title in list(report.charts)[1:3]:
        assert list(report.charts[title].series) == ["15th percentile", "median", "85th percentile"]
    units = report.charts["all units, the least moved first"].series["plain"]
    assert list(units) == [1, 2, 3, 4] and all(len(values) == 5 for values in units.values())
