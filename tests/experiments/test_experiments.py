"""What holds for every experiment: its resolved recipes, its claims without results, its report.

    RENEW_GOLDEN=1 python -m pytest tests/experiments/test_experiments.py -k golden

writes the golden texts anew; read the diff before you commit it.
"""

from dataclasses import astuple
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.golden import FOLDER, assert_golden
from tests.support.markdown import markdown_of
from tests.support.result_lines import SETTING
from vggbn.claims.results import NotTested, Results
from vggbn.commands.experiment import listing
from vggbn.experiment.design import Claim, Experiment
from vggbn.experiment.plan import Plan, make_plan
from vggbn.experiment.rehearsal import make_up
from vggbn.experiment.summary import build_report
from vggbn.forecast import compiled as sharded
from vggbn.runs.many import compile_key
from vggbn.training.recipe import Recipe, field_values, static

vgg = import_module("vggbn.models.vgg")  # beside it stands a function of that name
THIS = "tests/experiments/test_experiments.py"
FOUND = [import_module(f"experiments.{p.stem}") for p in sorted(ROOT.glob("experiments/[a-z]*.py"))]
EXPERIMENTS = {
    found.EXPERIMENT.name: found.EXPERIMENT
    for found in FOUND
    if isinstance(found.EXPERIMENT, Experiment)  # the others train nothing
}
CLAIMS = {claim.id: name for name, found in EXPERIMENTS.items() for claim in found.claims}
JUDGED = [claim.id for found in EXPERIMENTS.values() for claim in found.claims if claim.judge]
# Of the smoke size no golden text is kept: it publishes nothing.
PUBLISHED = [
    f"{name} {size}" for name, e in EXPERIMENTS.items() for size in e.sizes if size != "smoke"
]


@cache
def plan(name: str, size: str = "full") -> Plan:
    """size: also one that is made for a data set, as full-cifar10."""
    of_all, _, data = size.partition("-")
    return make_plan(EXPERIMENTS[name], of_all, out=Path("out"), data=data or None)


# --- the recipes ---------------------------------------------------------------------------------


def fields(recipe: Recipe) -> list[str]:
    """As `listing` shows them."""
    return [f"  {name:22s} {value}" for name, value in field_values(recipe).items()]


def resolved(its: Plan) -> str:
    """Its listing without what `Recipe()` has as well, and its views."""
    common = set(fields(Recipe()))
    rows = [row for row in listing(its).splitlines() if row not in common]
    if its.views:
        rows += ["", "views:", *(f"  {view}" for view in its.views)]
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("which", PUBLISHED)
def test_the_listing_is_the_golden_text(which):
    name, size = which.split()
    text = resolved(plan(name, size))
    assert_golden(f"{name}_{size.replace('-', '_')}", text, f"{THIS} -k golden")


def test_the_defaults_are_the_golden_text():
    """Those that no text above shows."""
    assert_golden("recipe", "\n".join(fields(Recipe())) + "\n", f"{THIS} -k golden")


def test_every_golden_text_is_of_an_experiment_that_there_is():
    names = {which.replace(" ", "_").replace("-", "_") for which in PUBLISHED} | {"recipe"}
    assert {path.stem for path in FOLDER.glob("*.txt")} == names


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_panels_show_arms_that_there_are(name):
    its = EXPERIMENTS[name]
    there = {arm for size in its.sizes for arm in plan(name, size).ids()}
    assert {arm for arms in its.panels.values() for arm in arms} <= there


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_verdicts_that_are_published_have_five_seeds(name):
    assert len(plan(name).seeds) >= 5 and set(EXPERIMENTS[name].sizes) >= {"smoke", "small", "full"}


def programs() -> dict:
    """{what a step is made of: (an arm that needs it, its recipe)} of all experiments in full.

    Nets that differ in numbers alone are one.
    """
    found = {}
    for name in EXPERIMENTS:
        for arm, recipe in plan(name).variants.items():
            fixed = compile_key(recipe)
            parts = (*fixed, *astuple(fixed.net))
            key = tuple(part for part in parts if isinstance(part, str | bool))
            found.setdefault(key, (f"{name}: {arm}", recipe))
    return found


