"""What experiments' tables say of their arms, and the judges that most claims share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

from vggbn.claims.images import paired_images
from vggbn.claims.looks import LEVEL
from vggbn.claims.parts import Part, part_level, whole
from vggbn.claims.results import MissingRuns, Results
from vggbn.claims.stats import Interval, fisher, interval_p, paired_interval, verdict, wilson
from vggbn.experiment.design import Verdict
from vggbn.experiment.gate import untrained
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


def gap(
    results: Results, better: str, worse: str, *, seeds: Sequence[int] | None = None
) -> list[float]:
    """By how many points of test accuracy `better` is ahead of `worse`, seed by seed.

    seeds: these (None: all that both have).
    """
    seeds = results.seeds(better, worse) if seeds is None else seeds
    a, b = (results.final(name) for name in (better, worse))
    return [100 * (a[seed] - b[seed]) for seed in seeds]


def verdict_interval(differences: ArrayLike, parts: int = 1) -> Interval:
    """The interval that a verdict rests on: at the level of one of several looks, and of one of
    `parts` statements of a claim."""
    return paired_interval(differences, part_level(LEVEL, parts))


def verdict_on(parts: Sequence[Part], unit: str = "points", words: str = "") -> Verdict:
    """What follows for a claim that says all of its parts; the first that stands in its way is
    shown, the others are named in the detail. Its p is that of the part which is least certain."""
    outcome = whole([part.verdict for part in parts])
    shown = next((p for p in parts if p.verdict != "reproduced"), parts[0])
    units = [unit if part.unit is None else part.unit for part in parts]
    texts = [words] if words else []
    if len(parts) > 1 or not words:
        texts += [
            part.text("+.2f" if own == "points" else ".3g")
            for part, own in zip(parts, units, strict=True)
        ]
    p = [
        interval_p(part.interval, own) if math.isnan(part.p) else part.p
        for part, own in zip(parts, units, strict=True)
    ]
    own = units[parts.index(shown)]
    return Verdict(outcome, shown.interval, own, "; ".join(texts), float(np.max(p)))


def verdict_on_failures(results: Results, worse: Sequence[str], better: Sequence[str]) -> Verdict:
    """Whether the arms `worse` stay at chance more often than each of the arms `better`.

    By Fisher's one-sided test: a mean of nets that fail and nets that do not says little.

    Shown is the share of seeds in which some arm of `worse` fails.
    """
    seeds = results.seeds(*worse, *better)
    n = len(seeds)
    fails = {
        arm: [untrained(results.runs[arm][seed]) for seed in seeds] for arm in (*worse, *better)
    }
    lost = sum(any(fails[arm][i] for arm in worse) for i in range(n))
    p = max(fisher(lost, sum(fails[arm]), n) for arm in better)
    outcome = "reproduced" if p < 1 - LEVEL else "inconclusive"
    if seldom(lost, n):
        outcome = "contradicted"
    counts = ", ".join(f"{arm} {sum(of_arm)} of {n}" for arm, of_arm in fails.items())
    detail = f"untrained: {counts}; Fisher p = {p:.2g}"
    return Verdict(outcome, wilson(lost, n, LEVEL), "share of seeds", detail, p)


def seldom(failures: int, n: int) -> bool:
    """Whether such nets fail in fewer than half of all seeds, as far as n tell; five cannot."""
    return wilson(failures, n, LEVEL).high < 0.5


def judge_gaps(
    pairs: Sequence[tuple[str, str]],
    trained: Collection[str] = (),
    *,
    margin: float,
    equal: bool = False,
) -> Callable[[Results], Verdict]:
    """The judge of "each first arm is better than its second": each pair is a part of the claim.

    trained: nets behind the arms, which must have left chance too. equal: the claim is that there
    is no difference.
    """

    def judge(results: Results) -> Verdict:
        if not pairs:  # the user asked for other arms only
            raise MissingRuns("none of its arms is in this plan")
        results.asked.update(trained)
        parts = []
        for a, b in pairs:
            interval = verdict_interval(gap(results, a, b), len(pairs))
            found = verdict(interval, margin=margin, equivalence=equal)
            parts.append(Part(f"{a} − {b}", interval, found))
        return verdict_on(parts)

    return judge


def judge_images(
    pairs: Sequence[tuple[str, str]], *, margin: float
) -> Callable[[Results], Verdict]:
    """The judge of "each first view is better than its second", as `judge_gaps`: the trained net is
    what is repeated. What the images say of these very nets is told beside it, and decides nothing.
    """

    def judge(results: Results) -> Verdict:
        found = judge_gaps(pairs, margin=margin)(results)
        pooled = {pair: _pooled(results, *pair) for pair in pairs}
        texts = [
            f"{a} − {b} {i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}], McNemar p = {p:.2g}"
            for (a, b), (i, p) in pooled.items()
        ]
        words = f"{found.detail}; image by image, for these nets: {'; '.join(texts)}"
        return found._replace(detail=words)

    return judge


def _pooled(results: Results, a: str, b: str) -> tuple[Interval, float]:
    """Interval in points and p over the images of all seeds: of the first seed that tests each
    image, where seeds share their test images."""
    lines = {
        results.runs[a][seed]["data"]["digest"]: (results.runs[a][seed], results.runs[b][seed])
        for seed in reversed(results.seeds(a, b))
    }
    ours, theirs = (np.concatenate([correct(pair[i]) for pair in lines.values()]) for i in (0, 1))
    interval, p = paired_images(ours, theirs)
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    return Interval(mean, low, high, interval.n), p
