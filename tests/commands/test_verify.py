"""`python -m vggbn verify`: which claim, new seeds against a reference, what is said of others."""

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from tests.conftest import ROOT
from tests.support.result_lines import SETTING, line
from vggbn.commands import claims, verify
from vggbn.experiment import ledger, pages, verified
from vggbn.experiment.design import Claim, Effect, Experiment, Size
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.gate import FOR_FAILURES
from vggbn.experiment.plan import FRESH
from vggbn.experiment.small_form import FIRST, Comparison, small_form
from vggbn.jobs import here
from vggbn.machine import provenance
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe


def ended(*argv) -> int:
    with pytest.raises(SystemExit) as end:
        verify.main(argv)
    return end.value.code  # type: ignore


# --- which claim ---------------------------------------------------------------------------------


def test_a_claim_is_found_by_its_name_in_any_case():
    assert verify.find("BN-1") == ledger.TESTS["BN-1"]
    exact = verify.find("bn-4")
    assert isinstance(exact, ExactClaim) and exact.id == "BN-4"
    for name in ("BN-15", "BN-15 fewer", "BN-26"):
        found = verify.find(name)
        assert isinstance(found, tuple)
        assert found[0].id == name and found[0] in found[1].claims


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["bn-99"], "there is no claim 'bn-99'. Near to it: BN-9, BN-"),
        (["nothing", "like", "it"], "there is no claim 'nothing like it'. `make claims` lists all"),
        (["BN-25"], "BN-25 has parts: verify one of BN-25 decay, BN-25 distortion."),
        (["BN-25", "decay"], "BN-25 decay is not tested: in the baseline's budget"),
        (["BN-22"], "BN-22 has no small form"),
        (["BN-31"], "BN-31 is not attempted: needs ImageNet"),
        (["G-3"], "G-3 cannot be verified: no experiment"),
        (["I-4"], "I-4 cannot be verified"),
        ([], "say which claim: BN-15, BN-15 fewer, BN-16, "),
        (["BN-15", "--seeds", "0"], "--seeds must be 1 or more, not 0"),
        (["BN-15", "--jobs", "0"], "--jobs must be 1 or more, not 0"),
        (["BN-15", "--repeat", "5"], "above 1,000,000"),
        (["BN-15", "--repeat", "1000001", "1000001"], "each once"),
        (["BN-15", "--repeat", "1000001", "--record"], "seeds that nobody has seen"),
        (["BN-15", "--reference", "--seeds", "9"], "--seeds must be 10 or more, not 9"),
        (["BN-15", "--reference", "--record"], "leave out the other flags"),
        (["BN-4", "--record"], "nothing is trained for this claim"),
    ],
)
def test_what_cannot_be_verified_is_a_sentence_and_status_2(argv, words, capsys):
    assert ended(*argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and words in err


def test_make_needs_a_claim():
    # Without it a make inside `make test` first prints which directory it enters.
    command = ["make", "--no-print-directory", "verify"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("Say which claim: make verify CLAIM=BN-16")


# --- what needs no run ---------------------------------------------------------------------------


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_what_is_computed_is_computed_anew(holds, status, monkeypatch, capsys):
    computed = []

    def check():
        computed.append(holds)
        return holds, "as it is"

    claim = ExactClaim(id="X-1", sentence="s", criterion="c", check=check)
    monkeypatch.setattr(verify, "find", lambda name: claim)
    assert ended("X-1") == ended("X-1") == status and len(computed) == 2
    assert f"as it is\n{'holds' if holds else 'does not hold'}" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "status"), [("assert True", 0), ("assert False", 1)])
def test_what_is_a_test_is_tested(code, status, tmp_path, monkeypatch, capfd):
    (tmp_path / "test_it.py").write_text(f"def test_that():\n    {code}\n")
    monkeypatch.setattr(verify, "find", lambda name: "test_it.py::test_that")
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    assert ended("X-1") == status
    assert f"1 {'passed' if status == 0 else 'failed'}" in capfd.readouterr().out


