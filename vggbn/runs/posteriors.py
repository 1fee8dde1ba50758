"""What a trained net says of its test images, by protocol and scale: computed once and kept."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vggbn import data, evaluate, files
from vggbn.identity.identity import identity
from vggbn.runs.place import Place, Store
from vggbn.runs.record import find_own_record
from vggbn.runs.run import Run, get_run, load_data
from vggbn.training.recipe import Recipe

PROTOCOLS = {
    "by_batch": evaluate.by_batch,
    "centre": evaluate.centre,
    "dense": evaluate.dense,
    "multi_crop": evaluate.multi_crop,
}


class Posterior(NamedTuple):
    """Softmax posteriors of the test images, float32 [views, N, classes], and what they are of.

    The views are the image and, where mirroring keeps the label, its mirror image.
    """

    p_VNK: np.ndarray
    labels_N: np.ndarray
    classes: int
    seconds: float
    setting: dict[str, Any]
    data: dict[str, Any]


def find_posterior(
    recipe: Recipe, seed: int, store: Store, protocol: str, side: int
) -> Posterior | None:
    """The posterior that today's evaluation code got from the run that lies in the store."""
    place = Place(recipe, seed, store)
    record, path = find_own_record(place), _path(place.folder, protocol, side)
    if record is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["of"]) != _of(record, code(recipe, protocol)):
                return None
            p_VNK, labels_N, seconds = (arrays[name] for name in ("p", "labels", "seconds"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    data = record["data"]
    return Posterior(p_VNK, labels_N, data["classes"], float(seconds), record["setting"], data)


def compute_posterior(recipe: Recipe, seed: int, store: Store, protocol: str, side: int) -> None:
    """Put it where `find_posterior` looks; the net is trained if need be."""
    run = get_run(recipe, seed, store)
    dataset = load_data(recipe, seed, store)
    began = time.perf_counter()
    p_VNK = compute(recipe, run, dataset, protocol, side)
    arrays = {"p": p_VNK, "labels": dataset.test.labels_N, "seconds": time.perf_counter() - began}
    of = _of(run.record, code(recipe, protocol))
    _save(store.folder(recipe, seed), protocol, side, arrays | {"of": of})


def compute(
    recipe: Recipe, run: Run, dataset: data.Dataset, protocol: str, side: int
) -> np.ndarray:
    """p_VNK: all that decides it, once the net is trained; what this reaches is its identity."""
    return PROTOCOLS[protocol](
        run.trained,
        dataset.test,
        side=side,
        mirrored=dataset.flip,
    )


def code(recipe: Recipe, protocol: str) -> str:
    """The identity of what today's code computes of a trained net by this protocol."""
    return identity(compute, recipe, {f"{__name__}.PROTOCOLS": protocol})


def _save(folder: Path, protocol: str, side: int, arrays: dict[str, Any]) -> None:
    path = _path(folder, protocol, side)
    path.parent.mkdir(exist_ok=True)
    with files.whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def _path(folder: Path, protocol: str, side: int) -> Path:
    return folder / "posteriors" / f"{protocol}@{side}.npz"


def _of(record: dict[str, Any], code: str) -> str:
    """Which training, and which evaluation code."""
    return f"{record['id']} {record['finished']} {code}"
