"""What a person sees while runs are trained: a row for each finished run, and one live line."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET = 15.0  # seconds between two live lines where the output is no terminal


class Progress:
    """Rows and a live line on `stream`; steps is {run name: its number of steps}."""

    def __init__(self, steps: dict[str, int], batch: int, stream: TextIO | None = None):
        self.steps, self.batch, self.stream = steps, batch, stream or sys.stdout
        self.total, self.began, self.spoke = sum(steps.values()), time.perf_counter(), 0.0
        self.running: dict[str, dict] = {}
        self.done_steps, self.done, self.failures = 0, 0, 0
        self.width = max(map(len, steps))
        print(f"{'run':{self.width}s}  val %   test %     min", file=self.stream)

    def report(self, name: str, record: dict) -> None:
        """A run has evaluated itself: `record` is a line of its learning curve."""
        self.running[name] = record
        self._live()

    def finished(self, name: str, record: dict) -> None:
        final = record["final"]
        row = (
            f"{name:{self.width}s}  {100 * final['val_accuracy']:5.1f}   "
            f"{100 * final['test_accuracy']:6.1f}   {record['seconds']['all'] / 60:5.2f}"
        )
        self._row(name, row if record["status"] == "ok" else f"{row}   {record['status']}")

    def failed(self, name: str, text: str) -> None:
        self.failures += 1
        self._row(name, f"{name:{self.width}s}  FAILED\n{text}")

    def close(self) -> int:
        """End the live line; returns the number of failures."""
        self._clear()
        return self.failures

    def _row(self, name: str, row: str) -> None:
        self.running.pop(name, None)
        self.done, self.done_steps = self.done + 1, self.done_steps + self.steps[name]
        self._clear()
        print(row, file=self.stream, flush=True)
        self._live()

    def _clear(self) -> None:
        if self.stream.isatty():
            self.stream.write("\r\033[K")

    def _live(self) -> None:
        now = time.perf_counter()
        if not self.stream.isatty() and now - self.spoke < QUIET:
            return
        self.spoke = now
        self._clear()
        self.stream.write(self.line(now) + ("" if self.stream.isatty() else "\n"))
        self.stream.flush()

    def line(self, now: float) -> str:
        """`3/36 runs, 212 images/s, 4:10 left | bn seed 0 at 310 of 1200, val 93.1 %`."""
        steps = self.done_steps + sum(record["step"] for record in self.running.values())
        rate = steps / max(now - self.began, 1e-9)
        left = (self.total - steps) / rate if rate else 0
        runs = "; ".join(
            f"{name} at {r['step']} of {self.steps[name]}, val {100 * r['val_accuracy']:.1f} %"
            for name, r in self.running.items()
        )
        head = f"{self.done}/{len(self.steps)} runs, {rate * self.batch:.0f} images/s"
        return f"{head}, {int(left) // 60}:{int(left) % 60:02d} left | {runs}"
