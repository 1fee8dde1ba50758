"""Programs that are not run: what they answer follows from their outlines and arguments.

In the place of `jax.jit`: a program is traced, and each of its results made up by a generator whose
seed is the hash of the program's outline and of the arguments that it needs. Everything around the
programs (the order of batches, schedules, what is evaluated when, how scores are formed) runs as it
is. So two source trees end with the same numbers where all that leads to them is the same, and, but
for a collision of hashes, only there. A whole run of thousands of steps takes a second.
"""

from __future__ import annotations

import hashlib
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from . import outline

CHANGES = 24  # so many changes of an argument are remembered, for whoever asks what differs


class Enough(Exception):
    """As many programs that update a state were pretended as were asked for."""


class UnknownState(Exception):
    """The state of this tree's runs has other names: `suite.clocks` has to know them."""


@dataclass
class Told:
    """What a program was told in one of its arguments: (call, checksum) of its first changes, the
    number of calls, and the checksum of the last and of all."""

    changes: list[tuple[int, int]] = field(default_factory=list)
    calls: int = 0
    last: int = -1
    all: int = 0


class Stage:
    """What stands in for jax, and what it has seen.

    platform: what programs are lowered for. clocks: {path of a leaf of the state: its value after
    a program that updates the state, from the one before and the program's arguments}: where made
    up values would not do.
    """

    def __init__(self, platform: str, clocks: dict[str, Callable[[Any, tuple], Any]]):
        self.platform, self.clocks = platform, clocks
        self.jit = jax.jit  # the true one
        self.tracing = False
        self.steps: int | None = None  # left to be pretended; None: all
        self.state = ""  # the hash of the last program that updated a state
        self.graphs: dict[str, list[list[str]]] = {}  # {program: its operations, by digest}
        self.programs: dict[str, dict[str, int]] = {}  # {name: {digest: how often it was called}}
        self.told: dict[str, Told] = {}
        self.made: dict[int, tuple[np.ndarray, bytes]] = {}  # the last state, and its contents
        self.form: int | None = None  # which shapes and dtypes it has
        self.forms: dict[tuple, int] = {}
        self._contents: dict[int, tuple[weakref.ref, bytes]] = {}

    def enter(self) -> None:
        """From now on, `jax.jit` and the default backend are this stage's."""
        jax.jit = lambda function=None, **options: (
            Program(self, function, options)
            if function is not None
            else lambda function: Program(self, function, options)
        )
        if self.platform != "cpu":
            jax.default_backend = lambda: "gpu"

    def begin(self, steps: int | None = None) -> None:
        """Forget what was called: another run begins, of so many steps (None: all)."""
        self.programs, self.told, self.steps = {}, {}, steps

    def content(self, leaf: Any, dtype: Any) -> bytes:
        """Bytes that tell a value from others: the same however the array is held."""
        made = self.made.get(id(leaf))
        if made is not None:
            return made[1]
        if isinstance(leaf, jax.Array):
            held = self._contents.get(id(leaf))
            if held is None or held[0]() is not leaf:
                held = (weakref.ref(leaf), _array_content(_plain(leaf)))
                self._contents[id(leaf)] = held
            return held[1]
        return _array_content(np.asarray(leaf, dtype))

    def heard(self, name: str, path: str, content: bytes) -> None:
        """Note what a program was told."""
        found = self.told.setdefault(f"{name}{path}", Told())
        checksum = zlib.crc32(content)
        if checksum != found.last and len(found.changes) < CHANGES:
            found.changes.append((found.calls, checksum))
        found.last, found.calls = checksum, found.calls + 1
        found.all = zlib.crc32(content, found.all)


