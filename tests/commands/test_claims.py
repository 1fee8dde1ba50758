"""The ledger: 76 claims and 12 contradictions, no more said than the results say; Holm's method."""

import math
from dataclasses import replace

import pytest

from vggbn.claims.looks import adjusted
from vggbn.claims.stats import Judgement, as_ratio, holm, p_value, paired_interval
from vggbn.commands import claims
from vggbn.experiment import ledger
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.ledger import Found, Row


def judgement(claim="BN-15", verdict="reproduced", values=(1.0, 2, 3, 2, 1), unit="points", **more):
    interval = paired_interval(values)
    if unit == "ratio":
        interval = as_ratio(interval)
    return Judgement(
        claim, "", "", "", verdict, interval.n, interval.mean, interval.low, interval.high, unit,
        **more,
    )  # fmt: skip


# --- what is claimed -----------------------------------------------------------------------------


def test_the_papers_make_76_claims_and_contradict_themselves_in_12_places():
    known = ledger.entries()
    names = [name for name, entry in known.items() if entry.paper != ledger.LATER]
    for paper, count in {"BN": 31, "V": 25, "G": 20, "I": 12}.items():
        own = [n for n in names if n.startswith(f"{paper}-")]
        assert own == [f"{paper}-{i}" for i in range(1, count + 1)]
    assert len(names) == 88
    assert [n for n in names if known[n].paper == ledger.CONTRADICTIONS] == names[-12:]


def test_every_claim_of_an_experiment_is_a_claim_of_the_papers():
    names = [
        claim.id
        for e in ledger.experiments()
        for claim in (*ledger.computed(e), *getattr(e, "claims", ()))
    ]
    assert len(names) > 40
    assert not [name for name in names if claims._unknown(name, ledger.entries())]


def test_every_batch_normalization_claim_has_a_test_or_an_experiment():
    names = {
        ledger.base_id(claim.id)
        for e in ledger.experiments()
        for claim in (*ledger.computed(e), *getattr(e, "claims", ()))
    }
    assert {f"BN-{i}" for i in range(1, 31)} <= names | set(ledger.TESTS)


def test_named_tests_are_there():
    rows = [Row(claim, "", "exact", where) for claim, where in ledger.TESTS.items()]
    assert not [row for row in rows if claims._lost(row)]
    assert claims._lost(Row("BN-1", "", "exact", "tests/nn/test_norm.py::test_of_nothing"))
    assert claims._lost(Row("BN-1", "", "exact", "tests/test_nothing.py::test_of_nothing"))


# --- what is said of it --------------------------------------------------------------------------


def row_of(claim, found):
    experiment = next(e for e in ledger.experiments() if e.name == "bn_ablation")
    (claim,) = [c for c in experiment.claims if c.id == claim]
    return ledger._judge(claim, experiment, found)


def test_the_primary_data_decide_and_another_set_is_no_second_chance():
    mine, other = judgement(verdict="inconclusive"), judgement(verdict="reproduced")
    second = Found(other, "mnist5k", "results/b")
    assert row_of("BN-15", [second, Found(mine, "cifar10", "results/a")]).state == "inconclusive"
    alone = row_of("BN-15", [second])
    assert alone.state == "planned" and "so far mnist5k: reproduced" in alone.where
    assert row_of("BN-15", []).state == "planned"
    assert alone.also == [second], "it stands beside"


def test_of_two_sizes_of_the_primary_data_the_one_that_tests_it_decides():
    refused, found = judgement(verdict="not tested"), judgement(verdict="reproduced")
    full, small = Found(refused, "cifar10", "results/a"), Found(found, "cifar10", "results/b")
    row = row_of("BN-15", [full, small])
    assert (row.state, row.where, row.also) == ("reproduced", "results/b", [])
    both = row_of("BN-15", [small, Found(found, "cifar10", "results/c")])
    assert both.where == "results/b" and [one.where for one in both.also] == ["results/c"]


@pytest.mark.parametrize("holds, state", [(True, "measured"), (False, "contradicted")])
def test_a_computation_that_fails_is_a_fault(holds, state):
    claim = ExactClaim(
        id="BN-5", sentence="", criterion="", paper="", check=lambda: (holds, "why"), measured=True
    )
    experiment = ledger.experiments()[0]
    row = ledger._computed(claim, experiment, claim.judged())
    assert row.state == state
    faults = claims.find_faults([row], {})
    assert ("BN-5 is computed and does not hold" in faults) != holds


def test_too_few_seeds_and_unknown_names_are_faults():
    few = judgement(values=(1.0, 2, 1))
    row = Row("BN-15", "", few.verdict, "results", few)
    assert "BN-15 is called reproduced on 3 seeds" in claims.find_faults([row], {})
    unsure = replace(few, verdict="inconclusive")
    assert not claims.find_faults([replace(row, judgement=unsure)], {})
    assert claims.find_faults([], {"BN-99 x": []}) == ["BN-99 x is no claim of papers.md"]
    assert not claims.find_faults([], {"VGG+BN rate": []})


