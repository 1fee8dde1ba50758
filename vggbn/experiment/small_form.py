"""The small form of a claim: what trains in minutes, and the reference that it is held against.

It is the experiment's size `small`, on data that an installed package embeds. Its reference lies in
results/<experiment>/small-<data>/reference.jsonl, seeds of its own that enter no verdict. New seeds
have to lie where the reference's say they should, not where the claim does: what is checked is
that the published numbers come again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from vggbn.claims import results
from vggbn.claims.parts import part_level
from vggbn.claims.prediction import LEVEL, prediction_counts, prediction_interval
from vggbn.claims.results import MissingRuns, Results, newest_setting
from vggbn.errors import UserError
from vggbn.experiment.checkout import PUBLISHED
from vggbn.experiment.design import Claim, Effect, Experiment
from vggbn.experiment.plan import Plan, make_plan, read_sweep
from vggbn.experiment.rates import arms_at_edge
from vggbn.experiment.rehearsal import make_up

SIZE = "small"
FIRST = 1_000  # seed of a reference: beyond any verdict's
FEWEST = 10  # seeds of a reference


class SmallForm(NamedTuple):
    """A claim and the plan of what is trained for it.

    arms: those that its effects are made of; the plan has the baseline too, which the claim's gate
    looks at.
    """

    claim: Claim
    plan: Plan
    arms: tuple[str, ...]

    @property
    def reference_path(self) -> Path:
        return self.plan.folder / "reference.jsonl"

    def ids(self) -> dict[str, str]:
        """{arm: id of its recipe}: what a check of other recipes has not in common with this."""
        return {arm: self.plan.variants[arm].id for arm in self.arms}

    def effects(self, found: Results) -> list[Effect]:
        """What each seed says of the claim."""
        assert self.claim.effects is not None, "small_form saw to it"
        return self.claim.effects(found)


def small_form(claim: Claim, experiment: Experiment, folder: Path = PUBLISHED) -> SmallForm:
    """The claim's small form, with its reference under `folder`. UserError: it has none."""
    if claim.not_tested:
        raise UserError(f"{claim.id} is not tested: {claim.not_tested}")
    if claim.effects is None:
        raise UserError(
            f"{claim.id} has no small form that trains in minutes: `make claims` says what is "
            f"known of it, and `python -m experiments.{experiment.name} --size full` judges it."
        )
    whole = make_plan(experiment, SIZE, out=folder)
    seen = make_up(whole).for_verdict()
    claim.effects(seen)
    arms = tuple(arm for arm in whole.variants if arm in seen.asked)
    assert len(arms) == len(seen.asked), f"{claim.id} asks for views, which are not trained here"
    only = [arm for arm in whole.variants if arm in arms or arm == whole.baseline]
    plan = make_plan(experiment, SIZE, out=folder, only=only)
    return SmallForm(claim, plan._replace(views={}), arms)


def read_reference(form: SmallForm) -> Results:
    """The committed runs of the small form, of today's code. UserError: they are none, too few, or
    could not decide the claim."""
    lines, name = results.read(form.reference_path), form.claim.id
    found = form.plan.of_lines(lines, newest_setting(lines) or {})
    have = _seeds_of(form, found)
    if have < FEWEST:
        other = found.left_out["of other code"]
        why = f", and {other} lines are of other code than today's" if other else ""
        raise UserError(
            f"the reference of {name} has {have} of {FEWEST} seeds{why}: "
            f"`python -m vggbn verify {name} --reference` trains what is missing."
        )
    edges = arms_at_edge(form.plan, read_sweep(form.plan))
    if refusal := form.claim.gate.refusal(found, form.plan.baseline, edges):
        raise UserError(
            f"{name} cannot be verified, for its small form decides nothing: {refusal}."
        )
    return found


def _seeds_of(form: SmallForm, found: Results) -> int:
    """How many seeds have every arm of the form."""
    try:
        return min(len(effect.by_seed) for effect in form.effects(found))
    except MissingRuns:
        return 0


class Comparison(NamedTuple):
    """One part of a claim: what new seeds say, and what the reference lets one expect.

    expected: of n seeds of the reference; low and high: of the prediction interval at the level;
    found: of the new seeds. All are means over seeds, of a ratio of logarithms, or the number of
    seeds that show it. values: of the new seeds.
    """

    name: str
    unit: str
    expected: float
    n: int
    low: float
    high: float
    level: float
    found: float
    values: Sequence[float]

    @property
    def inside(self) -> bool:
        """Whether the new seeds say what the reference does, as far as they can tell."""
        return self.low <= self.found <= self.high


def compare(reference: Sequence[Effect], new: Sequence[Effect]) -> list[Comparison]:
    """Each part of a claim by an interval of its own; all of them together keep LEVEL."""
    level = part_level(LEVEL, len(reference))
    return [_compare(a, b, level) for a, b in zip(reference, new, strict=True)]


def _compare(reference: Effect, new: Effect, level: float) -> Comparison:
    name, unit, values, n = new.name, new.unit, new.values, len(reference.by_seed)
    if unit == "seeds":
        shown = sum(map(bool, reference.values))
        counts = prediction_counts(shown, n, len(values), level)
        found = sum(map(bool, values))
        return Comparison(name, unit, shown, n, counts[0], counts[-1], level, found, values)
    interval = prediction_interval(reference.values, len(values), level)
    bounds = interval.low, interval.high, level
    return Comparison(name, unit, interval.mean, n, *bounds, fmean(values), values)
