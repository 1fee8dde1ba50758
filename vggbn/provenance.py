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

PACKAGE = Path(__file__).parent
# The modules that decide numbers; reports and command lines may change without new runs.
NUMERIC = (
    "norm.py",
    "layers.py",
    "models",
    "data",
    "optim.py",
    "recipe.py",
    "train.py",
    "evaluate",
)


@cache
def setting() -> dict[str, str | int]:
    """The fields that two lines of results must share to be compared."""
    return {
        "code": code_digest(),
        "jaxlib": importlib.metadata.version("jaxlib"),
        "device": device(),
        "threads": threads(),
    }


@cache
def code_digest() -> str:
    """Digest of the numeric modules without comments and docstrings."""
    paths = [p for name in NUMERIC for p in (PACKAGE / name, *(PACKAGE / name).rglob("*.py"))]
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
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


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
