"""Mistakes of judges, claims, tables and charts are found before anything is trained."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments.bn_mnist import EXPERIMENT
from tests.conftest import ROOT
from vggbn.claims.results import MissingRuns
from vggbn.claims.stats import Interval
from vggbn.commands import experiment as runner
from vggbn.data.readers import embedded_names
from vggbn.errors import UserError
from vggbn.evaluate.watch import WATCHES
from vggbn.experiment.design import Claim, Verdict
from vggbn.experiment.plan import make_plan, size_names
from vggbn.experiment.rehearsal import WATCHED, make_up, refuse_mistakes
from vggbn.runs.run import Store, train_run
from vggbn.training.recipe import Recipe

OURS = [
    found
    for path in sorted((ROOT / "experiments").glob("[a-z]*.py"))
    if hasattr(found := import_module(f"experiments.{path.stem}").EXPERIMENT, "sizes")
]
INTERVAL = Interval(1.0, 0.5, 1.5, 3)


def plan_with(judge=None, **edits):
    if judge is not None:
        edits["claims"] = (Claim(id="X-1", sentence="s", criterion="c", judge=judge),)
    return make_plan(replace(EXPERIMENT, **edits), "smoke", out=Path("out"))


@pytest.mark.parametrize("experiment", OURS, ids=lambda experiment: experiment.name)
def test_our_own_pass_at_every_size_and_the_largest_judges_all(experiment):
    for size in size_names(experiment):
        plan = make_plan(experiment, size, out=Path("out"))
        refuse_mistakes(plan)
        if size == "full":
            results = make_up(plan)
            judged = [claim.judged(results, plan.baseline) for claim in experiment.claims]
            assert not [j.claim for j in judged if j.detail.startswith("not judged")]


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (lambda results: None, ["X-1", "bn_mnist", "returns None", "Verdict("]),
        (lambda results: ("reproduced", INTERVAL, "points", ""), ["returns ('reproduced'"]),
        (lambda results: Verdict("proven", INTERVAL, "points"), ["'proven'", "no effect"]),
        (lambda results: Verdict("reproduced", 1.5, "points"), ["1.5", "paired_interval"]),  # type: ignore
        (lambda results: mistyped, ["X-1", "NameError", "mistyped", "test_rehearsal.py, line"]),  # noqa: F821  # type: ignore
        (lambda results: results.finel("bn"), ["X-1", "AttributeError", "finel"]),
        (lambda results: results.final("bn")[7], ["X-1", "KeyError"]),
        (lambda results: results.final("bn", "tset_accuracy"), ["X-1", "tset_accuracy"]),
    ],
)
def test_a_mistake_of_a_judge_is_one_sentence_that_names_the_claim(judge, words):
    with pytest.raises(UserError) as refusal:
        refuse_mistakes(plan_with(judge))
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def missing(results):
    raise MissingRuns("needs runs of another")


def test_missing_runs_and_unsuitable_numbers_are_no_mistakes():
    for judge in (missing, lambda r: 1 / 0, lambda r: np.linalg.inv(np.zeros((2, 2)))):
        refuse_mistakes(plan_with(judge))


def test_claims_of_one_name_tables_and_charts_are_looked_at():
    same = Claim(id="X-1", sentence="s", criterion="c", judge=missing)
    for edits, word in (
        ({"claims": (same, same)}, "two claims X-1"),
        ({"tables": lambda results: results.nothing}, "tables of bn_mnist"),
        ({"charts": lambda results: results.nothing}, "charts of bn_mnist"),
    ):
        with pytest.raises(UserError, match=word):
            refuse_mistakes(plan_with(**edits))


@pytest.mark.parametrize("fields", [{}, {"judge": missing, "not_tested": "Nobody can."}])
def test_a_claim_names_a_judge_or_why_it_has_none(fields):
    claim = Claim(id="X-1", sentence="s", **fields)
    with pytest.raises(UserError, match="X-1 of bn_mnist: name either a judge, or in not_tested"):
        refuse_mistakes(plan_with(claims=(claim,)))
    refuse_mistakes(plan_with(claims=(Claim(id="X-1", sentence="s", not_tested="Nobody can."),)))


def test_the_runner_looks_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "train_missing", lambda *_: pytest.fail("a net was trained"))
    claim = Claim(id="X-1", sentence="s", criterion="c", judge=lambda results: None)  # type: ignore
    broken = replace(EXPERIMENT, claims=(claim,))
    with pytest.raises(UserError, match="X-1"):
        runner.run(broken, ["--size", "smoke", "--data", "digits", "--out", str(tmp_path)])


def keys(record: dict) -> dict:
    """The keys of a record, two deep."""
    return {k: set(v) if isinstance(v, dict) else None for k, v in record.items()}


def test_made_up_lines_have_what_real_ones_have(tmp_path):
    assert WATCHED.keys() == WATCHES.keys() - {"none"}
    assert "digits" in embedded_names()
    recipe = Recipe(
        data="digits", image_size=8, model="mlp", fc=8, steps=4, batch=16, watch="weights"
    )
    real = train_run(recipe, 0, Store(tmp_path))
    experiment = replace(EXPERIMENT, base=recipe, variants=lambda base, size: {"a": base})
    plan = make_plan(experiment, "smoke", out=tmp_path)._replace(variants={"a": recipe})
    (line, *_) = make_up(plan).lines()
    for name, inside in keys(real).items():
        if name in ("setting", "versions"):  # a machine's own
            continue
        assert name in line, name
        assert not inside or inside <= keys(line)[name], name
    assert set(real["history"][-1]) == set(line["history"][-1])
    assert set(real["history"][-1]["weights"]["fc1"]) == set(line["history"][-1]["weights"]["fc1"])
