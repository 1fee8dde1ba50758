"""The definitions of a package, by reading its source: nothing is imported or run.

A definition is a function, a class, a method, a field of a dataclass, a constant or an entry of a
table. Names are resolved as Python does, through every import; files are read when something of
them is asked for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vggbn.identity.canonical import Target, Text, bound_names, hints_of, text_of

Compound = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)
Named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Bases that call none of their class's methods but those that Python calls.
BARE = {"typing.NamedTuple", "typing.Protocol", "typing.Generic", "builtins.Exception"}


def key_of(definition: Callable) -> str:
    """The full name of a function or a class."""
    return f"{definition.__module__}.{definition.__qualname__}"


class Folder(Mapping[str, str]):
    """{path below a folder: text} of its Python files, read when they are asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}

    def __getitem__(self, path: str) -> str:
        return self.paths[path].read_text(encoding="utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


class Traits(NamedTuple):
    """dataclass: it is one, and inherits no fields. for_others: it has a base from outside of the
    package, where its methods may be called."""

    dataclass: bool
    for_others: bool


@dataclass
class Class:
    """A class of the package: its members, and the statements of its body that are none."""

    node: ast.ClassDef
    methods: dict[str, list[ast.AST]] = field(default_factory=dict)
    fields: dict[str, list[ast.AST]] = field(default_factory=dict)  # their defaults
    others: list[ast.AST] = field(default_factory=list)

    @property
    def members(self) -> set[str]:
        """The names of all."""
        return {*self.methods, *self.fields}


def _class_of(node: ast.ClassDef) -> Class:
    found = Class(node)
    for statement in node.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.methods.setdefault(statement.name, []).append(statement)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.fields.setdefault(name, []).append(statement)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.fields.setdefault(name, []).append(statement)
            case _:
                found.others.append(statement)
    return found


class Module:
    """One file: what its names mean. `statements`: {name: the statements that define it}."""

    def __init__(self, package: Package, name: str, text: str, *, is_package: bool):
        self.package, self.name, self.is_package = package, name, is_package
        self.imports: dict[str, Target] = {}
        self.statements: dict[str, list[ast.AST]] = {}
        self.loose: list[ast.AST] = []  # what runs when the module is imported and is of no name
        self.late: list[ast.stmt] = []
        for statement in _parsed(text).body:
            self._sort(statement)
        for statement in self.late:  # who it is about is known when all names are
            subject = self._subject(statement)
            (self.statements[subject] if subject else self.loose).append(statement)

    def _sort(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.imports |= self.imported(statement)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._define(statement.name, statement)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._assign(target, value, statement)
            case ast.AnnAssign(target=target, value=value) if value:
                self._assign(target, value, statement)
            case ast.If(test=test) if _is_type_checking(test):
                for each in statement.body:
                    self._sort(each)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                pass
            case _ if isinstance(statement, Compound):
                for name in sorted(bound_names(self, statement)):
                    self._define(name, statement)
                if any(_has_effect(node) for node in ast.walk(statement)):
                    self.loose.append(statement)
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.AnnAssign():
                pass
            case _:
                self.late.append(statement)

    def _define(self, name: str, node: ast.AST) -> None:
        self.statements.setdefault(name, []).append(node)

    def _assign(self, target: ast.expr, value: ast.expr, statement: ast.stmt) -> None:
        """What each name of the target gets; an attribute or an entry is set later."""
        if isinstance(target, ast.Name):
            self._define(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            same = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            starred = any(isinstance(part, ast.Starred) for part in target.elts)
            for place, part in enumerate(target.elts):
                if same and not starred:
                    self._assign(part, value.elts[place], statement)  # pyright: ignore
                else:
                    part = part.value if isinstance(part, ast.Starred) else part
                    where = ast.Constant(f"{place} of {ast.dump(target).count('Starred')}")
                    self._assign(part, ast.Tuple([where, value], ast.Load()), statement)
        else:
            self.late.append(statement)

    def _subject(self, statement: ast.stmt) -> str | None:
        """The own name that a statement is about: what it changes or calls a method of, else the
        first function or class that it passes on."""
        changed, passed = _subjects(statement)
        for node in (*changed, *passed):
            while isinstance(node, ast.Attribute | ast.Subscript):
                node = node.value
            defined = self.statements.get(getattr(node, "id", ""))
            if defined and (node not in passed or isinstance(defined[0], Named)):
                return node.id  # type: ignore
        return None

    # --- Names -----------------------------------------------------------------------------------

    def resolve(self, name: str) -> Target | None:
        """What a global name of this module means."""
        if name in self.statements:
            return Target("definition", f"{self.name}.{name}")
        if name in self.imports:
            target = self.imports[name]
            if target.path == f"{self.name}.{name}":  # its own submodule
                return None
            return self.followed(target)
        return None

    def followed(self, target: Target) -> Target:
        """What an import leads to."""
        return self.package.followed(target)

    def member(self, target: Target, name: str) -> Target | None:
        """`target.name` of a module or of something external."""
        return self.package.member(target, name)

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, Target]:
        """{name: what it means after this statement}; what it stands for is found out later."""
        if isinstance(node, ast.Import):
            names = [
                (a.asname, a.name) if a.asname else (a.name.split(".")[0],) * 2 for a in node.names
            ]
            return {name: self.package.target(path) for name, path in names}
        if node.names[0].name == "*":
            raise ValueError(f"{self.name} imports *: what its names mean cannot be read")
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")
            parts = parts[: len(parts) - node.level + self.is_package]
            base = ".".join([*parts, *([base] if base else [])])
        if base == "__future__":
            return {}
        kind = "member" if self.package.owns(base) else "external"
        return {a.asname or a.name: Target(kind, f"{base}.{a.name}") for a in node.names}


@cache
def _parsed(text: str) -> ast.Module:
    """A file's tree, once for all the sources that have it."""
    return ast.parse(text)


def _is_type_checking(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def _has_effect(node: ast.AST) -> bool:
    """Whether it may do more than bind names: a call for its effect, an entry that is set."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store)


def _subjects(statement: ast.stmt) -> tuple[list[ast.expr], list[ast.expr]]:
    """(what a statement changes or calls a method of, what it passes on)."""
    match statement:
        case ast.Expr(value=ast.Call(func=func, args=args, keywords=keywords)):
            own = [func.value] if isinstance(func, ast.Attribute) else []
            return own, [*args, *(keyword.value for keyword in keywords)]
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            return targets, []
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return [target], []
    return [], []


class Package:
    """A package's source: `files` is {path below its folder: text}.

    Without a name (""): several packages side by side, with whose names the paths begin.
    """

    def __init__(self, name: str, files: Mapping[str, str]):
        self.name, self.files = name, files
        self.paths = {}
        for path in files:
            parts = [*filter(None, [name]), *path.removesuffix(".py").split("/")]
            self.paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self._tops = {name} if name else {path.partition(".")[0] for path in self.paths}
        self._modules: dict[str, Module] = {}
        self._places: dict[str, tuple[Module, str, str]] = {}
        self._texts: dict[str, Text] = {}
        self._traits: dict[str, Traits] = {}
        self._tables: dict[str, dict[str, str]] = {}

    # --- names -----------------------------------------------------------------------------------

    def owns(self, path: str) -> bool:
        """Whether a full name is of this package."""
        return path.partition(".")[0] in self._tops

    def target(self, path: str) -> Target:
        """What `import path` binds."""
        return Target("module" if self.owns(path) else "external", path)

    def module(self, name: str) -> Module:
        """The module, parsed once. KeyError: there is none."""
        if name not in self._modules:
            path = self.paths[name]
            is_package = path.rpartition("/")[2] == "__init__.py"
            self._modules[name] = Module(self, name, self.files[path], is_package=is_package)
        return self._modules[name]

    def followed(self, target: Target) -> Target:
        """What an import leads to, through every module that hands it on."""
        if target.kind != "member":
            return target
        base, _, name = target.path.rpartition(".")
        found = self.member(Target("module", base), name)
        if found is None:
            raise ValueError(f"{target.path} is imported and defined nowhere")
        return found

    def member(self, target: Target, name: str) -> Target | None:
        """`target.name`, where it is known: of a module, or of something external."""
        if target.kind == "external":
            return Target("external", f"{target.path}.{name}")
        if target.kind == "member":
            return self.member(self.followed(target), name)
        if target.kind != "module":
            return None
        if target.path in self.paths:
            found = self.module(target.path).resolve(name)
            if found:
                return found
        path = f"{target.path}.{name}"
        if any(known == path or known.startswith(f"{path}.") for known in self.paths):
            return Target("module", path)
        if target.path in self.paths and "__getattr__" in self.module(target.path).statements:
            return Target("definition", f"{target.path}.__getattr__")
        return None

    # --- definitions: module.name, module.Class.member, module.TABLE[entry], module: ------------

    def _place(self, key: str) -> tuple[Module, str, str]:
        """(module, name, member) of a definition. LookupError: there is none."""
        if key not in self._places:
            self._places[key] = self._find(key)
        return self._places[key]

    def _find(self, key: str) -> tuple[Module, str, str]:
        parts = key.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            name = ".".join(parts[:cut])
            if name in self.paths and parts[cut] in self.module(name).statements:
                return self.module(name), parts[cut], ".".join(parts[cut + 1 :])
        raise LookupError(f"{key} is defined nowhere")

    def class_of(self, key: str) -> Class | None:
        """The class of this name, if it is one."""
        module, name, member = self._place(key)
        nodes = module.statements[name]
        return _class(nodes[0]) if not member and isinstance(nodes[0], ast.ClassDef) else None  # type: ignore

    def entries(self, key: str) -> dict[str, ast.expr] | None:
        """{entry: value} of a constant that is a table: a dict literal whose keys are strings."""
        try:
            module, name, member = self._place(key)
        except LookupError:
            return None
        match module.statements[name]:
            case [ast.Dict(keys=keys, values=values)] if not member:
                if all(isinstance(k, ast.Constant) and isinstance(k.value, str) for k in keys):
                    return {k.value: value for k, value in zip(keys, values, strict=True)}  # type: ignore
        return None

    def text(self, key: str) -> Text:
        """The canonical text of a definition, read once."""
        if key not in self._texts:
            self._texts[key] = self._read(key)
        return self._texts[key]

    def _read(self, key: str) -> Text:
        if key.endswith(":"):
            module = self.module(key[:-1])
            return text_of(module, *module.loose)
        if key.endswith("]"):
            table, _, entry = key[:-1].partition("[")
            return text_of(self._place(table)[0], (self.entries(table) or {})[entry])
        module, name, member = self._place(key)
        nodes = module.statements[name]
        if isinstance(nodes[0], ast.ClassDef):
            return self._read_of_class(module, nodes, member)
        compound = [node for node in nodes if isinstance(node, Compound)]
        bound = sorted({n for node in compound for n in bound_names(module, node)} - {name})
        return text_of(module, *nodes, bound=[name, *bound] if compound else ())

    def _read_of_class(self, module: Module, nodes: list[ast.AST], member: str) -> Text:
        found = _class(nodes[0])  # type: ignore
        if member:
            values = found.methods.get(member) or found.fields[member]
            values = [_default(value) for value in values]
            return text_of(module, *values, members=found.members)
        node = found.node
        around = [*node.decorator_list, *node.bases, *node.keywords, *nodes[1:]]
        text, body = text_of(module, *around), text_of(module, *found.others, members=found.members)
        text.parts += ["(body ", *body.parts, ")"]
        for own, other in zip(_names(text), _names(body), strict=True):
            own |= other
        return text

    def hints(self, key: str) -> set[str]:
        """The definitions that a constant names which is used as an annotation."""
        module, name, member = self._place(key)
        nodes = [] if member else module.statements[name]
        return {hint for node in nodes for hint in hints_of(module, node)}

    def tables(self, key: str) -> dict[str, str]:
        """{full name of a table: the entry of the dict `key` that names it}."""
        if key not in self._tables:
            self._tables[key] = {
                table: entry
                for entry, value in (self.entries(key) or {}).items()
                for table in hints_of(self._place(key)[0], value)
                if self.entries(table) is not None
            }
        return self._tables[key]

    def traits(self, key: str) -> Traits:
        """Of a class."""
        if key not in self._traits:
            module, name, _ = self._place(key)
            node = module.statements[name][0]
            assert isinstance(node, ast.ClassDef)
            decorators, bases = (
                "".join(map(str, text_of(module, *nodes).parts))
                for nodes in (node.decorator_list, node.bases)
            )
            self._traits[key] = Traits(
                dataclass=not node.bases and "<dataclasses.dataclass>" in decorators,
                for_others=bool({*re.findall(r"<(\w[\w.]*\.[A-Z]\w*)>", bases)} - BARE),
            )
        return self._traits[key]

    def loose(self, key: str) -> list[str]:
        """The modules, where they do something when they are imported, that a definition needs."""
        name = key[:-1] if key.endswith(":") else self._place(key.partition("[")[0])[0].name
        parts = name.split(".")
        above = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return [f"{name}:" for name in above if name in self.paths and self.module(name).loose]

    def all_of(self, name: str) -> list[str]:
        """All definitions of a module."""
        return [f"{name}.{each}" for each in self.module(name).statements]


@cache
def _class(node: ast.ClassDef) -> Class:
    return _class_of(node)


def _default(node: ast.AST) -> ast.AST:
    """What a field's statement gives it; nothing, if that is nothing."""
    match node:
        case ast.AnnAssign(value=value) | ast.Assign(value=value):
            return value or ast.Pass()
    return node


def _names(text: Text) -> tuple[set[str], ...]:
    return text.built, text.attributes, text.keywords, text.hints
