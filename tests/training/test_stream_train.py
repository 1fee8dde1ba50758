"""Training on streamed sets: whoever decodes, wherever it stopped, the numbers are the same."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import pytest

from tests.conftest import ROOT
from tests.data.test_prepare import make_archives
from tests.support import programs
from tests.support.photographs import encoded, texture
from tests.support.trees import assert_same, deviation
from tests.training import stream_jobs
from vggbn.commands import prepare
from vggbn.commands.experiment import run
from vggbn.data import Dataset
from vggbn.data.prepare import sets as prepared_sets
from vggbn.data.prepare.imagenet import imagenet
from vggbn.errors import UserError
from vggbn.evaluate import evaluate
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.batch import on_device
from vggbn.training.recipe import Recipe
from vggbn.training.step import init_state
from vggbn.training.task import Task

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SEED = stream_jobs.SEED
SIZES = {"train": 16, "validation": 6, "test": 6}  # photographs a class
# A set is streamed to any net alike: one that is compiled soon. A VGG, with its dropout, takes
# part in the test on ImageNet.
PAD = stream_jobs.PAD.but(model="mlp", hidden=1)
# Photographs whole, by scale jitter; all that is random in a batch takes part.
JITTER = PAD.but(
    data="folder:clothes", fit="whole", image_size=32, source_side=73, scale_min=37, scale_max=73,
    crop_pad=0, shuffle="fresh",
)  # fmt: skip


@pytest.fixture(scope="module")
def sets(data_dir, tmp_path_factory):
    """A folder with clothes/, and clothes prepared as a set of that name beside it."""
    root = tmp_path_factory.mktemp("sets")
    for part, n in SIZES.items():
        for kind in ("shoes", "hat"):
            (root / "photos" / "clothes" / part / kind).mkdir(parents=True)
            for file in sorted((data_dir / "clothing" / part / kind).iterdir())[:n]:
                shutil.copy(file, root / "photos" / "clothes" / part / kind)
    prepared_sets.prepare_folder(str(root / "photos" / "clothes"), "clothes", str(root / "tfds"))
    return root


def data_of(recipe: Recipe, root, **changes) -> Dataset:
    return runs.load_data(recipe.but(**changes) if changes else recipe, SEED, store_of(root))


def store_of(root, **how) -> runs.Store:
    return runs.Store(root / "out" / "runs", str(root / "photos"), **how)


@pytest.fixture(scope="module")
def clothes(sets) -> Dataset:
    return data_of(JITTER, sets)


@pytest.fixture(scope="module")
def straight(clothes):
    return loop.fit(Task.of(JITTER, SEED, clothes))


def decoding() -> list:
    """The threads and processes that decode."""
    threads = [thread for thread in threading.enumerate() if "grain" in thread.name]
    return [*threads, *multiprocessing.active_children()]


@contextmanager
def nothing_left_behind():
    """After what is done inside nobody decodes any more, at once or soon."""
    yield
    end = time.monotonic() + 600
    while decoding() and time.monotonic() < end:
        time.sleep(0.05)
    assert not decoding()


# --- the loop ------------------------------------------------------------------------------------


def test_a_run_by_scale_jitter_learns_and_its_history_is_complete(clothes):
    recipe = JITTER.but(steps=100)
    found = loop.fit(Task.of(recipe, SEED, clothes))
    assert [r["step"] for r in found.history] == loop.evaluation_steps(recipe)
    assert int(found.state.step) == 100 and int(found.state.diverged_at) == -1
    assert found.history[-1]["train_loss"] < 0.85 * found.history[0]["train_loss"]
    assert found.history[-1]["train_accuracy"] > 0.62  # of 544 guesses: chance is 0.5 ± 0.02


def test_scores_are_those_of_the_set_in_memory(clothes, straight, sets):
    held = data_of(JITTER, sets, loading="memory")
    assert clothes.streamed and not held.streamed
    trained = loop.trained(Task.of(JITTER, SEED, held), straight.state.variables)
    scores = evaluate(trained, loop.single_view(JITTER, held.validation))
    last = straight.history[-1]
    assert (last["val_loss"], last["val_accuracy"]) == (scores["loss"], scores["accuracy"])


def test_a_prepared_set_trains_as_the_folder_it_was_made_of(sets, straight):
    recipe = JITTER.but(data="clothes")
    store = runs.Store(sets / "out" / "runs", str(sets / "tfds"))
    found = loop.fit(Task.of(recipe, SEED, runs.load_data(recipe, SEED, store)))
    assert_same(found.state, straight.state)
    assert found.history == straight.history


def test_a_kept_run_is_that_of_the_loop(sets, straight):
    store = store_of(sets)
    record = runs.train_run(JITTER, SEED, store)
    assert record["status"] == "ok" and record["recipe"]["loading"] == "stream"
    assert record["history"] == straight.history
    assert record["final"]["test_n"] == 2 * SIZES["test"]
    assert_same(
        runs.load_run(store.folder(JITTER, SEED)).trained.variables["params"], straight.state.params
    )


class Stop(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize("at, workers", [(1, (0, 0)), (5, (2, 1)), (12, (0, 0))])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(clothes, straight, at, workers):
    """Whoever decodes, before and after."""
    kept, decoders = [], set()

    def stop(step, reached):
        decoders.update(multiprocessing.active_children())
        if step == at:
            kept.append(reached)
            raise Stop

    with nothing_left_behind(), pytest.raises(Stop):
        loop.fit(Task.of(JITTER, SEED, clothes), on_step=stop, workers=workers[0])
    assert len(decoders) == workers[0]
    with nothing_left_behind():
        found = loop.fit(Task.of(JITTER, SEED, clothes), **kept[0]._asdict(), workers=workers[1])
    assert_same(found.state, straight.state)
    assert found.history == straight.history


def test_a_run_that_diverges_ends_at_once_and_leaves_nothing_behind(clothes):
    recipe = JITTER.but(lr=1e30, norm="none", norm_fc=False, steps=400)
    with nothing_left_behind():
        found = loop.fit(Task.of(recipe, SEED, clothes))
    assert 0 <= int(found.state.diverged_at) < int(found.state.step) < 400


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_the_run_by_its_name(sets, tmp_path, workers):
    shutil.copytree(sets / "photos", tmp_path / "photos")
    file = sorted((tmp_path / "photos" / "clothes" / "train" / "hat").iterdir())[0]
    dataset = data_of(JITTER, tmp_path)
    on_device(dataset)  # the pixel statistics have passed
    file.write_bytes(file.read_bytes()[:2000])
    named = pytest.raises(UserError, match=f"{file.name} cannot be read as an image")
    with nothing_left_behind(), named:
        loop.fit(Task.of(JITTER, SEED, dataset), workers=workers)


# --- beside a set in memory ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_and_lazy(data_dir) -> tuple[Dataset, Dataset]:
    return stream_jobs.cifar(data_dir)


def test_images_of_one_size_train_as_they_do_in_memory(held_and_lazy):
    """The same batches, crops, mirror images and colours; compiled quickly, the two round apart."""
    recipe = PAD.but(steps=4, evaluations=1)
    held, lazy = (loop.fit(Task.of(recipe, SEED, dataset)) for dataset in held_and_lazy)
    assert deviation(lazy.state.params, held.state.params) < 1e-5
    assert deviation(lazy.history, held.history) < 1e-5


@pytest.mark.slow
def test_images_of_one_size_train_to_the_same_bits_as_in_memory(data_dir, monkeypatch):
    programs.as_users_do(monkeypatch)
    run = subprocess.run(
        [sys.executable, "-m", "tests.training.stream_jobs", str(data_dir)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]


def test_population_statistics_are_those_of_the_set_in_memory(held_and_lazy):
    held, lazy = (Task.of(PAD, SEED, dataset) for dataset in held_and_lazy)
    state = init_state(held.recipe, held.program, SEED)
    assert_same(*(loop.population_stats(task, state) for task in (lazy, held)))


# --- from the command line -----------------------------------------------------------------------

TINY = "width=0.03125 fc=8 batch=8 steps=4 evaluations=2 population_batches=1 image_size=32".split()
SCALES = "pools=2 source_side=64 scale_min=36 scale_max=36".split()


def lines(name: str, flags: list[str], edits: list[str], out) -> list[dict]:
    """The result lines of an experiment's command."""
    experiment = import_module(f"experiments.{name}").EXPERIMENT
    for edit in edits:
        flags = [*flags, "--set", edit]
    assert run(experiment, [*flags, "--jobs", "1", "--out", str(out)]) == 0
    (path,) = out.glob(f"{name}/*/results.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def imagenet_dir(tmp_path, monkeypatch):
    """A folder of prepared sets: ImageNet from its two tars, by the command; smaller numbers."""
    synsets = ("n01440764", "n01443537")
    photograph = lambda i: encoded(texture(70 + i, 90 - i, i), "JPEG")  # noqa: E731
    train_images = {
        synset: {f"{synset}_{i}.JPEG": photograph(20 * k + i) for i in range(20)}
        for k, synset in enumerate(synsets)
    }
    validation = {f"ILSVRC2012_val_{i:08}.JPEG": photograph(i) for i in range(1, 5)}
    make_archives(tmp_path / "tars", train_images, validation)
    counts = {"train": 40, "validation": 4}
    tiny = partial(imagenet, counts=counts, validation_labels=2 * synsets)
    monkeypatch.setattr(prepared_sets, "imagenet", tiny)
    command = ["imagenet2012", "--archives", str(tmp_path / "tars"), "--data-dir"]
    with pytest.raises(SystemExit) as ended:
        prepare.main([*command, str(tmp_path / "data")])
    assert ended.value.code == 0
    return tmp_path / "data"


def check_imagenets(record):
    assert record["recipe"]["loading"] == "stream" and record["status"] == "ok"
    assert record["data"]["note"].startswith("ImageNet 2012 (TFDS 5.1.0)")
    assert record["history"][-1]["step"] == 4 and record["final"]["test_n"] == 4


def test_a_net_and_its_parent_train_on_prepared_imagenet(imagenet_dir, tmp_path):
    parent = JITTER.but(data="imagenet2012", model="vgg_a", steps=4)
    recipe = parent.but(parent=parent, inherit="stages")
    store = runs.Store(tmp_path / "runs", str(imagenet_dir))
    for each in (runs.train_run(recipe, SEED, store), runs.find_record(parent, SEED, store)):
        check_imagenets(each)


@pytest.mark.slow
def test_the_papers_table_3_on_prepared_imagenet(imagenet_dir, tmp_path):
    """By the command of the real set."""
    flags = ["--size", "paper", "--data", "imagenet2012", "--data-dir", str(imagenet_dir)]
    found = lines("vgg_depth", [*flags, "--only", "B"], [*TINY, *SCALES], tmp_path / "out")
    assert [line["variant"] for line in found] == ["B", "B dense"]
    check_imagenets(found[0])
    parent = found[0]["recipe"]["parent"]  # trained before it, from the same tars
    assert (parent["model"], parent["loading"]) == ("vgg_a", "stream")


@pytest.mark.slow
def test_scale_jitter_on_a_streamed_folder(sets, tmp_path):
    flags = ["--size", "smoke", "--seeds", "1", "--only", "A"]
    flags += ["--data", "folder:clothes", "--data-dir", str(sets / "photos")]
    edits = [*TINY, *SCALES, "loading=stream", "split=fixed"]
    found = lines("vgg_scale_jitter", flags, edits, tmp_path)
    assert found[0]["variant"] == "A" and found[0]["recipe"]["loading"] == "stream"
    assert {line["final"]["test_n"] for line in found} == {2 * SIZES["test"]} and len(found) > 7
    assert next(tmp_path.glob("vgg_scale_jitter/*/gallery.html")).stat().st_size > 1000