@pytest.fixture
def shallow(monkeypatch):
    """Nets of two blocks of convolutions: what an arm switches on and off is in each."""
    whole = vgg.vgg_blocks
    monkeypatch.setattr(vgg, "vgg_blocks", lambda config, net: whole(config, net)[:2])


@pytest.mark.parametrize(
    "arm, recipe", programs().values(), ids=[a for a, _ in programs().values()]
)
def test_the_training_step_of_every_arm_can_be_lowered(shallow, arm, recipe):
    size = recipe.image_size
    sharded.lower_step(recipe, static(recipe, image=(size, size, 3), classes=10, flip=True))


# --- without results -----------------------------------------------------------------------------


def its(claim: str) -> Claim:
    (found,) = [each for each in EXPERIMENTS[CLAIMS[claim]].claims if each.id == claim]
    return found


def plan_that_tests(claim: str) -> Plan:
    """The size that can decide it: full, or another."""
    name = CLAIMS[claim]
    for size in ("full", *EXPERIMENTS[name].sizes):
        try:
            its(claim).judge(make_up(plan(name, size)).for_verdict())
        except NotTested:
            continue
        return plan(name, size)
    raise AssertionError(f"no size of {name} can decide {claim}: withdraw it")


@pytest.mark.parametrize("claim", JUDGED)
def test_without_runs_nothing_is_judged(claim):
    of = plan_that_tests(claim)
    nothing = Results([], of.ids(), SETTING, target=of.size.target)
    judgement = its(claim).judged(nothing, of.baseline)
    assert (judgement.verdict, judgement.n) == ("inconclusive", 0)
    assert judgement.detail.startswith("not judged: ")


@pytest.mark.parametrize("claim", sorted(CLAIMS.keys() - JUDGED))
def test_a_withdrawn_claim_has_no_judge_and_says_why_whatever_the_runs(claim):
    of, withdrawn = plan(CLAIMS[claim]), its(claim)
    for results in (Results([], of.ids(), SETTING), make_up(of)):
        row = withdrawn.judged(results, of.baseline)
        assert (row.verdict, row.n, row.detail) == ("not tested", 0, withdrawn.not_tested)
    assert withdrawn.not_tested.endswith(".") and not withdrawn.criterion


def test_these_are_withdrawn():
    assert CLAIMS.keys() - JUDGED == {
        "BN-18", "BN-25 decay", "BN-25 distortion",
        "V-3", "V-3 saturation", "V-4", "V-6", "V-10 scales", "V-10 distance",
        "V-14 two", "V-14 seven",
    }  # fmt: skip


def test_there_are_twelve_primary_claims_at_most():
    assert 1 < sum(its(claim).is_primary for claim in CLAIMS) <= 12


@pytest.mark.parametrize("claim", [claim for claim in JUDGED if its(claim).gate.trained])
def test_one_net_that_did_not_train_decides_nothing(claim):
    """Of each arm that the judge asks for, by a rate of 1e30 or in a view at chance."""
    of = plan_that_tests(claim)
    seen = make_up(of).for_verdict()
    its(claim).judge(seen)
    assert seen.asked
    for arm in seen.asked:
        results = make_up(of)
        line = results.runs[arm][1]
        if "view" in line:
            line["final"]["test_accuracy"] = 0.1
        else:
            line |= {"status": "diverged at step 1", "diverged_at": 1}
            line["recipe"]["lr"] = 1e30
        row = its(claim).judged(results, of.baseline)
        own_reason = row.n == 0  # the judge itself refused
        assert row.verdict == "not tested"
        assert own_reason or row.detail.startswith(f"untrained: {arm}; ")


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("alone", [False, True])
def test_a_report_of_nothing_says_so(name, alone):
    """alone: a user has asked for one arm only."""
    of = plan(name)
    if alone:
        of = make_plan(of.experiment, of.size_name, out=Path("out"), only=[next(iter(of.variants))])
    report = build_report(of, Results([], of.ids(), SETTING))
    assert len(report.judgements) == len(EXPERIMENTS[name].claims)
    assert {j.verdict for j in report.judgements} <= {"inconclusive", "not tested"}
    assert "0 of" in markdown_of(report)
