"""Where progress is shown: a live table in a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from vggbn.report.words import short

if TYPE_CHECKING:
    from rich.console import RenderableType

QUIET = 15.0  # seconds between two lines where the output is no terminal
GAP = 2  # columns between two cells of a live table
REFRESH = 4  # times a second that a live table is drawn anew, so that its clocks run


class Board(Protocol):
    """What is to be shown: a summary, and a row for each job that is under way."""

    columns: Sequence[str]

    def head(self) -> str: ...
    def rows(self) -> list[tuple[str, ...]]: ...
    def line(self) -> str: ...


class Lines:
    """For a file or a pipe."""

    width = None

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.perf_counter):
        self.stream, self.clock, self.spoke = stream, clock, 0.0

    def say(self, text: str) -> None:
        """Print what stays."""
        print(text, file=self.stream, flush=True)

    def show(self, board: Board) -> None:
        """Print the board's line, unless that was done just now."""
        if self.clock() - self.spoke >= QUIET:
            self.spoke = self.clock()
            self.say(board.line())

    def close(self) -> None:
        """Nothing is open."""


class LiveTable:
    """For a terminal: below what stays, one table that is as wide as the terminal."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.live import Live

        self.console, self.board = Console(file=stream, highlight=False, emoji=False), None
        self.live = Live(
            console=self.console,
            get_renderable=self._drawn,
            refresh_per_second=REFRESH,
            transient=True,
        )

    @property
    def width(self) -> int:
        return self.console.width

    def say(self, text: str) -> None:
        """Print above the table what stays."""
        from rich.text import Text

        self.console.print(Text(text, overflow="fold"))

    def show(self, board: Board) -> None:
        """Draw the board, and again by itself until `close`."""
        self.board = board
        if not self.live.is_started:
            self.live.start(refresh=True)

    def close(self) -> None:
        """Wipe the table."""
        self.live.stop()

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if self.board is None:
            return ""
        rows = [tuple(self.board.columns), *self.board.rows()]
        others = sum(max(map(len, column)) + GAP for column in list(zip(*rows, strict=True))[1:])
        table = Table.grid(padding=(0, GAP, 0, 0))
        for i in range(len(self.board.columns)):
            table.add_column(no_wrap=True, justify="right" if i > 1 else "left")
        for i, (name, *cells) in enumerate(rows):  # the name gives way where there is no room
            name = short(name, max(self.width - others - GAP, 3))
            table.add_row(*map(Text, (name, *cells)), style="" if i else "dim")
        return Group(Text(self.board.head(), no_wrap=True, overflow="ellipsis"), table)


def open_screen(stream: TextIO, clock: Callable[[], float], *, live: bool) -> Lines | LiveTable:
    """The screen that fits the stream; not live: lines even in a terminal, for a debugger."""
    if live and stream.isatty():
        screen = LiveTable(stream)
        if not screen.console.is_dumb_terminal:
            return screen
    return Lines(stream, clock)
