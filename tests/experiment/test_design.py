"""What an experiment need not say, and what it must say by name."""

from pathlib import Path

import pytest

from tests.support.result_lines import SETTING
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Interval
from vggbn.errors import UserError
from vggbn.experiment.design import Claim, Experiment, Size, Tuned, Verdict
from vggbn.experiment.plan import make_plan
from vggbn.experiment.rehearsal import make_up
from vggbn.experiment.summary import build_report
from vggbn.experiment.sweep import run_sweep
from vggbn.jobs import pool
from vggbn.training.recipe import Recipe

SHORT = Experiment(
    name="short",
    title="Short",
    question="Is this enough?",
    base=Recipe(data="digits", image_size=8, model="mlp"),
    variants=lambda base, size: {"plain": base, "bn": base.but(norm="batch")},
    sizes={
        "small": Size(seeds=2),
        "large": Size(seeds=2, edits={"steps": 7}, tuned=Tuned({"lr": 0.5}, {"bn": {"lr": 2.0}})),
    },
)


def test_the_first_variant_is_the_baseline_also_where_it_is_not_run():
    assert make_plan(SHORT, "small", out=Path("out")).baseline == "plain"
    assert make_plan(SHORT, "small", out=Path("out"), only=["bn"]).baseline == "plain"


def test_a_report_of_a_short_experiment_has_one_panel_and_says_that_nobody_searched():
    plan = make_plan(SHORT, "small", out=Path("out"))
    report = build_report(plan, make_up(plan))
    assert report.panels == {"all arms": ["plain", "bn"]} and report.judgements == []
    assert any("none were searched" in note for note in report.notes)
    with pytest.raises(UserError, match="short has no rates to search"):
        run_sweep(plan, None, pool.local(1))  # type: ignore


def test_what_a_sweep_chose_is_the_baseline_s_and_the_size_is_handed_to_the_variants():
    seen = []

    def variants(base, size):
        seen.append(size)
        return {"plain": base, "bn": base.but(norm="batch", **size.tuned.arms["bn"])}

    of = Experiment(**{**vars(SHORT), "variants": variants})
    plan = make_plan(of, "large", out=Path("out"))
    assert seen == [SHORT.sizes["large"]] and plan.size_name == "large" and plan.size is seen[0]
    assert (plan.base.lr, plan.base.steps, plan.variants["bn"].lr) == (0.5, 7, 2.0)


def judge_missing(results):
    raise MissingRuns("needs runs of another arm")


def test_a_claim_is_said_by_name():
    with pytest.raises(TypeError):
        Claim("X-1", "a sentence", "a criterion", judge_missing)  # type: ignore
    claim = Claim(id="X-1", sentence="a sentence", criterion="c", judge=judge_missing)
    row = claim.judged(Results([], {}, SETTING))
    assert (row.verdict, row.n) == ("inconclusive", 0)
    assert row.detail == "not judged: needs runs of another arm"


def test_a_verdict_is_read_by_name():
    interval = Interval(1.0, 0.5, 1.5, 3)
    found = Verdict("reproduced", interval, "points")
    row = Claim(id="X", sentence="s", criterion="c", judge=lambda results: found).judged(
        Results([], {}, SETTING)
    )
    assert (row.verdict, row.n, row.effect, row.unit, row.detail) == (
        "reproduced", 3, 1.0, "points", "",
    )  # fmt: skip
