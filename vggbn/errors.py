"""The one exception that means: the user asked for something that cannot be done."""


class UserError(Exception):
    """One clear sentence: what is wrong and what to do. Command lines print it and exit with 2."""


def unknown(kind: str, name: str, valid) -> UserError:
    """The refusal of a name that is not among `valid`, which are named."""
    import difflib

    names = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")
