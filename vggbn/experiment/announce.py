"""What a run of an experiment says first: the work, the data, the time that it may take."""

from __future__ import annotations

from vggbn.data.dataset import Dataset
from vggbn.experiment.plan import Plan, read_sweep
from vggbn.report.words import counted
from vggbn.training.recipe import Recipe


def describe_data(plan: Plan, dataset: Dataset) -> str:
    """`mnist5k: 5,000 images of 10 classes: 3,500 train, 500 validation, 1,000 test`."""
    sizes = {part: len(getattr(dataset, part)) for part in ("train", "validation", "test")}
    images = counted(sum(sizes.values()), "image")
    classes = counted(len(dataset.classes), "class", "classes")
    split = ", ".join(f"{n:,} {part}" for part, n in sizes.items())
    return f"{plan.base.data}: {images} of {classes}: {split}"


def budget(plan: Plan, missing: list[Recipe], done: int, workers: int) -> str:
    """What is about to be run: runs, images, and the time if a sweep has measured the rate."""
    images = sum(recipe.steps * recipe.batch for recipe in missing)
    arms, seeds = counted(len(plan.variants), "arm"), counted(len(plan.seeds), "seed")
    text = f"{plan.experiment.title}: {arms} × {seeds}: {counted(done, 'run')} found, "
    if not missing:
        return f"{text}0 to do"
    shown = f"{images / 1e6:,.1f} million" if images >= 1e6 else f"{images:,}"
    text += (
        f"{len(missing):,} to do: {shown} training images, "
        f"{counted(workers, 'process', 'processes')}"
    )
    if record := read_sweep(plan):
        minutes = images / (record["images_per_second"] * workers) / 60
        text += f"; about {minutes:.0f} min at the {record['images_per_second']:.0f} images/s a "
        text += "process that the sweep measured"
    return text
