"""The house rules of docs/architecture.md: who may import what, and what every module owes."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each part of vggbn may import besides itself, `errors` and other packages.
ARRAYS = set("compiling fast winograd norm norms detached whitening layers stats".split())
MAY_IMPORT = {
    "errors": set(),
    "clock": set(),
    "norm": set(),
    "whitening": set(),
    "detached": {"norm"},
    "norms": {"norm", "whitening", "detached"},
    "winograd": set(),
    "compiling": set(),
    "environment": set(),
    "fast": {"compiling", "winograd"},
    "layers": {"compiling", "fast"},
    "stats": set(),
    "optim": set(),
    "data": set(),
    "accumulate": set(),
    "checkpoint": set(),
    "saved_steps": {"checkpoint"},
    "progress": set(),
    "hardware": set(),
    "collectives": set(),
    "provenance": {"compiling"},
    "mesh": set(),
    "preempt": {"mesh"},
    "models": {"norms", "layers"},
    "report": {"stats"},
    "inherit": set(),
    "folded": {"norm", "models"},
    "recipe": {"data", "norms", "layers", "models", "optim", "evaluate"},
    "evaluate": {"compiling", "layers", "models", "data", "mesh"},
    "train": {
        "accumulate",
        "clock",
        "data",
        "evaluate",
        "compiling",
        "layers",
        "mesh",
        "models",
        "norm",
        "optim",
        "recipe",
    },
    "kept": {"mesh", "preempt", "provenance", "saved_steps", "recipe", "train"},
}
# These stand on top and may import all of the above and one another.
TOP = {
    "design", "plan", "summary", "runs", "pool", "results", "publish", "sweep", "train_many",
    "run_experiment", "run_exact",
    "compile_cache", "views", "view_many", "posteriors", "vgg_nets", "judges",
    "dry_run",
    "sharded",
    "gallery",
    "exact",
    "ledger",
    "loggers",
    "cluster",
    "team",
}  # fmt: skip
# Doors to other frameworks, which nothing inside may need.
DOORS = {"linen", "interop"}
DEVICE_FREE = {"jax", "numpy", "scipy"}  # all that ARRAYS may import from outside


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources(package: str) -> dict[str, Path]:
    return {_name(path): path for path in sorted((ROOT / package).rglob("*.py"))}


LIBRARY = _sources("vggbn")
EXPERIMENTS = {
    name: path for name, path in _sources("experiments").items() if not path.name.startswith("_")
}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _import_nodes(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not _is_type_checking(child):
            yield from _import_nodes(child)


def imports(name: str, path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, also inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in _import_nodes(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            found.add(submodule if submodule in LIBRARY else base)
    return found


def _part(name: str) -> str:
    """The part of the house a module belongs to; what `python -m` runs stands on top."""
    parts = name.split(".")
    return "__main__" if parts[-1] == "__main__" else parts[1] if len(parts) > 1 else ""


def _allowed(part: str) -> set[str]:
    everything = set(MAY_IMPORT) | TOP
    if part in MAY_IMPORT:
        return MAY_IMPORT[part] | {part, "errors"}
    if part in DOORS:
        return ARRAYS | {"models", "errors", part}
    return everything | {""}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_module_imports_only_what_stands_below_it(name):
    part = _part(name)
    known = set(MAY_IMPORT) | TOP | DOORS | {"", "__main__"}
    assert part in known, f"say in tests/test_house.py and docs/architecture.md where {name} stands"
    ours = {_part(other) for other in imports(name, LIBRARY[name]) if other in LIBRARY}
    if part == "":
        ours -= known - DOORS  # the package itself may offer any of its parts, but no door
        assert not ours, f"{name} opens {ours}"
    else:
        assert ours <= _allowed(part), f"{name} may not import {ours - _allowed(part)}"


@pytest.mark.parametrize("name", [name for name in LIBRARY if _part(name) in ARRAYS])
def test_arrays_need_only_jax_numpy_and_scipy(name):
    outside = {other.partition(".")[0] for other in imports(name, LIBRARY[name])}
    outside -= sys.stdlib_module_names | {"vggbn"}
    assert outside <= DEVICE_FREE, f"{name} imports {outside - DEVICE_FREE}"


@pytest.mark.parametrize("name", [*LIBRARY, *EXPERIMENTS])
def test_nothing_imports_experiments_tests_or_benchmarks(name):
    path = LIBRARY.get(name) or EXPERIMENTS[name]
    tops = {other.partition(".")[0] for other in imports(name, path)}
    assert not tops & {"experiments", "tests", "benchmarks"}


def test_no_import_cycles():
    graph = {name: imports(name, path) & set(LIBRARY) - {name} for name, path in LIBRARY.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_importing_touches_no_device():
    names = [name for name in [*LIBRARY, *EXPERIMENTS] if not name.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        "from jax._src.xla_bridge import backends_are_initialized\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert not backends_are_initialized(), f'importing {name} starts a device'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


# What takes long to import, and is needed by few calls only.
HEAVY = (
    "flax orbax grain scipy matplotlib PIL sklearn mlxtend pandas keras tensorflow "
    "tensorflow_datasets tensorboardX wandb submitit"
).split()


def test_importing_is_quick():
    """Everything that an experiment's command line imports: jax and optax, and no other weight."""
    code = (
        "import importlib, sys\n"
        "import vggbn\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "names = sys.argv[1:]\n"
        "for name in names[names.index('--') + 1:]:\n"
        "    importlib.import_module(name)\n"
        "assert 'optax' in sys.modules\n"
        "print(*(name for name in names[:names.index('--')] if name in sys.modules))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *HEAVY, "--", *EXPERIMENTS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stdout + run.stderr[-2000:]


@pytest.mark.parametrize("name", LIBRARY)
def test_every_public_name_says_what_it_is(name):
    tree = _tree(LIBRARY[name])
    assert ast.get_docstring(tree), f"{name} has no docstring"
    definitions = (ast.FunctionDef, ast.ClassDef)
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, definitions)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent, f"{name}: no docstring on {', '.join(silent)}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_complete(name):
    module = importlib.import_module(name)
    assert module.__doc__, "its docstring says what is asked and what it costs"
    assert hasattr(module, "EXPERIMENT"), "its last lines hand EXPERIMENT to the runner"


def test_no_path_of_one_machine_in_the_repository():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    machine = re.compile(
        r"(?<![\w.~)}])/(?:home|root|Users|work|opt|mnt|tmp)/\w|\b[A-Z]:\\\\?Users"
    )
    found = []
    for line in listing.stdout.splitlines():
        path = ROOT / line
        if path.is_file() and b"\0" not in (raw := path.read_bytes()):
            found += [f"{line}: {hit.group()}" for hit in machine.finditer(raw.decode("utf-8"))]
    assert not found, "\n".join(found)
