"""A contestant's own process: it trains, and times itself, when its parent asks.

    python -m benchmarks.worker CASE CONTESTANT DEVICE THREADS

Requests come as JSON lines on stdin, answers go as JSON lines to stdout. A process of its own keeps
thread pools apart and makes the peak memory the contestant's own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from benchmarks.cases import CONTESTANTS, Case, Contestant


def main() -> None:
    """Answer until stdin ends."""
    case, name, device, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    runner = ready(Case(**json.loads(case)), CONTESTANTS[name], device, int(threads))
    verbs = {"start": start, "steps": steps, "memory": memory, "gemm": gemm}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(verbs[request.pop("do")](runner, **request)), file=answers, flush=True)


def ready(case: Case, contestant: Contestant, device: str, threads: int):
    """The Runner of a contestant."""
    if contestant.side == "torch":
        from benchmarks import torch_nets

        return torch_nets.Runner(case, contestant, device, threads)
    from benchmarks import jax_nets

    return jax_nets.Runner(case, contestant)


def start(runner) -> dict:
    """Seconds of the first step, which compiles, and of the second; the losses of both."""
    (first, before), (second, after) = timed(runner, 1), timed(runner, 1)
    seconds = {"first_s": first, "step_s": second}
    return seconds | {"losses": [before, after], "parameters": runner.parameters()}


def steps(runner, n: int) -> dict:
    """Seconds of n steps."""
    return {"seconds": timed(runner, n)[0]}


def timed(runner, n: int) -> tuple[float, float]:
    """(seconds of n steps, the last one's loss)."""
    began = time.perf_counter()
    for _ in range(n):
        runner.step()
    loss = runner.wait()
    return time.perf_counter() - began, loss


def memory(runner) -> dict:
    """Peak bytes on the accelerator, or of this process on a CPU."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": runner.device_peak() or resident * (1 if sys.platform == "darwin" else 1024)}


def gemm(runner, n: int, times: int) -> dict:
    """GFLOP/s of n×n matrix products in the contestant's precision, the best of five trials.

    Where those would take too long, as in bf16 on a CPU that only emulates it, of n/4×n/4 ones.
    """
    for side in (n // 4, n):
        multiply = runner.product(side)
        multiply(1)
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            multiply(times)
            seconds.append(time.perf_counter() - began)
        if min(seconds) > 0.05:
            break
    return {"gflops": 2e-9 * side**3 * times / min(seconds)}


if __name__ == "__main__":
    main()
