"""PyTorch's training step by kind of layer, for `benchmarks.operations`.

    python -m benchmarks.torch_operations CASE CONTESTANT

In a process of its own. Prints JSON: {kind: ms a step}.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from statistics import median

from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import CONTESTANTS, Case
from benchmarks.torch_nets import Runner

WARM_UP, STEPS = 4, 8
# The outermost operations of a step, forward and backward: what names of theirs say.
NAMES = {
    "conv": "conv",
    "norm": "batch_?norm",
    "activation": "relu|threshold",
    "pool": "max_?pool",
    "dense": "linear|addmm|evaluate_function: TBackward|flatten|evaluate_function: (View|Reshape)",
}


def main() -> None:
    """Train under the profiler, print."""
    case, name = sys.argv[1:]
    runner = Runner(Case(**json.loads(case)), CONTESTANTS[name], "cpu", 1)
    for _ in range(WARM_UP):
        runner.step()
    print(json.dumps(by_kind([one_step(runner) for _ in range(STEPS)])))


def one_step(runner: Runner) -> Counter[str]:
    """{name of an outermost operation: ms} of one step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        runner.step()
    took = Counter()
    for event in profiler.events() or ():
        if event.cpu_parent is None:
            took[event.name] += event.cpu_time_total / 1e3  # from microseconds
    return took


def by_kind(steps: list[Counter[str]]) -> dict[str, float]:
    """{kind: ms a step}, each operation by its median: another process may break in."""
    total = Counter()
    for name in set().union(*steps):
        total[kind(name)] += median(step[name] for step in steps)
    return dict(total)


def kind(name: str) -> str:
    """The kind of layer that an outermost operation belongs to."""
    found = (kind for kind, names in NAMES.items() if re.search(names, name, re.IGNORECASE))
    return next(found, "other")


if __name__ == "__main__":
    main()
