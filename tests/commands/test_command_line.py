"""The command line: mistakes get one clear sentence, and a run can be stopped at any time."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.bn_ablation import EXPERIMENT
from tests.commands import stop_jobs
from tests.conftest import ROOT
from vggbn.claims.results import read
from vggbn.commands import experiment as run_experiment
from vggbn.commands.evaluate import main as evaluate_main
from vggbn.commands.experiment import main
from vggbn.errors import PREEMPTED, UserError
from vggbn.jobs import pool
from vggbn.machine import environment
from vggbn.models import build
from vggbn.runs import arrays as checkpoint
from vggbn.runs import many as train_many
from vggbn.runs import saved_steps
from vggbn.training.recipe import Recipe, static

# argv -> what the sentence must say. {here} is a folder with the traps of `here` below.
MISUSE = {
    "unknown flag": ("--sise small", ["--sise", "--help"]),
    "abbreviated flag": ("--see 3", ["--see", "--help"]),
    "stray word": ("small", ["small", "--help"]),
    "flag without its value": ("--size", ["--size", "expected one argument"]),
    "unknown size": (
        "--size smal",
        ["'smal'", "Did you mean 'small'", "Valid: full, small, smoke"],
    ),
    "unknown variant": ("--only base bn+lr_x6", ["'bn+lr_x6'", "'bn+lr_x5'", "bn+all"]),
    "no variant": ("--only", ["--only", "at least one argument"]),
    "unknown field": ("--set learning_rate=1", ["'learning_rate'", "lr_factor", "momentum"]),
    "no equals sign": ("--set lr", ["--set takes field=value", "'lr'"]),
    "a text for a number": ("--set steps=many", ["steps takes int", "'many'"]),
    "a fraction for a whole number": ("--set batch=1.5", ["batch takes int", "'1.5'"]),
    "a number for a switch": ("--set flip=2", ["flip takes bool", "'2'"]),
    "an empty value": ("--set lr=", ["lr takes float", "''"]),
    "a negative rate": ("--set lr=-0.1", ["lr must be positive", "-0.1"]),
    "not a number": ("--set lr=nan", ["lr must be positive and finite", "nan"]),
    "infinite": ("--set l2=inf", ["l2 must be zero or more and finite", "inf"]),
    "dropout of 1": ("--set dropout=1", ["dropout must be at least 0 and below 1", "1.0"]),
    "no steps": ("--set steps=0", ["steps must be positive", "0"]),
    "no pixels": ("--set image_size=0", ["image_size must be positive", "0"]),
    "overflowing arm": ("--set lr=1e308", ["lr=1e+308", "must be positive and finite", "inf"]),
    "unknown model": ("--set model=vgg_f", ["'vgg_f'", "Valid: mlp, vgg_a"]),
    "unknown norm": ("--set norm=bach", ["'bach'", "Did you mean 'batch'", "none"]),
    "unknown initialiser": ("--set init=xavier", ["init", "'xavier'", "glorot"]),
    "unknown schedule": ("--set schedule=cosine", ["schedule", "'cosine'", "plateau"]),
    "unknown activation": ("--set activation=gelu", ["activation", "'gelu'", "sigmoid"]),
    "unknown shuffling": ("--set shuffle=none", ["shuffle", "'none'", "fixed, fresh"]),
    "unknown fit": ("--set fit=crop", ["fit", "'crop'", "pad, resize"]),
    "an arm left without its change": ("--set dropout=0", ["--set dropout=0.0", "changes nothing"]),
    "BN against BN": ("--set norm=batch", ["--set norm=batch", "changes nothing"]),
    "no seeds": ("--seeds 0", ["--seeds must be 1 or more", "0"]),
    "negative seeds": ("--seeds -2", ["--seeds must be 1 or more", "-2"]),
    "seeds in words": ("--seeds three", ["--seeds", "'three'", "int"]),
    "decoders": ("--input-workers 2", ["--input-workers is for --distributed only"]),
    "too few processes": ("--jobs -1", ["--jobs must be 1 or more", "-1"]),
    "unknown log": ("--log tensorbord", ["'tensorbord'", "'tensorboard'", "Valid: csv, tens"]),
    "a batch of all and more": ("--set batch=5000", ["5000", "3500", "between 1 and 3500"]),
    "uneven groups": ("--set bn_groups=5", ["batch 128", "bn_groups=5"]),
    "padding too small": ("--set fit=pad", ["28x28", "image_size=16", "resize"]),
    "no such folder": ("--data folder:{here}/missing", ["{here}/missing does not exist"]),
    "folder of no path": ("--data folder:", ["has no path", "write folder:PATH"]),
    "folder without images": ("--data folder:{here}/bare", ["{here}/bare", "CLASS"]),
    "folder of one class": ("--data folder:{here}/one", ["{here}/one", "two are needed"]),
    "folder with an empty class": ("--data folder:{here}/hole", ["{here}/hole/b is empty", "add"]),
    "folder with a damaged image": (
        "--data folder:{here}/damaged --out {here}/out",
        ["{here}/damaged/b/3.png", "replace or remove"],
    ),
    "folder with a file that is no image": (
        "--data folder:{here}/notes --out {here}/out",
        ["{here}/notes/a/notes.txt", "replace or remove"],
    ),
    "folder that is a file": ("--data folder:{here}/file", ["{here}/file is a file", "folder"]),
    "folder too small to split": (
        "--data folder:{here}/few --out {here}/out",
        ["{here}/few", "no image of class", "ten images"],
    ),
    "out is a file": ("--out {here}/file", ["--out {here}/file", "name another folder"]),
    "out below a file": ("--out {here}/file/x", ["--out {here}/file/x", "name another folder"]),
    "out that cannot be made": ("--out /proc/vggbn", ["--out /proc/vggbn", "another folder"]),
    "not prepared": (
        "--data cifar10 --data-dir {here}/bare",
        ["cifar10 is not prepared in {here}/bare", "make data DATASET=cifar10"],
    ),
    "unknown data set": (
        "--data mnist5 --data-dir {here}/bare",
        ["'mnist5' is unknown", "mnist5k", "folder:PATH"],
    ),
}
EVALUATE = {
    "unknown flag": ("{here}/run digits --spilt test", ["--spilt", "--help"]),
    "nothing": ("", ["RUN", "--help"]),
    "no data": ("{here}/run", ["DATA", "--help"]),
    "no run": ("{here}/missing digits", ["no run at {here}/missing", "run.json"]),
    "damaged run": ("{here}/torn digits", ["{here}/torn/run.json cannot be read", "again"]),
    "run of nothing": ("{here}/empty digits", ["{here}/empty/run.json cannot be read", "again"]),
    "no weights": ("{here}/light digits", ["no checkpoint at {here}/light/weights", "train"]),
    "unknown split": ("{here}/run digits --split tests", ["'tests'", "Did you mean 'test'"]),
    "no such folder": ("{here}/run folder:{here}/missing", ["{here}/missing does not exist"]),
    "other classes": ("{here}/run digits", ["7 classes", "10", "digits"]),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    (folder / "file").write_text("I am a file")
    (folder / "bare").mkdir()
    _classes(folder / "one", a=3)
    _classes(folder / "few", a=2, b=2)
    _classes(folder / "hole", a=3, b=0)
    _classes(folder / "notes", a=3, b=3)
    (folder / "notes" / "a" / "notes.txt").write_text("not an image")
    damaged = _classes(folder / "damaged", a=5, b=5) / "b" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    _saved_runs(folder)
    return folder


def _classes(folder: Path, **counts) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def _saved_runs(folder: Path) -> None:
    recipe = Recipe(data="digits", image_size=8, model="mlp", fc=8)
    facts = {"name": "seven shapes", "classes": 7}
    record = json.dumps({"recipe": asdict(recipe), "seed": 0, "data": facts})
    for name, text in {"run": record, "light": record, "torn": record[:50], "empty": "{}"}.items():
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(text)
    net = static(recipe, image=(8, 8, 1), classes=7, flip=False).net
    shapes = jax.eval_shape(lambda: build(net).init(jax.random.key(0), "he"))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    weights = {**variables, "mean": np.zeros(1), "std": np.ones(())}
    checkpoint.save(folder / "run" / "weights", weights)


@pytest.fixture
def no_training(monkeypatch, tmp_path):
    def refuse(*arguments):
        raise AssertionError("nothing is trained before the mistake is seen")

    monkeypatch.setattr(run_experiment, "run_plan", refuse)
    monkeypatch.chdir(tmp_path)


def words(text, here):
    return [word.format(here=here) for word in text.split()]


def check(status, out, err, parts, here):
    assert "Traceback" not in err, err
    assert status == 2, err
    sentence = err.strip()
    assert sentence.startswith("error: ") and "\n" not in sentence, err
    assert len(sentence) < 1000
    for part in parts:
        assert part.format(here=here) in sentence, sentence
    assert out == ""


def refused(command, argv, capsys):
    with pytest.raises(SystemExit) as end:
        command(argv)
    return end.value.code, *capsys.readouterr()


@pytest.mark.parametrize("mistake", MISUSE)
def test_a_mistake_gets_one_clear_sentence(mistake, here, no_training, capsys):
    text, parts = MISUSE[mistake]

    def command(argv):
        main(EXPERIMENT, argv)

    check(*refused(command, words(text, here), capsys), parts, here)


def test_and_so_in_a_process_of_its_own(here, tmp_path):
    text, parts = MISUSE["unknown size"]
    command = [sys.executable, "-m", "experiments.bn_ablation", *words(text, here)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, **process(tmp_path))
    check(run.returncode, run.stdout, run.stderr, parts, here)


@pytest.mark.parametrize("mistake", EVALUATE)
def test_a_mistake_in_evaluating_gets_one_clear_sentence(
    mistake, here, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    text, parts = EVALUATE[mistake]
    check(*refused(evaluate_main, words(text, here), capsys), parts, here)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_there_are_twenty_and_more_ways():
    assert len(MISUSE) >= 40


def test_a_jax_that_does_not_start_gets_one_sentence(monkeypatch):
    monkeypatch.setattr(train_many, "_setting", _no_device)
    monkeypatch.setattr(environment, "accelerated", lambda: True)
    with pytest.raises(UserError, match=r"\(RuntimeError: no such platform\); see JAX_PLATFORMS"):
        train_many.worker_setting(pool.local(1))


def _no_device(payload, report):
    raise RuntimeError("no such platform")


def test_a_full_disk_is_told_without_a_traceback(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device", "results.jsonl")

    monkeypatch.setattr(run_experiment, "run_plan", full)
    argv = ["--out", str(tmp_path)]
    status, _, err = refused(lambda argv: main(EXPERIMENT, argv), argv, capsys)
    assert status == 2
    assert err == "error: No space left on device (results.jsonl). Finished runs are kept.\n"


def test_help_names_every_flag(capsys):
    status, out, err = refused(lambda argv: main(EXPERIMENT, argv), ["--help"], capsys)
    assert (status, err) == (0, "")
    flags = "size data data-dir seeds only set out jobs log allow-slow list sweep".split()
    assert all(f"--{flag}" in out for flag in flags)
    assert "smoke, small, full" in out


@pytest.mark.parametrize(
    ("flags", "accelerated", "runs"),
    [
        ("", False, False),
        ("--sweep", False, False),
        ("--allow-slow", False, True),
        ("", True, True),
    ],
)
def test_bfloat16_on_a_cpu_wants_to_be_forced(
    flags, accelerated, runs, monkeypatch, tmp_path, capsys
):
    planned = []
    monkeypatch.setattr(run_experiment, "run_plan", lambda plan, *rest: planned.append(plan) or 0)
    monkeypatch.setattr(environment, "accelerated", lambda: accelerated)
    monkeypatch.chdir(tmp_path)
    argv = f"--data digits --set precision=bfloat16 {flags}".split()
    status, out, err = refused(lambda argv: main(EXPERIMENT, argv), argv, capsys)
    if runs:
        assert (status, err) == (0, "") and planned[0].base.precision == "bfloat16"
    else:
        check(status, out, err, ["slower", "CPU", "GPU or TPU", "--allow-slow"], "")
        assert not planned and list(tmp_path.iterdir()) == []


def test_list_runs_nothing(no_training, capsys):
    argv = "--list --size full --only bn base --set l2=0.001".split()
    status, out, _ = refused(lambda argv: main(EXPERIMENT, argv), argv, capsys)
    assert status == 0
    assert "bn " in out and "base+lr_x5" not in out
    assert re.search(r"l2 +0\.001", out)
    assert all(claim.id in out for claim in EXPERIMENT.claims)
    assert list(Path.cwd().iterdir()) == []


# --- real runs -----------------------------------------------------------------------------------

TINY = (
    "--size smoke --data digits --set model=mlp --set image_size=8 --set fc=8 --set evaluations=3 "
    "--set population_batches=1 --seeds 2 --jobs 1"
).split()
ARMS = ["base", "base+lr_x5"]
RUNS = 4
ROW = re.compile(r"^\S+ seed \d +\d+\.\d +\d+\.\d +\d+\.\d\d")


def process(folder, **environment):
    """Where and how experiments are started here: with the checkout's modules."""
    own = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return {"cwd": folder, "env": os.environ | own | environment}


