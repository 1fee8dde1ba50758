"""One door: `python -m vggbn COMMAND ...`; alone it lists the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from vggbn.commands import commands, run_command
from vggbn.errors import exit_with


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit with its status."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(listing())
        sys.exit(0)
    exit_with(lambda: run_command(args[0], args[1:]))


def listing() -> str:
    """What there is, a line each."""
    there = commands()
    width = max(map(len, there))
    return "\n".join(
        [
            "usage: python -m vggbn COMMAND ...    (COMMAND --help says more)",
            "",
            *(f"  {name:{width}}  {what}" for name, what in there.items()),
            "",
            "Experiments have command lines of their own: python -m experiments lists them.",
        ]
    )


if __name__ == "__main__":
    main()
