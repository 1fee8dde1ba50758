"""load(): one name -> one Dataset."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vggbn.data import cache, splits
from vggbn.data.binary import PIXELS, binarise
from vggbn.data.classes import require_classes
from vggbn.data.dataset import Dataset
from vggbn.data.duplicates import near_duplicates
from vggbn.data.lazy import LOADINGS, AnySplit, Files, LazySplit, Store
from vggbn.data.pixels.decode import DAMAGED, FITS, fit_arrays, no_skipping
from vggbn.data.readers import folder
from vggbn.data.readers import tfds as tfds_source
from vggbn.data.readers.embedded import EMBEDDED
from vggbn.data.split import Split, concatenate, digest_of
from vggbn.errors import UserError

_FOLDER = "folder:"
Three = tuple[AnySplit, AnySplit, AnySplit]


def load(
    name: str,
    *,
    image_size: int,
    fit: str,
    split: str,
    seed: int,
    data_dir: str | None,
    cache_dir: str | None = None,
    damaged: str = "refuse",
    pixels: str = "standardised",
    train_size: int = 0,
    loading: str = "memory",
) -> Dataset:
    """Load a data set as uint8 images of image_size x image_size in three disjoint splits.

    name: "mnist5k", "digits" or "canvas" (from installed wheels), "folder:PATH" (`folder`;
        PATH may lie under data_dir), or a TFDS set prepared under data_dir (`tfds_source`).
    fit: "resize", "pad", or "whole": uncropped, image_size the smallest side (`images.fit_image`).
    split: "fixed": the given splits; what a set lacks is drawn from its train, stratified by
        class, the same for every seed. "folds": seed s tests fold s % 5, so five seeds test every
        example once; a TFDS set keeps its official test and only validation (10 %) varies. A
        folder is pooled, and near-duplicates stay in one split.
    damaged: "refuse" or "skip" images that cannot be read, shard files of which records are lost,
        empty class folders, and classes that validation or test lacks; what is skipped is named on
        stderr and told in the note.
    pixels: "standardised", or "binary": 0 and 255 only, which a net sees as 0 and 1 (`binarise`).
    train_size: so many training images, stratified by class; 0: all.
    cache_dir: where decoded TFDS sets and folders are kept, and labels and pixel statistics of
        streamed ones; None: nowhere.
    loading: "memory", or "stream": images stay encoded on disk until they are needed (`LazySplit`).
        TFDS sets, and folders with train/, validation/ and test/ and split="fixed": others would
        be searched for near-duplicates.
    Raises UserError, in one sentence, for everything a user can put right.
    """
    _check(image_size, fit, split, seed, damaged, pixels, loading)
    size = {"image_size": image_size, "fit": fit}
    if loading == "stream":
        _check_stream(name, damaged, pixels)
        with no_skipping():
            found = _stream(name, split, seed, data_dir, cache_dir, size)
    elif name in EMBEDDED:
        found = _load_embedded(name, _fold(split, seed), size)
    elif name.startswith(_FOLDER):
        root = _folder_path(name.removeprefix(_FOLDER), data_dir)
        found = _load_folder(name, root, split, seed, cache_dir, size, damaged)
    else:
        found = _load_tfds(name, split, seed, data_dir, cache_dir, size, damaged)
    found = _few(found, train_size) if train_size else found
    return binarise(found) if pixels == "binary" else found


def _few(dataset: Dataset, train_size: int) -> Dataset:
    train = splits.stratified(dataset.train, train_size)
    note = f"{dataset.note}, {train_size:,} of its training images"
    digest = digest_of(train, dataset.validation, dataset.test)
    return replace(dataset, train=train, note=note, digest=digest)


def _check(
    image_size: int, fit: str, split: str, seed: int, damaged: str, pixels: str, loading: str
) -> None:
    if image_size < 1:
        raise UserError(f"image_size={image_size} must be at least 1.")
    if seed < 0:
        raise UserError(f"seed={seed} must not be negative.")
    for option, value, valid in (
        ("fit", fit, FITS),
        ("split", split, splits.SPLITS),
        ("damaged", damaged, DAMAGED),
        ("pixels", pixels, PIXELS),
        ("loading", loading, LOADINGS),
    ):
        if value not in valid:
            raise UserError(f"{option}={value!r} is unknown: use one of {', '.join(valid)}.")


def _fold(split: str, seed: int) -> int:
    return seed if split == "folds" else 0


def _load_embedded(name: str, fold: int, size: Mapping) -> Dataset:
    source = EMBEDDED[name]
    whole = source.read()
    fitted = Split(fit_arrays(whole.images_NHWC, name, **size), whole.labels_N)
    three = splits.carve({"train": fitted}, fold=fold)
    return _dataset(name, three, source.classes, flip=False, note=source.note)


def _folder_path(path: str, data_dir: str | None) -> str:
    """A path as it is or, where nothing is there, under data_dir: so a recipe names no machine."""
    inside = Path(data_dir).expanduser() / path if data_dir else None
    return str(inside) if inside and inside.exists() and not Path(path).exists() else path


def _load_folder(
    name: str,
    path: str,
    split: str,
    seed: int,
    cache_dir: str | None,
    size: Mapping,
    damaged: str,
) -> Dataset:
    listed = folder.list_folder(path, damaged)
    root = listed.root.resolve()
    files = cache.listing(listed.root, listed.files)
    parts = cache.cached(
        cache_dir,
        f"folder-{root.name}-{size['image_size']}-{size['fit']}",
        (str(root), size, files, *_unless_refused(damaged)),
        lambda: folder.read_folder(listed, damaged=damaged, **size),
    )
    classes, lacking = dict(enumerate(listed.classes)), ""
    if split == "fixed":
        for part, given in parts.items():
            what, remedy = f"{part} of {listed.root}", f"add some to {part}/"
            lacking += require_classes(given, classes, part, what, remedy, damaged)
        classes = _present([parts["train"]], listed.classes)  # all that can be drawn from it
    three = _split_folder(parts, split, seed)
    for part, found in zip(splits.PARTS, three, strict=True):
        if split == "folds" or part not in parts or part == "train":
            what = f"The {part} part drawn from {listed.root}"
            remedy = "give each class ten images or more"
            lacking += require_classes(found, classes, part, what, remedy, damaged)
    count, lost = sum(map(len, three)), len(listed.files) - sum(map(len, three))
    note = f"image folder {root.name}, {count:,} images"
    note += f", {lost} damaged files skipped" if lost else ""
    note += f", {len(listed.empty)} empty class folders skipped" if listed.empty else ""
    return _dataset(name, three, listed.classes, flip=True, note=note + lacking)


def _split_folder(parts: Mapping[str, Split], split: str, seed: int) -> Three:
    if split == "folds":
        parts = {"train": concatenate(parts.values())}
    complete = set(splits.PARTS) <= set(parts)
    groups_N = None if complete else near_duplicates(parts["train"])
    return splits.carve(parts, fold=_fold(split, seed), groups_N=groups_N)


def _load_tfds(
    name: str,
    split: str,
    seed: int,
    data_dir: str | None,
    cache_dir: str | None,
    size: Mapping,
    damaged: str,
) -> Dataset:
    prepared = tfds_source.open_prepared(name, data_dir, EMBEDDED)
    files = cache.listing(prepared.folder, Path(prepared.folder).iterdir())
    parts = cache.cached(
        cache_dir,
        f"{_file_name(name)}-{size['image_size']}-{size['fit']}",
        (name, str(prepared.folder.resolve()), size, files, *_unless_refused(damaged)),
        lambda: tfds_source.read_prepared(prepared, damaged=damaged, **size),
    )
    lost = prepared.examples - sum(map(len, parts.values()))
    if split == "folds" and "validation" in parts:
        pooled = concatenate((parts["train"], parts["validation"]))
        parts = {"train": pooled, "test": parts["test"]}
    note = prepared.note + (f", {lost:,} damaged images skipped" if lost else "")
    three = splits.carve(parts, fold=_fold(split, seed))
    return _tfds_dataset(name, prepared, three, note, damaged)


def _tfds_dataset(
    name: str, prepared: tfds_source.Prepared, three: Three, note: str, damaged: str
) -> Dataset:
    # Some sets name classes of which they have no image at all.
    classes = _present(three, prepared.classes)
    for part, found in zip(splits.PARTS, three, strict=True):
        what = f"The {part} part of {prepared.folder}"
        note += require_classes(found, classes, part, what, "choose another data set", damaged)
    return _dataset(name, three, prepared.classes, flip=prepared.flip, note=note)


def _present(found: Iterable[AnySplit], classes: tuple[str, ...]) -> dict[int, str]:
    """Label and name of the classes that have an image in one of the splits."""
    labels = np.unique(np.concatenate([split.labels_N for split in found]))
    return {label: classes[label] for label in labels.tolist()}


def _unless_refused(damaged: str) -> list[str]:
    """For a cache's key: what was decoded with "refuse" is what it always was."""
    return [damaged] if damaged != "refuse" else []