class _Leaf(NamedTuple):
    """A leaf of a state. place: which of the made up values it gets; strides: all 0, so that one
    value fills it; head: what its content begins with."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    place: int
    strides: tuple[int, ...]
    head: bytes


class _Traced(NamedTuple):
    """A program for arguments of one shape."""

    digest: str
    dtypes: list
    paths: list[str]  # of the arguments that change from call to call; "" for those of a state
    groups: list[outline.Outline]  # outputs that are made up together
    outputs: list[tuple[int, str]]  # the group and the label of each output
    shapes: list[jax.ShapeDtypeStruct]
    state: list[_Leaf]  # the same of a program that updates a state
    form: int
    tree: Any


class Program:
    """A jitted function that is traced and never compiled."""

    def __init__(self, stage: Stage, function: Callable, options: dict[str, Any]):
        self.stage, self.function, self.options = stage, function, options
        self.name = getattr(function, "__name__", "program")
        self.updates = "donate_argnums" in options or "donate_argnames" in options
        self._traced: dict[Any, _Traced] = {}

    def lower(self, *args, **kwargs):
        """What the true program offers, for questions about the compiler."""
        return self.stage.jit(self.function, **self.options).lower(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        if self.stage.tracing:
            return self.function(*args, **kwargs)
        if {"static_argnums", "static_argnames"} & self.options.keys():
            raise NotImplementedError(f"{self.name} has static arguments: it cannot be pretended")
        leaves, tree = jax.tree.flatten((args, kwargs))
        traced = self._traced_for(leaves, tree, args, kwargs)
        self._count(traced.digest)
        contents = self._told(traced, leaves)
        compiler = repr(sorted((self.options.get("compiler_options") or {}).items())).encode()
        seeds = [
            _digest([group.digest.encode(), compiler, *(contents[i] for i in group.used)])
            for group in traced.groups
        ]
        if self.updates:
            results = self._next_state(traced, seeds[0], leaves, args)
        else:
            results = [
                _random(shape, seeds[group] + label.encode())
                for shape, (group, label) in zip(traced.shapes, traced.outputs, strict=True)
            ]
        return jax.tree.unflatten(traced.tree, results)

    def _traced_for(self, leaves: Sequence, tree, args, kwargs) -> _Traced:
        """The program for arguments like these; a state that was made up is known by its form."""
        made = self.stage.made if self.updates else {}
        quick = (tree, self.stage.form, *(None if id(x) in made else _form(x) for x in leaves))
        traced = self._traced.get(quick)
        if traced is None:
            key = (tree, *map(_form, leaves))
            traced = self._traced[quick] = self._traced.get(key) or self._trace(args, kwargs)
            self._traced[key] = traced
        return traced

    def _count(self, digest: str) -> None:
        stage, called = self.stage, self.stage.programs.setdefault(self.name, {})
        if self.updates and stage.steps is not None:
            if stage.steps == 0:
                raise Enough
            stage.steps -= 1
        called[digest] = called.get(digest, 0) + 1

    def _told(self, traced: _Traced, leaves: Sequence) -> list[bytes]:
        contents = []
        for leaf, dtype, path in zip(leaves, traced.dtypes, traced.paths, strict=True):
            contents.append(content := self.stage.content(leaf, dtype))
            if path:
                self.stage.heard(self.name, path, content)
        return contents

    def _trace(self, args, kwargs) -> _Traced:
        """UnknownState: the program updates a state that lacks a clock of the stage's."""
        self.stage.tracing = True
        try:
            closed, shapes = jax.make_jaxpr(self.function, return_shape=True)(*args, **kwargs)
        finally:
            self.stage.tracing = False
        # A number of Python's is part of the code that calls; an array's value comes from a run.
        numbers = enumerate(jax.tree.leaves((args, kwargs)))
        known = {i: x for i, x in numbers if isinstance(x, int | float)}
        graph = outline.graph_of(closed, self.stage.platform, known)
        every = range(len(graph.outputs))
        together = [every] if self.updates else [[o] for o in every]
        groups = [outline.outline_of(graph, outputs) for outputs in together]
        flat, tree = jax.tree.flatten(shapes)
        paths = [jax.tree_util.keystr(path) for path, _ in _with_paths((args, kwargs))]
        first = len(jax.tree.leaves(args[0])) if self.updates else 0
        used = {i for group in groups for i in group.used}
        form = self.stage.forms.setdefault(tuple(map(_form, flat)), len(self.stage.forms))
        state = _state_leaves(shapes, groups[0].labels) if self.updates else []
        if state and not self.stage.clocks.keys() <= {leaf.path for leaf in state}:
            raise UnknownState(f"{self.name} updates a state without {list(self.stage.clocks)}")
        return _Traced(
            form=form,
            digest=self._noted(graph, groups),
            dtypes=[var.aval.dtype for var in closed.jaxpr.invars],
            paths=[p if i >= first and i in used else "" for i, p in enumerate(paths)],
            groups=groups,
            outputs=[(g, label) for g, group in enumerate(groups) for label in group.labels],
            shapes=flat,
            state=state,
            tree=tree,
        )

    def _noted(self, graph: outline.Graph, groups: list[outline.Outline]) -> str:
        """The digest of a program, whose operations are kept to tell it from another one."""
        digest = _digest(sorted(group.digest.encode() for group in groups)).hex()
        if digest not in self.stage.graphs:
            self.stage.graphs[digest] = [
                [found, operation[:300]] for found, operation in outline.operations(graph)
            ]
        return digest

    def _next_state(self, traced: _Traced, seed: bytes, before: Sequence, args: tuple) -> list:
        """The state after the program: one made up value a leaf, but for the clocks."""
        stage, results, made = self.stage, [], {}
        values = _values(seed, traced.state)
        for i, leaf in enumerate(traced.state):
            raw = values[leaf.dtype][leaf.place]
            if leaf.path in stage.clocks:
                raw = np.asarray(stage.clocks[leaf.path](before[i], args), leaf.dtype).tobytes()
            result = np.ndarray(leaf.shape, leaf.dtype, raw, 0, leaf.strides)  # pyright: ignore
            results.append(result)
            made[id(result)] = (result, leaf.head + raw)
        stage.state, stage.form, stage.made = seed.hex(), traced.form, made
        return results


