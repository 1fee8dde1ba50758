"""The identity of a result: what decides its numbers, as twelve hexadecimal digits.

It is a digest of the definitions that a function reaches for a recipe (`reach`): of the
tables that a recipe chooses from, its own entries only. So another net, norm or schedule changes
nothing, nor does a file that is moved or a name that is changed; whatever the run could execute
does. The values of the recipe's fields that are read belong to it, and the identity of its parent.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vggbn.identity.definitions import Folder, Package, key_of
from vggbn.identity.reach import Reach, reach

CHOICES = "CHOICES"  # beside the recipe's class: {field: what it may be}, some of it tables


@cache
def this_package() -> Package:
    """The source that runs here, read once in a process."""
    name = __name__.partition(".")[0]
    return Package(name, Folder(Path(sys.modules[name].__path__[0])))


@cache
def packages(*names: str) -> Package:
    """The source of several packages that are imported and use one another, read once."""
    folders = {name: Folder(Path(sys.modules[name].__path__[0])) for name in names}
    texts = {f"{name}/{path}": folder[path] for name, folder in folders.items() for path in folder}
    return Package("", texts)


def identity(
    function: Callable | str,
    recipe: Any,
    tables: Mapping[str, str | Callable[[Any], str]] | None = None,
    *,
    package: Package | None = None,
    recipes: str | None = None,
) -> str:
    """The identity of what `function`, or the definition of that full name, makes of a recipe.

    recipe: a dataclass with a field `parent`. tables: {full name of a table: what is chosen from
    it, or a function of the recipe that says so}, besides those that the recipe's fields choose
    from. package: another source tree, in which
    `recipes` is the full name of the recipe's class.
    """
    found = reach_of(function, recipe, tables, package=package, recipes=recipes)
    package, recipes = package or this_package(), recipes or key_of(type(recipe))
    fields = (package.class_of(recipes).fields.keys() & found.attributes) - {"parent"}  # pyright: ignore
    values = {name: getattr(recipe, name) for name in fields if hasattr(recipe, name)}
    parent = recipe.parent and identity(
        function, recipe.parent, tables, package=package, recipes=recipes
    )
    return short([found.digest, values, parent])


def reach_of(
    function: Callable | str,
    recipe: Any,
    tables: Mapping[str, str | Callable[[Any], str]] | None = None,
    *,
    package: Package | None = None,
    recipes: str | None = None,
) -> Reach:
    """The definitions that `identity` is a digest of."""
    package, recipes = package or this_package(), recipes or key_of(type(recipe))
    root = function if isinstance(function, str) else key_of(function)
    chosen = {
        table: str(getattr(recipe, field))
        for table, field in tables_of(package, recipes).items()
        if hasattr(recipe, field)
    }
    for table, choice in (tables or {}).items():
        chosen[table] = choice if isinstance(choice, str) else choice(recipe)
    return reach(package, [root], chosen, recipes)


def tables_of(package: Package, recipes: str) -> dict[str, str]:
    """{full name of a table: the recipe's field that chooses from it}, as CHOICES says."""
    return package.tables(f"{recipes.rpartition('.')[0]}.{CHOICES}")


def changed(before: Reach, after: Reach) -> list[str]:
    """The names of the definitions whose text is in one of two reaches and not in the other."""
    texts = {*before.definitions.values()}, {*after.definitions.values()}
    names = [name for name, text in before.definitions.items() if text not in texts[1]]
    names += [name for name, text in after.definitions.items() if text not in texts[0]]
    return sorted({*names})


def short(value: Any) -> str:
    """Twelve hexadecimal digits of anything that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
