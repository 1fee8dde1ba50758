"""Source trees of commits, and probes that run in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from vggbn.errors import UserError

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
PROBE = Path(__file__).parent  # the folder that holds the package `probe`

# The digest of a tree by its own provenance.py, which needs no jax for it, whatever it imports.
DIGESTS = (
    "import sys, types\n"
    "sys.modules['vggbn.fast'] = types.ModuleType('vggbn.fast')\n"
    "from vggbn import provenance as p\n"
    "print(p.code_digest(), getattr(p, 'evaluation_digest', lambda: '')())\n"
)


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git {words[0]}: {done.stderr.decode().strip()}")
    return done.stdout


@cache
def full_name(commit: str) -> str:
    """The commit's hash. UserError: there is none of this name."""
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()
    except UserError:
        raise UserError(f"no commit {commit!r} in this repository.") from None


def extract(commit: str, folder: Path) -> Path:
    """The package of this commit, put below `folder`."""
    archive = _git("archive", full_name(commit), PACKAGE.name)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def data_version(commit: str) -> str:
    """What is the same for commits whose code that reads data is the same."""
    return _git("rev-parse", f"{full_name(commit)}:{PACKAGE.name}/data").decode().strip()


@cache
def digests(tree: Path, python: str) -> tuple[str, str] | None:
    """The old digests of a tree, (code, evaluation), by this Python ("3.12"); None: not at hand."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = sys.executable if python == here else shutil.which(f"python{python}")
    done = command and subprocess.run(
        [command, "-c", DIGESTS], capture_output=True, text=True, cwd=tree, check=False,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )  # fmt: skip
    if not done or done.returncode:
        return None
    code, _, evaluation = done.stdout.rstrip("\n").partition(" ")
    return code, evaluation


def ask(tree: Path, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a probe that imports `tree`; what it keeps lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    question, answer = folder / "request.json", folder / "answer.json"
    question.write_text(json.dumps({"folder": str(folder), **request}))
    # Without assertions: made up numbers do not add up.
    done = subprocess.run(
        [sys.executable, "-O", "-m", "probe", str(question), str(answer)],
        cwd=tree, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{PROBE}", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the probe of {tree.name} failed:\n{done.stderr[-3000:]}")
    return json.loads(answer.read_text())
