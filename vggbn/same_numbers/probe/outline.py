"""A traced program as hashes, the same for the same arithmetic, however it is written.

Each value's hash is made of the operation that makes it, its parameters and the hashes of what it
takes (a Merkle tree): names, the order of independent equations, what is computed for nothing and
the borders of `jit` leave no trace in it. Inputs are numbered in the order in which the outputs
first need them, so that their order and grouping leave none either. What
`lax.platform_dependent` chooses is decided for one platform.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

INLINED = {  # {operation: the parameter that holds what it computes when it is not differentiated}
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
REMATERIALISED = {"checkpoint", "remat2"}
COSMETIC = {"name", "debug", "debug_info"}
ADDRESS = re.compile(r" at 0x[0-9a-f]+|<function [^>]*>")

Value = tuple[int, int]  # a node, and which of its results


class Node(NamedTuple):
    """An input, a constant or an equation: what it does, and to which values."""

    operation: str  # of an input its shape and dtype
    takes: tuple[Value, ...] = ()


class Graph(NamedTuple):
    """Nodes, each after what it takes; the values that come out; which nodes are inputs."""

    nodes: list[Node]
    outputs: list[Value]
    inputs: dict[int, int]  # {node: number of the input}


class Outline(NamedTuple):
    """What some outputs of a program compute.

    digest: of all of them. used: the numbers of the inputs that they need, in the order in which
    they need them. labels: of each output, in their order, what tells it from the others.
    """

    digest: str
    used: list[int]
    labels: list[str]


def graph_of(closed: Any, platform: str, known: dict[int, int | float] | None = None) -> Graph:
    """The graph of a ClosedJaxpr, as it is lowered for `platform` ("cpu", "cuda").

    known: {number of an input: its value}, of scalars that are the same in every call.
    """
    builder = _Builder(platform)
    inputs = [builder.add(_kind(var.aval)) for var in closed.jaxpr.invars]
    builder.known |= {inputs[i]: value for i, value in (known or {}).items()}
    outputs = builder.inline(closed.jaxpr, closed.consts, inputs)
    return Graph(builder.nodes, outputs, {node: i for i, (node, _) in enumerate(inputs)})


def outline_of(graph: Graph, outputs: Sequence[int]) -> Outline:
    """The outline of the outputs with these numbers, all others left out."""
    anonymous = hashes(graph)
    values = [graph.outputs[o] for o in outputs]
    in_order = sorted(values, key=lambda value: (anonymous[value[0]], value[1]))
    used = _first_needed(graph, in_order)
    numbered = hashes(graph, {number: i for i, number in enumerate(used)})
    named = lambda value: f"{numbered[value[0]]}.{value[1]}"  # noqa: E731
    return Outline(_digest(map(named, in_order)), used, [named(value) for value in values])


def hashes(graph: Graph, numbers: dict[int, int] | None = None) -> list[str]:
    """The hash of every node; inputs by `numbers`, or by no more than their shape and dtype."""
    found: list[str] = []
    for i, (operation, takes) in enumerate(graph.nodes):
        parts = [operation, *(f"{found[node]}.{result}" for node, result in takes)]
        if numbers and i in graph.inputs:
            parts.append(f"input {numbers.get(graph.inputs[i])}")
        found.append(_digest(parts))
    return found


def needed(graph: Graph) -> list[int]:
    """The nodes that the outputs are made of, each after what it takes."""
    wanted = {node for node, _ in graph.outputs}
    for i in reversed(range(len(graph.nodes))):
        if i in wanted:
            wanted |= {node for node, _ in graph.nodes[i].takes}
    return sorted(wanted)


def _first_needed(graph: Graph, values: Sequence[Value]) -> list[int]:
    """Numbers of the inputs, as a walk from these values, operand by operand, first meets them."""
    met, used = set(), []
    stack = [node for node, _ in reversed(values)]
    while stack:
        node = stack.pop()
        if node in met:
            continue
        met.add(node)
        if node in graph.inputs:
            used.append(graph.inputs[node])
        stack += [before for before, _ in reversed(graph.nodes[node].takes)]
    return used


class _Builder:
    """The nodes so far, and the scalars among their values that are known: which platform."""

    def __init__(self, platform: str):
        self.platform, self.nodes = platform, []
        self.known: dict[Value, int | float] = {}

    def add(self, operation: str, takes: tuple[Value, ...] = ()) -> Value:
        self.nodes.append(Node(operation, takes))
        return len(self.nodes) - 1, 0

    def constant(self, array: Any) -> Value:
        value = self.add(_constant(array))
        if np.ndim(array) == 0 and np.result_type(array).kind in "iuf":
            self.known[value] = np.asarray(array).item()
        return value

    def inline(self, jaxpr: Any, consts: Sequence, inputs: Sequence[Value]) -> list[Value]:
        """Add what a jaxpr computes of these values."""
        at = dict(zip(jaxpr.invars, inputs, strict=True))
        at |= {var: self.constant(c) for var, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom) -> Value:
            return self.constant(atom.val) if isinstance(atom, core.Literal) else at[atom]

        for equation in jaxpr.eqns:
            results = self._results(equation, tuple(map(read, equation.invars)))
            at |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _results(self, equation, takes: tuple[Value, ...]) -> list[Value]:
        name, params = equation.primitive.name, equation.params
        if name in INLINED:
            return self._closed(params[INLINED[name]], takes)
        if name == "platform_index":
            return [self.constant(np.int32(self._branch(params["platforms"])))]
        if name == "cond" and takes[0] in self.known:
            return self._closed(params["branches"][int(self.known[takes[0]])], takes[1:])
        if name == "mul" and (same := self._times_one(equation, takes)):
            return [same]
        made = " ".join(_kind(var.aval) for var in equation.outvars)
        inner = {k: self._shown(v, takes, name) for k, v in params.items() if k not in COSMETIC}
        node, _ = self.add(f"{name} -> {made} {sorted(inner.items())}", takes)
        if name in FOLDED and all(value in self.known for value in takes):
            self.known[node, 0] = FOLDED[name](*(self.known[value] for value in takes))
        return [(node, i) for i in range(len(equation.outvars))]

    def _times_one(self, equation, takes: tuple[Value, ...]) -> Value | None:
        """Of a product with a 1 the other factor: no bit of it changes."""
        for value, other, var in zip(
            takes, reversed(takes), reversed(equation.invars), strict=True
        ):
            if self.known.get(value) == 1 and _kind(var.aval) == _kind(equation.outvars[0].aval):
                return other
        return None

    def _closed(self, jaxpr: Any, takes: Sequence[Value]) -> list[Value]:
        if hasattr(jaxpr, "consts"):
            return self.inline(jaxpr.jaxpr, jaxpr.consts, takes)
        return self.inline(jaxpr, (), takes)

    def _branch(self, platforms: Sequence) -> int:
        """The number of the branch for this platform, or that of the one for all others."""
        of = [i for i, names in enumerate(platforms) if names is None or self.platform in names]
        return of[0]

    def _shown(self, param: Any, takes: Sequence[Value], name: str) -> str:
        """A parameter as text; a jaxpr by what it computes of its arguments in their order."""
        if isinstance(param, tuple | list):
            return f"({','.join(self._shown(one, takes, name) for one in param)})"
        if isinstance(param, dict):
            return str(sorted((str(k), self._shown(v, takes, name)) for k, v in param.items()))
        if isinstance(param, core.ClosedJaxpr | core.Jaxpr):
            return self._subprogram(param, takes if name in REMATERIALISED else ())
        if isinstance(param, np.ndarray | jax.Array):
            return _constant(param)
        if isinstance(param, Callable) and not isinstance(param, type | np.dtype):
            return getattr(param, "__name__", "function")
        return ADDRESS.sub("", str(param))

    def _subprogram(self, param: Any, takes: Sequence[Value]) -> str:
        builder = _Builder(self.platform)
        jaxpr = param.jaxpr if isinstance(param, core.ClosedJaxpr) else param
        inputs = [builder.add(_kind(var.aval)) for var in jaxpr.invars]
        if len(takes) == len(inputs):
            builder.known |= {
                own: self.known[value]
                for own, value in zip(inputs, takes, strict=True)
                if value in self.known
            }
        outputs = builder._closed(param, inputs)
        graph = Graph(builder.nodes, outputs, {node: i for i, (node, _) in enumerate(inputs)})
        found = hashes(graph, {i: i for i in range(len(inputs))})
        return _digest(f"{found[node]}.{result}" for node, result in outputs)


# What is done to a known scalar on its way: to the choice of a branch, to a product.
FOLDED: dict[str, Callable[..., Any]] = {
    "clamp": lambda low, x, high: min(max(low, x), high),
    "convert_element_type": lambda x: x,
}


def _kind(aval: Any) -> str:
    return f"{getattr(aval, 'dtype', aval)}{list(getattr(aval, 'shape', ()))}"


def _constant(value: Any) -> str:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return f"key {value.dtype} {_constant(jax.random.key_data(value))}"
    array = np.asarray(value)
    return f"constant {array.dtype}{list(array.shape)} {_digest([array.tobytes()])}"


def _digest(parts: Any) -> str:
    sha = hashlib.blake2b(digest_size=12)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode()
        sha.update(len(raw).to_bytes(4, "little") + raw)
    return sha.hexdigest()
