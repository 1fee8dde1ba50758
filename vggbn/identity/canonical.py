"""The canonical text of a piece of Python: what it does, without what decides nothing.

Comments, docstrings, annotations, layout and the names of local variables are gone; what is
imported goes by its full name, however it was imported; f-strings are the same on every Python. A
definition of the package itself is no name but a `Use`, whose place is taken by the content of what
is used. See `definitions`, which resolves the names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, Protocol

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp

# What no text has, besides the places in the file: `ctx` says again what the place in the tree
# says, the others are for type checkers.
SKIPPED = {"ctx", "type_comment", "kind", "annotation", "returns", "type_params"}
BY_NAME = {"getattr", "hasattr", "setattr", "delattr"}  # (object, name, ...)
BY_ANY_NAME = {"operator.attrgetter", "operator.methodcaller"}
ONLY_ASKED = {"isinstance", "issubclass"}  # of their second argument nothing is made


class Target(NamedTuple):
    """What a global name means. kind: "definition" or "module" of the package, or "external"; or
    "member", of a module of the package, which may hand it on from another."""

    kind: str
    path: str


class Names(Protocol):
    """The names of one module."""

    def resolve(self, name: str) -> Target | None:
        """What the global `name` means; None: it is Python's own."""
        ...

    def member(self, target: Target, name: str) -> Target | None:
        """`target.name`, if that is known without running anything."""
        ...

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, Target]:
        """{name: what it means after this statement}, to be `followed`."""
        ...

    def followed(self, target: Target) -> Target:
        """What an import leads to, through every module that hands it on."""
        ...


class Use(NamedTuple):
    """A place of the text. kind: "definition", whose content belongs here; "choice", one of which
    an entry is taken; "entry", taken by a literal key and named CONSTANT[key]; "attribute" `name`
    of an object that is not known; "module", handed on as a whole."""

    kind: str
    name: str


@dataclass
class Text:
    """A canonical text and what it names.

    built: classes that are made by position, or handed on: the order of their fields counts;
    attributes, keywords: names that are read and passed; hints: definitions in annotations.
    """

    parts: list[str | Use] = field(default_factory=list)
    built: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    keywords: set[str] = field(default_factory=set)
    hints: set[str] = field(default_factory=set)


def text_of(
    names: Names, *nodes: ast.AST, members: Iterable[str] = (), bound: Iterable[str] = ()
) -> Text:
    """The text of these nodes of a module, one after another.

    members: names of the class they stand in, if any. bound: names of the module that the nodes
    bind and that are to be as good as local variables; the first of them is what the text is of.
    """
    writer = _Writer(names)
    for scope in (_Scope(set(members), is_class=True), _Scope(set(bound))):
        if scope.bound:
            writer.scopes.append(scope)
    for name in [*bound][:1]:
        writer.write(ast.Name(name, ast.Load()))
    for node in nodes:
        writer.write(node)
    return writer.finished()


def hints_of(names: Names, node: ast.AST) -> set[str]:
    """The definitions that an expression names, as an annotation would."""
    writer = _Writer(names)
    writer.hint(node)
    return writer.text.hints


@dataclass(eq=False)
class _Scope:
    """Names that a function, a class or a comprehension binds."""

    bound: set[str]
    parameters: set[str] = field(default_factory=set)
    imports: dict[str, Target] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    is_class: bool = False


