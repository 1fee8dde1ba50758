"""The VGG experiments: their arms and recipes, their judges on made-up results, their tables."""

from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments import _vgg_nets as nets
from tests.support.result_lines import SETTING, line
from vggbn.claims.results import Results
from vggbn.errors import UserError
from vggbn.experiment.plan import edited, make_plan, read_sweep
from vggbn.experiment.summary import build_report
from vggbn.experiment.sweep import run_sweep
from vggbn.jobs import pool
from vggbn.report import results_markdown

NAMES = ("depth", "init", "scale_jitter", "dense_eval", "fusion", "with_bn")


@cache
def plan(name, size="full"):
    experiment = import_module(f"experiments.vgg_{name}").EXPERIMENT
    return make_plan(experiment, size, out=Path("out"))


# --- scales and nets -----------------------------------------------------------------------------


def test_sides_keep_the_papers_proportions():
    photos = edited(nets.BASE, nets.PHOTOS)
    paper = [224, 256, 288, 352, 384, 416, 512]
    assert [nets.side(photos, p) for p in paper] == [64, 73, 82, 101, 110, 119, 146]
    assert [nets.side(nets.BASE, p) for p in paper] == [32, 37, 41, 50, 55, 59, 73]
    assert [nets.side(nets.BASE.but(**nets.PAPER), p) for p in paper] == paper


def test_bases_are_at_s_256_and_stored_at_the_largest_scale():
    for edits in ({}, nets.PHOTOS, nets.PAPER):
        base = edited(nets.BASE, edits)
        assert base.scale_min == base.scale_max == nets.side(base, 256)
        assert base.source_side == nets.side(base, 512)


def test_a_net_is_one_run_in_every_experiment_that_uses_it():
    shared = [plan(n).variants for n in ("depth", "scale_jitter", "fusion", "with_bn")]
    assert len({variants["D"].id for variants in shared}) == 1
    assert plan("init").variants["He"].id == plan("depth").variants["D"].id
    for arm in ("D S384", "D jitter"):
        assert plan("fusion").variants[arm].id == plan("scale_jitter").variants[arm].id
    jitter = plan("scale_jitter").variants["D jitter"]
    assert plan("dense_eval").variants["D jitter"].id == jitter.id


def test_fine_tuning_follows_the_paper():
    arms = plan("scale_jitter").variants
    s256, s384, longer, jitter = (arms[f"E{way}"] for way in ("", " S384", " S384 on", " jitter"))
    assert s384.parent == s256 and longer.parent == jitter.parent == s384
    assert s384.lr == pytest.approx(s256.lr / 10) and jitter.lr == longer.lr == s384.lr
    scales = [(r.scale_min, r.scale_max) for r in (s256, s384, longer, jitter)]
    assert scales == [(73, 73), (110, 110), (110, 110), (73, 146)]
    # the control differs from the treatment in the scales alone
    assert longer.but(scale_min=73, scale_max=146) == jitter
    assert (longer.test_side, jitter.test_side) == (110, 110)


def test_at_the_papers_size_deeper_nets_start_from_a():
    arms = plan("depth", "paper").variants
    assert arms["A"].parent is None and arms["A"].init == "normal_0.1"
    for net in "BCDE":
        assert arms[net].parent == arms["A"] and arms[net].inherit == "stages"
    jitter = plan("scale_jitter", "paper").variants["D jitter"]
    assert [r.inherit for r in (jitter, *jitter.ancestors)] == ["all", "all", "stages", "all"]


def test_the_matched_5x5_net_has_b_s_convolution_weights_to_2_percent():
    from tests.models.test_models import shapes, size
    from vggbn.training.recipe import static

    counts = {}
    for arm in ("B", "B 5×5", "B 5×5 matched"):
        recipe = plan("depth").variants[arm]
        params, _ = shapes(
            recipe.model, static(recipe, image=(64, 64, 3), classes=10, flip=True).net
        )
        counts[arm] = sum(size(v["kernel"]) for k, v in params.items() if k.startswith("conv"))
    assert counts["B 5×5"] > 1.15 * counts["B"]
    assert counts["B 5×5 matched"] == pytest.approx(counts["B"], rel=0.02)


def test_rates_are_those_of_the_one_sweep_and_its_record_is_read_by_all():
    record = read_sweep(plan("depth"))
    best = {net: rate for net, (rate, _) in record["best"].items()}
    assert best == nets.PHOTO_RATES
    for name in NAMES[1:]:
        assert read_sweep(plan(name)) == record
        with pytest.raises(UserError, match="vgg_depth --sweep"):
            run_sweep(plan(name), None, pool.local(1))
    assert read_sweep(plan("scale_jitter", "small")) is None


# --- judges --------------------------------------------------------------------------------------


