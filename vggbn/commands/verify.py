"""Check a claim with seeds of your own, against those of its committed reference.

    python -m vggbn verify BN-16

A claim with a small form: it is trained with new seeds from the system's entropy, in minutes, and
the mean of what they say lies inside the 95 % prediction interval of the reference under results/
(exit status 0) or outside (1). A claim that is computed is computed anew, one that is a test is
tested: it holds (0) or not (1). Of any other one sentence says why not (2).
"""

from __future__ import annotations

import argparse
import difflib
import math
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from vggbn.claims import results
from vggbn.claims.results import Line, Results
from vggbn.commands.experiment import refuse_mistakes
from vggbn.errors import Parser, UserError, exit_with
from vggbn.experiment import ledger, verified
from vggbn.experiment.checkout import ROOT, require_checkout
from vggbn.experiment.design import Claim, Experiment
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.missing import train_missing
from vggbn.experiment.plan import FRESH
from vggbn.experiment.small_form import (
    FEWEST,
    FIRST,
    SIZE,
    Comparison,
    SmallForm,
    compare,
    read_reference,
    small_form,
)
from vggbn.jobs import pool
from vggbn.machine import compiling, provenance
from vggbn.report.tables import number
from vggbn.report.words import counted
from vggbn.runs import loggers
from vggbn.runs import run as runs
from vggbn.runs.many import worker_setting

