"""One VGG experiment from its command line to its pages: chains of nets, views, resumption."""

import json
import re
from importlib import import_module

import pytest

from vggbn.commands.experiment import run
from vggbn.machine import compiling
from vggbn.runs import run as runs

FLAGS = (
    "--size smoke --seeds 1 --data digits --set image_size=8 --set source_side=18 "
    "--set scale_min=9 --set scale_max=9 --set width=0.03125 --set fc=8 --set batch=8 "
    "--set steps=4 --set population_batches=1 --set evaluations=1"
).split()


def again(done, jobs=0):
    """The command of this module; without jobs it is done in this process, which compiles once."""
    experiment, out = done
    return run(experiment, [*FLAGS, "--jobs", str(jobs), "--out", str(out)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    made = import_module("experiments.vgg_dense_eval").EXPERIMENT, tmp_path_factory.mktemp("vgg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "tune_process", lambda: None)  # it is not the engine's alone
        patch.setenv("NPROC", "1")  # as in a worker, which finds what is made here
        assert again(made) == 0
        yield made


def lines_of(out):
    (path,) = out.glob("vgg_dense_eval/*/results.jsonl")
    return path, [json.loads(line) for line in path.read_text().splitlines()]


def test_the_net_s_ancestors_are_trained_and_only_its_own_line_is_written(done):
    _, out = done
    trained = [line for line in lines_of(out)[1] if "view" not in line]
    assert [line["variant"] for line in trained] == ["A jitter"]
    recipe = runs.Recipe.from_dict(trained[0]["recipe"])
    stored = {path.parts[-3] for path in (out / "runs").glob("*/seed0/run.json")}
    assert stored == {recipe.id, *(parent.id for parent in recipe.ancestors)} and len(stored) == 3


def test_every_view_has_a_line_and_none_counts_an_image_twice(done):
    _, out = done
    views = {line["variant"]: line for line in lines_of(out)[1] if "view" in line}
    assert len(views) == 3 + 4
    assert {line["final"]["test_n"] for line in views.values()} == {360}
    both = views["A jitter both"]["view"]["looks"]
    assert both == [{"net": "A jitter", "sides": [9, 14, 18], "protocols": ["dense", "multi_crop"]}]


def test_the_pages_are_written(done):
    _, out = done
    page = next(out.glob("vgg_dense_eval/*/report.html")).read_text()
    assert "Table 5: dense evaluation and crops" in page and "V-12" in page
    assert next(out.glob("vgg_dense_eval/*/gallery.html")).stat().st_size > 1000


def test_the_same_command_again_does_nothing_more(done, capsys):
    _, before = lines_of(done[1])
    assert again(done) == 0
    assert lines_of(done[1])[1] == before
    assert "1 run found, 0 to do" in capsys.readouterr().out


def test_a_lost_line_comes_back_from_what_is_kept(done, capsys):
    """A posterior that is lost too is computed by a worker, from the net that is kept."""
    path, before = lines_of(done[1])
    assert before[-1]["variant"] == "A jitter dense @384, no mirror"
    path.write_text("".join(json.dumps(line) + "\n" for line in before[:-2]))
    (lost,) = done[1].glob("runs/*/seed0/posteriors/dense@14.npz")
    lost.unlink()
    assert again(done, jobs=1) == 0
    after = lines_of(done[1])[1]
    assert [line["variant"] for line in after] == [line["variant"] for line in before]
    assert [line["correct"] for line in after[-2:]] == [line["correct"] for line in before[-2:]]
    assert re.search("A jitter seed 0.*dense at 14 in", capsys.readouterr().out)
