"""The first experiment: its arms, its schedules, its judges on made-up results."""

import json
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import jax
import pytest

from experiments.bn_ablation import (
    CHANGES,
    CIFAR10,
    CORE,
    EXPERIMENT,
    FULL,
    JUDGED,
    MARGIN,
    SMALL,
)
from tests.support.result_lines import SETTING, diverged, line
from vggbn.claims.results import Results
from vggbn.claims.stats import VERDICTS
from vggbn.errors import UserError
from vggbn.experiment import sweep
from vggbn.experiment.design import Tuned
from vggbn.experiment.plan import PUBLISHED, make_plan, variant_edits
from vggbn.experiment.summary import build_report
from vggbn.models import MODELS
from vggbn.runs import run as runs
from vggbn.runs.many import compile_key
from vggbn.training import optim
from vggbn.training.recipe import diff
from vggbn.training.step import TRACES, train_step

SIZES = ("small", "full", "full-cifar10")


@cache
def plan(size):
    name, _, data = size.partition("-")
    return make_plan(EXPERIMENT, name, out=Path("out"), data=data or None)


# --- the arms ------------------------------------------------------------------------------------


def test_the_factorial_is_complete():
    edits = ["", *CHANGES, *(f"all-{name}" for name in CHANGES), "all"]
    wanted = {f"{arm}+{edit}".rstrip("+") for arm in ("base", "bn") for edit in edits}
    assert len(CHANGES) == 7 and len(wanted) == 2 * (1 + 7 + 7 + 1)
    assert wanted <= plan("full").variants.keys()


def test_the_core_is_among_the_arms():
    assert len(set(CORE)) == len(CORE) >= 10
    assert set(CORE) <= plan("full").variants.keys()
    for size in ("smoke", "small"):
        assert tuple(plan(size).variants) == CORE


def test_a_size_of_one_data_set_is_no_size_of_its_own():
    with pytest.raises(UserError, match="unknown size 'full-cifar10'"):
        make_plan(EXPERIMENT, "full-cifar10", out=Path("out"))
    assert plan("full").base.data == "mnist5k" and plan("full-cifar10").base.data == "cifar10"


def test_cifar10_gets_the_epochs_that_its_verdicts_need():
    """Arms that a claim reads 15 epochs at width/8 or more, the others 6; the listing says so."""
    found, epoch = plan("full-cifar10"), 45_000
    assert found.base.width >= 1 / 8 and found.base.image_size == 32 and len(found.seeds) >= 5
    assert set(JUDGED) <= found.variants.keys()
    for name, recipe in found.variants.items():
        epochs = recipe.steps * recipe.batch / epoch
        assert 15 <= epochs < 16 if name in JUDGED else 6 <= epochs < 6.1, name
        edits = diff(plan("full").variants[name], recipe)
        assert edits.keys() <= {"data", "fit", "steps", "lr", "lr_every", "init"}, name
    assert {arm for needed in NEEDS.values() for arm in needed} <= set(JUDGED)
    searched = sweep._recipe(found, "BN, He", 0.1, found.size.sweep_steps)
    assert searched.steps * searched.batch / epoch >= 2 and searched.lr == 0.1


def test_the_user_s_steps_win_over_the_size_s_own():
    found = make_plan(EXPERIMENT, "full", out=Path("out"), data="cifar10", edits={"steps": 50})
    assert {recipe.steps for recipe in found.variants.values()} == {50}
    assert sweep._recipe(found, "BN, He", 0.1, found.size.sweep_steps).steps == 50


def test_the_baseline_and_bn_differ_in_bn_only():
    edits = variant_edits(plan("full"))
    assert edits["base"] == {}
    assert edits["bn"] == {"norm": ("none", "batch")}


