"""A progress line for work that takes more than a few seconds."""

import sys
import time
from collections.abc import Iterable, Iterator

_QUIET_S = 3.0  # shorter work stays silent


def progress(items: Iterable, total: int, what: str) -> Iterator:
    """Yield the items; after some seconds write count, rate and time left to stderr.

    A terminal shows one line that changes twice a second; a log gets a line every ten seconds.
    """
    terminal = sys.stderr.isatty()
    start = time.monotonic()
    due = start + _QUIET_S
    shown = False
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now >= due:
            _write(what, count, total, now - start, terminal)
            due = now + (0.5 if terminal else 10.0)
            shown = True
    if shown and terminal:
        print(file=sys.stderr)


def _write(what: str, count: int, total: int, seconds: float, terminal: bool) -> None:
    rate = count / seconds
    line = f"{what}: {count:,} of {total:,}, {rate:,.0f}/s, {(total - count) / rate:.0f} s left"
    print(f"\r{line}\033[K" if terminal else line, end="" if terminal else "\n", file=sys.stderr)
    sys.stderr.flush()
