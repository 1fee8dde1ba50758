"""The VGG experiments: their arms and recipes, their judges on made-up results, their tables."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from experiments import _vgg_nets as nets
from tests.support.markdown import markdown_of
from tests.support.result_lines import SETTING, line
from vggbn.claims.results import Results
from vggbn.errors import UserError
from vggbn.experiment.plan import edited, make_plan, read_sweep
from vggbn.experiment.summary import build_report
from vggbn.experiment.sweep import run_sweep
from vggbn.jobs import pool

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
            made["history"][-1]["train_accuracy"] = accuracies.get(f"train {arm}", train)
            made["data"] |= {"majority": 0.25, "digest": f"d{seed if folds else 0}"}
            if arm in its.views:
                del made["history"]
                made |= {
                    "view": {},
                    "evaluation": "e",
                    "correct": np.packbits(right).tobytes().hex(),
                }
            lines.append(made)
    return Results(lines, its.ids(), SETTING)


def verdicts(name, accuracies, **options):
    its, found = plan(name), results(name, accuracies, **options)
    return {c.id: c.judged(found, its.baseline).verdict for c in its.experiment.claims if c.judge}


def claim(name, its_id):
    """(the row of a claim for some results)."""
    its = plan(name)
    (found,) = [claim for claim in its.experiment.claims if claim.id == its_id]
    return lambda accuracies, **options: found.judged(
        results(name, accuracies, **options), its.baseline
    )


def dense(**accuracies):
    return {f"{net.replace('_', ' ')} dense": a for net, a in accuracies.items()}


def test_the_papers_table_3_reproduces_the_papers_claims():
    table = dense(A=0.70, B=0.74, C=0.78, D=0.82, E=0.821)
    table |= {"A-LRN dense": 0.701, "C linear dense": 0.73, "B 5×5 dense": 0.66}
    table |= {"B 5×5 matched dense": 0.67}
    assert set(verdicts("depth", table).values()) == {"reproduced"}


def test_one_pair_of_two_is_partly():
    assert verdicts("depth", dense(B=0.8, C=0.85, C_linear=0.85))["V-5"] == "partly"
    assert verdicts("depth", dense(B=0.8) | {"B 5×5 dense": 0.7})["V-7"] == "reproduced"
    matched = dense(B=0.8) | {"B 5×5 dense": 0.7, "B 5×5 matched dense": 0.9}
    assert verdicts("depth", matched)["V-7"] == "partly"
    both = dense(B=0.6) | {"B 5×5 dense": 0.7, "B 5×5 matched dense": 0.9}
    assert verdicts("depth", both)["V-7"] == "contradicted"
    assert verdicts("depth", {})["V-7"] == "no effect"


def test_an_untrained_net_decides_nothing_of_the_claims_that_ask_for_it():
    table = dense(B=0.8, C=0.85) | {"train C": 0.26}
    assert verdicts("depth", table) == {"V-5": "not tested", "V-7": "reproduced"}
    assert claim("depth", "V-5")(table).detail.startswith("untrained: C; ")


def test_a_view_at_chance_is_of_a_net_that_did_not_train():
    table = {"D jitter both": 0.27}
    assert verdicts("dense_eval", table) == {"V-12": "not tested", "V-13": "no effect"}
    assert claim("dense_eval", "V-12")(table).detail.startswith("untrained: D jitter both; ")


@pytest.mark.parametrize("folds", [True, False])
def test_ways_to_test_one_net_are_judged_by_net_and_the_images_are_told_beside(folds):
    both = {f"{net} jitter both": 0.75 for net in "DE"}
    found = claim("dense_eval", "V-12")(both, folds=folds)
    assert (found.verdict, found.n) == ("reproduced", 5)
    assert found.effect == pytest.approx(5, abs=0.2)
    assert "image by image, for these nets: D jitter both − D jitter dense +5.03 [" in found.detail
    worse = claim("dense_eval", "V-12")(both | {"E jitter multi-crop": 0.8}, folds=folds)
    assert worse.verdict == "partly" and worse.effect == pytest.approx(-5, abs=0.2)


def test_thousands_of_images_decide_nothing_where_the_nets_differ():
    """Pooled over five nets the images would tell the two ways apart without any doubt."""
    its = plan("dense_eval")
    made = results("dense_eval", {})
    for net in "DE":
        for seed, gain in enumerate((0.10, -0.03, 0.06, -0.02, 0.05)):
            one = made.runs[f"{net} jitter both"][seed]
            right = round((0.7 + gain) * 756)
            one["final"]["test_accuracy"] = right / 756
            one["correct"] = np.packbits(np.arange(756) < right).tobytes().hex()
    (v_12,) = [claim for claim in its.experiment.claims if claim.id == "V-12"]
    found = v_12.judged(made, its.baseline)
    p = [float(value) for value in re.findall(r"McNemar p = ([\d.e+-]+)", found.detail)]
    assert found.verdict == "inconclusive" and len(p) == 4 and max(p) < 0.001


@pytest.mark.parametrize(
    ("one", "several", "verdict"),
    [(0.03, 0.03, "reproduced"), (0.0, 0.03, "partly"), (-0.03, -0.03, "contradicted"),
     (0.0, 0.0, "no effect")],
)  # fmt: skip
def test_scale_jitter_is_judged_at_one_scale_and_at_several(one, several, verdict):
    """Against as many steps at S = 384."""
    table = {f"{net} jitter @384": 0.7 + one for net in "DE"}
    table |= {f"{net} jitter @256,384,512": 0.7 + several for net in "DE"}
    assert claim("scale_jitter", "V-9")(table).verdict == verdict


def test_scale_jitter_is_not_tested_on_nets_that_the_second_stage_harmed():
    table = {"D S384 @384": 0.64, "D jitter @384": 0.9}
    found = claim("scale_jitter", "V-9")(table)
    assert (found.verdict, found.n) == ("not tested", 0)
    assert "leaves D more than 5 points behind" in found.detail
    assert claim("scale_jitter", "V-9")(table | {"D S384 @384": 0.66}).verdict != "not tested"


def test_on_the_canvas_nets_are_tested_at_what_v_9_needs():
    small = plan("scale_jitter", "small")
    assert set(small.views) == {
        "A @256", "A S384 @384", "A S384 on @384", "A S384 on @352,384,416",
        "A jitter @384", "A jitter @256,384,512",
    }  # fmt: skip
    assert len(plan("scale_jitter").views) == 2 * 4 * 8


def test_the_seven_nets_are_the_submissions():
    looks = plan("fusion", "paper").views["7 nets"].looks
    assert {(k.net, k.sides) for k in looks} == {
        ("D", (224, 256, 288)), ("D S384", (352, 384, 416)), ("D jitter", (256, 384, 512)),
        ("C", (224, 256, 288)), ("C S384", (352, 384, 416)),
        ("E", (224, 256, 288)), ("E S384", (352, 384, 416)),
    }  # fmt: skip


def test_an_initialisation_is_judged_by_how_many_seeds_never_leave_chance():
    found = verdicts("init", {"train std 0.01": 0.25})
    assert found == {"V-8 std 0.1": "inconclusive", "V-8 std 0.01": "reproduced"}
    both = {"train std 0.01": 0.25, "train Glorot": 0.25}
    assert verdicts("init", both)["V-8 std 0.01"] == "inconclusive"


@pytest.mark.parametrize(("lost", "verdict"), [(5, "reproduced"), (4, "inconclusive")])
def test_fisher_s_test_asks_for_five_of_five(lost, verdict):
    made, its = results("init", {}), plan("init")
    for seed in range(lost):
        made.runs["std 0.01"][seed]["history"][-1]["train_accuracy"] = 0.25
    (v_8,) = [claim for claim in its.experiment.claims if claim.id == "V-8 std 0.01"]
    found = v_8.judged(made, its.baseline)
    assert (found.verdict, found.unit, found.effect) == (verdict, "share of seeds", lost / 5)
    assert f"std 0.01 {lost} of 5" in found.detail and found.p < 0.03


def test_bn_on_vgg_is_judged_on_accuracy_rate_and_start():
    table = {f"{net} + BN": 0.8 for net in "ADE"} | {f"{net} + BN ×10": 0.8 for net in "ADE"}
    table |= {f"{net} ×10": 0.3 for net in "ADE"} | {"train D, std 0.01": 0.25}
    assert set(verdicts("with_bn", table).values()) == {"reproduced"}
    assert verdicts("with_bn", {})["VGG+BN accuracy"] == "no effect"
    lost = table | {"train D + BN, std 0.1": 0.2}
    assert verdicts("with_bn", lost)["VGG+BN start"] == "inconclusive"


def test_nets_that_fail_by_design_do_not_stand_in_the_way_of_those_at_their_own_rate():
    table = {"train D, std 0.01": 0.25, "train D ×10": 0.25}
    assert verdicts("with_bn", table)["VGG+BN accuracy"] == "no effect"
    assert verdicts("with_bn", table | {"train E": 0.25})["VGG+BN accuracy"] == "not tested"


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
    text = markdown_of(build_report(plan(name), results(name, {})))
    assert f"### {title}" in text and row in text


def test_the_q_curves_show_every_way_to_train():
    charts = build_report(plan("scale_jitter"), results("scale_jitter", {})).charts
    chart = charts["D: error against test scale"]
    assert set(chart.series) == {"S = 256", "S = 384", "S = 384, longer", "S = [256; 512]"}
    assert sorted(chart.series["S = 384"]) == [224, 256, 288, 352, 384, 416, 512]
    assert chart.series["S = 384"][224] == pytest.approx([30, 29.9, 29.8, 29.7, 29.6])
