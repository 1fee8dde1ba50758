"""What an experiment is: a baseline, the edits that make its variants, the claims to be judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Interval, Judgement
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.views import View
from vggbn.report import Chart, Table
from vggbn.training.recipe import Recipe

Verdict = tuple[str, Interval, str, str]  # (verdict, interval, its unit, one line of detail)


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper and the rule that judges it, both fixed before its results exist.

    primary is the data set whose verdict counts; `judge` may raise MissingRuns.
    """

    id: str
    sentence: str
    criterion: str
    paper: str
    primary: str
    judge: Callable[[Results], Verdict]

    def judged(self, results: Results) -> Judgement:
        """The claim's row in the verdict table."""
        try:
            verdict, interval, unit, detail = self.judge(results)
        except MissingRuns as missing:
            verdict, unit, detail = "inconclusive", "", f"not judged: {missing}"
            interval = Interval(math.nan, math.nan, math.nan, 0)
        return Judgement(
            claim=self.id,
            sentence=self.sentence,
            criterion=self.criterion,
            paper=self.paper,
            verdict=verdict,
            n=interval.n,
            effect=interval.mean,
            low=interval.low,
            high=interval.high,
            unit=unit,
            detail=detail,
            primary=self.primary,
        )


@dataclass(frozen=True)
class Size:
    """How much of the experiment is run: edits of BASE, seeds 0 … n-1, the arms (None: all).

    tuned holds what the sweep chose: edits of BASE ("lr", "init") and "bn_lr". Arms outside
    `core` (None: there are none) get the edits `others`, unless the user edits the same field, and
    run last; the sweep's runs have `sweep_steps` and `sweep_seeds` (None: as all), and `finalists`
    of each arm's rates a second round at the arms' own length (0: no such round). The size
    "full-cifar10" replaces "full" on cifar10.
    """

    seeds: int
    edits: Mapping[str, Any]
    tuned: Mapping[str, Any]
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

    variants(base, tuned) -> {name: recipe}; `baseline` names the one that all others are edits of
    and whose best accuracy is the target of the table of steps. views(variants) are the ways to
    test them, arms that are not trained; `sweep` may be the name of the experiment whose sweep
    chose the rates; tables and charts are laid out as the paper's. any_images:
    the edits of the baseline for a data set that has no size of its own. gallery: show what the
    last arm's first seed sees of some images. exact: claims that need no run.
    """

    name: str
    title: str
    question: str
    base: Recipe
    baseline: str
    variants: Callable[[Recipe, Mapping[str, Any]], dict[str, Recipe]]
    claims: tuple[Claim, ...]
    sizes: Mapping[str, Size]
    panels: Mapping[str, tuple[str, ...]]
    sweep: Sweep | str
    notes: tuple[str, ...] = ()
    views: Callable[[Mapping[str, Recipe]], dict[str, View]] = lambda variants: {}
    tables: Callable[[Results], list[Table]] = lambda results: []
    charts: Callable[[Results], dict[str, Chart]] = lambda results: {}
    any_images: Mapping[str, Any] = field(default_factory=lambda: ANY_IMAGES)
    gallery: bool = False
    exact: tuple[ExactClaim, ...] = ()
