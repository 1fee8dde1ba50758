"""Statistics of the training pixels, once per data set: numpy, exact sums."""

from functools import lru_cache

import numpy as np

from vggbn.data.types import Dataset, Split
from vggbn.errors import UserError

_CHUNK = 2**21  # values: their float64 copy stays in the caches


def input_moments(dataset: Dataset) -> tuple[np.ndarray, np.float32]:
    """(mean_C, std) by which a net's input is standardised: the training pixels' `pixel_moments`.

    Binary images are let through as they are, 0 or 1.
    """
    if dataset.binary:
        return np.zeros(dataset.train.images_NHWC.shape[-1], np.float32), np.float32(1)
    return pixel_moments(dataset.train)


def pixel_moments(split: Split) -> tuple[np.ndarray, np.float32]:
    """(mean_C float32 [C], std float32) of the images' pixels / 255, for `standardise`.

    std is one number for all channels: the root of the mean over channels of each channel's
    variance, so standardised pixels have variance 1 and keep their colour balance.
    Raises UserError when every pixel has the same colour.
    """
    mean_C, covariance_CC = _mean_and_covariance(split)
    std = np.sqrt(np.trace(covariance_CC) / len(mean_C))
    if std == 0:
        raise UserError("Every pixel of the training images has the same colour: check the data.")
    return mean_C.astype(np.float32), np.float32(std)


def colour_pca(split: Split) -> np.ndarray:
    """Principal components of the colours, for `colour_shift`: float32 [C, C].

    Columns are the eigenvectors of the covariance of pixels / 255, each times the root of its
    eigenvalue, largest first. With one channel that is the standard deviation of brightness.

    Differs: the text of AlexNet (section 4.1) multiplies by the eigenvalue, which depends on the
    unit of the pixels; its author's code (cuda-convnet, `color_stdevs`) uses the root, as here.
    """
    values_C, vectors_CC = np.linalg.eigh(_mean_and_covariance(split)[1])
    # A sign is arbitrary: make each vector's largest entry positive on every LAPACK.
    largest_C = np.abs(vectors_CC).argmax(axis=0)
    vectors_CC = vectors_CC * np.sign(vectors_CC[largest_C, np.arange(len(values_C))])
    scaled_CC = vectors_CC * np.sqrt(np.maximum(values_C, 0))
    return np.ascontiguousarray(scaled_CC[:, ::-1], np.float32)


@lru_cache(maxsize=1)
def _mean_and_covariance(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """float64 mean [C] and biased covariance [C, C] of pixels / 255.

    The sums are of integers below 2**53, hence exact in float64 and in any order. What is outside
    of an image in its frame is 0 and adds nothing to them.
    """
    images_NHWC, channels = split.images_NHWC, split.images_NHWC.shape[-1]
    sum_C, product_CC = np.zeros(channels), np.zeros((channels, channels))
    rows = max(1, _CHUNK // images_NHWC[:1].size)
    for start in range(0, len(images_NHWC), rows):
        # Channels first: sums and products over a long last axis are three times as fast.
        x_CP = np.ascontiguousarray(
            images_NHWC[start : start + rows].reshape(-1, channels).T, float
        )
        sum_C += x_CP.sum(axis=1)
        product_CC += x_CP @ x_CP.T
    sizes_N2 = split.sizes_N2
    n = images_NHWC.size // channels if sizes_N2 is None else sizes_N2.prod(1, dtype=np.int64).sum()
    mean_C = sum_C / n
    return mean_C / 255, (product_CC / n - np.outer(mean_C, mean_C)) / 255**2
