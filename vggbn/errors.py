"""The mistakes of a user: one exception, and the parser that raises it."""

import argparse


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
