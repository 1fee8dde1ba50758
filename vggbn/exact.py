"""Claims that need no run: they are computed, and hold or do not. Their experiments' command line.

One file in `experiments/` hands an ExactExperiment to `main`, as others hand an Experiment to the
runner: it prints the verdicts and writes <out>/<name>/report.html.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbn.errors import Parser, UserError, exit_with
from vggbn.pool import FLOAT32
from vggbn.provenance import commit, device, versions
from vggbn.report import Picture, Report, verdict_table, write_html
from vggbn.stats import Judgement

DRAWS = 12


@dataclass(frozen=True)
class ExactClaim:
    """A sentence of a paper and the computation that decides it: check() -> (it holds, detail).

    measured: by simulation or by the clock, not by a computation that always gives the same.
    """

    id: str
    sentence: str
    criterion: str
    paper: str
    check: Callable[[], tuple[bool, str]]
    measured: bool = False

    def judged(self) -> Judgement:
        """The claim's row in the verdict table, computed now, on a GPU or TPU too in float32."""
        import jax

        with jax.default_matmul_precision(FLOAT32["JAX_DEFAULT_MATMUL_PRECISION"]):
            return self.row(*self.check())

    def row(self, holds: bool, detail: str) -> Judgement:
        """The claim's row in the verdict table, from what `check` said."""
        return Judgement(
            claim=self.id,
            sentence=self.sentence,
            criterion=self.criterion,
            paper=self.paper,
            verdict="reproduced" if holds else "contradicted",
            n=0,
            effect=math.nan,
            low=math.nan,
            high=math.nan,
            detail=detail,
            exact=True,
            measured=self.measured,
        )


def write_computed(path: Path, judgements: Sequence[Judgement]) -> None:
    """Keep what was computed: a published page quotes it, and measures nothing anew."""
    found = {j.claim: {"holds": j.verdict == "reproduced", "detail": j.detail} for j in judgements}
    record = {"claims": found, "hardware": device(), "versions": versions(), "commit": commit()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_computed(path: Path, claims: Sequence[ExactClaim]) -> list[Judgement]:
    """The rows of the claims that `write_computed` kept; none if there is no file."""
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return [claim.row(**kept[claim.id]) for claim in claims if claim.id in kept]


@dataclass(frozen=True)
class ExactExperiment:
    """What one file of `experiments/` hands to `main`.

    pictures(draws) -> the report's pictures, each of a mean over so many random draws.
    """

    name: str
    title: str
    question: str
    claims: tuple[ExactClaim, ...]
    pictures: Callable[[int], Sequence[Picture]] = lambda draws: ()
    notes: tuple[str, ...] = ()


def main(experiment: ExactExperiment, argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 all claims hold, 1 one fails, 2 a mistake of the user's."""
    args = sys.argv[1:] if argv is None else argv
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
    print(verdict_table(report.judgements))
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
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the report")
    parser.add_argument("--draws", type=int, default=DRAWS, help="random draws behind each picture")
    return parser
