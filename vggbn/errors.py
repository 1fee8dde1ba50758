"""How a command ends early: a mistake of the user's, Ctrl-C, SIGTERM; each with a sentence."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

INTERRUPTED = 130  # the exit status after Ctrl-C
PREEMPTED = 75  # and after SIGTERM: EX_TEMPFAIL of sysexits.h, "do it again later"


class UserError(Exception):
    """One clear sentence: what is wrong and what to do. Command lines print it and exit with 2."""


class Preempted(Exception):
    """SIGTERM came: one sentence that says what was saved. Command lines exit with PREEMPTED."""


def unknown(kind: str, name: str, valid) -> UserError:
    """The refusal of a name that is not among `valid`, which are named."""
    import difflib

    names = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}.")


class Parser(argparse.ArgumentParser):
    """An argument parser whose refusal is a UserError: one sentence, without the usage.

    A description keeps its lines, unless another formatter is asked for.
    """

    def __init__(
        self, *, formatter_class: Any = argparse.RawDescriptionHelpFormatter, **settings: Any
    ) -> None:
        super().__init__(formatter_class=formatter_class, **settings)

    def error(self, message):
        raise UserError(f"{message} (--help lists the flags).")


def said(error: OSError) -> str:
    """What the system said, and of which file, as a sentence."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."


def raise_preempted(signum, frame) -> NoReturn:
    """The SIGTERM handler of what has nothing of its own to save."""
    raise Preempted("Stopped by SIGTERM.")


@contextmanager
def on_signal(number: int, handler: Callable) -> Iterator[None]:
    """Within, the signal calls `handler(signum, frame)`; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def ignore_late_callbacks() -> None:
    """Let a process say nothing of what TensorStore still has to tell Orbax when that has given up.

    After a save that failed, its threads go on to call an event loop that is closed: dozens of
    tracebacks behind the one sentence that is needed. A process of ours says so when it starts, and
    it stays so: they come late.
    """
    hook = sys.unraisablehook
    if not (isinstance(hook, partial) and hook.func is _tell_unless_late):
        sys.unraisablehook = partial(_tell_unless_late, hook)


def _tell_unless_late(tell: Callable, unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        tell(unraisable)


def exit_with(work: Callable[[], int | None], *, kept: str = "") -> NoReturn:
    """Do the work of a command line and exit with its status, or 0.

    A UserError or an OSError becomes one sentence and status 2, Ctrl-C one and INTERRUPTED, SIGTERM
    one and PREEMPTED. `kept` says what none of them loses.
    """
    ignore_late_callbacks()
    try:
        with on_signal(signal.SIGTERM, raise_preempted):
            status = work()
        sys.exit(status or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        more = f" {kept}." if kept else ""
        print(f"error: {said(error)}{more}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        more = f" {kept}; the same command goes on." if kept else ""
        print(f"\nStopped.{more}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Preempted as stop:
        more = f" {kept}; the same command goes on." if kept else ""
        print(f"{stop}{more}", file=sys.stderr)
        sys.exit(PREEMPTED)
