"""Data: where images come from, how they are split, batched and augmented.

    types         Split
    dataset       Dataset
    sources       load(): one name -> one Dataset
    embedded      mnist5k and digits, which lie inside installed wheels, and canvas
    canvas        digits at many scales on a larger canvas, drawn on the fly
    tfds_source   prepared TFDS sets, read without TensorFlow
    records       their records, of which some may be lost, and the shard files they lie in
    folder        a user's own folder of images
    lazy          the same two kept encoded, each image decoded when it is needed
    stream        training batches of these, by grain
    images        decoding and fitting one image
    scale         images of many scales: rescaling, crops
    jitter        the same inside the jitted step, at random
    splits        train / validation / test, stratified and grouped
    classes       whether every class has an image in every part
    duplicates    near-duplicate images
    cache         decoded arrays on disk, checked on load
    batches       which examples make batch `step`
    binary        pixels as 0 or 1
    moments       mean, standard deviation and principal components of the training pixels
    augment       crop, flip, colour: jnp functions of a key
    prepare       the command line that stores a set for training; TFDS's needs TensorFlow
    imagenet      ImageNet's two official tars, listed
    archive       encoded images inside tars or files, read by seeking
    defect        what is wrong with an encoded image, as far as a look tells
    shards        encoded images written as a prepared set, without TensorFlow; resumable

Importing this package loads numpy only, so that `prepare` runs where jax is not installed;
jax comes with `vggbn.data.augment` and `vggbn.data.jitter`.
"""

from vggbn.data.batches import batch_indices
from vggbn.data.dataset import Dataset
from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.moments import colour_pca, input_moments, pixel_moments
from vggbn.data.sources import load
from vggbn.data.types import Split

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
