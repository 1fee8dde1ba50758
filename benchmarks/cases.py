"""What is measured: the nets, their initial weights and FLOPs, and the contestants.

Nothing here imports jax or torch: each contestant's process loads its own framework alone, so that
its peak memory is its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

# Table 1 of arXiv 1409.1556: 3×3 convolutions in each of the five blocks, and their channels.
BLOCKS = {"A": (1, 1, 2, 2, 2), "D": (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Case:
    """A VGG with BN after every convolution, its batch, and its SGD: the same on all sides."""

    config: str
    side: int
    channels: int
    batch: int
    fc: int
    width: float = 1.0
    classes: int = 10
    lr: float = 0.01
    l2: float = 5e-4  # on kernels, not on biases, gamma and beta
    momentum: float = 0.9
    decay: float = 0.9  # of the running statistics
    eps: float = 1e-5

    @property
    def title(self) -> str:
        """For people: "VGG-A+BN width/8, 16×16×1, batch 64, fc 128"."""
        width = "" if self.width == 1 else f" width/{round(1 / self.width)}"
        image = f"{self.side}×{self.side}×{self.channels}"
        return f"VGG-{self.config}+BN{width}, {image}, batch {self.batch}, fc {self.fc}"


CASES = {
    "a32": Case("A", 32, 3, 128, fc=512),
    "d32": Case("D", 32, 3, 128, fc=512),
    "a16-w8": Case("A", 16, 1, 64, fc=128, width=1 / 8),
    "a16-w4": Case("A", 16, 1, 64, fc=256, width=1 / 4),
    "a32-w8": Case("A", 32, 3, 128, fc=128, width=1 / 8),
    "a32-w4": Case("A", 32, 3, 128, fc=256, width=1 / 4),
    "a64": Case("A", 64, 3, 32, fc=512),
    # VGG-16-BN, the real one. Its weights are many and its batch is small: at 1e-4 one update
    # takes the loss from 8.4 to 3.0, in bf16 to 3.6; at 2e-5 it takes a seventh off in both.
    "d224": Case("D", 224, 3, 8, fc=4096, classes=1000, lr=2e-5),
}


class Layer(NamedTuple):
    """kernel [3, 3, C, O] of a convolution, [C, O] of a dense layer; side of the map it sees."""

    name: str
    kernel: tuple[int, ...]
    side: int
    pool_after: bool

    @property
    def is_conv(self) -> bool:
        """Convolutions have BN and no bias, dense layers a bias and no BN."""
        return len(self.kernel) == 4


def layers(case: Case) -> list[Layer]:
    """From the image to the logits, under the names that `vggbn.models.vgg` gives them."""
    found, side, channels = [], case.side, case.channels
    for block, (depth, width) in enumerate(zip(BLOCKS[case.config], WIDTHS, strict=True), 1):
        out, pooled = max(1, round(width * case.width)), side > 1
        for i in range(1, depth + 1):
            kernel = (3, 3, channels, out)
            found.append(Layer(f"conv{block}_{i}", kernel, side, pooled and i == depth))
            channels = out
        side = side // 2 if pooled else side
    sizes = (side * side * channels, case.fc, case.fc, case.classes)
    dense = [Layer(f"fc{i}", sizes[i - 1 : i + 1], 1, False) for i in (1, 2, 3)]
    return found + dense


def weights(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """{layer: {kernel, bias}, norm_<layer>: {scale, bias}}, float32, the same at every call.

    He et al. 2015; kernels HWIO, fc1's rows in the order height, width, channel.
    """
    rng, params = np.random.default_rng(0), {}
    for layer in layers(case):
        kernel = rng.standard_normal(layer.kernel, np.float32)
        kernel *= np.float32((2 / prod(layer.kernel[:-1])) ** 0.5)
        params[layer.name] = {"kernel": kernel}
        zeros, ones = (f(layer.kernel[-1], np.float32) for f in (np.zeros, np.ones))
        if layer.is_conv:
            params[f"norm_{layer.name}"] = {"scale": ones, "bias": zeros}
        else:
            params[layer.name]["bias"] = zeros
    return params


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, H, W, C] float32 noise, labels [N] int32), the same at every call."""
    shape = (case.batch, case.side, case.side, case.channels)
    images_NHWC = np.random.default_rng(1).standard_normal(shape, np.float32)
    return images_NHWC, np.arange(case.batch, dtype=np.int32) % case.classes


def flop(case: Case) -> float:
    """FLOP of a training step: 2 a multiply-add, for the output and the gradients of both factors.

    The first layer's input gradient is not needed and not counted, nor are products with the zeros
    around a map, which nobody has to compute: on a 2×2 map they are more than half of a 3×3 kernel.
    """
    total = 0
    for i, layer in enumerate(layers(case)):
        taps = (3 * layer.side - 2) ** 2 if layer.is_conv else 1
        total += 2 * taps * prod(layer.kernel[-2:]) * (2 if i == 0 else 3)
    return float(total * case.batch)


class Contestant(NamedTuple):
    """side: linen, vggbn or torch; precision: of the arithmetic, weights are always float32."""

    side: str
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False


CONTESTANTS = {
    "linen": Contestant("linen"),
    "vggbn": Contestant("vggbn"),
    "torch": Contestant("torch"),
    "torch-channels-last": Contestant("torch", channels_last=True),
    "torch-compile": Contestant("torch", channels_last=True, compiled=True),
    "linen-bf16": Contestant("linen", "bfloat16"),
    "vggbn-bf16": Contestant("vggbn", "bfloat16"),
    "torch-bf16": Contestant("torch", "bfloat16", channels_last=True),
    "torch-compile-bf16": Contestant("torch", "bfloat16", channels_last=True, compiled=True),
}