def results(name, accuracies, *, folds=True, seeds=5, size="full", train=0.9, n=756):
    """Made-up lines of every arm and view: {arm: accuracy}; others get 0.7, seeds a little more."""
    its = plan(name, size)
    lines = []
    for arm, identity in its.ids().items():
        for seed in range(seeds):
            accuracy = accuracies.get(arm, 0.7) + 0.001 * seed
            right = np.arange(n) < round(accuracy * n)
            more = {"id": identity, "size": size, "experiment": f"vgg_{name}"}
            made = line(arm, seed, test=accuracy, **more)
            made["final"] |= {"test_balanced": accuracy, "test_top5": 0.99, "test_n": n}
            made["seconds"] |= {"step": 2.0 if arm == "A-LRN" else 1.0}
            made["history"][-1] |= {"train_accuracy": accuracies.get(f"train {arm}", train)}
            made["data"] = made["data"] | {"majority": 0.25, "digest": f"d{seed if folds else 0}"}
            if arm in its.views:
                made |= {
                    "view": {},
                    "evaluation": "e",
                    "correct": np.packbits(right).tobytes().hex(),
                }
            lines.append(made)
    return Results(lines, its.ids(), SETTING)


def verdicts(name, accuracies, **options):
    claims = plan(name).experiment.claims
    found = results(name, accuracies, **options)
    return {claim.id: claim.judged(found).verdict for claim in claims}


def dense(**accuracies):
    return {f"{net.replace('_', ' ')} dense": a for net, a in accuracies.items()}


def test_the_papers_table_3_reproduces_the_papers_claims():
    table = dense(A=0.70, B=0.74, C=0.78, D=0.82, E=0.821)
    table |= {"A-LRN dense": 0.701, "C linear dense": 0.73, "B 5×5 dense": 0.66}
    table |= {"B 5×5 matched dense": 0.67}
    assert set(verdicts("depth", table).values()) == {"reproduced"}


def test_depth_that_does_not_help_is_no_effect_and_depth_that_hurts_contradicts():
    found = verdicts("depth", dense(A=0.70, B=0.75, D=0.755))
    assert found["V-3"] == "no effect"
    found = verdicts("depth", dense(A=0.70, B=0.75, D=0.65, E=0.5))
    assert found["V-3"] == "contradicted" and found["V-3 saturation"] == "contradicted"
    assert verdicts("depth", dense(D=0.7, C=0.75))["V-6"] == "contradicted"


def test_one_pair_is_not_enough():
    assert verdicts("depth", dense(B=0.8, C=0.85, C_linear=0.85))["V-5"] == "no effect"
    assert verdicts("depth", dense(B=0.8) | {"B 5×5 dense": 0.7})["V-7"] == "reproduced"
    matched = dense(B=0.8) | {"B 5×5 dense": 0.7, "B 5×5 matched dense": 0.9}
    assert verdicts("depth", matched)["V-7"] == "contradicted"


def test_lrn_must_cost_time_too(monkeypatch):
    module = import_module("experiments.vgg_depth")
    assert verdicts("depth", {})["V-4"] == "reproduced"
    monkeypatch.setattr(module, "step_seconds", lambda *_: 1.0)
    assert verdicts("depth", {})["V-4"] == "contradicted"


def test_an_untrained_net_makes_its_claims_inconclusive():
    table = dense(A=0.70, B=0.74, D=0.25) | {"train D": 0.26}
    found = verdicts("depth", table)
    assert found["V-3"] == found["V-6"] == "inconclusive" and found["V-7"] != "inconclusive"
    claim = plan("depth").experiment.claims[0]
    assert "untrained: D" in claim.judged(results("depth", table)).detail


def test_jitter_is_judged_at_one_scale_against_the_control():
    better = {f"{net} jitter @384": 0.75 for net in "DE"}
    assert verdicts("scale_jitter", better)["V-9"] == "reproduced"
    assert verdicts("scale_jitter", better | {"E S384 on @384": 0.8})["V-9"] == "contradicted"
    # being better than the shorter S384 alone is not enough
    short = {f"{net} S384 @384": 0.5 for net in "DE"}
    assert verdicts("scale_jitter", short)["V-9"] == "no effect"


def test_several_scales_and_the_distance_between_them():
    several = {f"{n} @224,256,288": 0.75 for n in "DE"} | {
        f"{n} jitter @256,384,512": 0.75 for n in "DE"
    }
    assert verdicts("scale_jitter", several)["V-10 scales"] == "reproduced"
    assert verdicts("scale_jitter", {})["V-10 scales"] == "no effect"
    far = {f"{net} @512": 0.5 for net in "DE"}
    assert verdicts("scale_jitter", far)["V-10 distance"] == "reproduced"