def test_a_test_that_is_not_there_is_no_failure(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(verify, "find", lambda name: "test_it.py::test_that")
    monkeypatch.setattr(verify, "ROOT", tmp_path)
    assert ended("X-1") == 2 and "test_it.py::test_that could not be run" in capfd.readouterr().err


def test_a_test_needs_pytest(monkeypatch, capsys):
    monkeypatch.setattr(verify, "find_spec", lambda name: None)
    assert ended("BN-1") == 2 and "make install-dev" in capsys.readouterr().err


# --- new seeds -----------------------------------------------------------------------------------


def effects(results):
    """Of each seed a number that its training does not decide: 0 … 9 of the reference's."""
    return [Effect("last digits", {seed: seed % 1_000 for seed in results.seeds("plain", "bn")})]


CLAIM = Claim(id="X-1", sentence="It is so.", effects=effects, gate=FOR_FAILURES)
OF = Experiment(
    name="short",
    title="Short",
    question="Is this enough?",
    base=Recipe(data="digits", image_size=8, model="mlp", fc=4, steps=2, split="fixed"),
    variants=lambda base, size: {"plain": base, "bn": base.but(norm="batch")},
    sizes={"small": Size(seeds=2)},
    claims=(replace(CLAIM, judge=lambda results: None),),  # type: ignore
)
INSIDE, OUTSIDE = (1_001_004, 1_001_005), (1_001_804, 1_001_805)
# The mean of 0 … 9 and their standard deviation, by Student's t of 9 degrees for two new ones.
HALF = 2.262157 * math.sqrt(55 / 6) * math.sqrt(1 / 10 + 1 / 2)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A claim of our own whose reference is not there yet; (form, every run that was trained)."""
    form, trained = small_form(CLAIM, OF, tmp_path / "results"), []
    monkeypatch.setattr(verify, "find", lambda name: (CLAIM, OF))
    monkeypatch.setattr(verify, "small_form", lambda *found: form)
    monkeypatch.setattr(verified, "PATH", tmp_path / "results" / "verified.jsonl")
    monkeypatch.setattr(verify, "refuse_mistakes", lambda *plan: None)  # its judge is no judge

    def train_missing(plan, store, wanted, engine, setting, log, add):
        trained.extend(wanted)
        for arm, seed in wanted:
            recipe = plan.variants[arm]
            own = SETTING | {"code": runs.code(recipe)}
            add(line(arm, seed, id=recipe.id, setting=own, finished="2026-01-01"))
        return 0

    monkeypatch.setattr(verify, "train_missing", train_missing)
    monkeypatch.setattr(verify, "worker_setting", lambda engine: provenance.machine(SETTING))
    return form, trained


@pytest.fixture
def form(made):
    """The same with its reference."""
    form, trained = made
    assert ended("X-1", "--reference") == 0
    trained.clear()
    return form


def test_a_reference_is_made_once_and_what_is_missing_is_added(made, capsys):
    form, trained = made
    assert ended("X-1") == 2 and "has 0 of 10 seeds" in capsys.readouterr().err and not trained
    assert ended("X-1", "--reference") == 0
    assert str(form.reference_path) in capsys.readouterr().out
    ten = range(FIRST, FIRST + 10)
    assert Counter(trained) == Counter((arm, seed) for arm in ("plain", "bn") for seed in ten)
    lines = form.reference_path.read_text().splitlines(keepends=True)
    assert len(lines) == 20
    form.reference_path.write_text("".join(lines[:-3]))
    trained.clear()
    assert ended("X-1", "--reference") == 0 and len(trained) == 3
    assert sorted(form.reference_path.read_text().splitlines(keepends=True)) == sorted(lines)
    trained.clear()
    assert ended("X-1", "--reference", "--seeds", "12") == 0
    assert {seed for _, seed in trained} == {FIRST + 10, FIRST + 11} and len(trained) == 4
    assert ended("X-1", "--repeat", *map(str, OUTSIDE)) == 1
    assert " in 12 seeds of the reference" in capsys.readouterr().out


@pytest.mark.parametrize(("seeds", "status"), [(INSIDE, 0), (OUTSIDE, 1)])
def test_new_seeds_are_inside_or_outside(form, seeds, status, capsys):
    assert ended("X-1", "--repeat", *map(str, seeds)) == status
    out = capsys.readouterr().out
    word = "outside" if status else "inside"
    assert f"X-1: {word} what its reference lets one expect of 2 seeds" in out
    low, high = f"{4.5 - HALF:+.2f}".replace("-", "−"), f"{4.5 + HALF:+.2f}"
    assert f"95 % prediction interval {low} to {high}: {word}" in out
    assert "+4.50 in 10 seeds of the reference" in out
    assert not verified.read(verified.PATH), "it was not asked to be kept"


def test_seeds_are_new_at_each_call_and_said(form, made, capsys):
    _, trained = made
    said = []
    for _ in range(2):
        ended("X-1", "--seeds", "4")
        text = capsys.readouterr().out
        seeds = text.partition("new seeds: ")[2].partition(" (again")[0].split()
        assert f"verify X-1 --repeat {' '.join(seeds)})" in text
        assert [(arm, str(s)) for arm, s in trained] == [
            (arm, s) for s in seeds for arm in ("plain", "bn")
        ]
        assert len(set(seeds)) == 4 and all(FRESH < int(s) < verify.LARGEST for s in seeds)
        said.append(set(seeds))
        trained.clear()
    assert not said[0] & said[1]


def test_a_check_is_kept_where_asked_whatever_it_says(form, monkeypatch):
    for seeds in (INSIDE, OUTSIDE):
        monkeypatch.setattr(verify, "draw_seeds", lambda count, seeds=seeds: list(seeds))
        ended("X-1", "--record")
    inside, outside = verified.read(verified.PATH)
    assert (inside["inside"], outside["inside"]) == (True, False)
    assert inside["seeds"] == list(INSIDE) and inside["ids"] == form.ids()
    assert inside["parts"][0]["values"] == [4, 5] and inside["parts"][0]["n"] == 10
    assert inside["setting"] == provenance.machine(SETTING)


def test_other_images_and_failed_runs_say_nothing(form, made, monkeypatch, capsys):
    whole = verify.train_missing

    def of_other_images(*args):
        add = args[-1]
        return whole(*args[:-1], lambda x: add(x | {"data": x["data"] | {"digest": "d2"}}))

    monkeypatch.setattr(verify, "train_missing", of_other_images)
    assert ended("X-1") == 2 and "not those of the reference" in capsys.readouterr().err
    monkeypatch.setattr(verify, "train_missing", lambda *args: whole(*args) + 2)
    assert ended("X-1") == 2 and "2 runs failed, so nothing is said" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            Comparison("faster", "ratio", math.log(2), 10, math.log(1.5), math.log(3), 0.95,
                       math.log(2.5), [math.log(2), math.log(3.125)]),
            "faster: 2× in 10 seeds of the reference, 2.5× in 2 new ones (2×, 3.12×); 95 % "
            "prediction interval 1.5× to 3×: inside",
        ),
        (
            Comparison("gap", "points", 1.0, 12, -0.5, 2.5, 0.975, -1.0, [-1.0]),
            "gap, points: +1.00 in 12 seeds of the reference, −1.00 in 1 new ones (−1.00); 97.5 % "
            "prediction interval −0.50 to +2.50: outside",
        ),
        (
            Comparison("breaks", "seeds", 10, 10, 2, 3, 0.95, 1, [True, False, False]),
            "breaks: in 10 of 10 seeds of the reference, in 1 of 3 new ones; 95 % prediction "
            "interval 2 to 3: outside",
        ),
    ],
)  # fmt: skip
def test_a_part_is_said_in_its_unit(part, words):
    assert verify.describe(part) == words


@pytest.mark.slow
def test_nets_are_trained_found_again_and_compared(tmp_path, monkeypatch, capsys):
    """No part of it made up: ten seeds, then two new ones, which `--repeat` finds."""
    form = small_form(CLAIM, OF, tmp_path / "results")
    monkeypatch.setattr(verify, "find", lambda name: (CLAIM, OF))
    monkeypatch.setattr(verify, "small_form", lambda *found: form)
    monkeypatch.setattr(verify, "_engine", lambda args: here.engine())
    monkeypatch.setattr(verify, "refuse_mistakes", lambda *plan: None)
    flags = ["--out", str(tmp_path / "out")]
    assert ended("X-1", "--reference", *flags) == 0
    kept = map(json.loads, form.reference_path.read_text().splitlines())
    heads = {(each["experiment"], each["size"], each["variant"]) for each in kept}
    assert heads == {("short", "small", arm) for arm in form.arms}
    assert ended("X-1", "--repeat", *map(str, INSIDE), *flags) == 0
    assert "4 runs in" in capsys.readouterr().out
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("run.json")}
    assert len(trained) == 24
    assert ended("X-1", "--repeat", *map(str, INSIDE), *flags) == 0
    assert trained == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("run.json")}


# --- where it is shown ---------------------------------------------------------------------------


def test_checks_have_a_column_of_their_own_and_decide_nothing(monkeypatch):
    def rows(checks):
        return ledger.ledger({}, lambda claim, experiment: None, checks)

    before, after = rows({}), rows({"BN-15": "1 of 2", "BN-99": "9 of 9"})
    assert [row.verified for row in after if row.verified] == ["1 of 2"]
    assert [replace(row, verified="") for row in after] == before
    row = next(row for row in after if row.id == "BN-15")
    assert pages._cells(row)[-2] == "1 of 2"
    assert pages._cells(replace(row, verified=""))[-2] == "–"
    head, line = claims.text([row], 100).splitlines()[0], claims.text([row], 100).splitlines()
    assert head.split()[:3] == ["claim", "state", "verified"]
    (cells,) = [each for each in line if each.startswith("BN-15 ")]
    assert cells.index("1 of 2") == head.index("verified")


def test_the_pages_and_the_ledger_show_them(monkeypatch):
    monkeypatch.setattr(verified, "tallies", lambda lines: {"BN-1": "7 of 7"})
    text = pages.make_pages([]).texts[pages.LEDGER]
    assert "| verified | where |" in text
    (row,) = [each for each in text.splitlines() if "7 of 7" in each]
    assert row.startswith("| BN-1 | exact |")


def test_an_installed_package_verifies_nothing(tmp_path, monkeypatch, capsys):
    from vggbn.experiment import checkout

    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    assert ended("BN-15") == 2 and "installed package" in capsys.readouterr().err


def test_python_m_vggbn_takes_it():
    command = [sys.executable, "-m", "vggbn", "verify", "BN-25 decay"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "BN-25 decay is not tested" in done.stderr
