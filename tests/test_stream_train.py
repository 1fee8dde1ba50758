"""Training on streamed sets: whoever decodes, and wherever it was stopped, the numbers are the same."""

import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.test_train import assert_same
from vggbn import runs, train
from vggbn.checkpoint import load as load_tree
from vggbn.data import Dataset, LazySplit, load, tfds_source
from vggbn.data.prepare import prepare_folder
from vggbn.errors import UserError
from vggbn.evaluate import evaluate
from vggbn.recipe import Recipe

# TFDS and what it imports use names that Python will drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SEED = 3
SIZES = {"train": 16, "validation": 6, "test": 6}  # photographs a class
# Photographs whole, by scale jitter; all that is random in a step takes part.
JITTER = Recipe(
    data="folder:clothes",
    split="fixed",
    loading="stream",
    fit="whole",
    image_size=32,
    source_side=73,
    scale_min=37,
    scale_max=73,
    pools=2,
    width=1 / 16,
    fc=16,
    batch=8,
    norm="batch",
    norm_fc=True,
    flip=True,
    distortion=0.1,
    lr=0.02,
    lr_every=1000.0,
    steps=12,
    evaluations=3,
    population_batches=3,
)
PAD = JITTER.but(
    data="cifar10", fit="pad", source_side=0, scale_min=0, scale_max=0, image_size=36, crop_pad=2,
    shuffle="fixed",
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
    prepare_folder(str(root / "photos" / "clothes"), "clothes", str(root / "tfds"))
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
    return train.fit(JITTER, SEED, clothes)


@pytest.fixture(scope="module")
def cifar(data_dir) -> tuple[Dataset, Dataset]:
    """A part of CIFAR-10 in memory and streamed."""
    prepared = tfds_source.open_prepared("cifar10", str(data_dir / "tfds"), ())
    size, found = {"image_size": 36, "fit": "pad"}, {True: [], False: []}
    for part in ("train[:200]", "train[200:260]", "test[:40]"):
        found[False].append(tfds_source.read_part(prepared, part, **size))
        labels_N = tfds_source.read_labels(prepared, part)
        store, rows_N = tfds_source.part_store(prepared, part), np.arange(len(labels_N))
        found[True].append(LazySplit(store, rows_N, labels_N, channels=3, **size))
    held, lazy = (
        Dataset("cifar10", *found[how], prepared.classes, True, "a part", "")
        for how in (False, True)
    )
    return held, lazy


def settled_threads(before: int) -> bool:
    """Whether no more threads live than before, at once or soon."""
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    return threading.active_count() <= before


# --- the loop ------------------------------------------------------------------------------------


def test_a_run_by_scale_jitter_learns_and_its_history_is_complete(clothes):
    recipe = JITTER.but(steps=60, dropout=0.0)
    found = train.fit(recipe, SEED, clothes)
    assert [r["step"] for r in found.history] == train.evaluation_steps(recipe)
    assert int(found.state.step) == 60 and int(found.state.diverged_at) == -1
    assert found.history[-1]["train_loss"] < 0.7 * found.history[0]["train_loss"]
    assert found.history[-1]["train_accuracy"] > 0.75


def test_scores_are_those_of_the_set_in_memory(clothes, straight, sets):
    held = data_of(JITTER, sets, loading="memory")
    assert clothes.streamed and not held.streamed
    net = (straight.state.params, straight.state.batch_stats)
    pixels = train.on_device(held)
    scores = evaluate(
        train.static_of(JITTER, clothes), *net, train.single_view(JITTER, held.validation),
        pixels.mean_C, pixels.std,
    )  # fmt: skip
    last = straight.history[-1]
    assert (last["val_loss"], last["val_accuracy"]) == (scores["loss"], scores["accuracy"])


@pytest.mark.parametrize("workers", [1, 2])
def test_who_decodes_changes_no_bit(clothes, straight, workers):
    found = train.fit(JITTER, SEED, clothes, workers=workers)
    assert_same(found.state, straight.state)
    assert found.history == straight.history


def test_a_prepared_set_trains_as_the_folder_it_was_made_of(sets, straight):
    recipe = JITTER.but(data="clothes")
    store = runs.Store(sets / "out" / "runs", str(sets / "tfds"))
    found = train.fit(recipe, SEED, runs.load_data(recipe, SEED, store))
    assert_same(found.state, straight.state)
    assert found.history == straight.history


class Stop(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("at", [1, 5, 12])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(clothes, straight, at, workers):
    kept = []

    def stop(step, reached):
        if step == at:
            kept.append(reached)
            raise Stop

    before = threading.active_count()
    with pytest.raises(Stop):
        train.fit(JITTER, SEED, clothes, on_step=stop, workers=workers)
    assert settled_threads(before)
    found = train.fit(JITTER, SEED, clothes, **kept[0]._asdict(), workers=workers)
    assert_same(found.state, straight.state)
    assert found.history == straight.history


def test_a_run_that_diverges_ends_at_once_and_leaves_nothing_behind(clothes):
    recipe = JITTER.but(lr=1e30, norm="none", norm_fc=False, steps=400)
    before = threading.active_count()
    found = train.fit(recipe, SEED, clothes)
    assert 0 <= int(found.state.diverged_at) < int(found.state.step) < 400
    assert settled_threads(before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_the_run_by_its_name(sets, tmp_path, workers):
    shutil.copytree(sets / "photos", tmp_path / "photos")
    file = sorted((tmp_path / "photos" / "clothes" / "train" / "hat").iterdir())[0]
    dataset = data_of(JITTER, tmp_path)
    train.on_device(dataset)  # the pixel statistics have passed
    file.write_bytes(file.read_bytes()[:2000])
    before = threading.active_count()
    with pytest.raises(UserError, match=f"{file.name} cannot be read as an image"):
        train.fit(JITTER, SEED, dataset, workers=workers)
    assert settled_threads(before)


# --- beside a set in memory ----------------------------------------------------------------------


def test_images_of_one_size_train_as_they_do_in_memory(cifar):
    """The same batches, crops, mirror images and colours."""
    held, lazy = (train.fit(PAD, SEED, dataset) for dataset in cifar)
    assert_same(lazy.state, held.state)
    assert lazy.history == held.history


def test_population_statistics_are_those_of_the_set_in_memory(cifar):
    state = train.fit(PAD, SEED, cifar[0]).state
    held, lazy = (train.population_stats(PAD, SEED, dataset, state) for dataset in cifar)
    assert_same(lazy, held)
