"""The command line of claims that are computed.

One file in `experiments/` hands an ExactExperiment to `main`, as others hand an Experiment to the
runner: it prints the verdicts and writes <out>/<name>/report.html, and beside it computed.json,
which a published page quotes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vggbn.errors import Parser, UserError, exit_with
from vggbn.experiment.exact import ExactExperiment, write_computed
from vggbn.machine import compiling
from vggbn.machine.provenance import commit, device, versions
from vggbn.report import Report, terminal, verdict_table, write_html

DRAWS = 12


def main(experiment: ExactExperiment, argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all claims hold, 1 one fails, 2 a mistake of the user's."""
    args = sys.argv[1:] if argv is None else argv
    compiling.tune_process()
    exit_with(lambda: run(experiment, args))


def run(experiment: ExactExperiment, argv: Sequence[str]) -> int:
    """What `main` does, as a function: returns the exit status, raises UserError."""
    args = _parser(experiment).parse_args(argv)
    if args.draws < 1:
        raise UserError(f"--draws must be 1 or more, not {args.draws}.")
    path = args.out / experiment.name / "report.html"
    _refuse_out(args.out, path.parent)
    report = build_report(experiment, args.draws)
    write_html(path, report)
    write_computed(path.with_name("computed.json"), report.judgements)
    columns, colour = terminal.width(), terminal.has_colour()
    print(verdict_table(report.judgements, columns, colour=colour))
    found = [f"{j.claim}: {j.detail}" for j in report.judgements if j.detail]
    print("\n" + "\n".join(found + [f"{p.title}: {p.note}" for p in report.pictures]))
    print(f"\n{path}   {report.facts['time']}")
    return 0 if all(j.verdict == "reproduced" for j in report.judgements) else 1


def build_report(experiment: ExactExperiment, draws: int) -> Report:
    """Judge every claim and draw every picture."""
    began = time.perf_counter()
    judgements = [claim.judged() for claim in experiment.claims]
    pictures = experiment.pictures(draws)
    return Report(
        title=experiment.title,
        question=experiment.question,
        baseline_name="",
        baseline={},
        variants={},
        judgements=judgements,
        notes=experiment.notes,
        pictures=pictures,
        facts={
            "random draws": str(draws),
            "time": f"{time.perf_counter() - began:.0f} s",
            "hardware": device(),
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
            "commit": commit() or "?",
        },
        command=f"python -m experiments.{experiment.name}",
        newest=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def _refuse_out(out: Path, folder: Path) -> None:
    """UserError, before anything is computed, for an --out that cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be written ({error.strerror}): name another folder."
        ) from None


def _parser(experiment: ExactExperiment) -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m experiments.{experiment.name}",
        description=f"{experiment.title}. {experiment.question}",
        formatter_class=argparse.HelpFormatter,
        allow_abbrev=False,
    )
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--out", type=Path, default=Path("out"), help=f"folder of the report {default}")
    add("--draws", type=int, default=DRAWS, help=f"random draws behind each picture {default}")
    return parser
