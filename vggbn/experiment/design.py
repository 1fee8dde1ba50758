"""What an experiment is: a baseline, the edits that make its variants, the claims to be judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vggbn.claims.results import MissingRuns, NotTested, Results
from vggbn.claims.stats import Interval, Judgement
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.gate import TRAINED_NETS, Gate
from vggbn.experiment.views import View
from vggbn.report import Chart, Effects, Table
from vggbn.training.recipe import Recipe


class Verdict(NamedTuple):
    """What a judge says: a verdict of VERDICTS, the interval it rests on, and in which unit.

    unit: "points", "ratio" or any other word; detail: one line more for the table; p: of the test
    that judged, where it is not the interval's.
    """

    verdict: str
    interval: Interval
    unit: str
    detail: str = ""
    p: float = math.nan


class Effect(NamedTuple):
    """What each seed says of a claim, or of one of its parts: the numbers that its judge takes.

    unit: as a verdict's; of a "ratio" the numbers are logarithms, of "seeds" they say whether the
    seed shows it.
    """

    name: str
    by_seed: Mapping[int, float]
    unit: str = "points"

    @property
    def values(self) -> list[float]:
        """Without the seeds."""
        return list(self.by_seed.values())


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence and the rule that judges it, both fixed before its results exist.

    id: a paper's, such as BN-15, as docs/papers.md has it, or one of your own. paper: what the
    paper found; primary: the data set whose verdict counts ("": any). `judge` may raise
    MissingRuns, or NotTested where some sizes of the experiment cannot decide the claim.
    is_primary: one of the few claims that the suite is judged by; the others are secondary, and of
    their many intervals some are wrong by chance. gate: what must be true of the runs, or nothing
    is decided. not_tested: why this protocol cannot decide the claim, which then has no judge.
    effects: what each seed says, an effect for each part of the claim, where `verify` may compare
    new seeds of the size `small` with those of a committed reference.
    """

    id: str
    sentence: str
    criterion: str = ""
    judge: Callable[[Results], Verdict] | None = None
    paper: str = ""
    primary: str = ""
    is_primary: bool = False
    gate: Gate = TRAINED_NETS
    not_tested: str = ""
    effects: Callable[[Results], list[Effect]] | None = None

    def judged(
        self, results: Results, baseline: str, at_edge: Mapping[str, float] | None = None
    ) -> Judgement:
        """The claim's row in the verdict table; `baseline` is the arm whose training has to be
        over, at_edge: {arm: rate} of those whose search for rates ended at an edge."""
        found = self._found(results.for_verdict(), baseline, at_edge)
        return Judgement(
            claim=self.id,
            sentence=self.sentence,
            criterion=self.criterion,
            paper=self.paper,
            verdict=found.verdict,
            n=found.interval.n,
            effect=found.interval.mean,
            low=found.interval.low,
            high=found.interval.high,
            unit=found.unit,
            detail=found.detail,
            primary=self.primary,
            level=found.interval.level,
            is_primary=self.is_primary,
            p=found.p,
        )

    def _found(
        self, results: Results, baseline: str, at_edge: Mapping[str, float] | None
    ) -> Verdict:
        if self.judge is None:
            return Verdict("not tested", NO_INTERVAL, "", self.not_tested)
        try:
            found = self.judge(results)
        except NotTested as reason:
            return Verdict("not tested", NO_INTERVAL, "", str(reason))
        except MissingRuns as missing:
            return Verdict("inconclusive", NO_INTERVAL, "", f"not judged: {missing}")
        if refusal := self.gate.refusal(results, baseline, at_edge):
            return found._replace(verdict="not tested", detail=f"{refusal}; {found.detail}")
        return found


NO_INTERVAL = Interval(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Tuned:
    """What a sweep chose: edits of the baseline, and of the arms that have a choice of their own.

    arms: {any name that `variants` looks up: edits of a recipe}.
    """

    base: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run: edits of BASE, so many seeds, the arms (None: all).

    first_seed: the seeds before it are a pilot's, and no verdict rests on them. target: the
    validation accuracy that speeds are measured to, such as 98 % of the mean best of a pilot's
    baseline (None: the mean best of the baseline's other seeds). tuned: what the sweep chose at
    this size; options: what else `variants` asks of a size. Arms outside `core` (None: there are
    none) get the edits `others`, unless the user edits the same field, and run last; the sweep's
    runs have `sweep_steps` and `sweep_seeds` (None: as all), and `finalists` of each arm's rates a
    second round at the arms' own length (0: no such round). The size "full-cifar10" replaces "full"
    on cifar10.
    """

    seeds: int
    edits: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = 0
    target: float | None = None
    tuned: Tuned = Tuned()
    options: Mapping[str, Any] = field(default_factory=dict)
    arms: tuple[str, ...] | None = None
    core: tuple[str, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    sweep_steps: int | None = None
    sweep_seeds: int | None = None
    finalists: int = 0

    def is_core(self, arm: str) -> bool:
        """Whether the arm runs with the first ones, for as long as they."""
        return self.core is None or arm in self.core


@dataclass(frozen=True)
class Sweep:
    """The search that the learning rates come from: every arm × every rate × every seed.

    The best rate of an arm has the highest mean of the best smoothed validation accuracy.
    """

    arms: Mapping[str, Mapping[str, Any]]
    rates: tuple[float, ...]
    seeds: int


# The embedded sets have their own sizes; any other is shrunk to CIFAR's.
ANY_IMAGES = {"image_size": 32, "fit": "resize"}


@dataclass(frozen=True)
class Experiment:
    """What one file of `experiments/` hands to the runner.

    variants(base, size) -> {name: recipe}, the first of which is the baseline, whose best accuracy
    is the target of the table of steps, unless `baseline` names another. panels: {title: the arms
    whose curves share a picture}, {}: one of all. sweep: the search that chose the rates, the name
    of the experiment whose search it was, or None: nobody searched. views(variants) are the ways to
    test them, arms that are not trained; tables and charts are laid out as the paper's.
    any_images: the edits of the baseline for a data set that has no size of its own. gallery: show
    what the last arm's first seed sees of some images. exact: claims that need no run. opening: the
    arms of the picture that the report opens with, six at most; (): the first panel's.
    """

    name: str
    title: str
    question: str
    base: Recipe
    variants: Callable[[Recipe, Size], dict[str, Recipe]]
    sizes: Mapping[str, Size]
    claims: tuple[Claim, ...] = ()
    baseline: str | None = None
    panels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sweep: Sweep | str | None = None
    notes: tuple[str, ...] = ()
    views: Callable[[Mapping[str, Recipe]], dict[str, View]] = lambda variants: {}
    tables: Callable[[Results], list[Table]] = lambda results: []
    charts: Callable[[Results], Mapping[str, Chart | Effects]] = lambda results: {}
    any_images: Mapping[str, Any] = field(default_factory=lambda: ANY_IMAGES)
    gallery: bool = False
    exact: tuple[ExactClaim, ...] = ()
    opening: tuple[str, ...] = ()