def test_a_stale_page_is_a_fault():
    (fault,) = claims.find_faults([], {}, ["docs/results/bn_mnist.md"])
    assert fault.startswith("docs/results/bn_mnist.md is not") and "make report" in fault


def test_the_text_counts_states_and_intervals():
    from scipy.stats import ttest_1samp

    one = judgement()
    rows = [
        Row("BN-1", "", "exact", "tests/nn/test_norm.py::x"),
        Row("BN-15", "", one.verdict, "results/a", one, "cifar10", is_primary=True),
        Row("BN-31", "", "not attempted", "why"),
        Row("I-4", "", "noted", ""),
    ]
    text = claims.text(rows, 110)
    counted = "4 rows: 1 exact, 1 reproduced, 1 not attempted, 1 noted"
    assert f"3 claims and 1 contradiction in the papers, 0 later questions, {counted}" in " ".join(
        text.split()
    )
    assert "1 rows have an interval, each at 98.2 % for one of three looks (n = 5, 10, 20)" in text
    assert "p, of the 1 primary claims (P)" in text
    row = next(line for line in text.splitlines() if line.startswith("BN-15"))
    assert row.split()[:3] == ["BN-15", "P", "reproduced"]
    alone = adjusted(ttest_1samp((1.0, 2, 3, 2, 1), 0).pvalue)
    assert f"n = 5, p {alone:.2g}, on cifar10" in text and "+1.80 [" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_text_is_as_wide_as_the_terminal_and_says_the_claims_words(width):
    words = " ".join(f"word{i}" for i in range(40))
    why = "the baseline still gains 3 points in the last tenth of its budget; base less bn"
    lost = judgement("BN-25 distortion", "not tested", detail=why)
    rows = [Row("BN-25 distortion", words, "not tested", "results/a", lost, "cifar10")]
    text = claims.text(rows, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    assert words in flat and "why: the baseline still gains 3 points" in flat
    assert "base less bn" not in flat  # what the judge had found is no reason


def test_every_row_that_is_not_tested_says_why():
    for experiment in ledger.experiments():
        for claim in getattr(experiment, "claims", ()):
            if isinstance(claim, ExactClaim) or claim.judge is not None:
                continue
            lost = judgement(claim.id, "not tested", detail=claim.not_tested)
            row = Row(claim.id, claim.sentence, "not tested", "", lost)
            assert "why: " in claims.text([row], 100), claim.id


# --- p and Holm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(1.0, 2, 3, 2, 1), (0.1, -0.2, 0.3, 0.2, -0.4, 0.1)])
def test_p_is_student_s(values):
    from scipy.stats import ttest_1samp  # a second, in every process that looks for tests too

    expected = ttest_1samp(values, 0).pvalue
    assert p_value(judgement(values=values)) == pytest.approx(expected, rel=1e-6)
    assert p_value(judgement(values=values, unit="ratio")) == pytest.approx(expected, rel=1e-6)
    whole = judgement(values=values)
    for open_side in ({"low": -math.inf}, {"high": math.inf}):
        assert p_value(replace(whole, **open_side)) == pytest.approx(expected, rel=1e-6)


def test_what_has_no_student_interval_has_no_p():
    assert math.isnan(p_value(replace(judgement(), low=-math.inf, high=math.inf)))
    assert math.isnan(p_value(judgement(unit="share of seeds")))
    assert math.isnan(p_value(replace(judgement(), n=0, effect=math.nan)))
    assert math.isnan(p_value(judgement(values=(0.0, 0))))  # two equal ones: no interval
    assert p_value(judgement(values=(2.0, 2, 2))) == 0 and p_value(judgement(values=[0.0] * 3)) == 1


def test_a_test_s_own_p_goes_before_the_interval_s():
    assert p_value(judgement(p=0.004)) == 0.004
    assert p_value(judgement(unit="share of seeds", p=0.004)) == 0.004


def test_holm_s_method():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    expected = {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}  # Holm 1979: 4·, 3·, 2·, then the same
    assert holm(p) == pytest.approx(expected)
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.01, "b": 0.02}, family=4) == pytest.approx({"a": 0.04, "b": 0.06})


def primary(name, p, verdict="reproduced"):
    return Row(name, "", verdict, "", judgement(verdict=verdict, p=p), is_primary=True)


def test_p_is_adjusted_for_the_looks_and_for_all_primary_claims():
    """Also for those that no results judge yet, or that the runs cannot test."""
    rows = [
        primary("BN-15", 0.0018),
        primary("V-9", 0.0009),
        primary("BN-13", 1e-6, "not tested"),
        Row("BN-18", "", "planned", "", is_primary=True),
        Row("BN-22", "", "reproduced", "", judgement(p=1e-9)),
    ]
    looks = 0.05 / 0.018
    assert claims.adjusted_p(rows) == pytest.approx(
        {"V-9": 4 * 0.0009 * looks, "BN-15": 3 * 0.0018 * looks}
    )
