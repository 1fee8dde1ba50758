"""Binary images, the input of the Batch Normalization paper's MNIST net (section 4.1)."""

from dataclasses import replace

import numpy as np

from vggbn.data.dataset import Dataset
from vggbn.data.split import Split, digest_of

PIXELS = ("standardised", "binary")  # what a net sees: mean 0 and variance 1, or 0 and 1
# Half of full brightness; the paper gives no threshold.
THRESHOLD = 128


def binarise(dataset: Dataset) -> Dataset:
    """The data set with every pixel 0 or, from THRESHOLD on, 255; a net sees them as 0 and 1."""
    parts = {name: _binary(getattr(dataset, name)) for name in ("train", "validation", "test")}
    note = f"{dataset.note}, binary from {THRESHOLD} of 255 on"
    return replace(dataset, **parts, note=note, digest=digest_of(*parts.values()), binary=True)


def _binary(split: Split) -> Split:
    images_NHWC = np.where(split.images_NHWC >= THRESHOLD, np.uint8(255), np.uint8(0))
    return replace(split, images_NHWC=images_NHWC)
