"""Edits of the source, drawn at random: do those of code that ran change a result's identity, and
those of anything else leave it?

    python -m benchmarks.identity_edits                 # a few minutes; prints its seed
    python -m benchmarks.identity_edits --seed N --nets mlp

For each net a traced process trains two steps and evaluates. Of the lines that ran, and of nothing
that the identity itself says, constants, operators and defaults are drawn and changed: each must
change the identity. Then definitions of other entries of the recipe's tables are changed, and
functions are moved, renamed, put in another order and documented: none may. Every case is printed;
the exit status is 1 if one fails.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vggbn.identity import identity
from vggbn.identity.definitions import Folder, Package
from vggbn.machine.clock import Clock
from vggbn.runs import posteriors
from vggbn.runs import run as runs
from vggbn.training import recipe
from vggbn.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vggbn"
SOURCE = dict(Folder(PACKAGE))
TREES = {path: ast.parse(text) for path, text in SOURCE.items()}
COUNTS = {"run": 40, "other": 40, "neutral": 20}

TINY = Recipe(
    data="digits", image_size=8, batch=16, width=1 / 16, fc=8, steps=2, lr=0.01, evaluations=2,
    population_batches=1, train_size=200,
)  # fmt: skip
NETS = {
    "mlp": TINY.but(model="mlp", activation="sigmoid", norm="whiten", split="fixed"),
    "vgg": TINY.but(
        model="vgg_a_lrn", norm="batch", pools=1, crop_pad=1, schedule="exponential", watch="inputs"
    ),
    "scales": TINY.but(
        data="mnist5k", model="vgg_c", fit="whole", source_side=16, scale_min=10, scale_max=14,
        pools=1, accumulate=2, norm="batch_renorm", schedule="plateau", shuffle="fixed",
    ),
    "dense": TINY.but(
        fit="whole", source_side=16, scale_min=10, scale_max=14, pools=1, norm="layer"
    ),
}  # fmt: skip
PROTOCOLS = {"dense": "dense"}  # of these the evaluation by that protocol is traced, not training
Source = Mapping[str, str]


class Edit(NamedTuple):
    """A case: what it does, and the source after it."""

    what: str
    source: Source


# --- what ran ------------------------------------------------------------------------------------


def trace(net: str) -> None:
    """Print {path: lines} of the package that run when this net is trained, or tested."""
    ran: dict[str, set[int]] = {}

    def on_call(frame, event, arg):
        # Functions only: what runs when a file is imported is all of it.
        name, optimized = frame.f_code.co_filename, frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if not name.startswith(str(PACKAGE)) or not optimized or _is_listener(frame):
            return None
        lines = ran.setdefault(Path(name).relative_to(PACKAGE).as_posix(), set())

        def on_line(frame, event, arg):
            lines.add(frame.f_lineno)
            return on_line

        return on_line(frame, event, arg) and on_line

    with tempfile.TemporaryDirectory() as folder:
        store, wanted = runs.Store(Path(folder) / "runs"), NETS[net]
        if net in PROTOCOLS:
            run, dataset = runs.get_run(wanted, 0, store), runs.load_data(wanted, 0, store)
            work = partial(posteriors.compute, wanted, run, dataset, PROTOCOLS[net], 12)
        else:
            work = partial(runs.compute, wanted, 0, store, None, Clock("load"))
        threading.settrace(on_call)
        sys.settrace(on_call)
        work()
        sys.settrace(None)
    print(json.dumps({path: sorted(lines) for path, lines in ran.items()}))


def _is_listener(frame) -> bool:
    """Whether jax calls it to tell how long something took: whoever imported the clock hears it."""
    return "monitoring" in frame.f_back.f_code.co_filename


def lines_that_ran(net: str) -> dict[str, set[int]]:
    """{path: lines}, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.identity_edits", "--trace", net]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    ran = json.loads(done.stdout.splitlines()[-1])
    return {path: set(lines) for path, lines in ran.items()}


# --- edits of nodes ------------------------------------------------------------------------------

OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.RShift: ast.LShift, ast.LShift: ast.RShift, ast.USub: ast.UAdd,
    ast.Not: ast.UAdd, ast.Invert: ast.Not, ast.UAdd: ast.USub, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


