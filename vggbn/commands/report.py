"""Write the page of an experiment's results, report.html, from its result lines.

    python -m vggbn report EXPERIMENT [--size SIZE] [--data DATA] [--results DIR]

The page lies beside the lines; nothing is trained. Without --size and --data: a page for each size
and data set that has results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vggbn.claims import results
from vggbn.errors import Parser, UserError, exit_with, unknown
from vggbn.experiment.checkout import PUBLISHED, require_checkout
from vggbn.experiment.design import Experiment
from vggbn.experiment.find import find_experiment
from vggbn.experiment.plan import data_label, size_names
from vggbn.experiment.published import published_report
from vggbn.report import write_html


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Write the pages, print their names and exit: 0, or 2 after a mistake of the user's."""
    exit_with(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m vggbn report", description=__doc__)
    parser.add_argument("experiment", metavar="EXPERIMENT", help="its name, such as bn_ablation")
    parser.add_argument("--size", help="of this size only, such as full")
    parser.add_argument("--data", help="of this data set only, such as cifar10 or folder:PATH")
    parser.add_argument(
        "--results", type=Path, metavar="DIR",
        help="where results lie, such as the --out of an experiment (default: the published ones)",
    )  # fmt: skip
    return parser


def _run(args: argparse.Namespace) -> None:
    experiment = find_experiment(args.experiment)
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{experiment.name} has no result lines, for it is computed anew each time: "
            f"python -m experiments.{experiment.name} writes its page."
        )
    if args.size is not None and args.size not in size_names(experiment):
        raise unknown("size", args.size, size_names(experiment))
    if args.results is None:
        require_checkout("a report without --results")
    for path in _chosen(experiment, args.results or PUBLISHED, args.size, args.data):
        page = path.with_name("report.html")
        write_html(page, published_report(path))
        print(page)


def _chosen(experiment: Experiment, root: Path, size: str | None, data: str | None) -> list[Path]:
    """The files of result lines. UserError: there is none, or none of that size and data."""
    files = sorted((root / experiment.name).glob("*/results.jsonl"))
    found = {path: lines[-1] for path in files if (lines := results.read(path))}
    chosen = [
        path
        for path, line in found.items()
        if size in (None, line["size"])
        and (data is None or data_label(data) == data_label(line["data"]["name"]))
    ]
    if not chosen:
        there = ", ".join(path.parent.name for path in found) or "none"
        raise UserError(
            f"no such results of {experiment.name} in {root}; there are: {there}. "
            f"python -m experiments.{experiment.name} makes them."
        )
    return chosen
