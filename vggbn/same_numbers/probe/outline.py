"""A traced program as hashes, the same for the same arithmetic, however it is written.

Each value's hash is made of the operation that makes it, its parameters and the hashes of what it
takes (a Merkle tree): names, the order of independent equations, what is computed for nothing and
the borders of `jit` leave no trace in it. Inputs are numbered in the order in which the outputs
first need them, so that their order and grouping leave none either; so are those of a loop's body,
and what it carries from turn to turn. What `lax.platform_dependent` chooses is decided for one
platform.
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
    """An input, a constant or an equation: what it does, and to which values.

    inner: of a loop, and of what is computed again in a backward pass, what is computed there.
    """

    operation: str  # of an input its shape and dtype
    takes: tuple[Value, ...] = ()
    inner: Graph | None = None


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
    numbered = hashes(graph, {number: str(i) for i, number in enumerate(used)})
    named = lambda value: f"{numbered[value[0]]}.{value[1]}"  # noqa: E731
    return Outline(_digest(map(named, in_order)), used, [named(value) for value in values])


def hashes(graph: Graph, names: dict[int, str] | None = None) -> list[str]:
    """The hash of every node; inputs by `names`, or by no more than their shape and dtype."""
    found: list[str] = []
    for i, node in enumerate(graph.nodes):
        parts = [node.operation, *(f"{found[taken]}.{result}" for taken, result in node.takes)]
        if names and i in graph.inputs:
            parts.append(f"input {names.get(graph.inputs[i])}")
        found.append(_digest(parts))
    return found


def operations(graph: Graph) -> list[tuple[str, str]]:
    """(hash, operation) of all that the outputs are made of, each after what it takes; what is
    computed inside an operation stands before it."""
    found, listed = hashes(graph), []
    for i in needed(graph):
        node = graph.nodes[i]
        listed += operations(node.inner) if node.inner else []
        listed.append((found[i], node.operation))
    return listed


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


class _Arranged(NamedTuple):
    """A subprogram in an order of its own: its hash, its inputs (by number), its outputs."""

    digest: str
    inputs: list[int]
    outputs: list[int]


def _arranged(graph: Graph, carried: dict[int, int], names: dict[int, str]) -> _Arranged:
    """The order of a subprogram's inputs and outputs that follows from what it computes.

    carried: {input: the output that is this input's value in the next turn}. names: of the inputs,
    by which they are told apart where the subprogram does not.
    """
    names = _told_apart(graph, carried, names)
    made = _output_names(graph, names)
    input_of = {output: number for number, output in carried.items()}
    rank = {o: names[input_of[o]] if o in input_of else made[o] for o in range(len(made))}
    outputs = sorted(rank, key=lambda o: (o in input_of, rank[o], o))
    turns = [input_of[o] for o in outputs if o in input_of]
    met = _first_needed(graph, [graph.outputs[o] for o in outputs])
    free = [number for number in met if number not in carried]
    numbered = {number: f"free {i}" for i, number in enumerate(free)}
    numbered |= {number: f"carried {i}" for i, number in enumerate(turns)}
    final = _output_names(graph, numbered)
    digest = _digest([str(len(turns)), *(final[o] for o in outputs)])
    return _Arranged(digest, [*free, *turns], outputs)


def _told_apart(graph: Graph, carried: dict[int, int], names: dict[int, str]) -> dict[int, str]:
    """The names, those of carried values refined by what becomes of them, turn after turn."""
    while True:
        made = _output_names(graph, names)
        finer = names | {i: _digest([names[i], made[o]]) for i, o in carried.items()}
        if len(set(finer.values())) == len(set(names.values())):
            return finer
        names = finer


def _output_names(graph: Graph, names: dict[int, str]) -> list[str]:
    found = hashes(graph, names)
    return [f"{found[node]}.{result}" for node, result in graph.outputs]


class _Builder:
    """The nodes so far, and the scalars among their values that are known: which platform."""

    def __init__(self, platform: str):
        self.platform, self.nodes = platform, []
        self.anonymous: list[str] = []  # the nodes' hashes, inputs by shape and dtype
        self.known: dict[Value, int | float] = {}

    def add(
        self, operation: str, takes: tuple[Value, ...] = (), inner: Graph | None = None
    ) -> Value:
        self.nodes.append(Node(operation, takes, inner))
        self.anonymous.append(_digest([operation, *map(self.name, takes)]))
        return len(self.nodes) - 1, 0

    def name(self, value: Value) -> str:
        """What a value is made of, its inputs by no more than their shape and dtype."""
        return f"{self.anonymous[value[0]]}.{value[1]}"

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
        if name in REMATERIALISED:
            how = f"{params['prevent_cse']} {self._shown(params['policy'])}"
            programs = [(params["jaxpr"], range(len(takes)))]
            return self._subprogram(name, takes, programs, {}, how)
        if name == "while":
            return self._while(equation, takes)
        if name == "scan":
            return self._scan(equation, takes)
        made = " ".join(_kind(var.aval) for var in equation.outvars)
        inner = {k: self._shown(v) for k, v in params.items() if k not in COSMETIC}
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

    def _while(self, equation, takes: tuple[Value, ...]) -> list[Value]:
        params = equation.params
        first, second = params["cond_nconsts"], params["body_nconsts"]
        carry = range(first + second, len(takes))
        condition = [*range(first), *carry]
        body = [*range(first, first + second), *carry]
        programs = [(params["cond_jaxpr"], condition), (params["body_jaxpr"], body)]
        carried = {i: 1 + turn for turn, i in enumerate(carry)}  # output 0 is the condition
        return self._subprogram("while", takes, programs, carried)[1:]

    def _scan(self, equation, takes: tuple[Value, ...]) -> list[Value]:
        params = equation.params
        first, count = params["num_consts"], params["num_carry"]
        how = f"{params['length']} {params['reverse']} {params['unroll']}"
        carried = {first + turn: turn for turn in range(count)}
        programs = [(params["jaxpr"], range(len(takes)))]
        rows = range(first + count, len(takes))
        return self._subprogram("scan", takes, programs, carried, how, rows)

    def _subprogram(
        self,
        name: str,
        takes: Sequence[Value],
        programs: Sequence[tuple[Any, Sequence[int]]],
        carried: dict[int, int],
        how: str = "",
        rows: Sequence[int] = (),
    ) -> list[Value]:
        """Add an operation that computes jaxprs of the inputs with these numbers.

        carried: see `_arranged`. how: what else decides. rows: the inputs of which each turn takes
        a row. Returns a value for each output, of all the jaxprs.
        """
        builder, outputs = _Builder(self.platform), []
        kinds = {
            i: f"{_kind(var.aval)}{' of a row' if i in rows else ''}"
            for jaxpr, numbers in programs
            for i, var in zip(numbers, getattr(jaxpr, "jaxpr", jaxpr).invars, strict=True)
        }
        inputs = [builder.add(kinds[i]) for i in range(len(takes))]
        if not carried:
            known = ((inputs[i], self.known.get(value)) for i, value in enumerate(takes))
            builder.known |= {own: value for own, value in known if value is not None}
        for jaxpr, numbers in programs:
            outputs += builder._closed(jaxpr, [inputs[i] for i in numbers])
        graph = Graph(builder.nodes, outputs, {node: i for i, (node, _) in enumerate(inputs)})
        order = _arranged(graph, carried, {i: self.name(value) for i, value in enumerate(takes)})
        needed_ = tuple(takes[i] for i in order.inputs)
        node, _ = self.add(f"{name} {how} {order.digest}", needed_, graph)
        place = {output: i for i, output in enumerate(order.outputs)}
        return [(node, place[o]) for o in range(len(outputs))]

    def _shown(self, param: Any) -> str:
        """A parameter as text; a jaxpr by what it computes of its arguments in their order."""
        if isinstance(param, tuple | list):
            return f"({','.join(map(self._shown, param))})"
        if isinstance(param, dict):
            return str(sorted((str(k), self._shown(v)) for k, v in param.items()))
        if isinstance(param, core.ClosedJaxpr | core.Jaxpr):
            return self._function(param)
        if isinstance(param, np.ndarray | jax.Array):
            return _constant(param)
        if isinstance(param, Callable) and not isinstance(param, type | np.dtype):
            return getattr(param, "__name__", "function")
        return ADDRESS.sub("", str(param))

    def _function(self, param: Any) -> str:
        builder = _Builder(self.platform)
        jaxpr = param.jaxpr if isinstance(param, core.ClosedJaxpr) else param
        inputs = [builder.add(_kind(var.aval)) for var in jaxpr.invars]
        outputs = builder._closed(param, inputs)
        graph = Graph(builder.nodes, outputs, {node: i for i, (node, _) in enumerate(inputs)})
        found = hashes(graph, {i: str(i) for i in range(len(inputs))})
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