def change(node: ast.AST) -> str | None:
    """Change a constant or an operator in place, and say how; None: it is neither."""
    if isinstance(node, ast.Constant):
        before, value = node.value, node.value
        node.kind = None
        match value:
            case bool():
                node.value = not value
            case int() | float():
                node.value = value * 2 + 1
            case str():
                node.value = value + "x"
            case None:
                node.value = 0
            case _:
                return None
        return f"{before!r} -> {node.value!r}"
    if isinstance(node, ast.Compare):
        before, node.ops[0] = node.ops[0], OTHER[type(node.ops[0])]()
        return f"{type(before).__name__} -> {type(node.ops[0]).__name__}"
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.AugAssign):
        before, node.op = node.op, OTHER[type(node.op)]()
        return f"{type(before).__name__} -> {type(node.op).__name__}"
    return None


def _can_change(node: ast.AST) -> bool:
    return change(copy.deepcopy(node)) is not None


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it that count: no annotation, no docstring, no format's own text."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            silent = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and name not in ("annotation", "returns") and not silent:
                yield from _parts(child)


def changed_at(path: str, place: int) -> Edit:
    """The source with the node of that place in `_parts` of a file changed."""
    tree = copy.deepcopy(TREES[path])
    node = list(_parts(tree))[place]
    how = change(node)
    return Edit(f"{path}:{node.lineno}: {how}", SOURCE | {path: ast.unparse(tree)})  # type: ignore


def places(path: str, chosen: Callable[[ast.AST], bool]) -> list[tuple[str, int]]:
    """(path, place) of the nodes of a file that can be changed and that are chosen."""
    nodes = enumerate(_parts(TREES[path]))
    return [(path, i) for i, node in nodes if chosen(node) and _can_change(node)]


def edits_of_what_ran(ran: dict[str, set[int]], rng: random.Random) -> Iterator[Edit]:
    """Constants, operators, defaults of functions that ran, and constants that they name."""
    found = []
    for path, lines in sorted(ran.items()):
        wanted: set[ast.AST] = set()
        names = set()
        for function in ast.walk(TREES[path]):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            body = function.body if isinstance(function.body, list) else [function.body]
            inside = [node for statement in body for node in _parts(statement)]
            here = [node for node in inside if getattr(node, "lineno", 0) in lines]
            if here:
                wanted |= {*here}
                defaults = (*function.args.defaults, *function.args.kw_defaults)
                wanted |= {part for each in defaults if each for part in _parts(each)}
                names |= {node.id for node in here if isinstance(node, ast.Name)}
        for statement in TREES[path].body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in names:
                    if name.lstrip("_").isupper() and not isinstance(value, ast.Dict):
                        wanted |= {*_parts(value)}
        found += places(path, wanted.__contains__)
    for path, place in rng.sample(found, min(len(found), COUNTS["run"])):
        yield changed_at(path, place)


# --- edits of other entries ----------------------------------------------------------------------


def edits_of_others(wanted: Recipe, ran: dict[str, set[int]], rng: random.Random) -> Iterator[Edit]:
    """The other entries of the recipe's tables: another value, and other functions and constants
    that only they name, and of which nothing ran."""
    found: list[Callable[[], Edit]] = []
    for name, table in recipe.CHOICES.items():
        if not isinstance(table, dict):
            continue
        path, entries = _table(set(table))
        own = _entry(list(table), getattr(wanted, name))
        kept = _named(path, entries[own], ran) if own in entries else set()
        for key, value in entries.items():
            if key == own:
                continue
            found.append(partial(_without, path, key, value))
            for where, place in sorted(_named(path, value, ran) - kept):
                found.append(partial(changed_at, where, place))
    for make in rng.sample(found, min(len(found), COUNTS["other"])):
        yield make()


def _entry(keys: list[str], value: str) -> str | None:
    kind = value.partition(":")[0] + ":"
    return next((key for key in (value, kind, "*") if key in keys), None)