class _Writer:
    def __init__(self, names: Names):
        self.names, self.text = names, Text()
        self.parts: list[str | Use] = []
        self.scopes: list[_Scope] = []
        self.numbers: dict[tuple[_Scope, str], int] = {}
        self.strings: set[str] = set()
        self.any_name = False  # an attribute is looked up by a name that is computed

    def finished(self) -> Text:
        if self.any_name:  # of these names it may be any
            self.text.attributes |= self.strings
        for is_text, group in groupby(self.parts, lambda part: isinstance(part, str)):
            some = list(group)
            self.text.parts += ["".join(map(str, some))] if is_text else some
        return self.text

    def put(self, text: str) -> None:
        self.parts.append(text)

    # --- any node --------------------------------------------------------------------------------

    def write(self, value) -> None:
        """A node, a list of them, or what else a node's field may hold."""
        if isinstance(value, ast.AST):
            own = getattr(self, f"_{type(value).__name__}", None)
            (own or self._any)(value)
        elif isinstance(value, list):
            self.put("[")
            for each in value:
                self.write(each)
            self.put("]")
        else:  # an entry of a list that is left out, as the key of {**d}, or a name
            self.put(f"<{value!a}>")

    def _any(self, node: ast.AST) -> None:
        with_fields = [
            (name, value)
            for name, value in ast.iter_fields(node)
            if name not in SKIPPED and value is not None and value != []
        ]
        self._fields(type(node).__name__, **dict(with_fields))

    def _fields(self, kind: str, **fields) -> None:
        self.put(f"({kind}")
        for name, value in fields.items():
            self.put(f" {name}=")
            self.write(value)
        self.put(")")

    # --- names -----------------------------------------------------------------------------------

    def _scope_of(self, name: str) -> _Scope | None:
        """The scope that binds a name here; None: the module. Methods see none of their class."""
        for place, scope in enumerate(reversed(self.scopes)):
            if name in scope.globals:
                return None
            if name in scope.bound and not (scope.is_class and place):
                return scope
        return None

    def _target(self, node: ast.AST) -> Target | None:
        """What a name, or a chain of attributes, means, if it is global and known."""
        if isinstance(node, ast.Name):
            return self._meaning(node.id, self._scope_of(node.id))
        if isinstance(node, ast.Attribute):
            base = self._target(node.value)
            return base and self.names.member(base, node.attr)
        return None

    def _meaning(self, name: str, scope: _Scope | None) -> Target | None:
        """What a name means that this scope binds; None: a variable, or Python's own."""
        if scope is None:
            return self.names.resolve(name)
        target = scope.imports.get(name)
        return target and self.names.followed(target)

    def _use(self, target: Target, *, whole: bool = True) -> None:
        if target.kind == "external":
            self.put(f"<{target.path}>")
            return
        self.parts.append(Use(target.kind, target.path))
        if whole and target.kind == "definition":
            self.text.built.add(target.path)

    def _bound(self, name: str) -> None:
        """A name, by what it stands for."""
        scope = self._scope_of(name)
        target = self._meaning(name, scope)
        if target:
            self._use(target)
        elif scope is None:
            self.put(f"<builtins.{name}>")
        elif scope.is_class:
            self.text.attributes.add(name)
            self.put(f"<own {name}>")
        elif name in scope.parameters:  # a keyword may pass it: its name counts
            self.put(f"<parameter {name}>")
        else:
            number = self.numbers.setdefault((scope, name), len(self.numbers))
            self.put(f"<local {number}>")

    def _Name(self, node: ast.Name) -> None:
        self._bound(node.id)

    def _Attribute(self, node: ast.Attribute) -> None:
        target = self._target(node)
        if target:
            self._use(target)
            return
        base = self._target(node.value)
        self.put("(Attribute value=")
        if base and base.kind == "definition":
            self._use(base, whole=False)
        else:
            self.write(node.value)
        self.text.attributes.add(node.attr)
        self.parts.append(Use("attribute", node.attr))
        self.put(")")

    def _Subscript(self, node: ast.Subscript) -> None:
        target, key = self._target(node.value), node.slice
        if not target or target.kind != "definition":
            self._any(node)
            return
        self.put("(Subscript value=")
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self.parts.append(Use("entry", f"{target.path}[{key.value}]"))
        else:
            self.parts.append(Use("choice", target.path))
        self._fields("slice", value=key)
        self.put(")")

    def _Call(self, node: ast.Call) -> None:
        target = self._target(node.func)
        path = target.path if target and target.kind == "external" else None
        builtin = node.func.id if isinstance(node.func, ast.Name) and not target else None
        arguments: list[ast.AST] = [*node.args]
        self.put("(Call func=")
        if target and target.kind == "definition":
            self._use(target, whole=bool(node.args))
        else:
            self.write(node.func)
        if builtin in BY_NAME and len(arguments) > 1:
            name = arguments[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                self.text.attributes.add(name.value)
            else:
                self.any_name = True
        self.any_name |= path in BY_ANY_NAME
        self.put(" args=[")
        for place, argument in enumerate(arguments):
            if builtin in ONLY_ASKED and place == 1:
                self._asked(argument)
            else:
                self.write(argument)
        self.put("] keywords=")
        self.write(node.keywords)
        self.put(")")

    def _asked(self, node: ast.AST) -> None:
        """A class, or several, of which nothing is made here."""
        target = self._target(node)
        if target:
            self._use(target, whole=False)
        elif isinstance(node, ast.Tuple):
            self.put("(Tuple elts=[")
            for each in node.elts:
                self._asked(each)
            self.put("])")
        else:
            self.write(node)

    def _keyword(self, node: ast.keyword) -> None:
        if node.arg:
            self.text.keywords.add(node.arg)
        self._any(node)

    def _MatchClass(self, node: ast.MatchClass) -> None:
        self.text.attributes.update(node.kwd_attrs)
        self._any(node)

    # --- constants and f-strings -----------------------------------------------------------------

    def _Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.strings.add(node.value)
        self.put(f"({type(node.value).__name__} {node.value!a})")

    def _JoinedStr(self, node: ast.JoinedStr) -> None:
        values = _merged(node)
        if all(isinstance(value, ast.Constant) for value in values):
            self.write(values[0] if values else ast.Constant(""))
        else:
            self._fields("JoinedStr", values=values)

    def _FormattedValue(self, node: ast.FormattedValue) -> None:
        fields = {"value": node.value, "conversion": node.conversion}
        if isinstance(node.format_spec, ast.JoinedStr) and _merged(node.format_spec):
            fields["format_spec"] = node.format_spec
        self._fields("FormattedValue", **fields)

    # --- statements that say nothing, or bind names -----------------------------------------------

    def _Pass(self, node: ast.Pass) -> None:
        """Nothing."""

    _Global = _Nonlocal = _TypeAlias = _Pass

    def _Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring, or ...
            self._any(node)

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Where the name means what was imported and nothing else, its uses say so."""
        for name, target in self.names.imported(node).items():
            scope = self._scope_of(name)
            if scope is None or name not in scope.imports:
                self.put("(Import ")
                self._bound(name) if scope else self.put(f"<{name}>")
                self._use(self.names.followed(target))
                self.put(")")

    _ImportFrom = _Import

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        self.hint(node.annotation)
        if node.value is not None:
            self._fields("Assign", targets=[node.target], value=node.value)

    def _ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.put("(ExceptHandler type=")
        if node.type:
            self._asked(node.type)
        if node.name:
            self._bound(node.name)
        self.write(node.body)
        self.put(")")

    def _MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self.put(f"({type(node).__name__}")
        if node.name:
            self._bound(node.name)
        self.write(getattr(node, "pattern", None))
        self.put(")")

    _MatchStar = _MatchAs

    def _MatchMapping(self, node: ast.MatchMapping) -> None:
        self._fields("MatchMapping", keys=node.keys, patterns=node.patterns)
        if node.rest:
            self._bound(node.rest)

    # --- scopes ----------------------------------------------------------------------------------

    def _FunctionDef(self, node: Function) -> None:
        """At the top its name says nothing; a local one's is a local variable."""
        self.put(f"({type(node).__name__} ")
        if self.scopes and not self.scopes[-1].is_class:
            self._bound(node.name)
        elif len(self.scopes) > 1:
            self.put(f"<own {node.name}>")
        self.write(node.decorator_list)
        if node.returns:
            self.hint(node.returns)
        self._function(node.args, node.body, node)
        self.put(")")

    _AsyncFunctionDef = _FunctionDef

    def _Lambda(self, node: ast.Lambda) -> None:
        self.put("(Lambda ")
        self._function(node.args, node.body, node)
        self.put(")")

    def _function(self, args: ast.arguments, body, node) -> None:
        each = [*args.posonlyargs, *args.args, *args.kwonlyargs]
        stars = [arg for arg in (args.vararg, args.kwarg) if arg]
        for arg in (*each, *stars):
            if arg.annotation:
                self.hint(arg.annotation)
        kinds = (args.posonlyargs, args.args, [args.vararg], args.kwonlyargs, [args.kwarg])
        names = [[arg.arg for arg in kind if arg] for kind in kinds]
        self.put(f"{names} ")
        self.write([*args.defaults, "/", *args.kw_defaults])
        parameters = {arg.arg for arg in (*each, *stars)}
        parameters |= {each.name for each in getattr(node, "type_params", ())}
        self.scopes.append(_scope(self.names, body, parameters))
        self.write(body)
        self.scopes.pop()

    def _ClassDef(self, node: ast.ClassDef) -> None:
        """A class inside a function: all of it counts."""
        self.put("(ClassDef ")
        self._bound(node.name)
        for part in (node.decorator_list, node.bases, node.keywords):
            self.write(part)
        scope = _scope(self.names, node.body, set())
        scope.is_class = True
        self.scopes.append(scope)
        self.write(node.body)
        self.scopes.pop()
        self.put(")")

    def _comprehension_of(self, node: Comprehension) -> None:
        first, *_ = node.generators
        self.put(f"({type(node).__name__} ")
        self.write(first.iter)  # belongs to the scope around it
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        self.scopes.append(_Scope(targets))
        for generator in node.generators:
            self.put(f"(for {generator.is_async} ")
            self.write(generator.target)
            if generator is not first:
                self.write(generator.iter)
            self.write(generator.ifs)
            self.put(")")
        made = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for each in made:
            self.write(each)
        self.scopes.pop()
        self.put(")")

    _ListComp = _SetComp = _GeneratorExp = _DictComp = _comprehension_of

    # --- annotations -----------------------------------------------------------------------------

    def hint(self, node: ast.AST) -> None:
        """The definitions that an annotation names; it may be a string."""
        for each in ast.walk(node):
            target = self._target(each)
            if target and target.kind == "definition":
                self.text.hints.add(target.path)
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                try:
                    self.hint(ast.parse(each.value, mode="eval").body)
                except SyntaxError:  # a word of Literal["..."], or another that is no annotation
                    continue


def _merged(node: ast.JoinedStr) -> list[ast.expr]:
    """The values of an f-string. Pythons cut its text differently: here neighbours are one."""
    values: list[ast.expr] = []
    for value in node.values:
        if not isinstance(value, ast.Constant):
            values.append(value)
        elif values and isinstance(values[-1], ast.Constant):
            values[-1] = ast.Constant(values[-1].value + value.value)  # pyright: ignore
        elif value.value != "":
            values.append(value)
    return values


def _scope(names: Names, body, parameters: set[str]) -> _Scope:
    """The scope of a function or class with this body, a list of statements or an expression."""
    found = _Scope(set(parameters), set(parameters))
    outer: set[str] = set()  # global and nonlocal ones
    assigned: set[str] = set()
    for node in _own_nodes(body):
        match node:
            case ast.Global():
                found.globals.update(node.names)
            case ast.Nonlocal():
                outer.update(node.names)
            case ast.Import() | ast.ImportFrom():
                for name, target in names.imported(node).items():
                    if found.imports.setdefault(name, target) != target:
                        assigned.add(name)
                    found.bound.add(name)
            case _:
                assigned.update(_binds(node))
    found.bound = (found.bound | assigned) - outer - found.globals
    for name in found.imports.keys() & (assigned | parameters | outer | found.globals):
        del found.imports[name]
    return found


def _binds(node: ast.AST) -> list[str]:
    """The names that a node itself binds."""
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return [node.id]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
            return [node.name] if node.name else []
        case ast.MatchMapping():
            return [node.rest] if node.rest else []
    return []


def _own_nodes(body) -> Iterator[ast.AST]:
    """The nodes of a body, without those of the scopes inside it."""
    todo = list(body) if isinstance(body, list) else [body]
    while todo:
        node = todo.pop()
        yield node
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                todo += [*node.decorator_list, *_defaults(node.args)]
            case ast.ClassDef():
                todo += [*node.decorator_list, *node.bases, *node.keywords]
            case ast.Lambda():
                todo += _defaults(node.args)
            case ast.comprehension():  # its targets are its own; a walrus in it binds out here
                todo += [node.iter, *node.ifs]
            case _:
                todo += ast.iter_child_nodes(node)


def _defaults(args: ast.arguments) -> list[ast.AST]:
    return [default for default in (*args.defaults, *args.kw_defaults) if default]


def bound_names(names: Names, statement: ast.stmt) -> set[str]:
    """The names that a statement of a module binds."""
    found = _scope(names, [statement], set())
    return found.bound | found.globals
