"""What a person sees while nets are tested by views: a row for each net, in hand or done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from vggbn.report.words import counted
from vggbn.runs.progress import duration
from vggbn.runs.screen import open_screen


class ViewProgress:
    """The board of a test of so many nets."""

    columns: Sequence[str] = ("net", "protocol at side")

    def __init__(
        self,
        nets: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        live: bool = True,
    ):
        self.nets, self.done, self.clock, self.began = nets, 0, clock, clock()
        self.screen = open_screen(stream or sys.stdout, clock, live=live)
        self.running: dict[str, tuple[str, float]] = {}

    def report(self, name: str, part: str) -> None:
        """A net begins with a part, such as dense at 32."""
        self.running[name] = part, self.clock()
        self.screen.show(self)

    def finished(self, name: str, text: str) -> None:
        """A net is done, or has failed, as the text says."""
        self.running.pop(name, None)
        self.done += 1
        self.screen.say(f"{name}: {text}")

    def close(self) -> None:
        """Wipe what is live."""
        self.screen.close()

    def head(self) -> str:
        """`2/6 nets tested, 1:10 left`; a ? before the first is done."""
        spent = self.clock() - self.began
        left = duration(spent / self.done * (self.nets - self.done)) if self.done else "?"
        return f"{self.done}/{counted(self.nets, 'net')} tested, {left} left"

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each net in hand, of `columns`."""
        return [
            (name, f"{part} for {duration(self.clock() - since)}")
            for name, (part, since) in list(self.running.items())
        ]

    def line(self) -> str:
        """Head and rows on one line."""
        return f"{self.head()} | {'; '.join(map(' '.join, self.rows()))}"