NEW_SEEDS = 3
LARGEST = 1_000_000_000  # of a new seed


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 inside, or it holds; 1 not; 2 a mistake of the user's."""
    compiling.tune_process()
    exit_with(lambda: run(_parser().parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """What `main` does, as a function: returns the exit status, raises UserError."""
    require_checkout("verify")
    _refuse_flags(args)
    found = find(" ".join(args.claim))
    if isinstance(found, tuple):
        form = small_form(*found)
        return make_reference(args, form) if args.reference else check(args, form)
    if args.record or args.reference or args.repeat:
        raise UserError(
            "nothing is trained for this claim: leave out --record, --repeat and so on."
        )
    return compute(found) if isinstance(found, ExactClaim) else run_test(found)


# --- which claim ---------------------------------------------------------------------------------


def find(name: str) -> str | ExactClaim | tuple[Claim, Experiment]:
    """What `name` names: a test, a claim that is computed, or one that runs judge.

    UserError: a claim that nothing checks, one of several parts, or none.
    """
    there: dict[str, str | ExactClaim | tuple[Claim, Experiment]] = dict(ledger.TESTS)
    for experiment in ledger.experiments():
        there |= {claim.id: claim for claim in ledger.computed(experiment)}
        if isinstance(experiment, Experiment):
            there |= {claim.id: (claim, experiment) for claim in experiment.claims}
    entries = ledger.entries()
    names = {each.casefold(): each for each in (*there, *entries)}
    known = names.get(name.casefold())
    if known is None:
        near = difflib.get_close_matches(name.casefold(), names, n=3, cutoff=0.5)
        hint = f" Near to it: {', '.join(names[each] for each in near)}." if near else ""
        raise UserError(f"there is no claim {name!r}.{hint} `make claims` lists all.")
    if known in there:
        return there[known]
    if parts := [each for each in there if ledger.base_id(each) == known]:
        raise UserError(f"{known} has parts: verify one of {', '.join(parts)}.")
    if known in ledger.NOT_ATTEMPTED:
        raise UserError(f"{known} is not attempted: {ledger.NOT_ATTEMPTED[known]}.")
    raise UserError(f"{known} cannot be verified: no experiment and no test is about it yet.")


def with_small_forms() -> list[str]:
    """The claims that are checked with new seeds."""
    trained = (each for each in ledger.experiments() if isinstance(each, Experiment))
    return [claim.id for each in trained for claim in each.claims if claim.effects]


# --- what needs no run ---------------------------------------------------------------------------


def compute(claim: ExactClaim) -> int:
    """Compute the claim anew: 0 if it holds, else 1."""
    print(f"{claim.id}: {claim.sentence}\n{claim.criterion}", flush=True)
    row = claim.judged()
    holds = row.verdict == "reproduced"
    print(f"{row.detail}\n{'holds' if holds else 'does not hold'}")
    return 0 if holds else 1


def run_test(where: str) -> int:
    """Run the one test that is the claim: 0 if it passes, 1 if not. UserError: it cannot be run."""
    if find_spec("pytest") is None:
        raise UserError(f"{where} needs pytest, which is not installed: `make install-dev`.")
    command = [sys.executable, "-m", "pytest", "-q", where]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status not in (0, 1):
        raise UserError(f"{where} could not be run: pytest says above why.")
    return status


# --- with new seeds ------------------------------------------------------------------------------


def check(args: argparse.Namespace, form: SmallForm) -> int:
    """Train the small form with new seeds, and say where they lie: 0 inside, 1 outside."""
    began, claim = time.perf_counter(), form.claim
    reference = read_reference(form)
    seeds = args.repeat or draw_seeds(args.seeds or NEW_SEEDS)
    print(f"{claim.id}: {claim.sentence}")
    print(f"trained: {', '.join(form.arms)} of {form.plan.experiment.name}, size {SIZE}")
    numbers = " ".join(map(str, seeds))
    again = f"python -m vggbn verify {claim.id} --repeat {numbers}"
    print(f"new seeds: {numbers} (again: {again})", flush=True)
    lines: list[Line] = []
    train(args, form, [(arm, seed) for seed in seeds for arm in form.arms], lines.append)
    new = form.plan.of_lines(lines, lines[-1]["setting"])
    _refuse_other_data(reference, new)
    parts = compare(form.effects(reference), form.effects(new))
    inside = all(part.inside for part in parts)
    print("\n".join(["", *map(describe, parts), ""]))
    print(f"{claim.id}: {where(inside)} what its reference lets one expect of {len(seeds)} seeds")
    if args.record:
        verified.append(record_of(form, seeds, parts, lines[-1]), verified.PATH)
    print(f"{counted(len(lines), 'run')} in {(time.perf_counter() - began) / 60:.1f} min")
    return 0 if inside else 1


def make_reference(args: argparse.Namespace, form: SmallForm) -> int:
    """Train what the claim's reference lacks, and append it."""
    setting = worker_setting(_engine(args))
    have = form.plan.of_lines(results.read(form.reference_path), setting)
    missing = have.missing(range(FIRST, FIRST + (args.seeds or FEWEST)))
    train(args, form, missing, partial(results.append, form.reference_path))
    read_reference(form)
    print(form.reference_path)
    return 0


def draw_seeds(count: int) -> list[int]:
    """New ones, from the system's entropy: nobody can have looked at them."""
    return secrets.SystemRandom().sample(range(FRESH + 1, LARGEST), count)


def train(
    args: argparse.Namespace,
    form: SmallForm,
    wanted: list[tuple[str, int]],
    add: Callable[[Line], None],
) -> None:
    """Train (or find) these (arm, seed) and hand each line to `add`. UserError: a run failed."""
    engine, store = _engine(args), runs.Store(args.out / "runs")
    refuse_mistakes(form.plan, store)
    setting, log = worker_setting(engine), loggers.Logs({})
    if failures := train_missing(form.plan, store, wanted, engine, setting, log, add):
        raise UserError(
            f"{counted(failures, 'run')} failed, so nothing is said of {form.claim.id}."
        )


def _engine(args: argparse.Namespace) -> pool.Engine:
    return pool.local(args.jobs or pool.default_workers())


def _refuse_other_data(reference: Results, new: Results) -> None:
    """UserError where the installed package embeds other images than the reference was made of."""
    theirs, ours = ({x["data"]["digest"] for x in found.lines()} for found in (reference, new))
    if theirs != ours:
        raise UserError("the images here are not those of the reference: nothing can be compared.")


# --- what is said --------------------------------------------------------------------------------


def where(inside: bool) -> str:
    """In one word."""
    return "inside" if inside else "outside"


def describe(part: Comparison) -> str:
    """What one part of the claim says in the reference, and in the new seeds."""
    new, level = len(part.values), f"{100 * part.level:.4g} %"
    if part.unit == "seeds":
        counts = f"in {part.expected:.0f} of {part.n} seeds of the reference, in {part.found:.0f} "
        text = f"{part.name}: {counts}of {new} new ones; {level} prediction interval "
        return f"{text}{part.low:.0f} to {part.high:.0f}: {where(part.inside)}"
    expected, found, low, high, *each = (
        number_text(value, part.unit)
        for value in (part.expected, part.found, part.low, part.high, *part.values)
    )
    unit = "" if part.unit == "ratio" else f", {part.unit}"
    return (
        f"{part.name}{unit}: {expected} in {part.n} seeds of the reference, {found} in {new} new "
        f"ones ({', '.join(each)}); {level} prediction interval {low} to {high}: "
        f"{where(part.inside)}"
    )


def number_text(value: float, unit: str) -> str:
    """A number of an effect, of a ratio as a ratio."""
    if unit == "ratio":
        return f"{number(math.exp(value), '.3g')}×"
    return number(value, "+.2f" if unit == "points" else "+.3g")


def record_of(
    form: SmallForm, seeds: Sequence[int], parts: Sequence[Comparison], line: Line
) -> dict:
    """The line of this check; line: the last of its runs."""
    return {
        "claim": form.claim.id,
        "experiment": form.plan.experiment.name,
        "ids": form.ids(),
        "seeds": list(seeds),
        "inside": all(part.inside for part in parts),
        "parts": [part._asdict() for part in parts],
        "setting": provenance.machine(line["setting"]),
        "versions": line["versions"],
        "commit": line["commit"],
        "finished": line["finished"],
    }


# --- the command line ----------------------------------------------------------------------------


def _refuse_flags(args: argparse.Namespace) -> None:
    """UserError for numbers that cannot be, and for flags that exclude one another."""
    if not args.claim:
        names = ", ".join(with_small_forms())
        raise UserError(f"say which claim: {names} have a small form; `make claims` lists all.")
    fewest = FEWEST if args.reference else 1
    if args.seeds is not None and args.seeds < fewest:
        raise UserError(f"--seeds must be {fewest} or more, not {args.seeds}.")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, not {args.jobs}.")
    old = [seed for seed in args.repeat if not FRESH < seed < LARGEST]
    if old or len(set(args.repeat)) < len(args.repeat):
        raise UserError(
            f"--repeat takes new seeds, each once, above {FRESH:,}, as verify says them."
        )
    if args.record and args.repeat:
        raise UserError("--record counts seeds that nobody has seen: leave out --repeat.")
    if args.reference and (args.record or args.repeat):
        raise UserError("--reference trains the reference's own seeds: leave out the other flags.")


def _parser() -> Parser:
    parser = Parser(prog="python -m vggbn verify", description=__doc__)
    add, default = parser.add_argument, "(default: %(default)s)"
    counts = f"{NEW_SEEDS}; of the reference: {FEWEST}"
    add("claim", nargs="*", help="as `make claims` has it, such as BN-16")
    add("--seeds", type=int, metavar="N", help=f"number of seeds (default: new ones {counts})")
    add("--repeat", type=int, nargs="+", default=[], metavar="SEED", help="these seeds again")
    add("--record", action="store_true", help="add a line to results/verified.jsonl")
    add("--reference", action="store_true", help="train what the committed reference lacks")
    add("--out", type=Path, default=Path("out"), help=f"folder of trained runs {default}")
    add("--jobs", type=int, help="runs at once (default: one a core)")
    return parser
