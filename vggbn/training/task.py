"""A recipe, a seed and their data, made ready: what every part of a training run is handed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from vggbn.data import Dataset
from vggbn.training.batch import DeviceData, on_device
from vggbn.training.recipe import Recipe, Static, static


class Task(NamedTuple):
    """What is trained. program: what its step is compiled for; data: the training set on the
    devices; key: of all that is drawn at a step."""

    recipe: Recipe
    seed: int
    dataset: Dataset
    program: Static
    data: DeviceData
    key: Any

    @staticmethod
    def of(recipe: Recipe, seed: int, dataset: Dataset) -> Task:
        """The task of this recipe and seed on a data set, which goes to the devices."""
        program, data = static_of(recipe, dataset), on_device(dataset)
        _, key = keys(recipe.stream(seed))
        return Task(recipe, seed, dataset, program, data, key)


def keys(seed: int):
    """(key of the initial weights, key of everything that is drawn at a step).

    XLA's own generator: threefry takes 2 s to compile for every shape drawn on a CPU, this 0.1 s.
    """
    return jax.random.split(jax.random.key(seed, impl="rbg"))


def static_of(recipe: Recipe, dataset: Dataset) -> Static:
    """What the recipe's step is compiled for on this data set."""
    split = dataset.train
    crop = (recipe.image_size, recipe.image_size, split.channels)
    image = crop if recipe.fit == "whole" else split.image_shape
    return static(recipe, image=image, classes=len(dataset.classes), flip=dataset.flip)
