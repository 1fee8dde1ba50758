"""What experiments' tables say of their arms, and the judges that most claims share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vggbn.claims.images import paired_images
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Interval, paired_interval, verdict, weakest
from vggbn.experiment.design import Verdict
from vggbn.experiment.views import correct
from vggbn.report import Table


def errors(results: Results, name: str, score: str = "accuracy") -> list[float]:
    """100 less a test score in %, by seed."""
    return [100 * (1 - value) for value in results.final(name, f"test_{score}").values()]


def error_text(results: Results, name: str, score: str = "accuracy") -> str:
    """Mean test error in % with half its 95 % interval, or a dash where there are no runs."""
    return mean_text(errors(results, name, score) if results.runs.get(name) else [])


def accuracy_text(results: Results, name: str, score: str = "test_accuracy") -> str:
    """Mean of a final score in % with half its 95 % interval, or a dash where there are no runs.

    A run that diverged has no score: how many did is said.
    """
    scores, lost = results.final(name, score), diverged(results, name)
    text = mean_text([100 * value for seed, value in scores.items() if seed not in lost])
    return f"{text} ({len(lost)} of {len(scores)} diverged)" if lost else text


def diverged(results: Results, name: str) -> set[int]:
    """The seeds of an arm whose loss did not stay finite."""
    runs = results.runs.get(name, {})
    return {seed for seed, line in runs.items() if line.get("diverged_at") is not None}


def mean_text(values: Sequence[float]) -> str:
    """The mean over seeds with half its 95 % interval, where it has one; a dash without values."""
    if not values:
        return "–"
    found = paired_interval(values)
    half = f" ± {found.high - found.mean:.1f}" if math.isfinite(found.high) else ""
    return f"{found.mean:.1f}{half}"


def trained_text(results: Results, name: str) -> str:
    """How well the net fits its training images, and of how many seeds it never left chance."""
    runs = results.runs.get(name, {}).values()
    if not runs:
        return "–"
    fits = [100 * line["history"][-1]["train_accuracy"] for line in runs]
    lost = sum(untrained(line) for line in runs)
    text = f"{sum(fits) / len(fits):.1f}"
    return text + (f"; untrained: {lost} of {len(fits)} seeds" if lost else "")


def fit_table(results: Results, title: str, first: str, note: str) -> Table:
    """Each trained arm's fit of its training set and its test error; `first` heads the arms."""
    arms = [name for name in results.variants if results.runs.get(name)]
    rows = [(arm, trained_text(results, arm), error_text(results, arm)) for arm in arms]
    headers = (first, "training accuracy at the end (with dropout), %", "test error, %")
    return Table(headers, rows, title, note)


def untrained(line: Mapping[str, Any]) -> bool:
    """Whether a net never left chance: it diverged, or hardly beats the most common class."""
    fit = line["history"][-1]["train_accuracy"]
    return line["diverged_at"] is not None or not fit > 1.2 * line["data"]["majority"]


def gap(
    results: Results, better: str, worse: str, *, seeds: Sequence[int] | None = None
) -> list[float]:
    """By how many points of test accuracy `better` is ahead of `worse`, seed by seed.

    seeds: these (None: all that both have).
    """
    seeds = results.seeds(better, worse) if seeds is None else seeds
    a, b = (results.final(name) for name in (better, worse))
    return [100 * (a[seed] - b[seed]) for seed in seeds]


def judge_gaps(
    pairs: Sequence[tuple[str, str]],
    trained: Collection[str],
    *,
    margin: float,
    equal: bool = False,
) -> Callable[[Results], Verdict]:
    """The judge of "each first arm is better than its second": the least certain pair decides.

    trained: the nets behind the arms. One that never left chance makes the claim inconclusive.
    equal: the claim is that there is no difference.
    """

    def judge(results: Results) -> Verdict:
        if not pairs:  # the user asked for other arms only
            raise MissingRuns("none of its arms is in this plan")
        intervals = [paired_interval(gap(results, *pair)) for pair in pairs]
        found = [verdict(i, margin=margin, equivalence=equal) for i in intervals]
        worst = weakest(found)
        texts = [
            f"{a} − {b} {i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}]"
            for (a, b), i in zip(pairs, intervals, strict=True)
        ]
        lost = [name for name in trained if any(map(untrained, results.runs[name].values()))]
        if lost:
            texts.append(f"untrained: {', '.join(lost)}")
        outcome = "inconclusive" if lost else found[worst]
        return Verdict(outcome, intervals[worst], "points", "; ".join(texts))

    return judge


def judge_images(
    pairs: Sequence[tuple[str, str]], *, margin: float
) -> Callable[[Results], Verdict]:
    """The judge of "each first view is better than its second", image by image (McNemar).

    Only where each seed tests images of its own (folds): then all images of all seeds are one
    sample. Where seeds share their test images they are the sample, as in `judge_gaps`.
    """

    def judge(results: Results) -> Verdict:
        found = [_pooled(results, *pair) for pair in pairs]
        if not pairs or any(pooled is None for pooled in found):
            return judge_gaps(pairs, (), margin=margin)(results)
        intervals = [interval for interval, _ in found]  # pyright: ignore
        verdicts = [verdict(interval, margin=margin) for interval in intervals]
        worst = weakest(verdicts)
        texts = [
            f"{a} − {b} {i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}], McNemar p = {p:.2g}"
            for (a, b), (i, p) in zip(pairs, found, strict=True)  # pyright: ignore
        ]
        return Verdict(verdicts[worst], intervals[worst], "points", "; ".join(texts))

    return judge


def _pooled(results: Results, a: str, b: str) -> tuple[Interval, float] | None:
    """Interval in points and p over the images of all seeds; None if seeds share images."""
    seeds = results.seeds(a, b)
    lines = [(results.runs[a][seed], results.runs[b][seed]) for seed in seeds]
    if len({line["data"]["digest"] for line, _ in lines}) < len(seeds):
        return None
    ours, theirs = (np.concatenate([correct(pair[i]) for pair in lines]) for i in (0, 1))
    interval, p = paired_images(ours, theirs)
    return Interval(100 * interval.mean, 100 * interval.low, 100 * interval.high, interval.n), p
