"""Work for tests/jobs/test_pool.py: worker processes import this module, so it stays light."""

import os
import signal
import time
from pathlib import Path

from vggbn.errors import UserError

if os.environ.get("POOL_JOBS_INTERRUPT"):  # Ctrl-C while the worker still imports
    os.kill(os.getpid(), signal.SIGINT)


def work(payload, report):
    """payload is (name of a function below, its argument)."""
    name, argument = payload
    return globals()[name](argument, report)


def facts(argument, report):
    return {"pid": os.getpid(), "argument": argument, "interrupts": signal.getsignal(signal.SIGINT)}


def environment(names, report):
    return {name: os.environ.get(name) for name in names}


def talk(argument, report):
    for value in argument:
        report(value)
    return "said"


def die(argument, report):
    """Killed from outside as often as `argument` says, then well."""
    path, times = Path(argument[0]), argument[1]
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


def die_whole(argument, report):
    """The same with the process that waits for this one."""
    path, times = Path(argument[0]), argument[1]
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= times:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


def fail(argument, report):
    raise ValueError(argument)


def refuse(argument, report):
    raise UserError(argument)


def sleep(argument, report):
    report(os.getpid())
    time.sleep(argument)


def unpicklable(argument, report):
    return lambda: None


def resume(argument, report):
    """Saves when it is told to end, as when it is moved; moved as often as `argument` says, it is
    done."""
    path, times = Path(argument[0]), argument[1]
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size > times:
        return "went on"

    def save(signum, frame):
        path.with_suffix(".saved").touch()
        os._exit(0)

    signal.signal(signal.SIGTERM, save)
    report([os.getpid(), os.getppid()])
    # In naps: a signal that comes between the interpreter's look and the system's sleep waits for
    # the end of the nap.
    for _ in range(12_000):
        time.sleep(0.05)
    return "was never moved"
