"""Statistics of the training pixels, once per data set: numpy, exact sums."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, reduce
from importlib.metadata import version

import numpy as np

from vggbn.data.cache import read_or_build_array
from vggbn.data.dataset import Dataset
from vggbn.data.lazy import AnySplit, LazySplit
from vggbn.data.progress import progress
from vggbn.data.split import Split, digest_of
from vggbn.data.splits import stratified
from vggbn.errors import UserError

SAMPLE = 10_000  # images of a streamed split that stand for all

_CHUNK = 2**21  # values: their float64 copy stays in the caches

Sums = tuple[np.ndarray, np.ndarray, int]  # of pixels [C], of their products [C, C], their number


def input_moments(dataset: Dataset) -> tuple[np.ndarray, np.float32]:
    """(mean_C, std) by which a net's input is standardised: the training pixels' `pixel_moments`.

    Binary images are let through as they are, 0 or 1.
    """
    if dataset.binary:
        return np.zeros(dataset.train.channels, np.float32), np.float32(1)
    return pixel_moments(dataset.train)


def pixel_moments(split: AnySplit) -> tuple[np.ndarray, np.float32]:
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


def colour_pca(split: AnySplit) -> np.ndarray:
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
def _mean_and_covariance(split: AnySplit) -> tuple[np.ndarray, np.ndarray]:
    """float64 mean [C] and biased covariance [C, C] of pixels / 255.

    The sums are of integers below 2**53, hence exact in float64 and in any order.

    Differs: of a streamed split, a fixed stratified sample of SAMPLE images stands for all.
    """
    sum_C, product_CC, n = _sums(split) if isinstance(split, Split) else _sums_of_sample(split)
    mean_C = sum_C / n
    return mean_C / 255, (product_CC / n - np.outer(mean_C, mean_C)) / 255**2


def _sums(split: Split) -> Sums:
    """What is outside of an image in its frame is 0 and adds nothing, but for the count."""
    images_NHWC, sizes_N2 = split.images_NHWC, split.sizes_N2
    rows = max(1, _CHUNK // images_NHWC[:1].size)
    starts = range(0, len(images_NHWC), rows)
    sum_C, product_CC, n = _total(_sums_of(images_NHWC[start : start + rows]) for start in starts)
    return sum_C, product_CC, n if sizes_N2 is None else sizes_N2.prod(1, dtype=np.int64).sum()


def _sums_of_sample(split: LazySplit) -> Sums:
    """The array that is kept has the products, the sums and the number, row by row."""
    few = stratified(split, min(SAMPLE, len(split)))

    def build() -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                each = pool.map(lambda row: _sums_of(few.image(row)), range(len(few)))
                sum_C, product_CC, n = _total(progress(each, len(few), "pixel statistics"))
            finally:
                pool.shutdown(cancel_futures=True)
        return np.vstack([product_CC, sum_C, np.full_like(sum_C, n)])

    key = (version("pillow"), digest_of(few))
    *product_CC, sum_C, count_C = read_or_build_array(
        split.cache_dir, "pixel-statistics", key, build
    )
    return sum_C, np.array(product_CC), count_C[0]


def _sums_of(x_C: np.ndarray) -> Sums:
    """Of pixels whose last axis is colour."""
    # Channels first: sums and products over a long last axis are three times as fast.
    x_CP = np.ascontiguousarray(x_C.reshape(-1, x_C.shape[-1]).T, float)
    return x_CP.sum(axis=1), x_CP @ x_CP.T, x_CP.shape[1]


def _total(sums: Iterable[Sums]) -> Sums:
    return reduce(lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] + b[2]), sums)