def _check_stream(name: str, damaged: str, pixels: str) -> None:
    if name in EMBEDDED:
        raise UserError(f'{name} comes out of a package whole: use loading="memory".')
    if damaged != "refuse":
        raise UserError(
            "A streamed set must be whole, since its images are first read in training: use "
            'damaged="refuse", or loading="memory".'
        )
    if pixels != "standardised":
        raise UserError(f'pixels="{pixels}" is for images in memory: use loading="memory".')


def _stream(
    name: str, split: str, seed: int, data_dir: str | None, cache_dir: str | None, size: Mapping
) -> Dataset:
    if name.startswith(_FOLDER):
        root = _folder_path(name.removeprefix(_FOLDER), data_dir)
        return _stream_folder(name, root, split, cache_dir, size)
    return _stream_tfds(name, split, seed, data_dir, cache_dir, size)


def _stream_folder(
    name: str, path: str, split: str, cache_dir: str | None, size: Mapping
) -> Dataset:
    listed = folder.list_folder(path)
    if split != "fixed" or not set(splits.PARTS) <= set(listed.parts):
        raise UserError(
            f"{listed.root} is not searched for near-duplicates when it is streamed: give it "
            'train/, validation/ and test/ and use split="fixed", or use loading="memory".'
        )
    three = []
    for part in splits.PARTS:
        files, labels = zip(*listed.parts[part], strict=True)
        labels_N = np.array(labels, np.int32)
        found = _lazy(Files.of(listed.root, files), labels_N, 3, size, cache_dir)
        what, remedy = f"{part} of {listed.root}", f"add some to {part}/"
        require_classes(found, dict(enumerate(listed.classes)), part, what, remedy, "refuse")
        three.append(found)
    note = f"image folder {listed.root.resolve().name}, {sum(map(len, three)):,} images"
    return _dataset(name, tuple(three), listed.classes, flip=True, note=note)


