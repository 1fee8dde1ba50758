"""Small forms: which arms are trained, what a reference must be, and where new seeds lie."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import t

from tests.support.result_lines import SETTING, line
from vggbn.errors import UserError
from vggbn.experiment import verified
from vggbn.experiment.design import Claim, Effect, Experiment, Size
from vggbn.experiment.gate import FOR_ANY_NET, TRAINED_NETS
from vggbn.experiment.judges import gap
from vggbn.experiment.ledger import experiments
from vggbn.experiment.plan import FRESH, make_plan
from vggbn.experiment.rehearsal import make_up
from vggbn.experiment.small_form import (
    FEWEST,
    FIRST,
    Comparison,
    compare,
    read_reference,
    small_form,
)
from vggbn.experiment.views import view
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe

VERIFIABLE = {
    claim.id: (claim, each)
    for each in experiments()
    if isinstance(each, Experiment)
    for claim in each.claims
    if claim.effects
}


# --- those that there are ------------------------------------------------------------------------


def test_claims_can_be_verified():
    assert {"BN-15", "BN-16"} <= VERIFIABLE.keys()


@pytest.mark.parametrize("claim", VERIFIABLE)
def test_its_reference_is_committed_and_says_how_seeds_differ(claim):
    form = small_form(*VERIFIABLE[claim])
    reference = read_reference(form)
    assert all(FIRST <= line["seed"] < FRESH for line in reference.lines())
    effects = form.effects(reference)
    for part in compare(effects, effects):
        assert part.n >= FEWEST == 10 and part.inside and part.found == pytest.approx(part.expected)


@pytest.mark.parametrize("claim", VERIFIABLE)
def test_a_seed_s_numbers_are_those_that_its_judge_takes(claim):
    found, experiment = VERIFIABLE[claim]
    results = make_up(make_plan(experiment, "small", out=Path("out")))
    assert found.judge and found.effects
    judged, effects = found.judge(results), found.effects(results)
    means = []
    for effect in effects:
        assert list(effect.by_seed) == [0, 1, 2] == results.seeds(*results.variants[:1])
        mean = sum(effect.values) / len(effect.values)
        means.append(math.exp(mean) if effect.unit == "ratio" else mean)
        assert effect.unit in ("seeds", judged.unit)
    if effects[0].unit != "seeds":
        assert any(judged.interval.mean == pytest.approx(mean) for mean in means)


@pytest.mark.parametrize("claim", VERIFIABLE)
def test_it_trains_in_minutes_whatever_the_machine(claim):
    """The images of three new seeds of its arms, against those of two cold ablations."""
    form = small_form(*VERIFIABLE[claim])
    ablation = make_plan(VERIFIABLE["BN-15"][1], "small", out=Path("out"))
    images = 3 * sum(form.plan.variants[arm].steps * form.plan.base.batch for arm in form.arms)
    bar = len(ablation.seeds) * sum(r.steps * r.batch for r in ablation.variants.values())
    assert images < bar / 2


# --- one of our own ------------------------------------------------------------------------------


def effects_of(better, worse):
    def effects(results) -> list[Effect]:
        gaps = zip(results.seeds(better, worse), gap(results, better, worse), strict=True)
        return [Effect("gap", dict(gaps))]

    return effects


CLAIM = Claim(id="X-1", sentence="s", effects=effects_of("bn", "plain"), gate=FOR_ANY_NET)
OF = Experiment(
    name="short",
    title="Short",
    question="Is this enough?",
    base=Recipe(data="digits", image_size=8, model="mlp"),
    variants=lambda base, size: {
        "first": base.but(lr=0.5),
        "plain": base,
        "bn": base.but(norm="batch"),
        "other": base.but(lr=0.25),
    },
    sizes={"small": Size(seeds=2)},
    claims=(CLAIM,),
)


def write(form, *, seeds=range(FIRST, FIRST + FEWEST), arms=None, tests=None, code=None, **edits):
    """A reference of made-up lines; tests: {arm: accuracies by seed}."""
    lines = []
    for arm, recipe in form.plan.variants.items():
        if arms and arm not in arms:
            continue
        setting = SETTING | {"code": code or runs.code(recipe)}
        values = (tests or {}).get(arm, [0.9 + 0.001 * (s % 7) for s in range(len(seeds))])
        lines += [
            line(arm, seed, test=value, id=recipe.id, setting=setting, **edits)
            for seed, value in zip(seeds, values, strict=True)
        ]
    form.reference_path.parent.mkdir(parents=True, exist_ok=True)
    form.reference_path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_the_views_of_its_nets_are_left_out(tmp_path):
    of = replace(OF, views=lambda variants: {"whole bn": view("bn", 8)})
    form = small_form(CLAIM, of, tmp_path)
    wanted = form.plan.of_lines([], SETTING).missing([0])
    assert wanted == [(arm, 0) for arm in form.plan.variants]
    asks = replace(CLAIM, effects=effects_of("whole bn", "plain"))
    with pytest.raises(AssertionError, match="X-1 asks for views"):
        small_form(asks, of, tmp_path)


@pytest.fixture
def form(tmp_path):
    return small_form(CLAIM, OF, tmp_path)


def test_only_the_arms_that_its_effects_ask_for_are_trained_and_the_baseline_for_the_gate(form):
    assert form.arms == ("plain", "bn")
    assert list(form.plan.variants) == ["first", "plain", "bn"] and form.plan.baseline == "first"
    assert form.ids() == {arm: form.plan.variants[arm].id for arm in ("plain", "bn")}


def test_a_claim_without_one_says_so():
    without = replace(CLAIM, effects=None)
    with pytest.raises(UserError, match=r"X-1 has no small form .* experiments.short --size full"):
        small_form(without, OF)
    lost = replace(without, not_tested="the protocol cannot.")
    with pytest.raises(UserError, match="X-1 is not tested: the protocol cannot"):
        small_form(lost, OF)


def test_a_reference_is_read(form):
    write(form)
    assert len(form.effects(read_reference(form))[0].values) == 10


@pytest.mark.parametrize(
    ("has", "words"),
    [
        ({"seeds": range(1_000, 1_009)}, "has 9 of 10 seeds: `python -m vggbn verify X-1 --ref"),
        ({"arms": ["plain"]}, "has 0 of 10 seeds"),
        ({"code": "0123456789ab"}, "has 0 of 10 seeds, and 30 lines are of other code"),
    ],
)
def test_a_reference_that_is_not_whole_is_said(form, has, words):
    with pytest.raises(UserError, match="the reference of X-1 has 0 of 10 seeds"):
        read_reference(form)
    write(form, **has)
    with pytest.raises(UserError, match=words):
        read_reference(form)


def test_a_reference_that_decides_nothing_cannot_be_verified(tmp_path):
    strict = replace(CLAIM, gate=TRAINED_NETS)
    form = small_form(strict, OF, tmp_path)
    write(form)
    read_reference(form)
    rising = [
        {"step": step, "lr": 0.1, "val_accuracy": value, "train_accuracy": 0.9}
        for step, value in ((10, 0.5), (900, 0.6), (1000, 0.9))
    ]
    write(form, history=rising)
    with pytest.raises(UserError, match=r"X-1 cannot be verified, .*: first still gains"):
        read_reference(form)


# --- where new seeds lie -------------------------------------------------------------------------

VALUES = (1.0, 2.5, 0.5, 3.0, 1.5, 2.0, 0.0, 1.0, 2.0, 1.5)


def effect(values, unit="points", name="a"):
    return Effect(name, dict(enumerate(values)), unit)


@pytest.mark.parametrize("unit", ["points", "ratio", "share of layers"])
@pytest.mark.parametrize(("by", "inside"), [(0, True), (0.99, True), (-0.99, True), (1.01, False)])
def test_new_seeds_are_inside_as_far_as_student_s_interval_reaches(unit, by, inside):
    spread = (sum((v - 1.5) ** 2 for v in VALUES) / 9) ** 0.5
    half = t.ppf(0.975, 9) * spread * (1 / 10 + 1 / 2) ** 0.5
    new = [1.5 + by * half + 0.1, 1.5 + by * half - 0.1]
    (found,) = compare([effect(VALUES, unit)], [effect(new, unit)])
    assert (found.inside, found.n, found.level) == (inside, 10, 0.95)
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_parts_share_the_error():
    two = compare([effect(VALUES)] * 2, [effect([1.0])] * 2)
    assert [part.level for part in two] == [0.975] * 2
    half = (two[0].high - two[0].low) / 2
    (alone,) = compare([effect(VALUES)], [effect([1.0])])
    assert half / ((alone.high - alone.low) / 2) == pytest.approx(
        t.ppf(0.9875, 9) / t.ppf(0.975, 9)
    )
    with pytest.raises(ValueError):
        compare([effect(VALUES)] * 2, [effect([1.0])])


@pytest.mark.parametrize(("shown", "inside"), [(3, True), (2, True), (1, False), (0, False)])
def test_seeds_that_show_it_are_counted(shown, inside):
    new = effect([True] * shown + [False] * (3 - shown), "seeds")
    (found,) = compare([effect([True] * 10, "seeds")], [new])
    assert found == Comparison("a", "seeds", 10, 10, 2, 3, 0.95, shown, new.values)
    assert found.inside == inside


# --- what is kept of them ------------------------------------------------------------------------


def test_seeds_of_verify_enter_no_verdict(tmp_path):
    plan = make_plan(OF, "small", out=tmp_path)
    plan.folder.mkdir(parents=True)
    setting = SETTING | {"code": runs.code(plan.base)}
    seeds = (0, FRESH, FRESH + 1, 999_999_999)
    lines = [line("plain", seed, id=plan.base.id, setting=setting) for seed in seeds]
    plan.results_path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert plan.found(SETTING).seeds("plain") == [0, FRESH]
    assert plan.of_lines(lines, SETTING).seeds("plain") == list(seeds)


def test_checks_are_counted_by_claim_where_their_recipes_are_today_s(tmp_path):
    path = tmp_path / "results" / "verified.jsonl"
    assert verified.read(path) == [] and verified.tallies([]) == {}
    ids = {name: small_form(*VERIFIABLE[name]).ids() for name in ("BN-15", "BN-16")}
    for name, inside, of in (
        ("BN-15", True, ids["BN-15"]),
        ("BN-15", False, ids["BN-15"]),
        ("BN-15", False, ids["BN-15"] | {"bn": "of another recipe"}),
        ("BN-16", True, ids["BN-16"]),
        ("BN-22", True, ids["BN-15"]),  # which has no small form any more
    ):
        one = {"claim": name, "experiment": "bn_ablation", "ids": of, "inside": inside}
        verified.append(one, path)
    assert verified.tallies(verified.read(path)) == {"BN-15": "1 of 2", "BN-16": "1 of 1"}


@pytest.mark.parametrize("text", ["{", "[]", '{"claim": "BN-15"}'])
def test_a_damaged_line_of_them_is_named(text, tmp_path):
    path = tmp_path / "verified.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=r"verified.jsonl, line 1, is damaged"):
        verified.read(path)
