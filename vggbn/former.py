"""Former names of commands: each says the new one and hands on to the door; gone with the next
release."""

import runpy
import sys
from collections.abc import Sequence


def forward(former: str, name: str, argv: Sequence[str] | None = None) -> None:
    """`python -m former` runs the command `name`. By name, so that a package that once was a
    command need not import what stands above it."""
    print(
        f"`python -m {former}` is now `python -m vggbn {name}`: the former name goes with the next "
        "release.",
        file=sys.stderr,
    )
    sys.argv[1:] = [name, *(sys.argv[1:] if argv is None else argv)]
    runpy.run_module("vggbn", run_name="__main__")
