"""What each step is fed: rows of a set that lies on the devices, or batches decoded ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

from vggbn.data import LazySplit, batch_indices
from vggbn.data.stream import training_batches
from vggbn.machine import mesh
from vggbn.training.task import Task


def feed(
    task: Task,
    steps: range,
    *,
    due: set[int] | frozenset[int] = frozenset(),
    most: int = 1,
    workers: int = 0,
    shuffle: str | None = None,
) -> Generator:
    """(steps of a program, data, indices of each or None), in order; see DeviceData, `spans`.

    shuffle: None is the recipe's.
    """
    shuffle = shuffle or task.recipe.shuffle
    if isinstance(task.dataset.train, LazySplit):
        return _streamed(task, task.dataset.train, steps, workers, shuffle)
    return _resident(task, spans(steps, due, most), shuffle)


def spans(steps: range, due: set[int] | frozenset[int], most: int) -> Iterator[range]:
    """The steps, cut where an evaluation is due and where a program ends."""
    first, end = steps.start, steps.stop
    while first < end:
        last = next((s for s in range(first + 1, first + most) if s in due or s == end), None)
        span = range(first, last or first + most)
        yield span
        first = span.stop


def _resident(task: Task, spans: Iterator[range], shuffle: str) -> Generator:
    """Rows of a set that lies on the devices."""
    seed = task.recipe.stream(task.seed)
    rows = {"n": len(task.dataset.train), "batch": task.recipe.batch, "shuffle": shuffle}
    for steps in spans:
        yield steps, task.data, [batch_indices(seed, step, **rows) for step in steps]


def _streamed(task: Task, split: LazySplit, steps: range, workers: int, shuffle: str) -> Generator:
    """Batches of which this process decodes its part; while one is used, the next is on its way."""
    recipe = task.recipe
    batches = training_batches(
        split,
        seed=recipe.stream(task.seed),
        batch=recipe.batch,
        shuffle=shuffle,
        first=steps.start,
        stop=steps.stop,
        crop=recipe.image_size,
        scales=(recipe.scale_min, recipe.scale_max) if recipe.fit == "whole" else None,
        workers=workers,
        part=(mesh.process(), mesh.processes()),
    )
    with closing(batches):
        ahead = None
        for step, (images_NHWC, labels_N) in zip(steps, batches, strict=True):
            batch = task.data._replace(
                images_NHWC=mesh.join_parts(images_NHWC), labels_N=mesh.join_parts(labels_N)
            )
            now, ahead = ahead, (range(step, step + 1), batch)
            if now:
                yield *now, None
        if ahead:
            yield *ahead, None