def _state_leaves(shapes: Any, labels: list[str]) -> list[_Leaf]:
    places = {label: place for place, label in enumerate(sorted(set(labels)))}
    return [
        _Leaf(
            jax.tree_util.keystr(path),
            leaf.shape,
            leaf.dtype,
            places[label],
            (0,) * len(leaf.shape),
            _head(leaf.dtype, leaf.shape),
        )
        for (path, leaf), label in zip(_with_paths(shapes), labels, strict=True)
    ]


def _with_paths(tree: Any) -> list:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _random(leaf, seed: bytes) -> np.ndarray:
    """An array of this shape whose values follow from the seed."""
    number = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "little")
    draw = np.random.Generator(np.random.SFC64(number))
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
        return (0.05 + 0.9 * draw.random(leaf.shape, np.float32)).astype(leaf.dtype)
    return draw.integers(0, 2 if leaf.dtype == bool else 100, leaf.shape).astype(leaf.dtype)


def _form(leaf: Any) -> tuple:
    """Shape and dtype; of a number of Python's its value, which is traced."""
    return getattr(leaf, "shape", leaf), getattr(leaf, "dtype", type(leaf))


def _values(seed: bytes, leaves: Sequence[_Leaf]) -> dict[np.dtype, list[bytes]]:
    """So many made up scalars of each of the dtypes, as bytes."""
    raw = hashlib.shake_128(seed).digest(8 * len(leaves))
    numbers, found = np.frombuffer(raw, np.uint64), {}
    for dtype in {leaf.dtype for leaf in leaves}:
        floats = jax.numpy.issubdtype(dtype, jax.numpy.floating)
        values = (0.05 + 0.9 * (numbers / 2**64) if floats else numbers % 100).astype(dtype)
        found[dtype] = [value.tobytes() for value in values]
    return found


def _plain(leaf: jax.Array) -> np.ndarray:
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.extended):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _array_content(array: np.ndarray) -> bytes:
    head = _head(array.dtype, array.shape)
    if array.size and (not any(array.strides) or _is_constant(array)):
        return head + array[(0,) * array.ndim].tobytes()
    if array.nbytes <= 64:
        return head + array.tobytes()
    return head + hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=12).digest()


@cache
def _head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return f"{dtype}{shape}".encode()


def _is_constant(array: np.ndarray) -> bool:
    first, last = array[(0,) * array.ndim], array[(-1,) * array.ndim]
    return bool(first == last) and bool((array == first).all())


def _digest(parts: Sequence[bytes]) -> bytes:
    sha = hashlib.blake2b(digest_size=12)
    for part in parts:
        sha.update(len(part).to_bytes(4, "little") + part)
    return sha.digest()
