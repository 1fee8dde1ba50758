"""Data: where images come from, how they are split, batched and augmented.

    split         Split: images in memory
    lazy          LazySplit: images kept encoded, each decoded when it is needed
    dataset       Dataset: three splits of one set
    sources       load(): one name -> one Dataset
    splits        train / validation / test, stratified and grouped
    classes       whether every class has an image in every part
    duplicates    near-duplicate images
    cache         decoded arrays on disk, checked on load
    batches       which examples make batch `step`
    stream        training batches of a LazySplit, by grain
    binary        pixels as 0 or 1
    moments       mean, standard deviation and principal components of the training pixels
    records       the files of a prepared set, of which some records may be lost
    pixels/       one image and its box: decode, rescale, crop, colour
    readers/      where images come from: one file a kind of set, and the table of them
    prepare/      sets stored once, without TensorFlow where it is not needed

Importing this package loads numpy only, so that `prepare` runs where jax is not installed;
jax comes with `vggbn.data.pixels.augment` and `vggbn.data.pixels.jitter`.
"""

from vggbn.data.batches import batch_indices
from vggbn.data.dataset import Dataset
from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.moments import colour_pca, input_moments, pixel_moments
from vggbn.data.sources import load
from vggbn.data.split import Split

__all__ = [
    "AnySplit",
    "Dataset",
    "LazySplit",
    "Split",
    "batch_indices",
    "colour_pca",
    "input_moments",
    "load",
    "pixel_moments",
]
