"""load(): one name -> one Dataset."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from vggbn.data import splits
from vggbn.data.binary import PIXELS, binarise
from vggbn.data.dataset import Dataset
from vggbn.data.lazy import LOADINGS
from vggbn.data.pixels.decode import DAMAGED, FITS, no_skipping
from vggbn.data.readers import open_set
from vggbn.data.split import Split, concatenate, digest_of
from vggbn.errors import UserError


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

    name: of a set, whose reader stands in `readers.READERS`: "mnist5k", "digits" or "canvas" (from
        installed wheels), "folder:PATH" (`readers.folder`; PATH may lie under data_dir), or a TFDS
        set prepared under data_dir (`readers.tfds`).
    fit: "resize", "pad", or "whole": uncropped, image_size the smallest side (`decode.fit_image`).
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
    how = {"image_size": image_size, "fit": fit, "cache_dir": cache_dir}
    with no_skipping() if loading == "stream" else nullcontext():
        opened = open_set(name, data_dir, damaged)
        if loading == "stream":
            parts = opened.stream(split, **how)
        else:
            parts = _pooled(opened.read(**how), opened.pooled if split == "folds" else ())
        fold = seed if split == "folds" else 0
        three = splits.carve(parts, fold=fold, groups_N=opened.groups(parts))
        lacking = opened.require_classes(split, parts, dict(zip(splits.PARTS, three, strict=True)))
    note = opened.describe(sum(map(len, three))) + lacking
    found = Dataset(name, *three, opened.classes, opened.flip, note, digest_of(*three))
    found = _few(found, train_size) if train_size else found
    return binarise(found) if pixels == "binary" else found


def _pooled(parts: Mapping[str, Split], names: Sequence[str]) -> Mapping[str, Split]:
    """The parts of these names as one, train; the others stay."""
    pool = [split for part, split in parts.items() if part in names]
    if len(pool) < 2:
        return parts
    kept = {part: split for part, split in parts.items() if part not in names}
    return {"train": concatenate(pool), **kept}


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
    if loading == "stream" and damaged != "refuse":
        raise UserError(
            "A streamed set must be whole, since its images are first read in training: use "
            'damaged="refuse", or loading="memory".'
        )
    if loading == "stream" and pixels != "standardised":
        raise UserError(f'pixels="{pixels}" is for images in memory: use loading="memory".')
