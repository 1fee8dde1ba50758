"""The records a report is made of: plain numbers and text by variant and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vggbn.claims.stats import PUBLISHED_SEEDS, Judgement, StepsReached

OK = "ok"  # the status of a run that finished


@dataclass(frozen=True)
class Curve:
    """Validation accuracy (fractions of 1) of one variant: steps (t,), and by seed up to t values.

    A run that stopped early has fewer values, or NaN from there on.
    """

    steps: Sequence[int]
    values_by_seed: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Table:
    """Column headers and rows of cells, all plain text; a table of an experiment's own has a title
    and perhaps a note."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Lines over a number: series name -> x -> values over seeds. range: of the y axis."""

    x: str
    y: str
    series: Mapping[str, Mapping[float, Sequence[float]]]
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """A drawing, as the <svg> element that `svg.render` makes, with its title and what it shows.

    legend: words -> the number of the series that is drawn in that colour and dash.
    """

    title: str
    drawing: str
    note: str
    legend: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything one experiment has to say.

    Keys are variant names unless said otherwise, inner keys are seeds; accuracies are fractions
    of 1. Variants and seeds may be missing anywhere: what is there is shown, with its n.

    baseline_name: the variant all others are edits of, and the denominator of the table of steps.
    variants: for each variant its edits, field -> (old value, new value).
    panels: panel title -> the variants drawn together in it.
    statuses: "ok", or what happened instead, such as "diverged at step 40".
    to_target: (steps, reached) of each run; an unreached target stands at the budget.
    targets: for each seed the accuracy to reach.
    sweep: arm -> learning rate -> accuracies over seeds, NaN for a run that diverged.
    tables, charts (title -> chart): the experiment's own, laid out as the paper's.
    reading: what we make of published results, in words: paragraphs.
    data, source: the data set's name and the file of the results, for the ledger.
    facts: versions, hardware, digests, wall time and the like, in the order to show them.
    pictures: drawings of what is no learning curve, for the page only.
    opening: the arms of the picture that the page opens with.
    command, newest: what made the results, and the day of the newest of them ("": not known).
    """

    title: str
    question: str
    baseline_name: str
    baseline: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, tuple[Any, Any]]]
    judgements: Sequence[Judgement] = ()
    notes: Sequence[str] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    panels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    finals: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    statuses: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    end_lr: Mapping[str, float] = field(default_factory=dict)
    to_target: Mapping[str, Mapping[int, StepsReached]] = field(default_factory=dict)
    targets: Mapping[int, float] = field(default_factory=dict)
    sweep: Mapping[str, Mapping[float, Sequence[float]]] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    charts: Mapping[str, Chart] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    reading: Sequence[str] = ()
    data: str = ""
    source: str = ""
    opening: Sequence[str] = ()
    command: str = ""
    newest: str = ""

    @property
    def n(self) -> int:
        """The fewest seeds behind any judged claim; without one, behind any final accuracy."""
        judged = [j.n for j in self.judgements if j.n]
        return min(judged or [len(seeds) for seeds in self.finals.values() if seeds], default=0)

    @property
    def provisional(self) -> bool:
        """Whether some verdict rests on fewer seeds than a published one needs."""
        return self.n < PUBLISHED_SEEDS and not self.exact

    @property
    def exact(self) -> bool:
        """Whether every claim was computed, and none rests on seeds."""
        return bool(self.judgements) and all(j.exact for j in self.judgements)


def finished(report: Report, variant: str) -> dict[int, float]:
    """The final accuracies, by seed, of the runs of a variant that finished with a finite one."""
    statuses = report.statuses.get(variant, {})
    return {
        seed: value
        for seed, value in sorted(report.finals.get(variant, {}).items())
        if statuses.get(seed, OK) == OK and math.isfinite(value)
    }


def mishaps(report: Report, variant: str) -> dict[int, str]:
    """By seed, what kept the runs of a variant from finishing."""
    statuses = report.statuses.get(variant, {})
    return {seed: status for seed, status in sorted(statuses.items()) if status != OK}