def arguments(out, *more):
    return [*TINY, "--out", str(out), "--only", *ARMS, *more]


def started(out, *more, module="experiments.bn_ablation", **environment):
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments(out, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it
        **process(out.parent, **environment),
    )


def results_of(out):
    (path,) = out.glob("bn_ablation/*/results.jsonl")
    return path


SHORT = "--set", "steps=30"


def test_an_experiment_from_the_first_run_to_the_report(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    experiment = started(out, *SHORT)
    first, err = experiment.communicate(timeout=600)
    assert (experiment.returncode, err) == (0, "")
    assert f"0 runs found, {RUNS} to do" in first
    assert sum(bool(ROW.match(text)) for text in first.splitlines()) == RUNS
    assert re.search(r"^arm +n +test % +95 % interval", first, re.M)
    assert all(re.search(rf"^{re.escape(arm)} +2 +\d", first, re.M) for arm in ARMS)
    unjudged = " ".join(first[first.index("Not judged: ") :].split("\n\n")[0].split())
    assert all(claim.id in unjudged for claim in EXPERIMENT.claims)  # no arm with BN was run
    page = results_of(out).with_name("report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<svg" in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)|url\((?!#)|@import|<script", page)
    lines = read(results_of(out))
    assert sorted((line["variant"], line["seed"]) for line in lines) == [
        (variant, seed) for variant in ARMS for seed in (0, 1)
    ]

    monkeypatch.setattr(run_experiment, "write_html", lambda path, report: None)

    def again():
        argv = arguments(out, *SHORT)
        status, second, err = refused(lambda argv: main(EXPERIMENT, argv), argv, capsys)
        assert (status, err) == (0, "")
        return second

    before = results_of(out).read_bytes()
    second = again()
    assert f"{RUNS} runs found, 0 to do" in second
    assert (
        second[second.index("arm  ") :].split("report.html")[0]
        == (first[first.index("arm  ") :].split("report.html")[0])
    )
    assert results_of(out).read_bytes() == before

    # Without the results the trained runs are still there: nothing is trained again.
    results_of(out).unlink()
    again()
    finished = {(line["variant"], line["seed"]): line["finished"] for line in lines}
    found = {(line["variant"], line["seed"]): line["finished"] for line in read(results_of(out))}
    assert found == finished


OFTEN = "--set steps=12 --set schedule=plateau --set lr_every=1000 --save-every".split()


def saved(out):
    """The steps that an unfinished run has saved."""
    runs = [path for path in (out / "runs").glob("*/seed*") if not (path / "run.json").exists()]
    return [step for path in runs for step in saved_steps.steps(path / "steps")]


def stop(out, send):
    """Start the experiment and send(its process) once a run has saved a step beyond those before,
    and waits; (status, stderr)."""
    before = max(saved(out), default=0)
    experiment = started(out, *OFTEN, "0", module=stop_jobs.__name__, **{stop_jobs.WAITS: "1"})
    try:
        while not (rows(out) and max(saved(out), default=0) > before):
            assert experiment.poll() is None, experiment.communicate()
            time.sleep(0.01)
        send(experiment)
        _, err = experiment.communicate(timeout=600)  # till the last worker has closed its end
    finally:
        experiment.kill()
    return experiment.returncode, err


def rows(out):
    """The results that are written."""
    return "".join(path.read_text() for path in out.glob("bn_ablation/*/results.jsonl"))


def test_stopped_or_killed_nothing_is_lost(tmp_path):
    """What is finished is kept; the run that is interrupted, three times, goes on where it was."""
    out, goes_on = tmp_path / "out", "Finished runs are kept; the same command goes on."
    status, err = stop(out, lambda p: os.killpg(p.pid, signal.SIGINT))
    assert (status, err.strip()) == (130, f"Stopped. {goes_on}")
    kept = rows(out)
    assert kept.count("\n") == 1
    assert max(saved(out)) == 2  # one, and the one at which it was stopped

    status, err = stop(out, lambda p: p.terminate())
    going_on, said = err.splitlines()
    assert (status, said) == (PREEMPTED, f"Stopped by SIGTERM. {goes_on}")
    assert going_on.startswith("going on from step 2 in ")
    assert max(saved(out)) == 4

    status, err = stop(out, lambda p: p.kill())
    assert status == -signal.SIGKILL
    (going_on,) = err.splitlines()  # orphaned workers end quietly
    assert going_on.startswith("going on from step 4 in ")
    assert max(saved(out)) == 5
    assert rows(out) == kept

    experiment = started(out, *OFTEN, "300", module=stop_jobs.__name__)
    text, err = experiment.communicate(timeout=600)
    assert experiment.returncode == 0 and f"1 run found, {RUNS - 1} to do" in text, err
    assert rows(out).startswith(kept)
    lines = read(results_of(out))
    assert len({(line["variant"], line["seed"]) for line in lines}) == len(lines) == RUNS
    resumed = [[each["step"] for each in line.get("resumed", ())] for line in lines]
    assert resumed == [[], [2, 4, 5], [], []]
