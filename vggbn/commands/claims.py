"""Print the ledger: every claim of the three papers, and what this project knows of it.

    python -m vggbn claims

A claim of docs/papers.md is *exact* (a named test, or a computation), *measured* (a simulation, the
clock), judged from paired seeds, *planned*, or *not attempted*. The exit status is 1 if one says
more than its results do.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from vggbn.claims import looks
from vggbn.claims.stats import PUBLISHED_SEEDS, Judgement, holm, p_value
from vggbn.commands.publish import is_stale, published_reports
from vggbn.errors import Parser, exit_with
from vggbn.experiment.checkout import ROOT, require_checkout
from vggbn.experiment.design import Experiment
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.experiment.find import experiment_names, find_experiment
from vggbn.report.tables import effect_text

CLAIMS = ROOT / "docs" / "papers.md"

# Exact claims that are tests and no experiment.
TESTS = {
    "BN-1": "tests/nn/test_norm.py::test_normalised_activations_have_mean_0_and_variance_1",
    "BN-2": "tests/nn/test_norm.py::test_gradients_equal_finite_differences_and_autodiff",
    "BN-3": "tests/nn/test_norm.py::test_scale_and_shift_can_recover_the_identity",
    "BN-6": "tests/nn/test_norm.py::test_conv_bn_is_dense_bn_on_the_reshaped_array",
    "BN-7": "tests/nn/test_norm.py::test_a_bias_before_bn_does_nothing",
    "V-11": "tests/evaluate/test_dense.py::test_on_an_image_of_the_crop_s_size_dense_is_the_net",
    "V-15": "tests/machine/test_mesh.py::test_fifty_steps_in_float64_are_the_same_on_eight_devices",
}
NOT_ATTEMPTED = {
    "BN-31": "needs ImageNet and weeks of a GPU",
    "V-16": "needs four GPUs of 2014, or as many of today's",
    "V-25": "need ImageNet, PASCAL VOC and Caltech",
    "G-20": "need ImageNet and its detection set",
}


@dataclass(frozen=True)
class Row:
    """One line of the ledger: a claim, or one of its parts."""

    id: str
    sentence: str
    state: str
    where: str
    judgement: Judgement | None = None
    data: str = ""
    is_primary: bool = False


@dataclass(frozen=True)
class Found:
    """A judged claim of the published results, and on which data."""

    judgement: Judgement
    data: str
    where: str


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Print the ledger and exit: 0, or 1 where a claim says more than its results."""
    parser = Parser(prog="python -m vggbn claims", description=__doc__)
    exit_with(lambda: run(parser.parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """What `main` does, as a function."""
    require_checkout("claims")
    judged = published()
    rows = ledger(judged)
    print(text(rows))
    faults = find_faults(rows, judged)
    for fault in faults:
        print(f"fault: {fault}")
    return 1 if faults else 0


# --- what there is -------------------------------------------------------------------------------


def entries() -> dict[str, str]:
    """{id: sentence} of all claims, in the papers' order."""
    lines = CLAIMS.read_text(encoding="utf-8").splitlines()
    found = (re.fullmatch(r"\| ((?:BN|V|G)-\d+) \| (.*) \| .* \|", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def experiments() -> list[Experiment | ExactExperiment]:
    """Those of experiments/, in the order of their names."""
    return [find_experiment(name) for name in experiment_names()]


def computed(experiment: Experiment | ExactExperiment) -> tuple[ExactClaim, ...]:
    """The claims that need no run."""
    if isinstance(experiment, ExactExperiment):
        return experiment.claims
    return experiment.exact


def published() -> dict[str, list[Found]]:
    """{claim: what the committed results say of it, by data set}."""
    found: dict[str, list[Found]] = {}
    for report in published_reports():
        for judgement in report.judgements:
            if not judgement.exact:
                one = Found(judgement, report.data, report.source)
                found.setdefault(judgement.claim, []).append(one)
    return found


def base_id(claim: str) -> str:
    """BN-25 of "BN-25 decay"."""
    return claim.split()[0]


# --- the rows ------------------------------------------------------------------------------------


def ledger(judged: dict[str, list[Found]]) -> list[Row]:
    """A row for each claim, several where an experiment judges its parts."""
    every, rows = experiments(), []
    for claim, sentence in entries().items():
        parts = [
            *(_computed(one, e) for e in every for one in computed(e) if base_id(one.id) == claim),
            *(
                _judge(one, e, judged.get(one.id, []))
                for e in every
                if isinstance(e, Experiment)
                for one in e.claims
                if base_id(one.id) == claim
            ),
        ]
        if claim in TESTS:
            parts.insert(0, Row(claim, sentence, "exact", TESTS[claim]))
        if claim in NOT_ATTEMPTED:
            parts.append(Row(claim, sentence, "not attempted", NOT_ATTEMPTED[claim]))
        rows += parts or [Row(claim, sentence, "planned", "")]
    return rows


def _computed(claim: ExactClaim, experiment) -> Row:
    judgement = claim.judged()
    state = "measured" if claim.measured else "exact"
    state = state if judgement.verdict == "reproduced" else "contradicted"
    where = f"python -m experiments.{experiment.name}"
    return Row(claim.id, claim.sentence, state, where, judgement)


def _judge(claim, experiment: Experiment, found: list[Found]) -> Row:
    """By the primary data alone: another set confirms, it is no second chance."""
    command = f"python -m experiments.{experiment.name}"
    own = [one for one in found if one.data == claim.primary]
    if not own:
        others = ", ".join(f"{one.data}: {one.judgement.verdict}" for one in found)
        where = f"{command} --size full" + (f" (so far {others})" if others else "")
        return Row(
            claim.id, claim.sentence, "planned", where,
            data=claim.primary, is_primary=claim.is_primary,
        )  # fmt: skip
    return Row(
        claim.id, claim.sentence, own[0].judgement.verdict, own[0].where, own[0].judgement,
        claim.primary, claim.is_primary,
    )  # fmt: skip


# --- the page ------------------------------------------------------------------------------------


def text(rows: Sequence[Row]) -> str:
    """The table, the count of each state, and what chance alone would give."""
    adjusted = adjusted_p(rows)
    lines = [("claim", "", "state", "n", "effect [interval]", "p (Holm)", "data", "where")]
    for row in rows:
        judged = row.judgement is not None and not row.judgement.exact
        lines.append(
            (
                row.id,
                "P" if row.is_primary else "",
                row.state,
                str(row.judgement.n) if judged else "",  # pyright: ignore
                effect_text(row.judgement) if judged else "",  # pyright: ignore
                f"{adjusted[row.id]:.2g}" if row.id in adjusted else "",
                row.data,
                row.where,
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*table, "", *_summary(rows)])


def _summary(rows: Sequence[Row]) -> list[str]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    judged = [row for row in rows if row.judgement and row.judgement.n]
    primary = sum(row.is_primary for row in rows)
    claims = len({base_id(row.id) for row in rows})
    return [
        f"{claims} claims, {len(rows)} rows: " + ", ".join(f"{n} {s}" for s, n in counts.items()),
        f"{len(judged)} rows have an interval, each at {100 * looks.LEVEL:.1f} % for one of three "
        f"looks (n = {', '.join(map(str, looks.LOOKS))}): of the secondary ones some are wrong by "
        f"chance. p, of the {primary} primary claims (P): of no effect at all, adjusted for the "
        "looks and by Holm's method for all primary claims.",
    ]


def adjusted_p(rows: Iterable[Row]) -> dict[str, float]:
    """{claim: p} of the primary claims that were judged (what is not tested has none): adjusted
    for the looks, and by Holm's method for the number of all primary ones."""
    judged = [row for row in rows if row.is_primary and row.judgement and row.state != "not tested"]
    found = {row.id: p_value(row.judgement) for row in judged if row.judgement}
    p = {claim: looks.adjusted(value) for claim, value in found.items() if math.isfinite(value)}
    return holm(p, sum(row.is_primary for row in rows))


# --- does a claim say more than its results? -----------------------------------------------------


def find_faults(rows: Sequence[Row], judged: dict[str, list[Found]]) -> list[str]:
    """What is wrong with the ledger, a sentence each."""
    faults = [f"{row.id} is computed and does not hold" for row in rows if _fails(row)]
    faults += [f"{row.id}: there is no {row.where}" for row in rows if _lost(row)]
    for row in rows:
        j = row.judgement
        undecided = ("inconclusive", "not tested")
        if j and not j.exact and j.n < PUBLISHED_SEEDS and j.verdict not in undecided:
            faults.append(f"{row.id} is called {j.verdict} on {j.n} seeds")
    known = entries()
    faults += [
        f"{claim} is no claim of {CLAIMS.name}" for claim in judged if _unknown(claim, known)
    ]
    if is_stale():
        faults.append("RESULTS.md is not what results/ says: run `make report`")
    return faults


def _fails(row: Row) -> bool:
    return bool(row.judgement and row.judgement.exact and row.judgement.verdict != "reproduced")


def _lost(row: Row) -> bool:
    """Whether the row names a test that is not there."""
    if row.state != "exact" or "::" not in row.where:
        return False
    file, name = row.where.split("::")
    path = ROOT / file
    return not path.exists() or f"def {name}(" not in path.read_text(encoding="utf-8")


def _unknown(claim: str, known: dict[str, str]) -> bool:
    """Whether a claim that is named like a paper's is none of them."""
    return bool(re.match(r"(BN|V|G)-\d", claim)) and base_id(claim) not in known
