"""What test_stream_train.py runs as users do: `python -m tests.training.stream_jobs DATA_DIR`.

CIFAR-10 in memory and streamed, trained to the end and compared to the last bit. How a program is
compiled decides how it rounds, and two programs that must round alike are compared as users compile
them (see tests/support/programs.py).
"""

import sys

import numpy as np

from tests.support.trees import assert_same
from vggbn.data import Dataset, LazySplit
from vggbn.data.readers import tfds as tfds_source
from vggbn.training import loop
from vggbn.training.recipe import Recipe
from vggbn.training.task import Task

SEED = 3
PAD = Recipe(
    data="cifar10",
    split="fixed",
    loading="stream",
    fit="pad",
    image_size=36,
    crop_pad=2,
    shuffle="fixed",
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


def cifar(data_dir) -> tuple[Dataset, Dataset]:
    """A part of CIFAR-10 in memory and streamed."""
    prepared = tfds_source.open_prepared("cifar10", f"{data_dir}/tfds")
    size = {"image_size": 36, "fit": "pad"}
    parts = ("train[:200]", "train[200:260]", "test[:40]")

    def lazy(part: str) -> LazySplit:
        labels_N = tfds_source.read_labels(prepared, part)
        store, rows_N = tfds_source.part_store(prepared, part), np.arange(len(labels_N))
        return LazySplit(store, rows_N, labels_N, channels=3, **size)

    def dataset(read) -> Dataset:
        train, validation, test = map(read, parts)
        classes = prepared.classes
        return Dataset("cifar10", train, validation, test, classes, True, "a part", "")

    return dataset(lambda part: tfds_source.read_part(prepared, part, **size)), dataset(lazy)


def main(data_dir: str) -> None:
    """AssertionError where a bit differs."""
    held, lazy = (loop.fit(Task.of(PAD, SEED, dataset)) for dataset in cifar(data_dir))
    assert_same(lazy.state, held.state)
    assert lazy.history == held.history


if __name__ == "__main__":
    main(sys.argv[1])
