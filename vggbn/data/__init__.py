"""Data: where images come from, how they are split, batched and augmented.

    types         Split, Dataset
    sources       load(): one name -> one Dataset
    embedded      mnist5k and digits, which lie inside installed wheels, and canvas
    canvas        digits at many scales on a larger canvas, drawn on the fly
    tfds_source   prepared TFDS sets, read without TensorFlow
    folder        a user's own folder of images
    lazy          the same two kept encoded, each image decoded when it is needed
    stream        training batches of these, by grain
    images        decoding and fitting one image
    scale         images of many scales: rescaling, crops
    jitter        the same inside the jitted step, at random
    splits        train / validation / test, stratified and grouped
    duplicates    near-duplicate images
    cache         decoded arrays on disk, checked on load
    batches       which examples make batch `step`
    binary        pixels as 0 or 1
    moments       mean, standard deviation and principal components of the training pixels
    augment       crop, flip, colour: jnp functions of a key
    prepare       TFDS download_and_prepare, the one place that needs TensorFlow

Importing this package loads numpy only, so that `prepare` runs where jax is not installed;
jax comes with `vggbn.data.augment` and `vggbn.data.jitter`.
"""

from vggbn.data.batches import batch_indices
from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.moments import colour_pca, input_moments, pixel_moments
from vggbn.data.sources import load
from vggbn.data.types import Dataset, Split

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