def _table(keys: set[str]) -> tuple[str, dict[str, ast.expr]]:
    """(file, {key: value}) of the dict literal that has these keys."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                own = {getattr(k, "value", None): v for k, v in zip(node.keys, node.values)}  # noqa: B905
                if own.keys() == keys:
                    return path, own  # type: ignore
    raise LookupError(f"no literal table has the keys {sorted(keys)}")


def _without(path: str, key: str, value: ast.expr) -> Edit:
    """The entry is nothing any more."""
    tree = copy.deepcopy(TREES[path])
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            node.values = [
                ast.Constant(None)
                if isinstance(k, ast.Constant) and k.value == key and ast.dump(v) == ast.dump(value)
                else v
                for k, v in zip(node.keys, node.values, strict=True)
            ]
    return Edit(f"{path}: the entry {key!r} is None", SOURCE | {path: ast.unparse(tree)})


def _named(path: str, value: ast.expr, ran: dict[str, set[int]]) -> set[tuple[str, int]]:
    """The places of the definitions that an entry names, and of its own text; but for functions
    that ran, as one norm's may for another."""
    found = set(places(path, {*_parts(value)}.__contains__))
    for name in {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}:
        where, node = _definition(path, name)
        lines = {getattr(part, "lineno", 0) for part in ast.walk(node)} if node else set()
        if node is not None and lines.isdisjoint(ran.get(where, ())):
            found |= {*places(where, {*_parts(node)}.__contains__)}
    return found


def _definition(path: str, name: str) -> tuple[str, ast.AST | None]:
    """(file, statement) that defines a global name of a file, or gives it a constant."""
    for statement in TREES[path].body:
        match statement:
            case ast.FunctionDef(name=own) if own == name:
                return path, statement
            case ast.Assign(targets=[ast.Name(id=own)]) if own == name:
                return path, statement
            case ast.ImportFrom(module=str(module), names=names):
                for alias in names:
                    if (alias.asname or alias.name) == name and module.startswith("vggbn."):
                        below = module.partition(".")[2].replace(".", "/")
                        file = f"{below}.py" if f"{below}.py" in TREES else f"{below}/__init__.py"
                        return _definition(file, alias.name)
    return path, None


# --- neutral edits -------------------------------------------------------------------------------


def neutral_edits(ran: dict[str, set[int]], rng: random.Random) -> Iterator[Edit]:
    """Moves, renames, other orders and docstrings, of files of which something ran."""
    kinds = (moved, renamed, turned, documented)
    paths, done = sorted(ran), 0
    while done < COUNTS["neutral"]:
        edit = kinds[done % len(kinds)](rng.choice(paths), rng)
        if edit is not None:
            done += 1
            yield edit


def _functions(path: str) -> list[ast.FunctionDef]:
    return [node for node in TREES[path].body if isinstance(node, ast.FunctionDef)]


def _only_here(path: str, name: str) -> bool:
    """Whether a name stands in no other file, and in its own only as this global name."""
    word = re.compile(rf"\b{name}\b")
    if any(word.search(text) for other, text in SOURCE.items() if other != path):
        return False
    tree = TREES[path]
    as_name = sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(tree))
    as_name += sum(isinstance(n, ast.FunctionDef) and n.name == name for n in tree.body)
    return len(word.findall(ast.unparse(tree))) == as_name


def renamed(path: str, rng: random.Random) -> Edit | None:
    """A function or constant that only its own file names."""
    names = [node.name for node in _functions(path)]
    names += [
        s.targets[0].id
        for s in TREES[path].body
        if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name)
    ]
    names = [name for name in names if _only_here(path, name)]
    if not names:
        return None
    name = rng.choice(names)
    text = re.sub(rf"\b{name}\b", f"{name}_renamed", SOURCE[path])
    return Edit(f"{path}: {name} is renamed", SOURCE | {path: text})


def turned(path: str, rng: random.Random) -> Edit | None:
    """Two functions change places."""
    tree = copy.deepcopy(TREES[path])
    where = [i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef)]
    if len(where) < 2:
        return None
    a, b = rng.sample(where, 2)
    what = f"{path}: {tree.body[a].name} and {tree.body[b].name} change places"  # type: ignore
    tree.body[a], tree.body[b] = tree.body[b], tree.body[a]
    return Edit(what, SOURCE | {path: ast.unparse(tree)})


