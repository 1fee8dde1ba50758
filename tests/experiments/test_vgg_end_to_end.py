"""One VGG experiment from its command line to its pages: chains of nets, views, resumption."""

import json
from importlib import import_module

import pytest

from vggbn.commands.experiment import run
from vggbn.runs import run as runs

FLAGS = (
    "--size smoke --seeds 1 --jobs 1 --data digits --set width=0.03125 --set fc=8 --set batch=8 "
    "--set steps=4 --set population_batches=1 --set evaluations=1"
).split()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("vgg") / "out"
    experiment = import_module("experiments.vgg_dense_eval").EXPERIMENT
    assert run(experiment, [*FLAGS, "--out", str(out)]) == 0
    return experiment, out


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
    assert both == [
        {"net": "A jitter", "sides": [37, 55, 73], "protocols": ["dense", "multi_crop"]}
    ]


def test_the_pages_are_written(done):
    _, out = done
    page = next(out.glob("vgg_dense_eval/*/report.html")).read_text()
    assert "Table 5: dense evaluation and crops" in page and "V-12" in page
    assert next(out.glob("vgg_dense_eval/*/gallery.html")).stat().st_size > 1000


def test_the_same_command_again_does_nothing_more(done, capsys):
    experiment, out = done
    _, before = lines_of(out)
    assert run(experiment, [*FLAGS, "--out", str(out)]) == 0
    assert lines_of(out)[1] == before
    assert "1 run found, 0 to do" in capsys.readouterr().out


def test_a_lost_line_comes_back_from_what_is_kept(done):
    experiment, out = done
    path, before = lines_of(out)
    path.write_text("".join(json.dumps(line) + "\n" for line in before[:-2]))
    assert run(experiment, [*FLAGS, "--out", str(out)]) == 0
    again = lines_of(out)[1]
    assert [line["variant"] for line in again] == [line["variant"] for line in before]
    assert [line["correct"] for line in again[-2:]] == [line["correct"] for line in before[-2:]]
