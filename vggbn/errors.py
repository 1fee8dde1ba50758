"""The mistakes of a user: one exception, the parser that raises it, the exit that follows."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 130  # the exit status after Ctrl-C


class UserError(Exception):
    """One clear sentence: what is wrong and what to do. Command lines print it and exit with 2."""


def unknown(kind: str, name: str, valid) -> UserError:
    """The refusal of a name that is not among `valid`, which are named."""
    import difflib

    names = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")


class Parser(argparse.ArgumentParser):
    """An argument parser whose refusal is a UserError: one sentence, without the usage."""

    def error(self, message):
        raise UserError(f"{message} (--help lists the flags).")


def exit_with(work: Callable[[], int | None], *, kept: str = "") -> NoReturn:
    """Do the work of a command line and exit with its status, or 0.

    A UserError or an OSError becomes one sentence and status 2, Ctrl-C one and INTERRUPTED. `kept`
    says what neither loses.
    """
    try:
        sys.exit(work() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        more = f" {kept}." if kept else ""
        print(f"error: {error.strerror or error}{where}.{more}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        more = f" {kept}; the same command goes on." if kept else ""
        print(f"\nStopped.{more}", file=sys.stderr)
        sys.exit(INTERRUPTED)