def documented(path: str, rng: random.Random) -> Edit | None:
    """A function gets another docstring, a comment and annotations."""
    tree = copy.deepcopy(TREES[path])
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if not functions:
        return None
    node = rng.choice(functions)
    if ast.get_docstring(node):
        del node.body[0]
    node.body.insert(0, ast.Expr(ast.Constant("Said otherwise.")))
    node.returns = ast.Constant("float")
    text = ast.unparse(ast.fix_missing_locations(tree)) + "\n# A comment.\n"
    return Edit(f"{path}: {node.name} is documented", SOURCE | {path: text})


def moved(path: str, rng: random.Random) -> Edit | None:
    """A function moves to a file of its own, with what it imports."""
    tree = copy.deepcopy(TREES[path])
    globals_ = {n for s in tree.body for n in _defines(s)}
    # Statements of the module about a function would have to move along.
    about = {n.id for s in tree.body if isinstance(s, ast.Expr) for n in ast.walk(s)
             if isinstance(n, ast.Name)}  # fmt: skip
    functions = [node for node in _functions(path) if node.name not in about]
    if not functions or path.endswith("__init__.py") or path == _path_of(runs.compute):
        return None
    function = rng.choice(functions)
    name, module = function.name, "vggbn." + path.removesuffix(".py").replace("/", ".")
    tree.body = [node for node in tree.body if getattr(node, "name", None) != name]
    imports = [node for node in tree.body if _is_import(node)]
    first = tree.body.index(imports[-1]) + 1 if imports else 1
    tree.body.insert(first, ast.parse(f"from vggbn.moved import {name}").body[0])
    used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} & globals_ - {name}
    lines = [*map(ast.unparse, imports), *(f"from {module} import {each}" for each in sorted(used))]
    text = "\n".join([*lines, ast.unparse(function)])
    source = SOURCE | {path: ast.unparse(ast.fix_missing_locations(tree)), "moved.py": text}
    return Edit(f"{path}: {name} moves to a file of its own", source)


def _is_import(node: ast.stmt) -> bool:
    """Also one that type checkers alone see."""
    checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return checking or isinstance(node, ast.Import | ast.ImportFrom)


def _defines(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign(targets=targets):
            return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _path_of(function: Callable) -> str:
    return Path(inspect.getfile(function)).relative_to(PACKAGE).as_posix()


# --- the command ---------------------------------------------------------------------------------


def identity_of(net: str, source: Source) -> str:
    """Of this net by this source."""
    package = Package("vggbn", source)
    if net in PROTOCOLS:
        tables = {f"{posteriors.__name__}.PROTOCOLS": PROTOCOLS[net]}
        return identity.identity(posteriors.compute, NETS[net], tables, package=package)
    return identity.identity(runs.compute, NETS[net], package=package)


def check(net: str, rng: random.Random) -> int:
    """Print all cases of a net; returns how many fail."""
    ran, before, failures = lines_that_ran(net), identity_of(net, SOURCE), 0
    lines = sum(map(len, ran.values()))
    print(f"\n{net}: {lines} lines of {len(ran)} files ran; identity {before}")
    cases: list[tuple[str, bool, Iterator[Edit]]] = [
        ("ran", True, edits_of_what_ran(ran, rng)),
        ("other", False, edits_of_others(NETS[net], ran, rng)),
        ("neutral", False, neutral_edits(ran, rng)),
    ]
    for kind, expected, edits in cases:
        for edit in edits:
            changes = identity_of(net, edit.source) != before
            failures += changes != expected
            verdict = "ok  " if changes == expected else "FAIL"
            print(f"{verdict} {kind:8s} {'changes' if changes else 'same   '} {edit.what}")
    return failures


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit: 0 all as it must be, 1 a case fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity_edits")
    parser.add_argument("--seed", type=int, help="of the edits (default: the system's entropy)")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--trace", choices=NETS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.trace:
        trace(args.trace)
        return
    seed: Any = secrets.randbits(32) if args.seed is None else args.seed
    print(f"seed {seed}")
    began, failures = time.perf_counter(), 0
    for net in args.nets:
        failures += check(net, random.Random(f"{seed} {net}"))
    print(f"\n{failures} cases fail; {time.perf_counter() - began:.0f} s; seed {seed}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
