"""The ledger: every claim of the three papers, and what this project knows of it, as rows.

A claim of docs/papers.md is *exact* (a named test, or a computation), *measured* (a simulation, the
clock), judged from paired seeds, *planned*, or *not attempted*. Where the papers contradict
themselves (I-1 and so on) is a row too, exact where it can be computed, else *noted*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from vggbn.claims.stats import Judgement
from vggbn.experiment.checkout import ROOT
from vggbn.experiment.design import Claim, Experiment
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.experiment.find import experiment_names, find_experiment
from vggbn.report import Report

CLAIMS = ROOT / "docs" / "papers.md"
# Its headings for what is no claim of a paper.
LATER = "Later questions"
CONTRADICTIONS = "Where the papers contradict themselves"

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

# The row of a computed claim, of this experiment; None: it is not computed here.
Compute = Callable[[ExactClaim, Experiment | ExactExperiment], Judgement | None]


class Entry(NamedTuple):
    """A claim as docs/papers.md has it.

    place: in the paper, or its figure; asked: the question that people have of it, if any; paper:
    the heading that it stands under.
    """

    id: str
    sentence: str
    place: str
    asked: str
    paper: str


@dataclass(frozen=True)
class Row:
    """One line of the ledger: a claim, or one of its parts.

    where: the test, the results, or why it is not attempted; experiment: the one that has it; also:
    what other data, or other sizes, say of it; verified: how many checks with new seeds lay inside
    their prediction interval, such as "2 of 3".
    """

    id: str
    sentence: str
    state: str
    where: str
    judgement: Judgement | None = None
    data: str = ""
    is_primary: bool = False
    experiment: str = ""
    also: Sequence[Found] = ()
    verified: str = ""

    @property
    def why(self) -> str:
        """Why it is not tested; empty of any other."""
        return self.judgement.detail if self.judgement and self.state == "not tested" else ""


@dataclass(frozen=True)
class Found:
    """A judged claim of the published results, and on which data."""

    judgement: Judgement
    data: str
    where: str


def entries() -> dict[str, Entry]:
    """{id: entry} of all claims, in the papers' order."""
    found: dict[str, Entry] = {}
    paper = ""
    for line in CLAIMS.read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            paper = line.removeprefix("### ")
        if match := re.fullmatch(r"\| ((?:BN|V|G|I)-\d+) \| (.*) \| (.*) \| (.*)\|", line):
            sentence = re.sub(r" \(exact.*\)$|: not attempted$", "", match[2])  # the state says so
            found[match[1]] = Entry(match[1], sentence, match[3], match[4].strip(), paper)
    return found


def experiments() -> list[Experiment | ExactExperiment]:
    """Those of experiments/, in the order of their names."""
    return [find_experiment(name) for name in experiment_names()]


def computed(experiment: Experiment | ExactExperiment) -> tuple[ExactClaim, ...]:
    """The claims that need no run."""
    if isinstance(experiment, ExactExperiment):
        return experiment.claims
    return experiment.exact


def judged(reports: Iterable[Report]) -> dict[str, list[Found]]:
    """{claim: what the published results say of it, by data set}."""
    found: dict[str, list[Found]] = {}
    for report in reports:
        for judgement in report.judgements:
            if not judgement.exact:
                one = Found(judgement, report.data, report.source)
                found.setdefault(judgement.claim, []).append(one)
    return found


def base_id(claim: str) -> str:
    """BN-25 of "BN-25 decay"."""
    return claim.split()[0]


def ledger(
    found: Mapping[str, Sequence[Found]], compute: Compute, verified: Mapping[str, str]
) -> list[Row]:
    """A row for each claim, several where an experiment judges its parts.

    verified: {claim: how many checks lay inside}, which stands beside and decides nothing.
    """
    every, rows = experiments(), []
    for claim, entry in entries().items():
        parts = [
            *(
                _computed(one, e, compute(one, e))
                for e in every
                for one in computed(e)
                if base_id(one.id) == claim
            ),
            *(
                _judge(one, e, found.get(one.id, []))
                for e in every
                if isinstance(e, Experiment)
                for one in e.claims
                if base_id(one.id) == claim
            ),
        ]
        if claim in TESTS:
            parts.insert(0, Row(claim, entry.sentence, "exact", TESTS[claim]))
        if claim in NOT_ATTEMPTED:
            parts.append(Row(claim, entry.sentence, "not attempted", NOT_ATTEMPTED[claim]))
        left = "noted" if entry.paper == CONTRADICTIONS else "planned"
        rows += parts or [Row(claim, entry.sentence, left, "")]
    return [replace(row, verified=verified.get(row.id, "")) for row in rows]


def _computed(
    claim: ExactClaim, experiment: Experiment | ExactExperiment, judgement: Judgement | None
) -> Row:
    state = "measured" if claim.measured else "exact"
    if judgement is None:
        state = "planned"
    elif judgement.verdict != "reproduced":
        state = "contradicted"
    where = f"python -m experiments.{experiment.name}"
    return Row(claim.id, claim.sentence, state, where, judgement, experiment=experiment.name)


def _judge(claim: Claim, experiment: Experiment, found: Sequence[Found]) -> Row:
    """By the primary data alone: another set confirms, it is no second chance."""
    command = f"python -m experiments.{experiment.name}"
    own = sorted((one for one in found if one.data == claim.primary), key=_is_not_tested)
    also = [one for one in found if one not in own[:1] and one.judgement.n > 0]
    also = [one for one in also if not _is_not_tested(one)]
    if not own:
        others = ", ".join(f"{one.data}: {one.judgement.verdict}" for one in found)
        where = f"{command} --size full" + (f" (so far {others})" if others else "")
        return Row(
            claim.id, claim.sentence, "planned", where,
            data=claim.primary, is_primary=claim.is_primary, experiment=experiment.name, also=also,
        )  # fmt: skip
    return Row(
        claim.id, claim.sentence, own[0].judgement.verdict, own[0].where, own[0].judgement,
        claim.primary, claim.is_primary, experiment.name, also,
    )  # fmt: skip


def _is_not_tested(found: Found) -> bool:
    return found.judgement.verdict == "not tested"
