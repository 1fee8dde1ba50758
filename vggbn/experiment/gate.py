"""What must be true of the runs before a claim may be judged: nets that did not train decide
nothing, whatever their numbers say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vggbn.claims.looks import judged_seeds
from vggbn.claims.results import Line, Results
from vggbn.claims.stats import smoothed

SETTLED = 0.5  # points of validation accuracy that the last tenth of the budget may still bring
FITS = 0.9  # of the training images, in evaluation mode
LEARNED = 1.2  # times the share of the most common class
SPENT = 1e-2  # of what the baseline's schedule leaves of the rate at its end


@dataclass(frozen=True)
class Gate:
    """The conditions of one claim; those that it does not need are switched off, with a reason.

    trained: no net that its judge asks for stayed at chance. settled: the baseline has come to the
    end of its learning. fits: it fits its training images, which what one says of regularisation
    takes for granted. tuned: no rate lies at the edge of the grid that it was chosen from. That an
    arm has a budget that its schedule fits is asked of all.
    """

    trained: bool = True
    settled: bool = True
    fits: bool = False
    tuned: bool = True

    def refusal(
        self, results: Results, baseline: str, at_edge: Mapping[str, float] | None = None
    ) -> str:
        """Why nothing is decided; empty where the runs may decide.

        results: as the judge saw them, with the arms that it asked for. at_edge: {arm: rate} of
        those whose rate is the best of a grid that ends with it (R9).
        """
        if self.trained and (lost := _untrained_arms(results)):
            return f"untrained: {', '.join(lost)}"
        if short := _arms_without_a_budget(results, baseline):
            return f"{', '.join(short)}: the rate falls too far for the steps of {baseline}"
        if self.settled and not (gain := last_gain(results, baseline)) <= SETTLED:
            if math.isnan(gain):
                return f"{baseline} has no learning curve that shows its end"
            return f"{baseline} still gains {gain:.1f} points in the last tenth of its budget"
        if self.fits and not (fit := training_fit(results, baseline)) >= FITS:
            return f"{baseline} fits only {100 * fit:.0f} % of its training images"
        edges = {arm: rate for arm, rate in (at_edge or {}).items() if arm in results.asked}
        if self.tuned and edges:
            rates = ", ".join(f"{rate:g} of {arm}" for arm, rate in edges.items())
            return f"the best rate lies at the edge of those that were tried: {rates}"
        return ""


TRAINED_NETS = Gate()
# For claims about nets that fail; about targets that the baseline has reached; about what is
# computed from any net, and ways of testing one net; about nets before training; and about
# regularisation.
FOR_FAILURES = Gate(trained=False, settled=False)
FOR_SPEEDS = Gate(settled=False)
FOR_ANY_NET = Gate(settled=False, tuned=False)
FOR_STARTS = Gate(trained=False, settled=False, tuned=False)
FOR_FITTED_NETS = Gate(fits=True)


def untrained(line: Mapping[str, Any]) -> bool:
    """Whether a net never left chance: it diverged, or hardly beats the most common class.

    Of a view, which has no history, its test accuracy tells.
    """
    if line.get("diverged_at") is not None:
        return True
    if "history" in line:
        accuracy = line["history"][-1]["train_accuracy"]
    else:
        accuracy = line["final"]["test_accuracy"]
    return not accuracy > LEARNED * line["data"].get("majority", 1 / line["data"]["classes"])


def last_gain(results: Results, arm: str) -> float:
    """By how many points of validation accuracy the last tenth of its budget raised an arm: mean
    over the seeds that are judged, of the smoothed curve. NaN without runs."""
    gains = []
    for line in _judged(results, arm):
        steps, values = results.curve(arm, line["seed"])
        curve = smoothed(values)
        before = np.flatnonzero(np.asarray(steps) <= 0.9 * (steps[-1] if steps else 0))
        if before.size:
            gains.append(100 * (curve[-1] - curve[before[-1]]))
    return float(np.mean(gains)) if gains else float("nan")


def training_fit(results: Results, arm: str) -> float:
    """Accuracy on the training images after training, mean over the seeds that are judged: in
    evaluation mode where a run recorded it, else the mean of its last steps. NaN without runs."""
    fits = [
        line["final"].get("train_accuracy") or line["history"][-1]["train_accuracy"]
        for line in _judged(results, arm)
        if line["history"]
    ]
    return float(np.mean(fits)) if fits else float("nan")


def _untrained_arms(results: Results) -> list[str]:
    """The arms that were asked for of which some judged seed never left chance."""
    return [
        name
        for name in results.variants
        if name in results.asked and any(map(untrained, _judged(results, name)))
    ]


def _rate_left(recipe: Mapping[str, Any]) -> float | None:
    """What share of its first rate an exponential schedule ends with; None of any other."""
    if recipe.get("schedule") != "exponential":
        return None
    return recipe["lr_factor"] ** (recipe["steps"] / recipe["lr_every"])


def _arms_without_a_budget(results: Results, baseline: str) -> list[str]:
    """The arms that were asked for whose rate is spent where the baseline's is not (R8): six times
    the decay in as many steps leaves a millionth of the rate."""
    left = {
        name: _rate_left(next(iter(runs.values())).get("recipe", {}))  # a view has none
        for name, runs in results.runs.items()
        if runs
    }
    bar = left.get(baseline)
    if bar is None:
        return []
    asked = [name for name in results.variants if name in results.asked]
    return [name for name in asked if (own := left.get(name)) is not None and own < SPENT * bar]


def _judged(results: Results, arm: str) -> list[Line]:
    """The runs of an arm that a verdict may rest on: a seed between two looks waits."""
    runs = results.runs.get(arm, {})
    return [runs[seed] for seed in judged_seeds(list(runs))]
