"""The first experiment: its arms, its schedules, its judges on made-up results."""

import json
from functools import cache, partial
from importlib import import_module
from math import exp
from pathlib import Path

import jax
import pytest
from scipy.stats import ttest_1samp

from benchmarks import pilot_demo
from experiments._bn_changes import CHANGES, LEFT_OUT, points_lost, times_more_steps
from experiments.bn_ablation import CIFAR10, EXPERIMENT, FULL, JUDGED, MARGIN, SMALL
from tests.support.result_lines import SETTING, diverged, line
from vggbn.claims.looks import LEVEL
from vggbn.claims.results import NotTested, Results, append, read
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


# --- the arms of Figure 2 ------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["smoke", "small"])
def test_each_of_four_changes_is_taken_out_of_all_of_them(size):
    arms = plan(size).variants
    every = arms["bn+all/3"]
    assert len(LEFT_OUT) == 4
    fields = {name: diff(arms[f"bn+all-{name}/3"], every) for name in LEFT_OUT}
    assert {name: list(edits) for name, edits in fields.items()} == {
        "lr_x5": ["lr"], "no_dropout": ["dropout"], "decay": ["lr_every"], "no_lrn": ["model"]
    }  # fmt: skip
    base = plan(size).base
    assert every.lr == pytest.approx(5 * base.lr) and base.l2 / every.l2 == pytest.approx(5)
    assert (every.dropout, every.model, every.shuffle, every.norm) == (0, "vgg_a", "fresh", "batch")
    assert base.distortion / every.distortion == pytest.approx(3)
    assert diff(arms["bn/3"], every).keys() == {
        "lr", "dropout", "l2", "model", "shuffle", "distortion"
    }  # fmt: skip


@pytest.mark.parametrize("size", ["smoke", "small"])
def test_a_budget_of_its_own_is_a_third_and_the_decay_is_compressed_as_much(size):
    arms, base = plan(size).variants, plan(size).base
    for name, recipe in arms.items():
        part = 3 if name.endswith("/3") else 1
        assert recipe.steps * part == base.steps and recipe.spacing == "even"
        assert recipe.steps / recipe.evaluations == 10, "one resolution for every arm"
        slow = part == 1 or name == "bn+all-decay/3"
        assert recipe.lr_every * (1 if slow else 3) == pytest.approx(base.lr_every)


def test_the_small_size_is_judged_on_seeds_that_the_pilot_did_not_use():
    small = plan("small")
    assert len(small.seeds) == 5 and small.seeds.start == 3
    pilot = make_plan(pilot_demo.EXPERIMENT, "small", out=Path("out"))
    assert pilot.variants == small.variants and not set(pilot.seeds) & set(small.seeds)


def test_a_pilot_s_seeds_do_not_count(tmp_path):
    made = make_plan(EXPERIMENT, "small", out=tmp_path)
    setting = SETTING | {"code": runs.code(made.base)}
    for seed in (2, 3):
        append(made.results_path, line("base", seed, id=made.ids()["base"], setting=setting))
    assert made.found(SETTING).seeds("base") == [3]


def test_the_target_is_98_percent_of_the_pilot_s_baseline():
    lines = read(pilot_demo.LINES)
    small = plan("small")
    assert {line["seed"] for line in lines} == {0, 1, 2}
    assert {line["id"] for line in lines} == set(small.ids().values()), "of other recipes"
    assert small.size.target == pytest.approx(pilot_demo.target(lines), abs=5e-4)


def test_the_target_is_of_the_size_s_own_recipe_and_data():
    for edits, data in (({"width": 0.25}, None), ({}, "digits")):
        found = make_plan(EXPERIMENT, "small", out=Path("out"), data=data, edits=edits)
        assert found.size.target is None
    assert plan("small").size.target == plan("small").found(SETTING).target


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
    needed = [arms for claim, arms in NEEDS.items() if claim not in FIGURE_2]
    assert {arm for arms in needed for arm in arms} <= set(JUDGED)
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
            slow = name == "bn+all-decay/3"  # whose schedule is that of the whole budget
            assert last <= r.lr * (0.5 if slow else 0.103), (
                f"{name} of {size} ends at {last / r.lr:.3f} of its start"
            )


