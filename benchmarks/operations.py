"""Where the time of a training step goes, by layer and by operation.

    python -m benchmarks.operations [NET ...]     # nets of `make bench`; writes operations.md

One process of one thread trains under jax's profiler. What XLA fused into one loop counts as the
layer that the loop ends with. Beside each kind of layer stands its share of the step, and what
PyTorch spends on it where that is installed; beside the convolutions and dense layers the rate as a
share of a matrix product's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.cases import CASES, CONTESTANTS, Case, flop
from benchmarks.measure import ROOT, environment, restart
from vggbn.errors import Parser, UserError, unknown

PAGE = Path(__file__).parent / "operations.md"
CHILD = "VGGBN_OPERATIONS_CHILD"
DEFAULT = ("a32", "d32", "a32-w8", "a32-w4")
WARM_UP, STEPS, SHOWN = 8, 8, 12
KINDS = ("conv", "norm", "activation", "pool", "dense", "other")
WORDS = {
    "conv": "convolutions, with the transpositions that their gradients want",
    "norm": "Batch Normalization",
    "activation": "ReLU, with what is fused into it",
    "pool": "pooling",
    "dense": "fully connected layers",
    "other": "loss, update of the weights, copies",
}


class Operation(NamedTuple):
    """One instruction of the compiled step: what it is, its kind of layer, ms a step."""

    text: str
    kind: str
    ms: float


def main() -> None:
    """Profile, print, write the page."""
    parser = Parser(prog="python -m benchmarks.operations", description=__doc__)
    parser.add_argument("nets", nargs="*", default=list(DEFAULT), metavar="NET")
    args = parser.parse_args()
    for net in args.nets:
        if net not in CASES:
            raise unknown("net", net, CASES)
    if os.environ.get(CHILD) is None:
        # With more threads convolutions end after their event.
        restart("benchmarks.operations", CHILD, 1)
    sections = [section(CASES[net]) for net in args.nets]
    PAGE.write_text("\n".join([head(), *sections]) + "\n", encoding="utf-8")
    print("\n".join(sections))


def head() -> str:
    from vggbn.machine import provenance

    setting = provenance.setting()
    return (
        "# Operations of a training step\n\n"
        "Made by `python -m benchmarks.operations`, never by hand; `benchmarks/operations.py` says "
        f"how.\n\n- {setting['device']}, 1 thread, jaxlib {setting['jaxlib']}\n"
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {provenance.commit() or 'unknown'}\n"
    )


def section(case: Case) -> str:
    """The tables of one net."""
    found, gemm = operations(case)
    rival, theirs = torch_kinds(case)
    total = sum(each.ms for each in found)
    by_kind = Counter()
    for each in found:
        by_kind[each.kind] += each.ms
    products = by_kind["conv"] + by_kind["dense"]
    rate = flop(case) / 1e6 / products / gemm
    table = [(WORDS[kind], by_kind[kind], theirs.get(kind)) for kind in KINDS]
    table += [("all", total, sum(theirs.values()) or None)]
    rows = [
        f"| {words} | {ms:.1f} | {ms / total:.0%} | {'–' if other is None else f'{other:.1f}'} |"
        for words, ms, other in table
    ]
    top = sorted(found, key=lambda each: -each.ms)[:SHOWN]
    return "\n".join(
        [
            f"## {case.title}",
            "",
            f"{total:.1f} ms a step, by the profiler. Convolutions and dense layers: "
            f"{rate:.0%} of a matrix product's {gemm:.0f} GFLOP/s.",
            "",
            f"| layers | ms | share | {rival}, ms |",
            "|---|---:|---:|---:|",
            *rows,
            "",
            "| operation | layer | ms |",
            "|---|---|---:|",
            *(f"| `{each.text}` | {each.kind} | {each.ms:.2f} |" for each in top),
            "",
        ]
    )


def operations(case: Case) -> tuple[list[Operation], float]:
    """(the instructions of a step of this suite, GFLOP/s of a matrix product here)."""
    from benchmarks.jax_nets import Runner
    from benchmarks.worker import gemm

    with scopes():
        runner = Runner(case, CONTESTANTS["vggbn"])
        for _ in range(WARM_UP):
            runner.step()
        runner.wait()
    took = profiled(lambda: (runner.step(), runner.wait()))
    program = runner.jitted.lower(runner.state, runner.batch).compile().as_text()
    return list(named(took, program)), gemm(runner, 2048, 1)["gflops"]


@contextmanager
def scopes() -> Iterator[None]:
    """Within it, what the suite's layers trace carries the name of their kind."""
    from vggbn.nn import layers, norms

    def scoped(kind: str, function: Callable) -> Callable:
        import jax

        return wraps(function)(jax.named_scope(f"kind_{kind}")(function))

    batch = norms.NORMS["batch"]
    with ExitStack() as stack:
        for kind, name in (("conv", "conv"), ("dense", "dense"), ("pool", "max_pool_2x2")):
            new = scoped(kind, getattr(layers, name))
            stack.enter_context(patch.object(layers, name, new))
        relu = {"relu": scoped("activation", layers.relu)}
        stack.enter_context(patch.dict(layers.ACTIVATIONS, relu))
        new = batch._replace(apply=scoped("norm", batch.apply))
        stack.enter_context(patch.dict(norms.NORMS, {"batch": new}))
        yield


def profiled(step: Callable) -> dict[str, float]:
    """{name of the instruction: ms a step}, by medians: another process may break in."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                step()
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    took: dict[str, list[float]] = {}
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op")
                if name is not None:
                    took.setdefault(name, []).append(event.duration_ns / 1e6)
    return {name: median(times) * len(times) / STEPS for name, times in took.items()}


def torch_kinds(case: Case) -> tuple[str, dict[str, float]]:
    """(PyTorch's faster memory format, {kind: ms a step}); nothing measured without PyTorch."""
    if not find_spec("torch"):
        return "PyTorch (not installed)", {}
    took = {name: torch_profile(case, name) for name in ("torch", "torch-channels-last")}
    best = min(took, key=lambda name: sum(took[name].values()))
    return best, took[best]


def torch_profile(case: Case, contestant: str) -> dict[str, float]:
    """{kind: ms a step} of a contestant, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.torch_operations"]
    command += [json.dumps(asdict(case)), contestant]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(1), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\S+) ([\w\-]+)\((.*)")


def named(took: dict[str, float], program: str) -> Iterator[Operation]:
    """The measured instructions with what the compiled program says of them.

    Calls of other computations are left out: what these do is measured by itself.
    """
    for line in program.splitlines():
        match = INSTRUCTION.match(line)
        if match and match[1] in took and match[3] not in ("conditional", "while", "call"):
            shape = re.sub(r"\{.*", "", match[2])
            name = re.sub(r"\.\d+$", "", match[1])
            kind = re.search(r"kind_(\w+)", line)
            # A weight gradient and the transpositions before it have lost their scope.
            lost = "conv" if match[3] == "convolution" or name.startswith("transpose") else "other"
            yield Operation(f"{name} {shape}", kind[1] if kind else lost, took[match[1]])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
