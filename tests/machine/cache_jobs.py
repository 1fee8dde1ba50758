"""Work for tests/machine/test_compile_cache.py and tests/jobs/test_pool.py, in worker processes."""

import os
import time
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.machine import compile_cache
from vggbn.machine.clock import Clock
from vggbn.runs import run as runs

HITS, MISSES = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"
ASKED = "/jax/compilation_cache/compile_requests_use_cache"


SOME = 8


def train(payload, report):
    """One run with the cache of its store: what it compiled, and its record."""
    recipe, store = payload
    found = _count()
    compile_cache.use(store.cache)
    (store.folder(recipe, 0) / "run.json").unlink(missing_ok=True)  # else it would be found
    record = runs.train_run(recipe, 0, store)
    return found(), record


def compile_some(folder, report):
    """SOME small programs with the cache of this folder: what was compiled; their results, and the
    clock's seconds."""
    found, clock = _count(), Clock("all")
    compile_cache.use(folder)
    results = [float(jax.jit(lambda x, n=n: x * n + 1)(np.float32(2))) for n in range(SOME)]
    return found(), (results, clock.stop())


def _count():
    """A function that gives {asked, hits, misses} since now."""
    events: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
    return lambda: {"asked": events[ASKED], "hits": events[HITS], "misses": events[MISSES]}


def call(function, report):
    """Any work whatever, each job's own."""
    return function(None, report)


def busy_threads(payload, report):
    """CPU time of each thread during products, convolutions and sums; busiest first."""

    @jax.jit
    def work(a, x):
        y = jax.lax.conv(x, jnp.ones((64, 64, 3, 3)), (1, 1), "SAME")
        return a @ a / len(a), jnp.tanh(y) / 64

    a, x = jnp.ones((1024, 1024)), jnp.ones((32, 64, 32, 32))
    a, x = jax.block_until_ready(work(a, x))
    before, began = _ticks(), time.process_time()
    while time.process_time() - began < 0.5:  # enough for the clock's ticks on any machine
        a, x = jax.block_until_ready(work(a, x))
    return sorted((ticks - before.get(name, 0) for name, ticks in _ticks().items()), reverse=True)


def _ticks() -> dict[str, int]:
    """{thread: its CPU time in clock ticks}."""
    found = {}
    for thread in os.listdir("/proc/self/task"):
        fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
        found[thread] = int(fields[11]) + int(fields[12])
    return found