@pytest.mark.parametrize(("size", "keys"), [("smoke", 3), ("small", 3), ("full", 6)])
def test_arms_of_one_architecture_share_a_compilation(size, keys):
    """{no BN, BN} × {with LRN, without, and in `full` without LRN and with sigmoid}; in Figure 2
    without BN only with LRN."""
    recipes = plan(size).variants.values()
    assert len({compile_key(recipe) for recipe in recipes}) == keys
    assert len({(r.norm, r.model, r.activation) for r in recipes}) == keys


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

SEEDS = range(5)
CLAIMS = {claim.id: claim for claim in EXPERIMENT.claims if claim.judge}
NEEDS = {
    "BN-15": ("base+constant", "bn+constant", "base", "bn"),
    "BN-15 fewer": ("base", "bn"),
    "BN-17": ("base", "bn", "bn+all/3"),
    "BN-16": ("base", "base+lr_x5", "base+lr_x30", "bn+lr_x5", "bn+lr_x30"),
    "BN-22": ("bn", "bn+l2_5th"),
    "BN-24": ("bn", "bn+no_lrn"),
}
JITTER = (-0.001, 0.0, 0.001, 0.0005, -0.0005)


FIGURE_2 = ("BN-15 fewer", "BN-17")  # claims that only the size `small` tests


def judged(claim, *lines):
    """lines: lists of lines of one arm each."""
    own = plan("small" if claim in FIGURE_2 else "full")
    ids = {name: f"id of {name}" for name in own.variants}
    target = 0.89 if claim in FIGURE_2 else None
    found = Results([one for arm in lines for one in arm], ids, SETTING, target=target)
    return CLAIMS[claim].judged(found, own.baseline)


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
        history = [
            {"step": s, "val_accuracy": v, "train_accuracy": max(v, 0.3)}
            for s, v in zip(steps, values, strict=True)
        ]
        lines.append(line(variant, seed, history=history))
    return lines


def broken(variant):
    return [diverged(variant, seed) for seed in SEEDS]


NEVER = 5000
SLOW, FAST = (600, 620, 610, 590, 630), (200, 210, 205, 195, 215)
DETAIL_15 = (reaching("base", *SLOW), reaching("bn", *FAST))


def pair_15(slow, fast):
    return reaching("base+constant", *slow), reaching("bn+constant", *fast), *DETAIL_15


def figure_2(*steps):
    arms = ("base", "bn", "bn+all/3")
    return [reaching(arm, *at) for arm, at in zip(arms, steps, strict=False)]


def arms_16(base=0, base_x5=0, base_x30=0, bn_x5=0, bn_x30=0, n=5):
    """So many of n seeds of each arm fail: the first of them diverges, others stay at chance."""
    failed = {"base": base, "base+lr_x5": base_x5, "base+lr_x30": base_x30}
    failed |= {"bn+lr_x5": bn_x5, "bn+lr_x30": bn_x30}
    return [
        [diverged(arm, 0) if lost and not s else one for s, one in enumerate(ends(arm, *tests))]
        for arm, lost in failed.items()
        for tests in [[0.11 if s < lost else 0.9 + JITTER[s % 5] for s in range(n)]]
    ]


def against(arm, *tests, base=None):
    """`bn` and an arm that ends with these accuracies (one: near to it), beside the baseline."""
    ours = near(arm, *tests) if len(tests) == 1 else ends(arm, *tests)
    return (
        ends("bn", *[0.9 + jitter for jitter in JITTER][: len(ours)]),
        ours,
        (near("base", 0.85) if base is None else base),
    )


GAINS = [line("base", seed, curve=(0.2, 0.5, 0.8, 0.9)) for seed in SEEDS]
MISFITS = [line("base", seed, fit=0.8) for seed in SEEDS]

