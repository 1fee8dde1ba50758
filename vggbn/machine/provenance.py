"""What a number was made by: code, versions, hardware. A comparison never mixes them."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from vggbn.machine import compiling

PACKAGE = Path(__file__).parents[1]
# The modules that decide numbers; reports and command lines may change without new runs.
NUMERIC = (
    "machine/compiling.py",
    "machine/mesh.py",
    "data",
    "nn",
    "models",
    "training",
    "evaluate/activations.py",
    "evaluate/shared.py",
    "evaluate/rank.py",
    "evaluate/single.py",
    "evaluate/watch.py",
)


@cache
def setting() -> dict[str, str | int]:
    """The fields that two lines of results must share to be compared.

    Of several devices their number too, and of an accelerator what its float32 products are
    rounded to (see environment.FLOAT32).
    """
    import jax

    found = _setting(device(), threads())
    if jax.device_count() > 1:
        found["devices"] = jax.device_count()
    if jax.default_backend() == "cpu":
        return found
    return found | {"products": jax.config.jax_default_matmul_precision or "default"}  # pyright: ignore


def cpu_setting(threads: int) -> dict[str, str | int]:
    """`setting()` of a process that runs jax on this CPU with so many threads; starts no jax."""
    return _setting(f"cpu: {_cpu()}", threads)


def _setting(device: str, threads: int) -> dict[str, str | int]:
    jaxlib = importlib.metadata.version("jaxlib")
    code = code_digest() + ("" if compiling.ENABLED else " plain")
    return {"code": code, "jaxlib": jaxlib, "device": device, "threads": threads}


@cache
def code_digest() -> str:
    """Digest of the numeric modules without comments and docstrings."""
    return _digest(NUMERIC)


@cache
def evaluation_digest() -> str:
    """The same of the evaluation protocols, which decide a view's numbers and no training run's."""
    return _digest(("evaluate",))


def _digest(names: tuple[str, ...]) -> str:
    paths = [p for name in names for p in (PACKAGE / name, *(PACKAGE / name).rglob("*.py"))]
    sha = hashlib.sha256()
    for path in sorted(p for p in paths if p.suffix == ".py" and p.name != "__main__.py"):
        sha.update(ast.unparse(_without_docstrings(ast.parse(path.read_text()))).encode())
    return sha.hexdigest()[:12]


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return tree


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
    """The checkout's commit, with a + when tracked files differ from it; empty outside of git."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        run = lambda *a: subprocess.run([*git, *a], capture_output=True, text=True, timeout=10)  # noqa: E731
        head, changes = run("rev-parse", "--short=12", "HEAD"), run("status", "--porcelain", "-uno")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
