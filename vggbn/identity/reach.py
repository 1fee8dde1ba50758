"""What a function of a package reaches, as one digest of the definitions' content.

Of every definition that is reached its canonical text counts (`canonical`), in which other
definitions stand by their content. So the digest does not change where files, functions or imports
are moved or renamed, and it changes with any code that could be run. Where an object's type is not
known, its attribute `name` reaches what is called so in every class that is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

from vggbn.identity.canonical import Text, Use
from vggbn.identity.definitions import Class, Package

ANY = "*"  # the entry of a table that stands for every value that has none of its own


class Reach(NamedTuple):
    """digest: of all that is reached; definitions: {full name: hash of its own text};
    attributes: names that the reached code reads of objects, or passes."""

    digest: str
    definitions: dict[str, str]
    attributes: frozenset[str]


_reaches: WeakKeyDictionary[Package, dict[tuple, Reach]] = WeakKeyDictionary()


def reach(
    package: Package, roots: Iterable[str], chosen: Mapping[str, str], values: str | None = None
) -> Reach:
    """What the definitions `roots` reach; found once for the same source and choices.

    chosen: {full name of a table: the value that chooses from it}: where an entry is taken of it by
    a name that is computed, only that entry counts (`entry_of`). values: the class whose objects
    are given from outside: its fields and how it is made do not count, its methods do.
    """
    known = _reaches.setdefault(package, {})
    key = (*roots, "", *sorted(chosen.items()), values)
    if key not in known:
        known[key] = _Walk(package, chosen, values).digest([*roots])
    return known[key]


def entry_of(entries: Iterable[str], value: str) -> str | None:
    """The entry that a value chooses: its own; that of its kind, "kind:" of "kind:rest"; or ANY."""
    for entry in (value, value[: value.find(":") + 1], ANY):
        if entry and entry in entries:
            return entry
    return None


class _Walk:
    """One reach: from its roots through all that their texts use."""

    def __init__(self, package: Package, chosen: Mapping[str, str], values: str | None):
        self.package, self.values = package, values
        self.chosen = {table: self._entry(table, value) for table, value in chosen.items()}
        self.texts: dict[str, Text] = {}
        self.classes: dict[str, Class] = {}
        self.built: set[str] = set()
        self.names: set[str] = set()  # attributes and keywords
        self.attributes: set[str] = set()
        self.hinted: set[str] = set()

    def _entry(self, table: str, value: str) -> str | None:
        found = entry_of(self.package.entries(table) or {}, value)
        return found and f"{table}[{found}]"

    # --- reaching --------------------------------------------------------------------------------

    def digest(self, roots: list[str]) -> Reach:
        todo = roots
        while todo:
            for key in todo:
                self._visit(key)
            todo = [k for c in self.classes for k in self._members(c) if k not in self.texts]
        return self._reach(roots)

    def _visit(self, key: str) -> None:
        todo = [key]
        while todo:
            key = todo.pop()
            if key in self.texts:
                continue
            text = self.texts[key] = self.package.text(key)
            self.built |= text.built
            self.attributes |= text.attributes
            self.names |= text.attributes | text.keywords
            if not key.endswith((":", "]")) and (found := self.package.class_of(key)):
                self.classes[key] = found
            for part in text.parts:
                if isinstance(part, Use):
                    todo += self._used(part)
            for hint in text.hints:
                todo += self._hinted(hint)
            todo += self.package.loose(key)

    def _used(self, use: Use) -> list[str]:
        """The definitions that take a place, but for an attribute's."""
        match use.kind:
            case "definition":
                return [use.name]
            case "choice":
                return [self.chosen.get(use.name) or use.name]
            case "entry":
                table, _, entry = use.name[:-1].partition("[")
                known = table in self.chosen and entry in (self.package.entries(table) or {})
                return [use.name if known else self.chosen.get(table) or table]
            case "module":
                return self.package.all_of(use.name)
        return []

    def _hinted(self, key: str) -> list[str]:
        """The classes that an annotation means; a constant in it is another name for such."""
        if key in self.hinted:
            return []
        self.hinted.add(key)
        if self.package.class_of(key):
            return [key]
        return [found for hint in self.package.hints(key) for found in self._hinted(hint)]

    def _members(self, key: str) -> list[str]:
        """What counts of a class: methods that are called, or that Python calls, and fields."""
        return [f"{key}.{name}" for name in (*self._methods(key), *self._fields(key))]

    def _methods(self, key: str) -> list[str]:
        made_here, given = key != self.values, self.package.traits(key).for_others
        return [
            name
            for name in self.classes[key].methods
            if name in self.attributes or given or (made_here and _is_special(name))
        ]

    def _fields(self, key: str) -> list[str]:
        """All, in order; of a dataclass those that are read or passed, and where it is made by
        position those before them."""
        fields = list(self.classes[key].fields)
        if key == self.values:
            return []
        if not self.package.traits(key).dataclass:
            return fields
        places = [place for place, name in enumerate(fields) if name in self.names]
        if key in self.built and places:
            return fields[: places[-1] + 1]
        return sorted(fields[place] for place in places)

    # --- the digest ------------------------------------------------------------------------------

    def _reach(self, roots: list[str]) -> Reach:
        called: dict[str, list[str]] = {}  # {name: the methods that are called so}
        named: set[str] = set()  # fields keep their names
        for key in self.classes:
            named.update(self._fields(key))
            for name in self._methods(key):
                called.setdefault(name, []).append(f"{key}.{name}")
        labels: dict[str, bytes] = {}
        places: dict[str, list[list[str]]] = {}
        for key, text in self.texts.items():
            words, places[key] = [], []
            for part in (*text.parts, *self._own_members(key)):
                if isinstance(part, str):
                    words.append(part)
                    continue
                if isinstance(part, list):
                    keys = part
                elif part.kind == "attribute":
                    keys = called.get(part.name, [])
                    if not keys or part.name in named or _is_special(part.name):
                        words.append(f"<{part.name}>")
                else:
                    keys = self._used(part)
                words.append(f"<{len(keys)} used>")
                places[key].append(keys)
            labels[key] = _hash("".join(words).encode())
        hashes = _refined(labels, places)
        whole = [*(hashes[key] for key in roots), *sorted(hashes.values())]
        own = {key: label.hex() for key, label in labels.items()}
        return Reach(_hash(b"".join(whole)).hex(), own, frozenset(self.names))

    def _own_members(self, key: str) -> Iterator[str | list[str]]:
        """A class's members, as parts of its text."""
        if key not in self.classes:
            return
        methods = self._methods(key)
        yield [f"{key}.{name}" for name in methods if not _is_special(name)]
        for name in (*sorted(filter(_is_special, methods)), *self._fields(key)):
            yield name
            yield [f"{key}.{name}"]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _hash(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _refined(labels: dict[str, bytes], places: dict[str, list[list[str]]]) -> dict[str, bytes]:
    """Each definition's hash, in which those it uses stand by theirs.

    Definitions use one another in circles: so all hashes are taken again with the last round's in
    the places, until no two that were equal come apart (Weisfeiler & Leman 1968).
    """
    hashes, distinct = dict(labels), 0
    while len(set(hashes.values())) > distinct:
        distinct = len(set(hashes.values()))
        hashes = {
            key: _hash(
                b"".join(
                    [
                        label,
                        *(h for keys in places[key] for h in sorted(map(hashes.__getitem__, keys))),
                    ]
                )
            )
            for key, label in labels.items()
        }
    return hashes
