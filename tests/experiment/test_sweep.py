"""The search for learning rates: selection, record, and what a failed cell does."""

import json
import math
from dataclasses import replace

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.support.result_lines import STEPS, diverged, line
from vggbn.experiment import rates, sweep
from vggbn.experiment.design import Sweep
from vggbn.experiment.plan import make_plan, read_sweep
from vggbn.experiment.summary import _sweep_note
from vggbn.jobs import pool
from vggbn.machine import provenance
from vggbn.runs import run as runs
from vggbn.training.recipe import TYPES

RATES = (0.01, 0.1, 1.0)
SMALLER = replace(
    EXPERIMENT,
    sweep=Sweep(arms={"no BN": {}, "BN": {"norm": "batch"}}, rates=RATES, seeds=2),
)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr("vggbn.experiment.plan.PUBLISHED", tmp_path / "published")
    made = make_plan(SMALLER, "small", out=tmp_path)
    return made._replace(size=replace(made.size, sweep_seeds=None))


@pytest.fixture
def store(tmp_path):
    return runs.Store(tmp_path / "runs")


def fake_training(monkeypatch, outcome, failures=0):
    """train_many, with records made by outcome(recipe, seed)."""
    asked = {}

    def train_many(wanted, write, **how):
        asked.update(wanted)
        for name, (recipe, seed, _) in wanted.items():
            write(name, outcome(recipe, seed))
        return failures

    monkeypatch.setattr(sweep, "train_many", train_many)
    return asked


def peaked(best):
    """An outcome whose score falls by a tenth for each tenfold rate beside the best one."""

    def outcome(recipe, seed):
        top = 0.9 - 0.1 * abs(math.log10(recipe.lr / best))
        return line(seed=seed, curve=(0.1, top, top, top))

    return outcome


def test_the_score_is_the_best_of_the_smoothed_validation_curve():
    assert rates.score(line(curve=(0.1, 0.99, 0.5, 0.6))) == pytest.approx(0.6)
    assert rates.score(diverged(step=40)) is None


def test_the_best_rate_has_the_highest_mean():
    assert rates.best_rate({"0.01": [0.8, 0.9], "0.1": [0.9, 0.9]}) == (0.1, pytest.approx(0.9))


def test_a_rate_with_a_diverged_seed_is_out():
    assert rates.best_rate({"0.01": [0.8, 0.8], "0.1": [1.0, None]})[0] == 0.01


def test_a_tie_goes_to_the_lower_rate():
    assert rates.best_rate({"0.1": [0.9, 0.9], "0.01": [0.9, 0.9], "1": [0.9, 0.9]})[0] == 0.01


def test_no_best_rate_where_all_diverged():
    rate, value = rates.best_rate({"0.1": [None, None], "1": [0.5, None]})
    assert math.isnan(rate) and math.isnan(value)


def test_every_arm_gets_the_same_rates_and_seeds(plan, store, monkeypatch, capsys):
    asked = fake_training(monkeypatch, peaked(0.1))
    assert sweep.run_sweep(plan, store, pool.local(1)) == 0
    cells = [(recipe.norm, recipe.lr, seed) for recipe, seed, _ in asked.values()]
    assert sorted(cells) == sorted(
        (norm, rate, seed) for norm in ("none", "batch") for rate in RATES for seed in range(2)
    )
    for recipe, _, _ in asked.values():
        same = [name for name in TYPES if name not in ("lr", "norm")]
        assert all(getattr(recipe, name) == getattr(plan.base, name) for name in same)


def test_the_record_holds_every_cell_and_is_found_again(plan, store, monkeypatch, capsys):
    """Without BN a seed of 0.1 diverges, so that 0.01, the grid's lowest, is best: half of it is
    tried too, and is worse."""
    tops = {0.005: 0.3, 0.01: 0.8, 0.1: 0.9, 1.0: 0.895}

    def outcome(recipe, seed):
        if recipe.lr == 0.1 and recipe.norm == "none" and seed == 1:
            return diverged(seed=seed, step=40)
        top = tops[recipe.lr] + 0.01 * seed - 0.5 * (recipe.lr == 1 and recipe.norm == "none")
        return line(seed=seed, curve=(0.1, top, top, top))

    fake_training(monkeypatch, outcome)
    assert sweep.run_sweep(plan, store, pool.local(1)) == 0
    record = read_sweep(plan)
    assert record == json.loads(plan.sweep_path.read_text())
    assert record["accuracy"]["no BN"] == {
        "0.01": pytest.approx([0.8, 0.81]),
        "0.1": [pytest.approx(0.9), None],
        "1": pytest.approx([0.395, 0.405]),
        "0.005": pytest.approx([0.3, 0.31]),
    }
    assert list(record["accuracy"]["BN"]) == ["0.01", "0.1", "1"]
    assert record["best"]["no BN"] == [0.01, pytest.approx(0.805)]
    assert record["best"]["BN"] == [0.1, pytest.approx(0.905)]
    assert record["tied"] == {"no BN": [], "BN": ["1"]}  # 0.005 below, which is one standard error
    assert record["steps"] == STEPS[-1]
    images = 32 * (13 * STEPS[-1] + STEPS[1])  # the diverged run stopped at its second evaluation
    assert record["images_per_second"] == pytest.approx(images / (14 * 2.0), rel=1e-3)
    assert record["setting"] == provenance.machine(line()["setting"])
    assert record["data"] == line()["data"]
    printed = capsys.readouterr().out
    assert "no BN: best rate 0.01, validation accuracy 80.5 %\n" in printed
    assert (
        "BN: best rate 0.1, validation accuracy 90.5 %; within its standard error: 1\n" in printed
    )
    assert str(plan.sweep_path) in printed


