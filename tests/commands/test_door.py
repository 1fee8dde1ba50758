"""One door, `python -m vggbn`: its commands, former names, experiments by name, their pages."""

import json
import runpy
import subprocess
import sys
from importlib import import_module

import pytest

import vggbn.__main__ as door
from tests.conftest import ROOT
from vggbn import commands
from vggbn.claims import results
from vggbn.commands import claims, publish, report
from vggbn.errors import UserError
from vggbn.experiment import checkout, find, published
from vggbn.experiment.exact import ExactExperiment
from vggbn.experiment.plan import Plan
from vggbn.report import html

NO_JAX = "import sys; sys.modules['jax'] = None\n"


def python(code: str, *argv: str):
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def ended(main, *arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(*arguments)
    return end.value.code  # type: ignore


# --- commands ------------------------------------------------------------------------------------


def test_every_file_of_commands_that_reads_a_command_line_alone_is_one():
    there = commands.commands()
    assert {"evaluate", "gallery", "prepare", "claims", "report", "publish"} <= there.keys()
    assert not {"experiment", "exact"} & there.keys()  # command lines of experiments
    assert all(what.endswith(".") and len(what) < 95 for what in there.values())


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_alone_it_lists_them(argv, capsys):
    assert ended(door.main, argv) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, what in commands.commands().items():
        assert any(line.split() == [name, *what.split()] for line in lines)


def test_a_command_that_is_not_there_is_a_sentence(capsys):
    assert ended(door.main, ["publsh", "--check"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: unknown command 'publsh'. Did you mean 'publish'?")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", commands.commands())
def test_every_command_has_a_help_under_its_name(name, capsys):
    assert ended(door.main, [name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m vggbn {name} ")


def test_the_list_and_prepare_need_no_jax(tmp_path):
    code = (
        NO_JAX
        + "import runpy; sys.argv[0] = 'vggbn'; runpy.run_module('vggbn', run_name='__main__')"
    )
    assert python(code).returncode == 0
    run = python(code, "prepare", f"folder:{tmp_path}/none", "--name", "x")
    assert run.returncode == 2 and f"{tmp_path}/none" in run.stderr, run.stderr


FORMER = {
    "vggbn.evaluate": ("evaluate", ["RUN", "DATA"]),
    "vggbn.gallery": ("gallery", ["RUN"]),
    "vggbn.publish": ("publish", ["--check"]),
    "vggbn.ledger": ("claims", []),
    "vggbn.data": ("prepare", ["NAME", "--name", "prepare"]),
}


@pytest.mark.parametrize("former", FORMER)
def test_former_names_forward_and_say_the_new_one(former, monkeypatch, capsys):
    name, argv = FORMER[former]
    ran = []
    monkeypatch.setattr(commands, "run_command", lambda *arguments: ran.append(arguments))
    monkeypatch.delitem(sys.modules, "vggbn.__main__")  # as in a process of its own
    word = ["prepare"] if name == "prepare" else []
    monkeypatch.setattr(sys, "argv", [former, *word, *argv])
    assert ended(lambda: runpy.run_module(former, run_name="__main__")) == 0
    assert ran == [(name, argv)]
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"now `python -m vggbn {name}`" in err


# --- experiments by name -------------------------------------------------------------------------


def test_experiments_are_found_by_name_with_what_they_ask():
    names = find.experiment_names()
    files = sorted(path.stem for path in (ROOT / "experiments").glob("[a-z]*.py"))
    assert names == files == list(find.questions())
    assert all(find.questions().values())
    assert find.find_experiment("bn-mnist") is import_module("experiments.bn_mnist").EXPERIMENT
    with pytest.raises(UserError, match="Did you mean 'bn_mnist'"):
        find.find_experiment("bn_mnits")


@pytest.mark.parametrize(
    ("package", "words"), [("json", "holds no experiments"), ("no_such", "none here")]
)
def test_another_package_of_that_name_is_said(package, words, monkeypatch):
    monkeypatch.setattr(find, "PACKAGE", package)
    with pytest.raises(UserError, match=words):
        find.find_experiment("bn_mnist")


def test_experiments_alone_lists_them_without_jax():
    run = python(NO_JAX + "import runpy; runpy.run_module('experiments', run_name='__main__')")
    assert run.returncode == 0, run.stderr
    for name, question in find.questions().items():
        assert f"  {name} " in run.stdout and question in run.stdout


# --- pages from results --------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Two seeds of two sets of published results of one experiment, which count whatever code made
    them."""
    monkeypatch.setattr(Plan, "is_of_today", lambda *_: True)
    for size in ("full-cifar10", "full-mnist5k"):
        path = checkout.PUBLISHED / "bn_ablation" / size / "results.jsonl"
        two = [line for line in results.read(path) if line["seed"] < 2]
        copied = tmp_path / "bn_ablation" / size / "results.jsonl"
        copied.parent.mkdir(parents=True)
        copied.write_text("".join(json.dumps(line) + "\n" for line in two))
    return tmp_path


def test_a_report_is_the_page_of_the_results(copy, monkeypatch, capsys):
    flags = ["--results", str(copy)]
    assert ended(report.main, ["bn_ablation", "--data", "mnist5k", *flags]) == 0
    (page,) = copy.glob("*/*/report.html")
    assert capsys.readouterr().out.split() == [str(page)]
    assert page.parent.name == "full-mnist5k"
    expected = html.page(published.published_report(page.with_name("results.jsonl")))
    assert page.read_text(encoding="utf-8") == expected
    monkeypatch.setattr(html, "page", lambda report: "drawn once is enough")
    assert ended(report.main, ["bn-ablation", "--size", "full", *flags]) == 0
    assert len(list(copy.glob("*/*/report.html"))) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("bn_ablatoin", "Did you mean 'bn_ablation'"),
        ("bn_ablation --size huge", "unknown size 'huge'"),
        ("bn_ablation --data digits", "there are: full-cifar10, full-mnist5k"),
        ("vgg_init", "there are: none. python -m experiments.vgg_init makes them"),
        ("vgg_receptive_field", "python -m experiments.vgg_receptive_field writes its page"),
    ],
)
def test_a_report_that_cannot_be_is_a_sentence(argv, words, copy, capsys):
    assert ended(report.main, [*argv.split(), "--results", str(copy)]) == 2
    assert words in capsys.readouterr().err
    assert not list(copy.glob("*/*/report.html"))


# --- where there is no checkout ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (publish.main, []),
        (publish.main, ["--check"]),
        (claims.main, []),
        (report.main, ["bn_mnist"]),
    ],
)
def test_an_installed_package_publishes_nothing(main, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    monkeypatch.setattr(checkout, "PUBLISHED", tmp_path / "results")
    assert ended(main, argv) == 2
    out, err = capsys.readouterr()
    assert "installed package" in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


def test_a_report_does_not_say_that_nothing_was_tuned_where_that_is_not_known(
    tmp_path, monkeypatch
):
    from vggbn.experiment import plan, summary

    experiment = find.find_experiment("bn_mnist")
    assert not isinstance(experiment, ExactExperiment)
    of = plan.make_plan(experiment, "full", out=tmp_path)
    assert not any("not searched" in note for note in summary._sweep_note(of))  # two rounds
    monkeypatch.setattr(plan, "PUBLISHED", tmp_path)
    (note,) = summary._sweep_note(of)
    assert "were not searched on this data" in note
    monkeypatch.setattr(checkout, "PUBLISHED", tmp_path / "results")
    (note,) = summary._sweep_note(of)
    assert "is not known here" in note and "not searched" not in note
