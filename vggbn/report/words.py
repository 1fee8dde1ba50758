"""Words that go with numbers."""

from __future__ import annotations


def counted(n: int, noun: str, plural: str = "") -> str:
    """`1 run`, `2 runs`, `1,200 runs`; plural: where it is not the noun with an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def short(name: str, most: int) -> str:
    """A name in at most so many characters, with an ellipsis where it is longer."""
    return name if len(name) <= most else name[: max(most - 1, 0)] + "…"
