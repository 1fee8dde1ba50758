"""What a number was made by: code, versions, hardware. A comparison never mixes them."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

PACKAGE = Path(sys.modules[__name__.partition(".")[0]].__path__[0])
BUNDLE = "bundle.json"  # beside the package, where it was unpacked from a bundle


@cache
def setting() -> dict[str, str | int]:
    """The machine's part of what two lines of results must share to be compared.

    The code's part is an identity (`runs.code`). Of several devices their number too, and of an
    accelerator what its float32 products are rounded to (see environment.FLOAT32).
    """
    import jax

    found = _setting(device(), threads())
    if jax.device_count() > 1:
        found["devices"] = jax.device_count()
    if jax.default_backend() == "cpu":
        return found
    return found | {"products": jax.config.jax_default_matmul_precision or "default"}  # pyright: ignore


def machine(setting: dict) -> dict:
    """A record's setting without the code, of which each recipe has its own."""
    return {name: value for name, value in setting.items() if name != "code"}


def cpu_setting(threads: int) -> dict[str, str | int]:
    """`setting()` of a process that runs jax on this CPU with so many threads; starts no jax."""
    return _setting(f"cpu: {_cpu()}", threads)


def _setting(device: str, threads: int) -> dict[str, str | int]:
    jaxlib = importlib.metadata.version("jaxlib")
    return {"jaxlib": jaxlib, "device": device, "threads": threads}


def threads() -> int:
    """Threads that XLA uses on CPU: they change the last bits. NPROC is XLA's own variable."""
    return int(os.environ.get("NPROC") or os.cpu_count() or 1)


@cache
def device() -> str:
    """Kind of the first device, with the CPU's model name where that is the device."""
    import jax

    first = jax.devices()[0]
    return f"cpu: {_cpu()}" if first.platform == "cpu" else first.device_kind


def _cpu() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """What code can be run on this CPU: its name and its instruction sets, as far as is known."""
    return f"{platform.machine()} {_cpu()} {_cpuinfo('flags', 'Features', 'isa')}"


def _cpuinfo(*fields: str) -> str:
    """The first core's value of the first of these fields that it has; empty if unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    pairs = [line.partition(":") for line in lines]
    values = [value.strip() for name, _, value in pairs if name.strip() in fields]
    return values[0] if values else ""


def versions() -> dict[str, str]:
    """Of Python and of the libraries that make the numbers."""
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


@cache
def commit() -> str:
    """The checkout's commit, with a + when tracked files differ from it; of a bundle's code that of
    the checkout it was made in; empty outside of both."""
    if (bundle := PACKAGE.parent / BUNDLE).is_file():
        return json.loads(bundle.read_text())["commit"]
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.decode().strip() + ("+" if changes.strip() else "")


def source_at(commit: str) -> dict[str, str] | None:
    """{path below the package: text} of the package as it was; None where git does not know it."""
    try:
        raw = _git("archive", "--format=tar", commit, ".")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if not raw:
        return None
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        files = {each.name: tar.extractfile(each) for each in tar if each.name.endswith(".py")}
        return {name: file.read().decode() for name, file in files.items() if file}


def _git(*command: str) -> bytes:
    """What git says of the checkout that the package lies in; nothing where it refuses."""
    git = ["git", "-C", str(PACKAGE), *command]
    return subprocess.run(git, capture_output=True, timeout=10, check=False).stdout
