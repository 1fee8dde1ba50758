"""The environment variables that decide how a process computes, and those that a child gets."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PCI, GOOGLE = Path("/sys/bus/pci/devices"), "0x1ae0"  # where jax, too, looks for TPU chips
SINGLE_THREAD = {
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    # numpy's linear algebra: its threads in several processes wait for one another.
    "OMP_NUM_THREADS": "1",
}
# On some Intel CPUs XLA takes its own tuning hints for features that the CPU lacks, and logs an
# error for every program loaded from a cache (openxla/xla#44565). What fails is raised as well.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
# By jax's default a GPU rounds the factors of float32 products to 10 bits (TF32), a TPU to 7. Who
# wants that asks for it, by this variable or by precision=bfloat16.
FLOAT32 = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# Else the first process would take three quarters of a GPU's memory for itself.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def accelerated() -> bool:
    """Whether jax would find a GPU or TPU, judged without starting it in this process."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] != "cpu"
    return bool(find_spec("jax_plugins") or (find_spec("libtpu") and _has_tpu()))


def _has_tpu() -> bool:
    """Whether a device of Google's is on the bus: libtpu may be there to compile for TPUs only."""
    return any(path.read_text().strip() == GOOGLE for path in PCI.glob("*/vendor"))


def worker_settings(shared: bool) -> dict[str, str]:
    """What a worker's environment has besides this process's."""
    if accelerated():
        return unless_set(FLOAT32 | (SHARED if shared else {}))
    return SINGLE_THREAD | unless_set(QUIET)


def unless_set(values: dict[str, str]) -> dict[str, str]:
    """What the user set stays."""
    return {name: os.environ.get(name, value) for name, value in values.items()}


@contextmanager
def override(changes: dict[str, str]):
    """The environment that a child inherits, put back afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    if "XLA_FLAGS" in changes and before["XLA_FLAGS"]:
        changes = changes | {"XLA_FLAGS": f"{before['XLA_FLAGS']} {changes['XLA_FLAGS']}"}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