@pytest.mark.parametrize("arm", ["base", "bn"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_changes_its_field_alone_and_in_one_way(arm, change):
    arms = plan("full").variants
    (field,) = diff(arms[arm], arms[f"{arm}+{change}"])
    value = getattr(arms[f"{arm}+{change}"], field)
    assert diff(arms[f"{arm}+all-{change}"], arms[f"{arm}+all"]) == {field: value}


def test_the_seven_changes_have_the_paper_s_size():
    arms, base = plan("full").variants, plan("full").base
    both = arms["bn+all"]
    assert both.lr == pytest.approx(5 * base.lr)
    assert arms["bn+all+lr_x30"].lr == pytest.approx(30 * base.lr)
    assert (both.dropout, both.model, both.shuffle) == (0, "vgg_a", "fresh")
    assert base.l2 / both.l2 == pytest.approx(5)
    assert base.lr_every / both.lr_every == pytest.approx(6)
    assert base.distortion / both.distortion == pytest.approx(3)


def test_no_two_arms_are_the_same():
    ids = plan("full").ids()
    ids.pop("bn+tuned", None)  # the sweep may have chosen ×5 or ×30
    assert len(set(ids.values())) == len(ids)


@pytest.mark.parametrize("size", SIZES)
def test_every_decaying_schedule_ends_at_most_at_a_tenth(size):
    for name, r in plan(size).variants.items():
        assert (r.schedule == "constant") == name.endswith("constant")
        if r.schedule == "exponential" and plan(size).size.is_core(name):
            last = optim.learning_rate(
                r.schedule, r.steps - 1, lr=r.lr, factor=r.lr_factor, every=r.lr_every
            )
            assert last <= r.lr / 10, f"{name} of {size} ends at {last / r.lr:.3f} of its start"


@pytest.mark.parametrize(("size", "keys"), [("smoke", 4), ("small", 4), ("full", 6)])
def test_arms_of_one_architecture_share_a_compilation(size, keys):
    """{no BN, BN} × {with LRN, without, and in `full` without LRN and with sigmoid}."""
    recipes = plan(size).variants.values()
    assert len({compile_key(recipe) for recipe in recipes}) == keys
    assert len({(r.norm, r.model, r.activation) for r in recipes}) == keys


def test_small_verdicts_have_three_seeds():
    assert len(plan("small").seeds) == 3
    assert plan("small").base.steps >= 1200


TUNED = {"small": ("SMALL", SMALL), "full": ("FULL", FULL), "full-cifar10": ("CIFAR10", CIFAR10)}


@pytest.mark.parametrize("size", TUNED)
def test_the_rates_are_those_the_sweep_chose(size):
    constant, tuned = TUNED[size]
    path = PUBLISHED / "bn_ablation" / plan(size).folder.name / "sweep.json"
    command = f"python -m experiments.bn_ablation --sweep --size {plan(size).size_name}"
    command += f" --data {plan(size).base.data} --out {PUBLISHED.name}"
    if not path.exists() and not (path.parent / "results.jsonl").exists():
        pytest.skip(f"nothing is published of it: run {command}")
    assert path.exists(), f"no record of the sweep at {path}: run {command} and commit it"
    record = json.loads(path.read_text())
    searched = EXPERIMENT.sweep
    (rates,) = {tuple(by_rate) for by_rate in record["accuracy"].values()}
    assert set(rates) <= {f"{rate:g}" for rate in searched.rates}, "the grid may have grown since"
    assert record["accuracy"].keys() == searched.arms.keys()
    cells = [cell for by_rate in record["accuracy"].values() for cell in by_rate.values()]
    found = plan(size).size
    assert {len(cell) for cell in cells} == {found.sweep_seeds or searched.seeds}
    budget = found.sweep_steps or plan(size).base.steps
    assert record["steps"] == budget, "the sweep had another budget"
    last = record
    if found.finalists:
        last = record["finals"]
        assert last["steps"] == plan(size).base.steps
        for arm, by_rate in record["accuracy"].items():
            assert list(last["accuracy"][arm]) == sweep.leading(by_rate, found.finalists)
    best = {arm: sweep.best_rate(by_rate) for arm, by_rate in last["accuracy"].items()}
    assert {arm: tuple(pair) for arm, pair in record["best"].items()} == best
    inits = {searched.arms[arm]["init"]: arm for arm in best if "norm" not in searched.arms[arm]}
    init = max(inits, key=lambda name: best[inits[name]][1])
    (bn_arm,) = (
        arm for arm, edits in searched.arms.items() if edits == {"init": init, "norm": "batch"}
    )
    chosen = Tuned({"init": init, "lr": best[inits[init]][0]}, {"bn": {"lr": best[bn_arm][0]}})
    assert tuned == chosen, f"put what the sweep chose into {constant}"
    edges = {float(rates[0]), float(rates[-1])}
    assert not {tuned.base["lr"], tuned.arms["bn"]["lr"]} & edges, (
        "the best may lie outside of the grid"
    )


# --- the judges ----------------------------------------------------------------------------------

SEEDS = (0, 1, 2)
CLAIMS = {claim.id: claim for claim in EXPERIMENT.claims}
NEEDS = {
    "BN-15": ("base+constant", "bn+constant", "base", "bn"),
    "BN-16": ("base", "base+lr_x5", "base+lr_x30", "bn+lr_x5", "bn+lr_x30"),
    "BN-17": ("base", "bn", "bn+all"),
    "BN-18": ("bn+all", "bn+all+lr_x30"),
    "BN-22": ("bn", "bn+l2_5th"),
    "BN-24": ("bn", "bn+no_lrn"),
    "BN-25 decay": ("bn", "bn+decay_x6", "base", "base+decay_x6"),
    "BN-25 distortion": ("bn", "bn+colour_3rd", "base", "base+colour_3rd"),
}
JITTER = (-0.001, 0.0, 0.001)


def judged(claim, *lines):
    """lines: lists of lines of one arm each."""
    ids = {name: f"id of {name}" for name in plan("full").variants}
    found = Results([one for arm in lines for one in arm], ids, SETTING)
    return CLAIMS[claim].judged(found)


def ends(variant, *tests):
    """An arm whose seeds end with these test accuracies."""
    return [line(variant, seed, test=test) for seed, test in enumerate(tests)]


def near(variant, test):
    return ends(variant, *(test + jitter for jitter in JITTER))


def reaching(variant, *at, top=0.9):
    """An arm whose seeds climb evenly and reach `top` at these steps of 1,000, or never."""
    lines = []
    for seed, step in enumerate(at):
        steps = range(20, 1001, 20)
        values = [min(top, top * s / step) for s in steps]
        history = [{"step": s, "val_accuracy": v} for s, v in zip(steps, values, strict=True)]
        lines.append(line(variant, seed, history=history))
    return lines


def broken(variant):
    return [diverged(variant, seed) for seed in SEEDS]


NEVER = 5000
SLOW, FAST = (600, 620, 610), (200, 210, 205)
DETAIL_15 = (reaching("base", *SLOW), reaching("bn", *FAST))


def pair_15(slow, fast):
    return reaching("base+constant", *slow), reaching("bn+constant", *fast), *DETAIL_15


def arms_16(base_x5=0.9, base_x30=0.9, bn_x5=0.9, bn_x30=0.9):
    finals = {"base+lr_x5": base_x5, "base+lr_x30": base_x30}
    finals |= {"bn+lr_x5": bn_x5, "bn+lr_x30": bn_x30}
    arms = [broken(name) if test is None else near(name, test) for name, test in finals.items()]
    return near("base", 0.9), *arms


def arms_18(early, final):
    """early, final: by seed, what ×30 has more than ×5, fractions of 1."""
    x30 = [
        line("bn+all+lr_x30", seed, test=0.9 + gain, curve=(0.5 + head, 0.5 + head, 0.9, 0.9))
        for seed, (head, gain) in enumerate(zip(early, final, strict=True))
    ]
    x5 = [line("bn+all", seed, test=0.9, curve=(0.5, 0.5, 0.9, 0.9)) for seed in range(len(x30))]
    return x5, x30


def interaction(change, *with_bn):
    """A change that gains nothing without BN, and with it these fractions by seed."""
    n = len(with_bn)
    bn = ends(f"bn+{change}", *(0.9 + gain for gain in with_bn))
    return ends("bn", *[0.9] * n), bn, ends("base", *[0.8] * n), ends(f"base+{change}", *[0.8] * n)


CASES = {
    "15 three times faster": ("BN-15", pair_15(SLOW, FAST), "reproduced"),
    "15 faster, not twice": ("BN-15", pair_15(SLOW, (400, 405, 410)), "inconclusive"),
    "15 noisy": ("BN-15", pair_15((600, 900, 300), (200, 800, 100)), "inconclusive"),
    "15 slower": ("BN-15", pair_15(FAST, SLOW), "contradicted"),
    "15 baseline censored": ("BN-15", pair_15((900, 920, 1010), FAST), "reproduced"),
    "15 bn censored": ("BN-15", pair_15(SLOW, (200, 210, NEVER)), "inconclusive"),
    "15 bn never": ("BN-15", pair_15(SLOW, (NEVER,) * 3), "contradicted"),
    "16 x30 diverges": ("BN-16", arms_16(base_x30=None), "reproduced"),
    "16 x5 at chance": ("BN-16", arms_16(base_x5=0.11), "reproduced"),
    "16 both break": ("BN-16", arms_16(base_x5=None, base_x30=0.1), "reproduced"),
    "16 bn breaks at x30 only": ("BN-16", arms_16(None, None, 0.9, None), "reproduced"),
    "16 nothing breaks": ("BN-16", arms_16(), "contradicted"),
    "16 bn breaks too": ("BN-16", arms_16(base_x30=None, bn_x30=None), "inconclusive"),
    "16 only bn breaks": ("BN-16", arms_16(bn_x30=0.1), "inconclusive"),
    "16 one seed survives": (
        "BN-16",
        (*arms_16()[:2], ends("base+lr_x30", 0.1, 0.1, 0.9), *arms_16()[3:]),
        "inconclusive",
    ),
    "17 both faster": (
        "BN-17",
        (reaching("base", *SLOW), reaching("bn", *FAST), reaching("bn+all", 80, 90, 85)),
        "reproduced",
    ),
    "17 no faster than bn": (
        "BN-17",
        (reaching("base", *SLOW), reaching("bn", *FAST), reaching("bn+all", 180, 240, 200)),
        "inconclusive",
    ),
    "17 slower than bn": (
        "BN-17",
        (reaching("base", *SLOW), reaching("bn", *FAST), reaching("bn+all", 300, 310, 320)),
        "contradicted",
    ),
    "17 baseline censored": (
        "BN-17",
        (reaching("base", 600, 620, NEVER), reaching("bn", *FAST), reaching("bn+all", 80, 90, 85)),
        "reproduced",
    ),
    "17 all censored": (
        "BN-17",
        (reaching("base", *SLOW), reaching("bn", *FAST), reaching("bn+all", *[NEVER] * 3)),
        "contradicted",
    ),
    "18 behind, then ahead": ("BN-18", arms_18((-0.1,) * 3, (0.02, 0.021, 0.022)), "reproduced"),
    "18 ahead at once": ("BN-18", arms_18((0.1,) * 3, (0.02,) * 3), "contradicted"),
    "18 behind to the end": ("BN-18", arms_18((-0.1,) * 3, (-0.02,) * 3), "contradicted"),
    "18 noisy": ("BN-18", arms_18((-0.1,) * 3, (0.02, -0.02, 0.01)), "inconclusive"),
    "22 better": ("BN-22", (near("bn", 0.9), ends("bn+l2_5th", 0.92, 0.921, 0.919)), "reproduced"),
    "22 the same": ("BN-22", (near("bn", 0.9), ends("bn+l2_5th", 0.9, 0.901, 0.9)), "no effect"),
    "22 worse": ("BN-22", (near("bn", 0.9), near("bn+l2_5th", 0.87)), "contradicted"),
    "22 noisy": ("BN-22", (near("bn", 0.9), ends("bn+l2_5th", 0.95, 0.85, 0.91)), "inconclusive"),
    "22 one seed": ("BN-22", (ends("bn", 0.9), ends("bn+l2_5th", 0.99)), "inconclusive"),
    "22 a seed diverged": (
        "BN-22",
        (near("bn", 0.9), [*near("bn+l2_5th", 0.9)[:2], diverged("bn+l2_5th", 2)]),
        "inconclusive",
    ),
    "24 the same": ("BN-24", (near("bn", 0.9), ends("bn+no_lrn", 0.9, 0.901, 0.9)), "reproduced"),
    "24 better without": ("BN-24", (near("bn", 0.9), near("bn+no_lrn", 0.93)), "contradicted"),
    "24 worse without": ("BN-24", (near("bn", 0.9), near("bn+no_lrn", 0.87)), "contradicted"),
    "24 noisy": ("BN-24", (near("bn", 0.9), ends("bn+no_lrn", 0.95, 0.85, 0.9)), "inconclusive"),
    **{
        f"25 {name} {case}": (f"BN-25 {name}", interaction(change, *gains), expected)
        for name, change in (("decay", "decay_x6"), ("distortion", "colour_3rd"))
        for case, gains, expected in (
            ("suits bn", (0.02, 0.021, 0.022), "reproduced"),
            ("suits both", (0.0, 0.001, -0.001), "no effect"),
            ("hurts bn", (-0.02, -0.021, -0.022), "contradicted"),
            ("noisy", (0.05, -0.03, 0.01), "inconclusive"),
        )
    },
}


def test_every_claim_has_its_cases():
    assert {claim for claim, _, _ in CASES.values()} == CLAIMS.keys() == NEEDS.keys()
    for claim in CLAIMS:
        found = {expected for name, _, expected in CASES.values() if name == claim}
        assert {"reproduced", "contradicted", "inconclusive"} <= found


@pytest.mark.parametrize("case", CASES)
def test_the_verdict(case):
    claim, arms, expected = CASES[case]
    judgement = judged(claim, *arms)
    assert not judgement.detail.startswith("not judged"), judgement.detail
    assert judgement.verdict == expected, judgement
    assert judgement.n == len(arms[0])
    assert judgement.low <= judgement.effect <= judgement.high


def test_effects_are_in_the_unit_they_are_shown_in():
    faster = judged(*("BN-15", *CASES["15 three times faster"][1]))
    assert faster.unit == "ratio" and 2.7 < faster.effect < 3.2
    assert "decaying rate of the baseline the ratio is 2.88" in faster.detail
    better = judged("BN-22", *CASES["22 better"][1])
    assert better.unit == "points" and better.effect == pytest.approx(2.0)
    gain = judged("BN-25 decay", *CASES["25 decay suits bn"][1])
    assert gain.unit == "points" and gain.effect == pytest.approx(2.1)
    larger = judged("BN-16", *arms_16(base_x5=0.5, base_x30=0.1))
    assert larger.effect == pytest.approx(80, abs=0.5)
    assert "base+lr_x30 3 of 3" in larger.detail and "bn+lr_x30 0 of 3" in larger.detail


@pytest.mark.parametrize(
    ("claim", "missing"), [(claim, arm) for claim, arms in NEEDS.items() for arm in arms]
)
def test_with_an_arm_missing_nothing_is_judged(claim, missing):
    arms = {arm: near(arm, 0.9) for arm in NEEDS[claim]}
    assert judged(claim, *arms.values()).n == 3
    judgement = judged(claim, *(lines for arm, lines in arms.items() if arm != missing))
    assert judgement.n == 0 and judgement.detail.startswith("not judged: ")
    assert missing in judgement.detail


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("how", ["at once", "late", "half of the seeds"])
def test_baselines_that_diverge_crash_no_judge(claim, how):
    step = 900 if how == "late" else 1
    arms = []
    for arm in NEEDS[claim]:
        for seed in SEEDS:
            bad = arm.startswith("base") and (how != "half of the seeds" or seed == 0)
            arms.append([diverged(arm, seed, step) if bad else line(arm, seed)])
    assert judged(claim, *arms).verdict in VERDICTS


@pytest.mark.parametrize("claim", CLAIMS)
def test_all_arms_diverged_crash_no_judge(claim):
    assert judged(claim, *(broken(arm) for arm in NEEDS[claim])).verdict in VERDICTS


@pytest.mark.parametrize("claim", ["BN-15", "BN-17"])
def test_a_baseline_that_never_learned_a_number_sets_no_target(claim):
    nothing = [{"step": 10, "val_accuracy": float("nan")}]
    arms = [
        [line(arm, seed, **({"history": nothing} if arm.startswith("base") else {}))]
        for arm in NEEDS[claim]
        for seed in SEEDS
    ]
    assert judged(claim, *arms).detail.startswith("not judged: needs two seeds of base")


@pytest.mark.parametrize("claim", CLAIMS)
def test_arms_without_a_common_seed_are_not_judged(claim):
    arms = [[line(arm, seed=2 * i), line(arm, 2 * i + 1)] for i, arm in enumerate(NEEDS[claim])]
    assert judged(claim, *arms).detail.startswith("not judged: ")


def test_a_target_of_other_seeds_is_no_crash():
    base, bn, both = reaching("base", 600, 620), reaching("bn", *FAST), reaching("bn+all", *FAST)
    assert judged("BN-17", base, bn[2:], both).detail.startswith("not judged: ")


def test_bn_16_pairs_the_seeds_that_all_its_arms_share():
    """A seed that the baseline lacks must not shift the others' differences."""
    bn, base = ends("bn+lr_x5", 0.9, 0.6, 0.7), ends("base+lr_x5", 0.1, 0.1, 0.1)
    others = [near("base", 0.9)[1:], near("bn+lr_x30", 0.1), near("base+lr_x30", 0.1)]
    assert judged("BN-16", bn, base, *others).effect == pytest.approx((50 + 60) / 2)


def test_the_margin_is_one_point():
    assert MARGIN == 1.0
    assert all("1 point" in CLAIMS[name].criterion for name in ("BN-22", "BN-24", "BN-25 decay"))


def test_a_claim_is_marked_provisional_by_its_seeds():
    assert judged("BN-22", *CASES["22 better"][1]).provisional
    five = ends("bn", *[0.9] * 5), ends("bn+l2_5th", *[0.93] * 5)
    assert not judged("BN-22", *five).provisional


def test_a_report_is_made_of_any_part_of_the_results():
    full = plan("small")
    ids = {name: f"id of {name}" for name in full.variants}
    kinds = [diverged("base", 0), line("bn", 0), line("base+lr_x5", 1)]
    for count in range(len(kinds) + 1):
        report = build_report(full, Results(kinds[:count], ids, SETTING))
        assert len(report.judgements) == len(CLAIMS)


# --- compilations --------------------------------------------------------------------------------


@pytest.fixture
def quick_compilations():
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("blocks", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_the_train_step_is_traced_once_for_each_architecture(
    tmp_path, monkeypatch, quick_compilations, blocks
):
    vgg = import_module("vggbn.models.vgg")
    monkeypatch.setattr(vgg, "WIDTHS", vgg.WIDTHS[:blocks])
    for name in [name for name in MODELS if name != "mlp"]:
        config = MODELS[name].args[0][:blocks]
        monkeypatch.setitem(MODELS, name, partial(vgg.vgg, config))
    edits = {"image_size": 8, "width": 1 / 16, "evaluations": 2, "population_batches": 1}
    edits |= {"fc": 15 + blocks, "steps": 2}  # fc: compilations are kept by net, not by table
    tiny = make_plan(EXPERIMENT, "smoke", out=tmp_path, data="digits", edits=edits)
    assert tuple(tiny.variants) == CORE
    train_step.cache_clear()
    TRACES.clear()
    store = runs.Store(tmp_path / "runs")
    for recipe in tiny.variants.values():
        assert runs.train_run(recipe, 0, store)["history"][-1]["step"] == 2
    assert len(TRACES) == len({compile_key(r) for r in tiny.variants.values()}) == 4
    assert set(TRACES.values()) == {1}
