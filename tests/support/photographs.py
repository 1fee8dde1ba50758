"""Made-up photographs, encoded, and streamed sets of them. Decoders import this: it is light."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vggbn.data import LazySplit


@dataclass
class Encoded:
    """A store in memory; an image that cannot be read is named by its number."""

    files: list[bytes]
    listing = ()

    def __len__(self):
        return len(self.files)

    def read(self, numbers):
        return [self.files[number] for number in numbers]

    def name(self, number):
        return f"Image {number}"


def encoded(x_HWC: np.ndarray, kind="PNG", **how) -> bytes:
    raw = io.BytesIO()
    Image.fromarray(x_HWC).save(raw, kind, **how)
    return raw.getvalue()


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise of several scales, with hard edges: what a filter gets wrong shows."""
    rng = np.random.default_rng([seed, height, width])
    x_HWC = rng.integers(0, 256, (height, width, 3))
    blocks = rng.integers(0, 2, (height // 7 + 1, width // 7 + 1, 3)).repeat(7, 0).repeat(7, 1)
    return np.where(blocks[:height, :width], 255, x_HWC).astype(np.uint8)


def split_of(files: list[bytes], **changes) -> LazySplit:
    """A split that holds these files, each of a class of its own."""
    n = len(files)
    how = {"image_size": 40, "fit": "whole", "channels": 3} | changes
    return LazySplit(Encoded(files), np.arange(n), np.arange(n, dtype=np.int32), **how)
