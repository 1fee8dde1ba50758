"""The house rules of docs/architecture.md: who may import what, and what every module owes."""

import ast
import importlib
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROW = re.compile(r"\| (\d+) \| (`\w+`(?:, `\w+`)*) \|")


def _floors() -> dict[str, int]:
    """{package: floor}, as docs/architecture.md has it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [ROW.match(line) for line in page.splitlines()]
    return {package: int(row[1]) for row in rows if row for package in re.findall(r"\w+", row[2])}


FLOORS = _floors()
FREE = {"errors", "files"}  # what every floor may import
TOP = max(FLOORS.values())
PLAIN = {"claims": {"numpy", "scipy"}, "nn": {"jax", "numpy", "scipy"}}  # all they may need


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
    """The part of the house a module belongs to; "" of `vggbn` itself, which imports nothing."""
    return name.removeprefix("vggbn").removeprefix(".").partition(".")[0]


def _floor(part: str) -> int:
    return TOP if part == "__main__" else FLOORS.get(part, 0)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_module_imports_only_from_lower_floors(name):
    part = _part(name)
    assert part in {*FLOORS, "", "__main__"}, f"give {part} a floor in docs/architecture.md"
    ours = {_part(other) for other in imports(name, LIBRARY[name]) if other in LIBRARY}
    wrong = {other for other in ours - {part} - FREE if _floor(other) >= _floor(part)}
    assert not wrong, f"{name} stands on floor {_floor(part)} and may not import {wrong}"


def test_the_floors_are_those_of_the_folder():
    inside = [path for path in (ROOT / "vggbn").iterdir() if path.is_dir() or path.suffix == ".py"]
    there = {path.stem for path in inside if not path.name.startswith("_")}
    assert there == set(FLOORS)


def test_tests_lie_in_folders_of_the_packages():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("*.py")}
    others = {"golden", "support", "experiments", "benchmarks"}
    assert {path.parts[0] for path in folders if path.parts} <= {*FLOORS, *others}


def test_the_first_view_of_the_house_is_a_small_one():
    arrows = {
        (_part(name), _part(other))
        for name, path in LIBRARY.items()
        for other in imports(name, path) & set(LIBRARY)
    }
    rooms = {room for arrow in arrows for room in arrow}
    assert len(rooms) <= 30 and len({(a, b) for a, b in arrows if a != b}) <= 100


@pytest.mark.parametrize("name", [name for name in LIBRARY if _part(name) in PLAIN])
def test_plain_packages_need_few_libraries(name):
    outside = {other.partition(".")[0] for other in imports(name, LIBRARY[name])}
    outside -= sys.stdlib_module_names | {"vggbn"}
    assert outside <= PLAIN[_part(name)], f"{name} imports {outside - PLAIN[_part(name)]}"


PACKAGES = [n for n, p in LIBRARY.items() if p.name == "__init__.py" and n != "vggbn"]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_two_rooms_of_a_package_import_each_other(name):
    """A folder inside a package is a room of it."""
    room = lambda module: module.removeprefix(f"{name}.").partition(".")[0]  # noqa: E731
    inside = {m: p for m, p in LIBRARY.items() if m.startswith(f"{name}.")}
    arrows = {
        (room(m), room(other)) for m, p in inside.items() for other in imports(m, p) & set(inside)
    }
    circles = [(a, b) for a, b in arrows if a < b and (b, a) in arrows]
    assert not circles


@pytest.mark.parametrize("name", [*LIBRARY, *EXPERIMENTS])
def test_nothing_imports_experiments_tests_or_benchmarks(name):
    path = LIBRARY.get(name) or EXPERIMENTS[name]
    others = imports(name, path)
    assert not {other.partition(".")[0] for other in others} & {"tests", "benchmarks"}
    assert name not in LIBRARY or not any(other.startswith("experiments") for other in others)
    assert not [other for other in others if re.match(r"experiments\.[a-z]", other)]


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


def test_functions_are_short():
    functions = [
        (node.end_lineno - node.lineno + 1, f"{name}.{node.name}")
        for name, path in LIBRARY.items()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = [length for length, _ in functions]
    assert max(lengths) <= 60, max(functions)
    assert statistics.median(lengths) <= 8


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
