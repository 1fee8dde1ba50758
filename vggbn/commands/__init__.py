"""All that reads a command line.

A module here whose `main` takes a command line and nothing else is a command of `python -m vggbn`,
under its own name; the first line of its docstring says what it does. The others are the command
lines of experiments.
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from vggbn.errors import unknown


def commands() -> dict[str, str]:
    """{command: what it does}; read, not imported: some of them need jax, one must not."""
    trees = {m.name: ast.parse(_source(m.name)) for m in pkgutil.iter_modules(__path__)}
    return {
        name.replace("_", "-"): (ast.get_docstring(tree) or "").split("\n")[0]
        for name, tree in sorted(trees.items())
        if any(_is_main(node) for node in tree.body)
    }


def _source(name: str) -> str:
    spec = find_spec(f"{__name__}.{name}")
    return spec.loader.get_source(spec.name)  # type: ignore[union-attr]


def _is_main(node: ast.stmt) -> bool:
    """Whether it is `def main(argv)`."""
    if not isinstance(node, ast.FunctionDef) or node.name != "main":
        return False
    return [argument.arg for argument in node.args.args] == ["argv"]


def run_command(name: str, argv: Sequence[str]) -> None:
    """Run a command and exit with its status. UserError: there is none of that name."""
    if name not in (there := commands()):
        raise unknown("command", name, there)
    import_module(f"{__name__}.{name.replace('-', '_')}").main(argv)
