"""What a person sees while runs are trained: a row for each finished run, and one live line."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUIET = 15.0  # seconds between two live lines where the output is no terminal
WINDOW = 30.0  # seconds that the rate is taken over


class Progress:
    """Rows and a live line on `stream`; steps is {run name: its number of steps}.

    A report has "step", and what else is known: "train_loss" (the mean since the report before),
    "val_accuracy". A run's first report tells where it starts: a resumed run had steps before.
    """

    def __init__(
        self,
        steps: dict[str, int],
        batch: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.steps, self.batch, self.stream = steps, batch, stream or sys.stdout
        self.clock, self.spoke = clock, 0.0
        self.running: dict[str, dict] = {}
        self.done, self.done_steps, self.failures = 0, 0, 0
        # (time, steps made until then), from the first report on: compilation comes before it.
        self.made, self.recent = 0, deque()
        self.width = max(map(len, steps))
        print(f"{'run':{self.width}s}  val %   test %     min", file=self.stream)

    def report(self, name: str, record: dict) -> None:
        """A run says where it is; what it said before and does not say now still holds."""
        before = self.running.get(name, {"step": record["step"]})
        self._count(max(0, record["step"] - before["step"]))  # a run may be begun again elsewhere
        self.running[name] = before | record
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

    def _count(self, steps: int) -> None:
        """So many more were made; what is older than the window is forgotten, but for one point."""
        self.made += steps
        self.recent.append((self.clock(), self.made))
        while len(self.recent) > 1 and self.recent[1][0] < self.recent[-1][0] - WINDOW:
            self.recent.popleft()

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
        now, terminal = self.clock(), self.stream.isatty()
        if not terminal and now - self.spoke < QUIET:
            return
        self.spoke = now
        self._clear()
        # A line that fills the last column would wrap in some terminals.
        columns = shutil.get_terminal_size().columns - 1
        self.stream.write(shortened(self.line(), columns) if terminal else self.line() + "\n")
        self.stream.flush()

    def rate(self) -> float:
        """Steps a second of all runs together, over the last half minute."""
        if not self.recent:
            return 0.0
        (began, before), (now, made) = self.recent[0], self.recent[-1]
        return (made - before) / (now - began) if now > began else 0.0

    def line(self) -> str:
        """`3/36 runs, 212 images/s, 4:10 left | bn seed 0 at 310 of 1200, loss 0.21, val 93.1 %`.

        The time left is a ? while nothing is known of the rate.
        """
        rate = self.rate()
        here = sum(record["step"] for record in self.running.values())
        left = sum(self.steps.values()) - self.done_steps - here
        runs = "; ".join(self._run(name, record) for name, record in self.running.items())
        head = f"{self.done}/{len(self.steps)} runs, {rate * self.batch:.0f} images/s"
        return f"{head}, {duration(left / rate) if rate else '?'} left | {runs}"

    def _run(self, name: str, record: dict) -> str:
        text = f"{name} at {record['step']} of {self.steps[name]}"
        if "train_loss" in record:
            text += f", loss {record['train_loss']:.3g}"
        if "val_accuracy" in record:
            text += f", val {100 * record['val_accuracy']:.1f} %"
        return text


def duration(seconds: float) -> str:
    """`4:10`, or `1:04:10` from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def shortened(text: str, width: int) -> str:
    """`text`, cut to `width` characters with an ellipsis where it is longer."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
