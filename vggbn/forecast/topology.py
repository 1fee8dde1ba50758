"""A slice of TPU chips that is not here, as the compiler for TPUs (libtpu) describes it.

libtpu compiles on any machine for any slice that it knows, if its process is told, from its start,
that it need not look for chips or ask the cloud: see `settings`.
"""

from __future__ import annotations

import math
import re
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vggbn.errors import UserError
from vggbn.machine import mesh
from vggbn.machine.environment import FLOAT32, unless_set

HOW = (
    "write tpu:CHIP:LAYOUT, such as tpu:v5e:1x1 (one chip), tpu:v5e:2x2, tpu:v5e:16x16, tpu:v2:2x2 "
    "or tpu:v4:2x2x1"
)
NAME = re.compile(r"tpu:(\w+):(\d+(?:x\d+){1,2})")
HOST = (2, 2, 1)  # chips of a host at most, along each axis
# What a v4 machine does unless told otherwise, and libtpu's description not: a chip's two cores are
# one device (cloud.google.com/tpu/docs/v4: "the two TensorCores … one megacore").
CONFIGURATIONS = {"v4": "megacore"}
# Of `Ran out of memory in memory space hbm. Used 22.51G of 15.75G hbm.`, and of `the total memory
# required for HLO temporaries (8.00T) exceeds available HBM (15.75G)`.
SIZE = r"([\d.]+)([KMGTP]?)"
TOO_MUCH = (
    re.compile(rf"Used {SIZE} of {SIZE} hbm"),
    re.compile(rf"required .*?\({SIZE}\) exceeds available HBM \({SIZE}\)"),
)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


class Topology(NamedTuple):
    """chip: the generation, in libtpu's word; sides: how many chips lie along each axis."""

    chip: str
    sides: tuple[int, ...]

    def __str__(self) -> str:
        return f"tpu:{self.chip}:{self.layout}"

    @property
    def layout(self) -> str:
        """The sides, as libtpu takes them."""
        return "x".join(map(str, self.sides))

    @property
    def chips(self) -> int:
        """How many there are."""
        return math.prod(self.sides)


class Slice(NamedTuple):
    """What libtpu says of a topology: how many devices (of v2 and v3 a chip's two cores are one
    each), and how many bytes a program may use on one."""

    devices: int
    capacity: int


def parse(text: str) -> Topology:
    """The topology that --on names. UserError: another form, or no libtpu."""
    found = NAME.fullmatch(text)
    if not found:
        raise UserError(f"--on takes the name of a TPU slice, not {text!r}: {HOW}.")
    if find_spec("libtpu") is None:
        raise UserError(
            f"--on {text} needs libtpu, the compiler for TPUs, which is not installed: "
            "`make install EXTRAS=tpu` installs it on any Linux machine, and no TPU is needed."
        )
    return Topology(found[1], tuple(map(int, found[2].split("x"))))


def settings() -> dict[str, str]:
    """The environment of a process that compiles for TPUs; products are what a run on one has."""
    return {
        "JAX_PLATFORMS": "cpu",  # an accelerator that is here is left alone
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # who only compiles needs no lock on the chips
        "TPU_SKIP_MDS_QUERY": "1",  # nobody is asked over the network what this machine is
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # of this machine: any; the topology is named apart
        "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3",
    } | unless_set(FLOAT32)


def devices(topology: Topology) -> list[Any]:
    """jax's devices of the slice, to compile for. UserError: libtpu knows no such slice."""
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.chip in CONFIGURATIONS:
        options["chip_config_name"] = CONFIGURATIONS[topology.chip]
    sides = (*topology.sides, 1)[:3]
    options["chips_per_host_bounds"] = tuple(map(min, sides, HOST))
    name = f"{topology.chip}:{topology.layout}"
    try:
        return topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        raise UserError(f"libtpu knows no slice {topology} ({reason}): {HOW}.") from None


def describe(topology: Topology) -> Slice:
    """Of a slice, by its compiler. UserError: it knows none."""
    found = devices(topology)
    with mesh.absent(found):
        return Slice(len(found), _capacity())


def _capacity() -> int:
    """Bytes that a program may use on a device: what the compiler says to one that asks for 8 TB.

    It is less than the data sheet has: the system keeps a part.
    """
    x = jax.ShapeDtypeStruct((2**41,), jnp.float32, sharding=mesh.everywhere())
    try:
        jax.jit(lambda x: jnp.sin(x).sum()).lower(x).compile()
    except jax.errors.JaxRuntimeError as error:
        refusal = too_much(str(error))
        if refusal:
            return refusal[1]
        raise
    raise AssertionError("a chip with 8 TB")


def too_much(refusal: str) -> tuple[int, int] | None:
    """(bytes that a program needs, bytes that there are), as the compiler's refusal says; None: it
    is about something else."""
    for pattern in TOO_MUCH:
        if found := pattern.search(refusal):
            needed, unit, there, its_unit = found.groups()
            return int(float(needed) * UNITS[unit]), int(float(there) * UNITS[its_unit])
    return None