def _stream_tfds(
    name: str, split: str, seed: int, data_dir: str | None, cache_dir: str | None, size: Mapping
) -> Dataset:
    prepared = tfds_source.open_prepared(name, data_dir, EMBEDDED)
    files = cache.listing(prepared.folder, Path(prepared.folder).iterdir())
    names = prepared.labelled_parts
    if split == "folds" and "validation" in names:
        names = {"train": f"{names['train']}+{names['validation']}", "test": names["test"]}
    parts = {}
    for role, part in names.items():
        labels_N = cache.cached_array(
            cache_dir,
            f"{_file_name(name)}-{part}-labels",
            (name, part, str(prepared.folder.resolve()), files),
            partial(tfds_source.read_labels, prepared, part),
        )
        store = tfds_source.part_store(prepared, part)
        parts[role] = _lazy(store, labels_N, prepared.channels, size, cache_dir)
    three = splits.carve(parts, fold=_fold(split, seed))
    return _tfds_dataset(name, prepared, three, prepared.note, "refuse")


def _lazy(
    store: Store, labels_N: np.ndarray, channels: int, size: Mapping, cache_dir: str | None
) -> LazySplit:
    rows_N = np.arange(len(labels_N), dtype=np.int64)
    return LazySplit(store, rows_N, labels_N, channels=channels, cache_dir=cache_dir, **size)


def _file_name(name: str) -> str:
    return name.replace("/", "-").replace(":", "-")


def _dataset(
    name: str,
    three: Three,
    classes: tuple[str, ...],
    *,
    flip: bool,
    note: str,
) -> Dataset:
    return Dataset(name, *three, classes, flip, note, digest_of(*three))
