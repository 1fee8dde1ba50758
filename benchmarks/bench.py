"""`make bench`: whole training steps of this suite, stock Flax Linen and PyTorch, in turns.

Times hold for this machine under its load of the moment; ratios travel. PyTorch takes part where it
is installed (pip install torch); nothing else here needs it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import CASES, CONTESTANTS, Case
from benchmarks.measure import ROOT, Mode, differences, race
from benchmarks.table import COLUMNS, RESULTS, cells, mode, ratios
from vggbn.claims import results
from vggbn.errors import Parser, UserError, unknown
from vggbn.machine import provenance

ON_CPU = ["linen", "vggbn", "torch", "torch-channels-last", "torch-bf16"]
ROW = "{:20s}{:>10s}{:>18s}{:>7s}{:>8s}{:>10s}"
ON_GPU = [name for name in CONTESTANTS if name != "torch"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a contestant failed, 2 a mistake of the user's."""
    try:
        sys.exit(run(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. Finished nets are kept.", file=sys.stderr)
        sys.exit(130)


def run(argv: Sequence[str]) -> int:
    """What `main` does, as a function: returns the exit status, raises UserError."""
    args = parser().parse_args(argv)
    refuse_mistakes(args)
    backend, device = found_device()
    names = contestants(args, backend)
    head = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "device": device,
        "backend": backend,
        "load": round(os.getloadavg()[0], 2),
        "versions": versions(),
    }
    print(", ".join([device, f"{args.threads} threads", *map(" ".join, head["versions"].items())]))
    if head["load"] > 0.5:
        print(
            f"WARNING: the load is {head['load']}. Beside other work PyTorch's threads wait "
            "up to a hundred times longer for one another: measure on a quiet machine."
        )
    status = 0
    for net in args.nets:
        case = replace(CASES[net], batch=args.batch or CASES[net].batch)
        for how in modes(args, case, backend):
            where = {"net": net, "title": case.title, **how._asdict(), **asdict(case)}
            status |= contest(args, case, names, head | where, how)
    return status


def contest(args, case: Case, names: list[str], head: dict, how: Mode) -> int:
    """Race, print, append; 1 if a contestant failed or is another net."""
    print(f"\n{head['title']}: {mode(head)}", flush=True)
    device = "cpu" if head["backend"] == "cpu" else "cuda"
    measured, failures = race(
        case,
        names,
        device=device,
        mode=how,
        rounds=args.rounds,
        seconds=args.seconds,
        say=live,
    )
    live("")
    lines = [head | record for record in measured]
    for row in (COLUMNS, *map(cells, lines)):
        print(ROW.format(*row))
    for text in ratios(lines):
        print(text)
    for name, reason in failures.items():
        print(f"{name} left out: {reason}")
    faults = differences(measured, device)
    for fault in faults:
        print(f"NOT THE SAME NET, not recorded: {fault}")
    if not faults:
        for line in lines:
            results.append(args.results, line)
    return int(bool(faults or failures))


def live(text: str) -> None:
    """What goes on, in a line of a terminal that the next one overwrites."""
    if sys.stderr.isatty():
        print(f"\r{text:60s}\r", end="", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add, cores = parser.add_argument, os.cpu_count() or 1
    add("--nets", nargs="+", default=list(CASES), metavar="NET", help=f"of {', '.join(CASES)}")
    add("--only", nargs="+", metavar="NAME", help=f"of {', '.join(CONTESTANTS)}")
    add("--compile", action="store_true", help="torch.compile too (on a GPU it always takes part)")
    add("--threads", type=int, default=cores, help="cores to use, in either mode")
    add(
        "--per-core",
        action=argparse.BooleanOptionalAction,
        help="one single-thread process a core on all sides, or one process with all threads "
        "(default: both for the narrow nets, the latter for the others)",
    )
    add("--batch", type=int, help="another batch size (default: each net's own)")
    add("--rounds", type=int, default=5, help="turns of each contestant")
    add("--seconds", type=float, default=2.0, help="about the length of a turn")
    add("--results", type=Path, default=RESULTS, help="file the result lines are appended to")
    return parser


def refuse_mistakes(args) -> None:
    """UserError, before anything is run, for a name or number that cannot be used."""
    for kind, names, valid in (("net", args.nets, CASES), ("contestant", args.only, CONTESTANTS)):
        for name in names or ():
            if name not in valid:
                raise unknown(kind, name, valid)
    for flag in ("threads", "batch", "rounds", "seconds"):
        value = getattr(args, flag)
        if value is not None and not value > 0:
            raise UserError(f"--{flag} must be positive, not {value}.")
    if args.threads > (os.cpu_count() or 1):
        raise UserError(f"--threads {args.threads} is more than this machine's {os.cpu_count()}.")


def found_device() -> tuple[str, str]:
    """(jax's backend, the device's name), asked in a process that then gives the device back."""
    code = "import jax; from vggbn.machine import provenance as p; "
    code += "print(jax.default_backend(), p.device(), sep='\\n')"
    child = [sys.executable, "-c", code]
    backend, device = subprocess.run(
        child, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-2:]
    if backend not in ("cpu", "gpu"):
        raise UserError(f"the benchmark runs on CPU and GPU, not on {backend}.")
    return backend, device


def contestants(args, backend: str) -> list[str]:
    """Who takes part; says so if PyTorch cannot."""
    names = args.only or (ON_GPU if backend == "gpu" else ON_CPU)
    if args.compile and "torch-compile" not in names:
        names = [*names, "torch-compile"]
    if find_spec("torch"):
        return names
    here = [name for name in names if CONTESTANTS[name].side != "torch"]
    if not here:
        raise UserError("PyTorch is not installed: pip install torch, or name others with --only.")
    if len(here) < len(names):
        print("PyTorch is not installed: left out.")
    return here


def modes(args, case: Case, backend: str) -> list[Mode]:
    """The ways to use the cores for this net."""
    together, apart = Mode(1, args.threads), Mode(args.threads, 1)
    if backend == "gpu":
        if args.per_core:
            raise UserError("--per-core shares out CPU cores; this jax runs on a GPU.")
        return [together]
    if args.per_core is not None:
        return [apart if args.per_core else together]
    return [together, apart] if case.width < 1 and args.threads > 1 else [together]


def versions() -> dict[str, str]:
    """Of Python and the frameworks."""
    found = provenance.versions()
    return found | ({"torch": importlib.metadata.version("torch")} if find_spec("torch") else {})


if __name__ == "__main__":
    main()