CASES = {
    "15 three times faster": ("BN-15", pair_15(SLOW, FAST), "reproduced"),
    "15 faster, not twice": ("BN-15", pair_15(SLOW, (400, 405, 410, 395, 400)), "inconclusive"),
    "15 noisy": (
        "BN-15",
        pair_15((600, 900, 300, 500, 700), (200, 800, 100, 400, 100)),
        "inconclusive",
    ),
    "15 slower": ("BN-15", pair_15(FAST, SLOW), "contradicted"),
    "15 baseline censored": ("BN-15", pair_15((900, 920, 910, 890, 1010), FAST), "reproduced"),
    "15 bn censored": ("BN-15", pair_15(SLOW, (200, 210, 205, 195, NEVER)), "inconclusive"),
    "15 bn never": ("BN-15", pair_15(SLOW, (NEVER,) * 5), "contradicted"),
    "15 a seed diverged": (
        "BN-15",
        (
            pair_15(SLOW, FAST)[0],
            [*reaching("bn+constant", *FAST[:4]), diverged("bn+constant", 4)],
            *DETAIL_15,
        ),
        "not tested",
    ),
    "15 fewer": ("BN-15 fewer", figure_2(SLOW, (400, 405, 410, 395, 400)), "reproduced"),
    "15 more": ("BN-15 fewer", figure_2((400, 405, 410, 395, 400), SLOW), "contradicted"),
    "15 as many": ("BN-15 fewer", figure_2(SLOW, (500, 700, 620, 600, 640)), "inconclusive"),
    "15 fewer, bn censored": (
        "BN-15 fewer",
        figure_2(SLOW, (200, 210, 205, 195, NEVER)),
        "inconclusive",
    ),
    "17 fewer": ("BN-17", figure_2(SLOW, SLOW, FAST), "reproduced"),
    "17 more": ("BN-17", figure_2(SLOW, FAST, (290, 300, 310, 295, 305)), "contradicted"),
    "17 noisy": ("BN-17", figure_2(SLOW, FAST, (100, 300, 150, 320, 200)), "inconclusive"),
    "17 some never": ("BN-17", figure_2(SLOW, SLOW, (200, 210, 205, NEVER, 200)), "inconclusive"),
    "16 x30 breaks": ("BN-16", arms_16(base_x30=5), "reproduced"),
    "16 x5 breaks": ("BN-16", arms_16(base_x5=5), "reproduced"),
    "16 both break": ("BN-16", arms_16(base_x5=5, base_x30=5), "reproduced"),
    "16 bn breaks at x30 only": ("BN-16", arms_16(0, 5, 5, 0, 5), "reproduced"),
    "16 nothing breaks in five": ("BN-16", arms_16(), "inconclusive"),
    "16 nothing breaks in ten": ("BN-16", arms_16(n=10), "contradicted"),
    "16 bn breaks too": ("BN-16", arms_16(base_x30=5, bn_x30=5), "inconclusive"),
    "16 only bn breaks": ("BN-16", arms_16(bn_x30=5), "inconclusive"),
    "16 four against one": ("BN-16", arms_16(base_x30=4, bn_x30=1), "inconclusive"),
    "16 one seed survives": ("BN-16", arms_16(base_x30=4), "inconclusive"),
    "16 one of bn breaks": ("BN-16", arms_16(base_x30=5, bn_x30=1), "inconclusive"),
    "16 the baseline breaks at its own rate": (
        "BN-16",
        arms_16(base=1, base_x5=5, base_x30=5),
        "inconclusive",
    ),
    "22 better": ("BN-22", against("bn+l2_5th", 0.92, 0.921, 0.919, 0.922, 0.92), "reproduced"),
    "22 the same": ("BN-22", against("bn+l2_5th", 0.9, 0.901, 0.9, 0.9, 0.901), "no effect"),
    "22 worse": ("BN-22", against("bn+l2_5th", 0.87), "contradicted"),
    "22 noisy": ("BN-22", against("bn+l2_5th", 0.95, 0.85, 0.91, 0.93, 0.88), "inconclusive"),
    # a 95 % interval lies above 0: [0.04, 3.24] points
    "22 better by less than a look asks": (
        "BN-22",
        against("bn+l2_5th", 0.924, 0.904, 0.906, 0.9335, 0.9135),
        "inconclusive",
    ),
    "22 one seed": (
        "BN-22",
        against("bn+l2_5th", 0.99)[:1] + (ends("bn+l2_5th", 0.99),) + (near("base", 0.85),),
        "inconclusive",
    ),
    "22 a seed diverged": (
        "BN-22",
        (
            near("bn", 0.9),
            [*near("bn+l2_5th", 0.9)[:4], diverged("bn+l2_5th", 4)],
            near("base", 0.85),
        ),
        "not tested",
    ),
    "22 the baseline still gains": ("BN-22", against("bn+l2_5th", 0.92, base=GAINS), "not tested"),
    "22 the baseline does not fit": (
        "BN-22",
        against("bn+l2_5th", 0.92, base=MISFITS),
        "not tested",
    ),
    "22 no baseline": ("BN-22", against("bn+l2_5th", 0.92, base=[]), "not tested"),
    "24 the same": ("BN-24", against("bn+no_lrn", 0.9, 0.901, 0.9, 0.9, 0.901), "reproduced"),
    "24 better without": ("BN-24", against("bn+no_lrn", 0.93), "reproduced"),  # one-sided
    "24 worse without": ("BN-24", against("bn+no_lrn", 0.87), "contradicted"),
    "24 noisy": ("BN-24", against("bn+no_lrn", 0.95, 0.85, 0.9, 0.92, 0.87), "inconclusive"),
    "24 the baseline does not fit": (
        "BN-24",
        against("bn+no_lrn", 0.9, base=MISFITS),
        "not tested",
    ),
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
    assert judgement.n == min(map(len, filter(None, arms)))
    assert judgement.low <= judgement.effect <= judgement.high and judgement.level == LEVEL


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("15 a seed diverged", "untrained: bn+constant; "),
        ("22 a seed diverged", "untrained: bn+l2_5th; "),
        ("22 the baseline still gains", "base still gains 5.0 points in the last tenth"),
        ("22 the baseline does not fit", "base fits only 80 % of its training images"),
        ("22 no baseline", "base has no learning curve"),
    ],
)
def test_what_is_not_tested_says_why(case, reason):
    claim, arms, _ = CASES[case]
    assert judged(claim, *arms).detail.startswith(reason)


