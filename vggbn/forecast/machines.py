"""Datasheet figures of two machines, and a model of how well they share out a training step.

The model knows three times: of the sums, of the memory, of the all-reduce. It has no latency, no
input and no host in it, and has not been compared with either machine.
"""

from __future__ import annotations

import math
from typing import NamedTuple

UTILISATION = 0.4  # of the peak, assumed


class Machine(NamedTuple):
    """Of one chip: peak {recipe's precision: FLOP/s}, memory in bytes, its bandwidth in bytes/s.

    links {number of chips: bytes/s that each can send during an all-reduce} has the sizes that the
    machine comes in.
    """

    name: str
    chip: str
    peak: dict[str, float]
    memory: float
    bandwidth: float
    links: dict[int, float]
    sources: tuple[str, ...]


# Google's table of slices. An axis is a ring, whose links work in both directions at once, only at
# its full length of 16; a shorter one is a line, which an all-reduce goes along and back.
ICI = 50e9  # bytes/s of one link in one direction
SLICES = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))

TPU_V5E = Machine(
    name="TPU v5e slice",
    chip="TPU v5e",
    peak={"bfloat16": 197e12, "float32": 197e12 / 6},
    memory=16e9,
    bandwidth=819e9,
    links={
        math.prod(sides): sum(2 * ICI if side == 16 else ICI for side in sides) for sides in SLICES
    },
    sources=(
        "Google Cloud documentation, TPU v5e (docs.cloud.google.com/tpu/docs/v5e): 197 TFLOP/s in "
        "bfloat16, 16 GB of HBM2 at 819 GB/s, four ports with 400 GB/s of both directions, slices "
        "of 2×2 to 16×16",
        "jax.lax.Precision, HIGHEST: float32 takes six bfloat16 passes",
        "How to Scale Your Model, chapter 2 (jax-ml.github.io/scaling-book, 4 February 2025): no "
        "wraparound links on axes of fewer than 16 chips",
    ),
)

GPUS = 8
H100_NODE = Machine(
    name="node of H100",
    chip="H100 SXM",
    peak={"bfloat16": 1979e12 / 2, "float32": 67e12},
    memory=80e9,
    bandwidth=3.35e12,
    links={GPUS: 900e9 / 2},
    sources=(
        "NVIDIA, H100 Tensor Core GPU datasheet, column SXM: 1,979 TFLOP/s in bfloat16 with "
        "sparsity, half of it without; 67 TFLOP/s in float32, not TF32; 80 GB at 3.35 TB/s; NVLink "
        "900 GB/s of both directions",
        "NVIDIA technical blog, Introducing NVIDIA HGX H100 (April 2022): every GPU of eight "
        "reaches every other at that speed, by NVSwitch",
    ),
)


class Times(NamedTuple):
    """Seconds of one step on one chip: computing, moving memory, and the all-reduce."""

    compute: float
    memory: float
    all_reduce: float

    @property
    def alone(self) -> float:
        """Of a chip that has the same share of the batch and no neighbours."""
        return max(self.compute, self.memory)

    @property
    def efficiency(self) -> tuple[float, float]:
        """Alone over together: the all-reduce after the rest, and as far as possible beside it."""
        return (
            self.alone / (self.alone + self.all_reduce),
            self.alone / max(self.alone, self.all_reduce),
        )


def all_reduce_seconds(chips: int, size: float, bandwidth: float) -> float:
    """Of `size` bytes on every one of `chips`, each of which sends `bandwidth` bytes/s.

    Every chip sends 2 (n - 1) / n of the bytes: a ring's, and the least that is possible.
    """
    return 2 * (chips - 1) / chips * size / bandwidth


def modelled(
    machine: Machine, chips: int, precision: str, *, flops: float, touched: float, reduced: float
) -> Times:
    """A step of which each chip computes `flops`, touches and all-reduces so many bytes.

    KeyError: the machine does not come in that size, or has no peak for the precision.
    """
    return Times(
        compute=flops / (UTILISATION * machine.peak[precision]),
        memory=touched / machine.bandwidth,
        all_reduce=all_reduce_seconds(chips, reduced, machine.links[chips]),
    )


MODEL = f"""\
efficiency is a model, not a measurement: t / (t + a) without overlap, t / max(t, a) with all of it
  t = max(FLOP / ({UTILISATION:g} × peak), bytes touched / memory bandwidth), of one chip's share
  a = 2 (n - 1) / n × bytes all-reduced / bandwidth of a chip's links in one direction
  assumed: {100 * UTILISATION:.0f} % of the peak; memory and links at their full rate, without \
latency; input in time;
  FLOP and bytes as XLA counts them in the step compiled for a CPU, whose program may touch more
  bytes than an accelerator's (t, and with it the efficiency, too large) and sums in float32"""
