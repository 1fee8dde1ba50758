"""Where the time of a run goes: seconds by purpose, with all compilation taken out of them."""

from __future__ import annotations

import time
from collections import defaultdict

import jax

_EVENTS = "/jax/core/compile/"  # jax's events of tracing, lowering, and compiling or loading


class _Compilation:
    """All that jax compiles in this process; `seconds` is what it has cost so far."""

    def __init__(self):
        self.seconds, self.spans = 0.0, []

    def __call__(self, event: str, start_time: float, end_time: float, **kwargs) -> None:
        if not event.startswith(_EVENTS):
            return
        # A trace within a trace ends first and is part of the outer one, whose start is earlier.
        while self.spans and self.spans[-1][0] >= start_time:
            start, end = self.spans.pop()
            self.seconds -= end - start
        self.spans.append((start_time, end_time))
        self.seconds += end_time - start_time


_compilation = _Compilation()
jax.monitoring.register_event_time_span_listener(_compilation)


class Clock:
    """Seconds by purpose; whatever is compiled meanwhile counts as `compile` alone."""

    def __init__(self, purpose: str):
        self.purpose, self.seconds = purpose, defaultdict(float, compile=0.0)
        self.began = self.at = time.perf_counter()
        self.compiled = _compilation.seconds

    def to(self, purpose: str) -> None:
        """What follows is done for this purpose."""
        now, compiled = time.perf_counter(), _compilation.seconds
        compiling = compiled - self.compiled
        self.seconds["compile"] += compiling
        self.seconds[self.purpose] += now - self.at - compiling
        self.at, self.compiled, self.purpose = now, compiled, purpose

    def stop(self) -> dict[str, float]:
        """The seconds by purpose, with their sum as `total`."""
        self.to("")
        return {**self.seconds, "total": self.at - self.began}
