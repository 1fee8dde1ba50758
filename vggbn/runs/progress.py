"""What a person sees while runs are trained: a row for each finished run, and those under way."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

from vggbn.report.words import counted, short
from vggbn.runs.screen import open_screen

WINDOW = 30.0  # seconds that the rate is taken over


class Progress:
    """The board of a training; steps is {run name: its number of steps}.

    A report has "step", and what else is known: "train_loss" (the mean since the report before),
    "val_accuracy". A run's first report tells where it starts: a resumed run had steps before.
    """

    columns: Sequence[str] = ("run", "step", "loss", "val %")

    def __init__(
        self,
        steps: dict[str, int],
        batch: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        live: bool = True,
    ):
        self.steps, self.batch, self.clock = steps, batch, clock
        self.screen = open_screen(stream or sys.stdout, clock, live=live)
        self.running: dict[str, dict] = {}
        self.done, self.done_steps, self.failures = 0, 0, 0
        # (time, steps made until then), from the first report on: compilation comes before it.
        self.made, self.recent = 0, deque()
        self.screen.say(self._row("run", "val %", "test %", "min"))

    def started(self, name: str) -> None:
        """A run is in hand; until its first report it reads its data and compiles."""
        self.running[name] = {"since": self.clock()}
        self.screen.show(self)

    def report(self, name: str, record: dict) -> None:
        """A run says where it is; what it said before and does not say now still holds."""
        before = self.running.get(name, {})
        if "step" not in before and not any("step" in each for each in self.running.values()):
            self._skip_pause()
        made = record["step"] - before.get("step", record["step"])
        self._count(max(0, made))  # a run may be begun again elsewhere
        self.running[name] = before | record
        self.screen.show(self)

    def finished(self, name: str, record: dict) -> None:
        """The run's row, which stays."""
        final, minutes = record["final"], record["seconds"]["all"] / 60
        val, test = (f"{100 * final[f'{part}_accuracy']:.1f}" for part in ("val", "test"))
        row = self._row(name, val, test, f"{minutes:.2f}")
        self._end(name, row if record["status"] == "ok" else f"{row}   {record['status']}")

    def failed(self, name: str, text: str) -> None:
        """The failure, which stays."""
        self.failures += 1
        self._end(name, f"{name}  FAILED\n{text}")

    def close(self) -> int:
        """Wipe what is live; returns the number of failures."""
        self.screen.close()
        return self.failures

    # --- the board -------------------------------------------------------------------------------

    def head(self) -> str:
        """`3/36 runs, 212 images/s, 4:10 left`; a ? while nothing is known of the rate."""
        rate = self.rate()
        here = sum(record.get("step", 0) for record in list(self.running.values()))
        left = sum(self.steps.values()) - self.done_steps - here
        of = f"{self.done}/{counted(len(self.steps), 'run')}"
        remaining = duration(left / rate) if rate else "?"
        return f"{of}, {rate * self.batch:,.0f} images/s, {remaining} left"

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each run under way, of `columns`."""
        return [
            (
                name,
                self._where(name, record),
                f"{record['train_loss']:.3g}" if "train_loss" in record else "",
                f"{100 * record['val_accuracy']:.1f}" if "val_accuracy" in record else "",
            )
            for name, record in list(self.running.items())
        ]

    def line(self) -> str:
        """Head and rows on one line: `… | bn seed 0 at 310 of 1,200, loss 0.21, val 93.1 %`."""
        return f"{self.head()} | {'; '.join(map(self._text, self.rows()))}"

    def rate(self) -> float:
        """Steps a second of all runs together, over the last half minute."""
        if not self.recent:
            return 0.0
        (began, before), (now, made) = self.recent[0], self.recent[-1]
        return (made - before) / (now - began) if now > began else 0.0

    def _where(self, name: str, record: dict) -> str:
        if "step" not in record:
            return f"compiling for {duration(self.clock() - record['since'])}"
        if record["step"] >= self.steps[name]:
            return "final scores"
        return f"{record['step']:,} of {self.steps[name]:,}"

    def _text(self, row: tuple[str, ...]) -> str:
        name, where, loss, val = row
        text = f"{name} at {where}" if where[0].isdigit() else f"{name} {where}"
        return text + (f", loss {loss}" if loss else "") + (f", val {val} %" if val else "")

    # --- what stays ------------------------------------------------------------------------------

    def _row(self, name: str, val: str, test: str, minutes: str) -> str:
        """A row; its name is cut where the terminal has no room for it."""
        width, numbers = max(map(len, self.steps)), f"{val:>5s}   {test:>6s}   {minutes:>5s}"
        if self.screen.width is not None:
            width = max(3, min(width, self.screen.width - len(numbers) - 2))
        return f"{short(name, width):{width}s}  {numbers}"

    def _end(self, name: str, text: str) -> None:
        self.running.pop(name, None)
        self.done, self.done_steps = self.done + 1, self.done_steps + self.steps[name]
        self.screen.say(text)

    def _skip_pause(self) -> None:
        """While every run compiled, no time passed for the rate."""
        if self.recent:
            pause = self.clock() - self.recent[-1][0]
            self.recent = deque((at + pause, made) for at, made in self.recent)

    def _count(self, steps: int) -> None:
        """So many more were made; what is older than the window is forgotten, but for one point."""
        self.made += steps
        self.recent.append((self.clock(), self.made))
        while len(self.recent) > 1 and self.recent[1][0] < self.recent[-1][0] - WINDOW:
            self.recent.popleft()


def duration(seconds: float) -> str:
    """`4:10`, or `1:04:10` from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
