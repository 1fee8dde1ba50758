"""What the claims still ask for: blocks of runs, in the order of what they would decide.

A *question* is a claim on one data set; a *block* is what it needs of one seed: the arms that its
judge asks for (as found on made-up results) and the baseline that its gate looks at. Looks come
when 5, 10 and 20 seeds are there (R11), so a question is asked in parts, each up to its next look.
First come the primary claims on their primary data, then the others, then what other data say;
among equals those whose next look is an earlier one, then those that are nearer to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vggbn.claims.looks import LOOKS
from vggbn.claims.results import Results
from vggbn.experiment import rehearsal
from vggbn.experiment.design import Claim, Experiment
from vggbn.experiment.plan import Plan, data_label
from vggbn.experiment.views import View

SIZE = "full"  # the size whose results are published for a claim's verdict


class Question(NamedTuple):
    """A claim of a plan: `arms` are what its judge and its gate ask for, views among them;
    is_verdict: whether the plan's data are those whose verdict counts."""

    plan: Plan
    claim: Claim
    arms: tuple[str, ...]
    is_verdict: bool

    @property
    def name(self) -> str:
        return (
            f"{self.claim.id} of {self.plan.experiment.name} on {data_label(self.plan.base.data)}"
        )


class Block(NamedTuple):
    """What a question still needs of a seed: arms to be trained, and views to be computed."""

    question: Question
    seed: int
    arms: tuple[str, ...]
    views: tuple[str, ...]


def data_sets(experiment: Experiment) -> list[str]:
    """The data that its claims are judged on, then those for which it has a size of their own."""
    primary = [_primary(claim, experiment) for claim in experiment.claims if claim.judge]
    prefix = f"{SIZE}-"
    sizes = [name.removeprefix(prefix) for name in experiment.sizes if name.startswith(prefix)]
    return list(dict.fromkeys([*primary, *sizes]))


def _primary(claim: Claim, experiment: Experiment) -> str:
    """The data whose verdict counts."""
    return claim.primary or experiment.sizes[SIZE].edits.get("data", experiment.base.data)


def questions(plan: Plan) -> list[Question]:
    """The claims of a plan that more of its runs can decide."""
    made_up, found = rehearsal.make_up(plan), []
    for claim in plan.experiment.claims:
        if arms := _asked(plan, claim, made_up):
            is_verdict = _primary(claim, plan.experiment) == plan.base.data
            found.append(Question(plan, claim, arms, is_verdict))
    return found


def _asked(plan: Plan, claim: Claim, made_up: Results) -> tuple[str, ...]:
    """The arms that the judge asks for; none without a judge, or if it cannot judge this plan."""
    seen = made_up.for_verdict()
    if claim.judge is None or not rehearsal.can_judge(claim, seen):
        return ()
    views: Iterable[View] = (plan.views[name] for name in seen.asked if name in plan.views)
    nets = {look.net for view in views for look in view.looks}
    needed = seen.asked | nets | {plan.baseline}
    return tuple(name for name in made_up.variants if name in needed)


def blocks(every: Iterable[Question], found: Mapping[Path, Results]) -> list[Block]:
    """All that is missing, what comes first first; found: by the folder of a question's plan."""
    asked: set[tuple[Path, str, int]] = set()
    parts = [part for question in every for part in _parts(question, found[question.plan.folder])]
    ordered = []
    for _, question, seeds in sorted(parts, key=lambda part: part[0]):
        folder = question.plan.folder
        for seed in seeds:
            lacking = found[folder].lacking(question.arms, seed)
            new = [name for name in lacking if (folder, name, seed) not in asked]
            asked |= {(folder, name, seed) for name in new}
            arms = tuple(name for name in new if name in question.plan.variants)
            views = tuple(name for name in new if name in question.plan.views)
            if new:
                ordered.append(Block(question, seed, arms, views))
    return ordered


def _parts(question: Question, found: Results) -> Iterator[tuple[tuple, Question, list[int]]]:
    """(what it is ordered by, the question, its missing seeds up to one look), look by look."""
    before: list[int] = []
    for look, seeds in enumerate(looks(question.plan)):
        missing = [s for s in seeds if s not in before and found.lacking(question.arms, s)]
        before = seeds
        if missing:
            work = sum(images(question, seed, found) for seed in missing)
            first = not question.is_verdict, not question.claim.is_primary
            yield (*first, look, work, question.name), question, missing


def looks(plan: Plan) -> list[list[int]]:
    """The seeds of each look that the plan comes to, the last one all of them."""
    seeds = list(plan.seeds)
    return [seeds[:n] for n in LOOKS if n < len(seeds)] + [seeds]


def seeds_done(question: Question, found: Results) -> int:
    """How many seeds have all that the question asks for."""
    return sum(not found.lacking(question.arms, seed) for seed in question.plan.seeds)


def images(question: Question, seed: int, found: Results) -> int:
    """Training images that a seed of it still costs."""
    recipes = question.plan.variants
    missing = [recipes[n] for n in found.lacking(question.arms, seed) if n in recipes]
    return sum(recipe.steps * recipe.batch for recipe in missing)
