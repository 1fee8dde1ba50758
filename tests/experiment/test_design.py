"""What an experiment need not say, and what it must say by name."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.result_lines import SETTING, line
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Interval
from vggbn.errors import UserError
from vggbn.experiment.design import Claim, Experiment, Size, Tuned, Verdict
from vggbn.experiment.gate import FOR_ANY_NET
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


def test_an_edit_that_every_chosen_arm_sets_anew_is_refused():
    edits = {"norm": "layer"}
    with pytest.raises(UserError, match="norm=layer changes nothing of what would be trained: bn"):
        make_plan(SHORT, "small", out=Path("out"), only=["bn"], edits=edits)
    assert make_plan(SHORT, "small", out=Path("out"), edits=edits).variants["plain"].norm == "layer"
    as_it_is = {"norm": "none"}
    make_plan(SHORT, "small", out=Path("out"), only=["bn"], edits=as_it_is)


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
    row = claim.judged(Results([], {}, SETTING), "plain")
    assert (row.verdict, row.n) == ("inconclusive", 0)
    assert row.detail == "not judged: needs runs of another arm"


def test_a_verdict_is_read_by_name():
    interval = Interval(1.0, 0.5, 1.5, 3, 0.9)
    found = Verdict("reproduced", interval, "points")
    claim = Claim(id="X", sentence="s", judge=lambda results: found, gate=FOR_ANY_NET)
    row = claim.judged(Results([], {}, SETTING), "plain")
    assert (row.verdict, row.n, row.effect, row.unit, row.detail) == (
        "reproduced", 3, 1.0, "points", "",
    )  # fmt: skip
    assert (row.level, row.is_primary) == (0.9, False) and math.isnan(row.p)
    of_a_test = replace(claim, judge=lambda results: found._replace(p=0.01), is_primary=True)
    row = of_a_test.judged(Results([], {}, SETTING), "plain")
    assert (row.p, row.is_primary) == (0.01, True)


def test_what_a_protocol_cannot_decide_has_a_sentence_and_no_judge():
    claim = Claim(id="X", sentence="s", not_tested="no arm of it trains.")
    row = claim.judged(Results([line()], {"base": "id of base"}, SETTING), "base")
    assert (row.verdict, row.n, row.detail) == ("not tested", 0, "no arm of it trains.")


def test_a_refusal_of_the_gate_keeps_what_the_judge_found():
    """The numbers are shown, and decide nothing."""
    found = Verdict("reproduced", Interval(1.0, 0.5, 1.5, 5), "points", "bn less plain")
    claim = Claim(id="X", sentence="s", judge=lambda results: found)
    row = claim.judged(Results([], {}, SETTING), "plain")
    assert (row.verdict, row.n, row.effect) == ("not tested", 5, 1.0)
    assert row.detail == "plain has no learning curve that shows its end; bn less plain"


def test_a_judge_sees_the_seeds_of_the_last_look():
    seen = []

    def judge(results):
        seen.append(results.seeds("base"))
        raise MissingRuns("enough")

    results = Results([line(seed=seed) for seed in range(7)], {"base": "id of base"}, SETTING)
    Claim(id="X", sentence="s", judge=judge).judged(results, "base")
    assert seen == [[0, 1, 2, 3, 4]] and len(results.seeds("base")) == 7