def test_speeds_of_figure_2_need_a_target_that_a_pilot_fixed():
    full, small = plan("full").variants, plan("small").variants
    for variants, reason in ((full, "needs a budget of its own"), (small, "no pilot")):
        ids = {name: f"id of {name}" for name in variants}
        lines = [one for arm in figure_2(SLOW, SLOW, FAST)[:2] for one in arm]
        found = CLAIMS["BN-17"].judged(Results(lines, ids, SETTING), "base")
        assert found.verdict == "not tested" and reason in found.detail


def test_what_a_change_gives_is_what_is_lost_without_it():
    """By hand: five seeds, steps 200 with all changes and 300 without one of them."""
    ids = {name: f"id of {name}" for name in plan("small").variants}
    arms = [reaching("bn+all/3", *[200] * 5), reaching("bn+all-no_lrn/3", *[300] * 5)]
    arms.append(reaching("base", *SLOW))
    for lines, test in zip(arms, (0.95, 0.93, 0.9), strict=True):
        for one in lines:
            one["final"] |= {"test_accuracy": test}
    found = Results([one for arm in arms for one in arm], ids, SETTING, target=0.9)
    assert points_lost(found, "bn+all-no_lrn/3").mean == pytest.approx(2)
    assert times_more_steps(found, "bn+all-no_lrn/3").mean == pytest.approx(1.5)


