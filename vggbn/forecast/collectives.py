"""What the devices of a compiled program send each other, read from its text."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
GRADIENTS, STATISTICS, METRICS, OTHER = (
    "gradients",
    "batch statistics",
    "loss and accuracy",
    "other",
)

# `%all-reduce.3 = f32[3,3,64]{2,1,0} all-reduce(...), ..., metadata={op_name="jit(step)/..."}`
_CALL = re.compile(rf"= (.+?) ({'|'.join(KINDS)})\(.*")
_SHAPE = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_NAME = re.compile(r'op_name="([^"]*)"')


class Collective(NamedTuple):
    """One exchange: its kind, the bytes of its result on a device, and what it is for."""

    kind: str
    size: int
    purpose: str


def collectives(text: str) -> list[Collective]:
    """Those of `compiled.as_text()`, in its order. One in a loop counts once."""
    found = []
    for line in text.splitlines():
        call = _CALL.search(line)
        if call:
            shapes = _SHAPE.findall(call[1])
            size = sum(_bytes(bits, sides) for _, bits, sides in shapes)
            scalar = all(sides == "" for *_, sides in shapes)
            found.append(Collective(call[2], size, _purpose(call[2], line, scalar)))
    return found


def _bytes(bits: str, sides: str) -> int:
    return math.prod(int(side) for side in sides.split(",") if side) * max(int(bits or 8) // 8, 1)


def _purpose(kind: str, line: str, scalar: bool) -> str:
    """By the name that jax gave the operation: transpose(...) is the backward pass."""
    name = _NAME.search(line)
    name = name[1] if name else ""
    if kind != "all-reduce":
        return OTHER
    if "transpose(" in name:
        return GRADIENTS
    if scalar:
        return METRICS
    return STATISTICS if "jvp(" in name else OTHER