@pytest.mark.parametrize(
    ("best", "tried", "edge"),
    [
        (4.0, ["0.01", "0.1", "1", "2", "4", "8"], False),
        (0.004, ["0.01", "0.1", "1", "0.005", "0.0025"], False),
        (100.0, ["0.01", "0.1", "1", "2", "4", "8"], True),  # three times, and no further
    ],
)
def test_a_search_goes_on_beyond_the_edge(plan, store, monkeypatch, capsys, best, tried, edge):
    fake_training(monkeypatch, peaked(best))
    assert sweep.run_sweep(plan, store, pool.local(1)) == 0
    record = read_sweep(plan)
    assert list(record["accuracy"]["no BN"]) == list(record["accuracy"]["BN"]) == tried
    assert rates.edge_rates(record) == ({"no BN": 8.0, "BN": 8.0} if edge else {})
    assert ("at the edge of all that was tried" in capsys.readouterr().out) == edge


def test_the_arms_of_a_rate_at_the_edge_are_found_by_what_the_search_edits(plan):
    """The plan's base has BN's arms beside it; bn+lr_x5 took another rate than the search chose."""
    record = {
        "accuracy": {"no BN": {"0.01": [0.9], "0.03": [0.8]}, "BN": {"0.01": [0.8], "0.03": [0.9]}},
        "best": {"no BN": [0.01, 0.9], "BN": [0.03, 0.9]},
    }
    assert plan.base.lr == 0.03
    found = rates.arms_at_edge(plan, record)
    with_bn = {n for n, r in plan.variants.items() if r.norm == "batch" and r.lr == 0.03}
    assert found == dict.fromkeys(with_bn, 0.03) and "bn" in found
    assert not {"base", "bn+lr_x5"} & found.keys()
    assert rates.arms_at_edge(plan, None) == {}


def test_rates_within_a_standard_error_tie():
    """The best: mean 0.85, standard error 0.05."""
    by_rate = {"1": [0.8, 0.9], "2": [0.81, 0.81], "3": [0.79, 0.79], "4": [0.9, None]}
    assert rates.tied(by_rate) == ["2"]
    assert rates.tied({"1": [0.9], "2": [0.9]}) == [] and rates.tied({"1": [None]}) == []


def test_where_all_diverged_lower_rates_are_tried():
    assert rates.beyond({"0.1": [None], "1": [None]}) == "0.05"


def test_finalists_are_trained_again_at_full_length_and_decide(plan, store, monkeypatch):
    """Short runs rank 0.1, 1, 0.01, 10; long ones fall with 1, 0.1: the better of two finalists
    wins."""
    short, grid = plan.base.steps // 2, (0.01, 0.1, 1.0, 10.0)
    long = dict(zip(grid, (0.3, 0.6, 0.9, 1.0), strict=True))
    ranked = dict(zip(grid, (0.3, 0.5, 0.4, 0.2), strict=True))
    searched = replace(SMALLER, sweep=replace(SMALLER.sweep, rates=grid))
    size = replace(plan.size, sweep_steps=short, finalists=2)
    plan = plan._replace(experiment=searched, size=size)
    trained = []

    def outcome(recipe, seed):
        trained.append((recipe.norm, recipe.lr, recipe.steps))
        top = (long if recipe.steps > short else ranked)[recipe.lr]
        made = line(seed=seed, curve=(0.1, top, top, top))
        return made | {"recipe": made["recipe"] | {"steps": recipe.steps}}

    fake_training(monkeypatch, outcome)
    assert sweep.run_sweep(plan, store, pool.local(1)) == 0
    whole = plan.base.steps
    assert [cell for cell in trained if cell[0] == "none"] == [
        *(("none", rate, short) for rate in grid for _ in range(2)),
        *(("none", rate, whole) for rate in grid[1:3] for _ in range(2)),
    ]
    record = read_sweep(plan)
    assert record["steps"] == short and list(record["accuracy"]["BN"]) == ["0.01", "0.1", "1", "10"]
    assert record["finals"]["steps"] == whole
    assert record["finals"]["accuracy"]["BN"] == {
        "0.1": pytest.approx([0.6] * 2),
        "1": pytest.approx([0.9] * 2),
    }
    assert record["best"] == {arm: [1.0, pytest.approx(0.9)] for arm in ("no BN", "BN")}
    (note,) = _sweep_note(plan)
    assert f"{short:,} steps" in note and "best 2" in note and f"for {whole:,}" in note


def test_finalists_are_the_best_rates_that_did_not_diverge():
    by_rate = {"0.01": [0.2], "0.1": [0.4], "1": [None], "0.03": [0.4]}
    assert rates.leading(by_rate, 2) == ["0.03", "0.1"]
    assert rates.leading(by_rate, 9) == ["0.03", "0.1", "0.01"]


def test_a_failed_cell_writes_no_record(plan, store, monkeypatch):
    fake_training(monkeypatch, lambda recipe, seed: line(seed=seed), failures=1)
    assert sweep.run_sweep(plan, store, pool.local(1)) == 1
    assert not plan.sweep_path.exists()


def test_the_published_record_serves_where_the_user_has_none(plan, tmp_path):
    assert read_sweep(plan) is None
    published = tmp_path / "published" / "bn_ablation" / "small-mnist5k"
    published.mkdir(parents=True)
    (published / "sweep.json").write_text('{"whose": "published"}')
    assert read_sweep(plan) == {"whose": "published"}
    plan.folder.mkdir(parents=True)
    plan.sweep_path.write_text('{"whose": "mine"}')
    assert read_sweep(plan) == {"whose": "mine"}