def test_effects_are_in_the_unit_they_are_shown_in():
    faster = judged(*("BN-15", *CASES["15 three times faster"][1]))
    assert faster.unit == "ratio" and 2.7 < faster.effect < 3.2
    assert "decaying rate of the baseline the ratio is 2.91" in faster.detail
    better = judged("BN-22", *CASES["22 better"][1])
    assert better.unit == "points" and better.effect == pytest.approx(2.04)
    broke = judged("BN-16", *arms_16(base_x5=1, base_x30=5))
    assert broke.effect == pytest.approx(79, abs=0.5)
    assert "base+lr_x30 5 of 5" in broke.detail and "bn+lr_x30 0 of 5" in broke.detail


def each_seed(claim, *arms, target=0.89):
    """What `verify` compares, by seed."""
    ids = {name: f"id of {name}" for name in plan("small").variants}
    lines = [one for arm in arms for one in arm]
    (effect,) = CLAIMS[claim].effects(Results(lines, ids, SETTING, target=target))
    return effect


@pytest.mark.parametrize("claim", ["BN-15", "BN-15 fewer", "BN-17"])
def test_of_a_speed_a_seed_says_the_ratio_and_the_whole_budget_where_it_never_gets_there(claim):
    arms = figure_2((600, 600, NEVER), (300, NEVER, 300), (300, NEVER, 300))
    ratios = (2, 600 / 1000, 1000 / 300)
    if claim == "BN-17":
        ratios = (1, 1, 1)
    effect = each_seed(claim, *arms)
    assert effect.unit == "ratio" and list(effect.by_seed) == [0, 1, 2]
    assert [exp(value) for value in effect.values] == pytest.approx(ratios, rel=0.02)
    with pytest.raises(NotTested, match="no pilot"):
        each_seed(claim, *arms, target=None)


@pytest.mark.parametrize(
    ("failures", "shown"),
    [
        ({"base_x30": 4, "bn_x30": 1}, [False, True, True, True, False]),
        ({"base_x5": 2, "base_x30": 1, "bn_x30": 5}, [True, True, False, False, False]),
        ({"base": 1, "base_x5": 5, "base_x30": 5}, [False, True, True, True, True]),
        ({}, [False] * 5),
    ],
)
def test_a_seed_shows_that_only_bn_trains_at_a_high_rate_or_not(failures, shown):
    effect = each_seed("BN-16", *arms_16(**failures))
    assert effect.unit == "seeds" and effect.values == shown


def test_bn_16_shows_fisher_s_p_of_the_two_rates_together():
    """5 of 5 against 0 of 5: 1 of 252 tables; 4 against 1: 26 of them, in which 4 or 5 fail."""
    for lost, p in (((5, 0), 2 / 252), ((4, 1), 2 * 26 / 252)):
        found = judged("BN-16", *arms_16(base_x30=lost[0], bn_x30=lost[1]))
        assert found.p == pytest.approx(p)
        assert (found.verdict == "reproduced") == (p < 1 - LEVEL)


def test_bn_24_s_p_is_that_of_its_own_question():
    same = judged("BN-24", *CASES["24 the same"][1])
    gaps = [100 * (ours["final"]["test_accuracy"] - bn["final"]["test_accuracy"])
            for bn, ours in zip(*CASES["24 the same"][1][:2], strict=True)]  # fmt: skip
    expected = 2 * ttest_1samp(gaps, -MARGIN, alternative="greater").pvalue
    assert same.p == pytest.approx(expected) and same.p < 1 - LEVEL


@pytest.mark.parametrize(
    ("claim", "missing"), [(claim, arm) for claim, arms in NEEDS.items() for arm in arms]
)
def test_with_an_arm_missing_nothing_is_judged(claim, missing):
    arms = {arm: near(arm, 0.9) for arm in NEEDS[claim]}
    assert judged(claim, *arms.values()).n == 5
    judgement = judged(claim, *(lines for arm, lines in arms.items() if arm != missing))
    assert judgement.n == 0 and judgement.detail.startswith("not judged: ")
    assert missing in judgement.detail


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("how", ["at once", "late", "half of the seeds"])
def test_baselines_that_diverge_crash_no_judge_and_decide_nothing(claim, how):
    step = 900 if how == "late" else 1
    arms = []
    for arm in {*NEEDS[claim], "base"}:
        for seed in SEEDS:
            bad = arm.startswith("base") and (how != "half of the seeds" or seed == 0)
            arms.append([diverged(arm, seed, step) if bad else line(arm, seed)])
    found = judged(claim, *arms)
    assert found.verdict == ("inconclusive" if claim == "BN-16" else "not tested")


