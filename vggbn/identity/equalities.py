"""Code that is known to make the same numbers, though its identity is another: same_numbers.json.

The table, which lies beside the published results, says of an identity, or of a digest of earlier
days, and of a recipe's or a view's id which identity makes the same numbers: {"OLD": {"ID":
"IDENTITY", ...}, ...}. What is equal to the same is equal.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from vggbn.errors import UserError

PACKAGE = Path(sys.modules[__name__.partition(".")[0]].__path__[0])
PATH = PACKAGE.parent / "results" / "same_numbers.json"

Table = dict[str, dict[str, str]]


def same_numbers(code: str, other: str, id: str) -> bool:
    """Whether both make the same numbers of the recipe, or of the view, with this id."""
    return not _equals(code, id).isdisjoint(_equals(other, id))


def _equals(code: str, id: str) -> set[str]:
    """The code, and all that the table leads to from it."""
    found: set[str] = set()
    while code not in found:
        found.add(code)
        code = _table(PATH).get(code, {}).get(id, code)
    return found


@cache
def _table(path: Path) -> Table:
    return read(path)


def read(path: Path) -> Table:
    """The table; empty without the file. UserError: it is damaged."""
    try:
        table = json.loads(path.read_text())
        assert all(isinstance(own, str) for row in table.values() for own in row.values())
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, AssertionError):
        raise UserError(f"{path} is damaged: take it from git again.") from None
    return table