def test_a_mean_over_pairs_is_of_the_seeds_that_all_pairs_have():
    claims = {claim.id: claim for claim in plan("scale_jitter").experiment.claims}
    found = results("scale_jitter", {f"{net} @512": 0.5 for net in "DE"})
    before = claims["V-10 distance"].judged(found)
    del found.runs["D @512"][0]
    after = claims["V-10 distance"].judged(found)
    assert (before.n, after.n) == (5, 4) and after.effect == pytest.approx(before.effect, abs=0.1)


@pytest.mark.parametrize(("folds", "n"), [(True, 5 * 756), (False, 5)])
def test_ways_to_test_one_net_are_paired_by_image_where_seeds_test_other_images(folds, n):
    both = {f"{net} jitter both": 0.75 for net in "DE"}
    claim = plan("dense_eval").experiment.claims[0]
    found = claim.judged(results("dense_eval", both, folds=folds))
    assert (found.verdict, found.n) == ("reproduced", n)
    assert found.effect == pytest.approx(5, abs=0.2)
    assert ("McNemar" in found.detail) == folds
    worse = both | {"E jitter multi-crop": 0.8}
    assert claim.judged(results("dense_eval", worse, folds=folds)).verdict == "contradicted"


def test_fusion_must_beat_both_nets_and_the_seven():
    good = {"D+E dense": 0.75}
    assert set(verdicts("fusion", good).values()) == {"reproduced"}
    found = verdicts("fusion", good | {"E dense": 0.8, "7 nets": 0.8})
    assert set(found.values()) == {"contradicted"}


def test_the_seven_nets_are_the_submissions():
    looks = plan("fusion", "paper").views["7 nets"].looks
    assert {(k.net, k.sides) for k in looks} == {
        ("D", (224, 256, 288)), ("D S384", (352, 384, 416)), ("D jitter", (256, 384, 512)),
        ("C", (224, 256, 288)), ("C S384", (352, 384, 416)),
        ("E", (224, 256, 288)), ("E S384", (352, 384, 416)),
    }  # fmt: skip


def test_an_initialisation_is_judged_by_the_seeds_that_never_leave_chance():
    found = verdicts("init", {"train std 0.01": 0.25})
    assert found == {"V-8 std 0.1": "inconclusive", "V-8 std 0.01": "reproduced"}
    both = {"train std 0.01": 0.25, "train Glorot": 0.25}
    assert verdicts("init", both)["V-8 std 0.01"] == "inconclusive"


def test_bn_on_vgg_is_judged_on_accuracy_rate_and_start():
    table = {f"{net} + BN": 0.8 for net in "ADE"} | {f"{net} + BN ×10": 0.8 for net in "ADE"}
    table |= {f"{net} ×10": 0.3 for net in "ADE"} | {"train D, std 0.01": 0.25}
    assert set(verdicts("with_bn", table).values()) == {"reproduced"}
    assert verdicts("with_bn", {})["VGG+BN accuracy"] == "no effect"
    lost = table | {"train D + BN, std 0.1": 0.2}
    assert verdicts("with_bn", lost)["VGG+BN start"] == "inconclusive"


# --- tables --------------------------------------------------------------------------------------


OURS = "29.8 ± 0.2"


@pytest.mark.parametrize(
    ("name", "title", "row"),
    [
        ("depth", "Table 3, S = 256", f"| D | 27.0 / 8.8 | {OURS} | {OURS} | 1.0 ± 0.0 | 90.0 |"),
        ("scale_jitter", "Table 4", "| D | [256; 512] | 256, 384, 512 | 24.8 / 7.5 | 29.8 ± 0.2 |"),
        ("scale_jitter", "Table 3: one", "| E | 384 | 384 | 26.9 / 8.7 | 29.8 ± 0.2 |"),
        ("dense_eval", "Table 5", f"| D | multi-crop | 24.6 / 7.5 | {OURS} | {OURS} | 2.6 ms"),
        ("fusion", "Table 6", "| 7 nets | 24.7 / 7.5 | 29.8 ± 0.2 | 29.8 ± 0.2 | 1.0 ± 0.0 |"),
        ("init", "Initialisation", "| Glorot | 90.0 | 29.8 ± 0.2 |"),
        ("with_bn", "VGG with and without BN", "| E + BN ×10 | 90.0 | 29.8 ± 0.2 |"),
    ],
)  # fmt: skip
def test_tables_stand_beside_the_papers_figures(name, title, row):
    text = results_markdown(build_report(plan(name), results(name, {})))
    assert f"### {title}" in text and row in text


def test_the_q_curves_show_every_way_to_train():
    charts = build_report(plan("scale_jitter"), results("scale_jitter", {})).charts
    chart = charts["D: error against test scale"]
    assert set(chart.series) == {"S = 256", "S = 384", "S = 384, longer", "S = [256; 512]"}
    assert sorted(chart.series["S = 384"]) == [224, 256, 288, 352, 384, 416, 512]
    assert chart.series["S = 384"][224] == pytest.approx([30, 29.9, 29.8, 29.7, 29.6])