@pytest.mark.parametrize("claim", CLAIMS)
def test_all_arms_diverged_decide_nothing(claim):
    found = judged(claim, *(broken(arm) for arm in NEEDS[claim]))
    assert found.verdict in ("inconclusive", "not tested")


def test_a_baseline_that_never_learned_a_number_sets_no_target():
    nothing = [{"step": 10, "val_accuracy": float("nan"), "train_accuracy": float("nan")}]
    arms = [
        [line(arm, seed, **({"history": nothing} if arm.startswith("base") else {}))]
        for arm in NEEDS["BN-15"]
        for seed in SEEDS
    ]
    assert judged("BN-15", *arms).detail.startswith("not judged: needs two seeds of base")


@pytest.mark.parametrize("claim", CLAIMS)
def test_arms_without_a_common_seed_are_not_judged(claim):
    arms = [[line(arm, seed=2 * i), line(arm, 2 * i + 1)] for i, arm in enumerate(NEEDS[claim])]
    assert judged(claim, *arms).detail.startswith("not judged: ")


def test_bn_16_pairs_the_seeds_that_all_its_arms_share():
    """A seed that the baseline lacks must not shift the others' differences."""
    bn, base = ends("bn+lr_x5", 0.9, 0.6, 0.7), ends("base+lr_x5", 0.1, 0.1, 0.1)
    others = [near("base", 0.9)[1:3], near("bn+lr_x30", 0.1), near("base+lr_x30", 0.1)]
    assert judged("BN-16", bn, base, *others).effect == pytest.approx((50 + 60) / 2)


def test_the_margin_is_one_point():
    assert MARGIN == 1.0
    assert all("1 point" in CLAIMS[name].criterion for name in ("BN-22", "BN-24"))


def test_seeds_between_two_looks_wait():
    """Nine seeds, of which the last four turn the mean: the look at five decides."""
    gains = (*[0.03] * 5, *[-0.3] * 4)
    nine = (
        ends("bn", *[0.9] * 9),
        ends("bn+l2_5th", *(0.9 + gain + JITTER[i % 5] for i, gain in enumerate(gains))),
        near("base", 0.85),
    )
    found = judged("BN-22", *nine)
    assert (found.n, found.verdict, found.provisional) == (5, "reproduced", False)
    assert judged("BN-22", *(arm[:3] for arm in nine)).provisional


def test_a_report_is_made_of_any_part_of_the_results():
    full = plan("small")
    ids = {name: f"id of {name}" for name in full.variants}
    kinds = [diverged("base", 0), line("bn", 0), line("base+lr_x5", 1)]
    for count in range(len(kinds) + 1):
        report = build_report(full, Results(kinds[:count], ids, SETTING))
        assert len(report.judgements) == len(EXPERIMENT.claims)


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
    edits |= {"fc": 15 + blocks, "steps": 6}  # fc: compilations are kept by net, not by table
    tiny = make_plan(EXPERIMENT, "smoke", out=tmp_path, data="digits", edits=edits | {"batch": 32})
    train_step.cache_clear()
    TRACES.clear()
    store = runs.Store(tmp_path / "runs")
    by_key: dict = {}
    for recipe in tiny.variants.values():
        by_key.setdefault(compile_key(recipe), []).append(recipe)
    assert max(map(len, by_key.values())) > 2
    for recipe in (recipe for recipes in by_key.values() for recipe in (recipes[0], recipes[-1])):
        assert runs.train_run(recipe, 0, store)["history"][-1]["step"] == recipe.steps
    assert len(TRACES) == len(by_key) == 3
    assert set(TRACES.values()) == {1}
