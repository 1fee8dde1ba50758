"""How results/same_numbers.json is written; `identity.equalities` reads it."""

from __future__ import annotations

import json
from pathlib import Path

from vggbn import files
from vggbn.identity.equalities import Table


def write(path: Path, table: Table) -> None:
    """Replace the file, sorted; whole or not at all."""
    kept = {code: rows for code, rows in table.items() if rows}
    files.write(path, json.dumps(kept, indent=1, sort_keys=True) + "\n")
