"""Paired intervals, steps to a target, and verdicts, as functions of plain numbers.

A comparison is a list of differences (treated minus baseline, one for each seed both arms share),
its interval is Student's t over those differences, and its verdict follows from the interval alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from vggbn.errors import UserError, unknown

# "not tested": this protocol cannot decide it, and says why.
VERDICTS = ("reproduced", "partly", "no effect", "contradicted", "inconclusive", "not tested")
PUBLISHED_SEEDS = 5  # fewer paired seeds than this make a verdict provisional

StepsReached = tuple[float, bool]  # (steps, whether the target was reached within the budget)


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its bounds at a confidence level; a side that is not known is
    infinite."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95


@dataclass(frozen=True)
class Judgement:
    """One claim with what was found: a row of the verdict table.

    `effect`, `low` and `high` are in `unit`, as they are to be shown: "points" (percentage points
    of accuracy), "ratio", or "" for anything else. A claim without any data has n = 0 and NaN for
    all three. `primary` is the data set named as primary for this claim before the run. An `exact`
    claim is computed: it has a verdict, and no seeds or interval; `measured` if by simulation or by
    the clock. level: of the interval, which is the one that the verdict rests on. is_primary: one
    of the few claims whose p are adjusted for their number. p: of a test that is not the
    interval's; NaN where it is.
    """

    claim: str
    sentence: str
    criterion: str
    paper: str
    verdict: str
    n: int
    effect: float
    low: float
    high: float
    unit: str = ""
    detail: str = ""
    primary: str = ""
    exact: bool = False
    measured: bool = False
    level: float = 0.95
    is_primary: bool = False
    p: float = math.nan

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise unknown("verdict", self.verdict, VERDICTS)

    @property
    def provisional(self) -> bool:
        """Whether too few seeds stand behind the verdict to publish it."""
        return 0 < self.n < PUBLISHED_SEEDS


def paired_interval(differences: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of paired differences, shape (n,).

    One difference has no spread to judge by, so its bounds are infinite. Nor have two equal ones:
    accuracies are counts of few images, and two counts are equal by chance too often. Three or
    more give an interval of width zero. No values at all, or one that is not finite: UserError.
    """
    values = _finite(differences, "an interval over seeds")
    check_level(level)
    mean, n = float(values.mean()), values.size
    if n == 1 or (n == 2 and values[0] == values[1]):
        return Interval(mean, -math.inf, math.inf, n, level)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, level)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, for claims such as "diverges in most seeds"."""
    if not (n > 0 and 0 <= successes <= n):
        raise UserError(
            f"A proportion needs 0 <= successes <= n and n > 0, not {successes} of {n}."
        )
    check_level(level)
    from scipy.stats import norm

    share, z2_n = successes / n, float(norm.ppf((1 + level) / 2)) ** 2 / n
    centre = (share + z2_n / 2) / (1 + z2_n)
    half = math.sqrt(z2_n * share * (1 - share) + z2_n**2 / 4) / (1 + z2_n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n, level)


def fisher(more: int, fewer: int, n: int) -> float:
    """Fisher's exact p, one-sided, of `more` failures in n runs against `fewer` in n others.

    Failures are counted apart from what the other runs reach: a mean over both says little.
    """
    if not (n > 0 and 0 <= more <= n and 0 <= fewer <= n):
        raise UserError(f"Failures are 0 … n of n > 0 runs, not {more} and {fewer} of {n}.")
    from scipy.stats import hypergeom

    return float(hypergeom.sf(more - 1, 2 * n, more + fewer, n))


def verdict(
    interval: Interval, *, margin: float | None, size: float = 0.0, equivalence: bool = False
) -> str:
    """The verdict on a claim whose direction is positive, tested in the papers' order.

    1. "no effect": the interval lies wholly inside +-margin (never, where margin is None);
    2. "reproduced": it excludes 0 on the claimed side and its lower bound meets `size`;
    3. "contradicted": it excludes 0 on the other side;
    4. "inconclusive" otherwise.

    With `equivalence` the claim itself is "no difference": inside the margin reproduces it, wholly
    outside contradicts it, and a merely insignificant difference is inconclusive. `margin` and
    `size` are in the interval's unit; judge ratios on their logarithms.
    """
    if margin is None and equivalence:
        raise UserError("A claim of no difference needs a margin.")
    if margin is not None and not margin >= 0:
        raise UserError(f"A margin cannot be negative or NaN, not {margin}.")
    if margin is not None and -margin <= interval.low and interval.high <= margin:
        return "reproduced" if equivalence else "no effect"
    if margin is not None and equivalence:
        outside = interval.low > margin or interval.high < -margin
        return "contradicted" if outside else "inconclusive"
    if interval.low > 0 and interval.low >= size:
        return "reproduced"
    return "contradicted" if interval.high < 0 else "inconclusive"


def not_worse(interval: Interval, margin: float) -> str:
    """The verdict on "not below -margin" (non-inferiority): how far above does not matter.

    One-sided: of claims that something is unnecessary, or does not help. Without any difference
    from -margin it is reproduced in (1 - level) / 2 of all cases.
    """
    if not margin >= 0:
        raise UserError(f"A margin cannot be negative or NaN, not {margin}.")
    if interval.low > -margin:
        return "reproduced"
    return "contradicted" if interval.high < -margin else "inconclusive"


def p_not_worse(interval: Interval, margin: float) -> float:
    """Twice the one-sided p of "no better than -margin", which an interval of this kind rejects at
    (1 - level) / 2: below 1 - level just where `not_worse` says reproduced. NaN for n < 2."""
    half = interval.mean - interval.low
    if interval.n < 2 or not math.isfinite(half):
        return math.nan
    above = interval.mean + margin
    if half == 0:
        return 0.0 if above > 0 else 1.0
    from scipy.stats import t

    freedom = interval.n - 1
    size = above / half * t.ppf((1 + interval.level) / 2, freedom)
    return min(1.0, float(2 * t.sf(size, freedom)))


def p_value(judgement: Judgement) -> float:
    """A judgement's p of "no effect at all": of its own test, else of its Student interval; NaN if
    it has neither."""
    if not math.isnan(judgement.p):
        return judgement.p
    low, high = judgement.low, judgement.high
    interval = Interval(judgement.effect, low, high, judgement.n, judgement.level)
    return interval_p(interval, judgement.unit)


def interval_p(interval: Interval, unit: str) -> float:
    """The two-sided p of "no effect at all" behind a Student interval; NaN of any other.

    Ratios on their logarithms. An interval with one open side is read from the other.
    """
    mean, half = student_half(interval, unit)
    if math.isnan(half):
        return math.nan
    if half == 0:
        return 0.0 if mean else 1.0
    from scipy.stats import t

    size = abs(mean) / half * t.ppf((1 + interval.level) / 2, interval.n - 1)
    return float(2 * t.sf(size, interval.n - 1))


def student_half(interval: Interval, unit: str) -> tuple[float, float]:
    """(mean, half the width) of a Student interval, of a ratio in logarithms; NaN of any other.

    An interval with one open side is read from the other.
    """
    mean, low, high = interval.mean, interval.low, interval.high
    if unit == "ratio":
        mean, low, high = (math.log(v) if v > 0 else -math.inf for v in (mean, low, high))
    half = mean - low if math.isfinite(low) else high - mean
    is_student = unit in ("points", "ratio", "")  # a share of seeds: Wilson's interval
    known = is_student and interval.n >= 2 and math.isfinite(mean) and math.isfinite(half)
    return (mean, half) if known else (math.nan, math.nan)


def holm(p: Mapping[str, float], family: int | None = None) -> dict[str, float]:
    """Holm's (1979) step-down adjustment of several p, by name: each controls all together.

    family: of how many claims they are the ones with a p so far (None: of these).
    """
    adjusted, worst = {}, 0.0
    for i, name in enumerate(sorted(p, key=lambda name: p[name])):
        worst = max(worst, min(1.0, ((family or len(p)) - i) * p[name]))
        adjusted[name] = worst
    return adjusted


def smoothed(values: ArrayLike, window: int = 3) -> NDArray[np.float64]:
    """Centred running median of a curve, shape (n,); at the ends the window is cut short.

    A NaN (no evaluation, or a run that diverged) stays NaN and does not reach its neighbours.
    """
    if window < 1 or window % 2 == 0:
        raise UserError(f"The smoothing window must be a positive odd number, not {window}.")
    curve, half = np.asarray(values, dtype=np.float64), window // 2
    result, known = np.full(curve.shape, np.nan), ~np.isnan(curve)
    if known.any():
        windows = sliding_window_view(np.pad(curve, half, constant_values=np.nan), window)
        result[known] = np.nanmedian(windows[known], axis=1)
    return result


def steps_to_target(
    steps: ArrayLike, values: ArrayLike, target: float, budget: float
) -> StepsReached:
    """Where the smoothed curve first reaches `target`: (steps, True), else (budget, False).

    `values` (n,) are raw, smoothed here; `steps` (n,) increase. Between two evaluations the curve
    is taken as linear in the step. A target not reached within `budget` is censored there.
    """
    at, curve = np.asarray(steps, dtype=np.float64), smoothed(values)
    if at.shape != curve.shape or np.any(np.diff(at) <= 0):
        raise UserError("A learning curve needs one value for each step, and steps that increase.")
    if not math.isfinite(target):
        raise UserError(f"The target accuracy must be finite, not {target}.")
    reached = np.flatnonzero(curve >= target)
    crossing = _crossing(at, curve, target, int(reached[0])) if reached.size else math.inf
    return (crossing, True) if crossing <= budget else (float(budget), False)


def leave_one_out(values: Mapping[int, float]) -> dict[int, float]:
    """For each seed the mean over the *other* seeds, so that no run is measured against itself."""
    if len(values) < 2:
        raise UserError("A target from the other seeds needs at least two seeds.")
    numbers = _finite(list(values.values()), "a target from the other seeds")
    return {seed: float(np.delete(numbers, i).mean()) for i, seed in enumerate(values)}


def log_ratio_interval(
    slow: Sequence[StepsReached], fast: Sequence[StepsReached], level: float = 0.95
) -> Interval:
    """The interval of log(slow / fast) over paired (steps, reached): judge this, show `as_ratio`.

    A censored run took at least its budget. Where the slow arm is censored the ratio is a lower
    bound, so the interval's upper side becomes infinite; where the fast arm is, its lower side.
    So a verdict rests only on the side the data support, and that side keeps its coverage: lower
    bounds have a mean no larger than the one sought.
    """
    if len(slow) != len(fast):
        raise UserError(f"Paired runs are needed, not {len(slow)} against {len(fast)}.")
    logs = [_log_steps(a) - _log_steps(b) for a, b in zip(slow, fast, strict=True)]
    interval = paired_interval(logs, level)
    if not all(reached for _, reached in slow):
        interval = replace(interval, high=math.inf)
    if not all(reached for _, reached in fast):
        interval = replace(interval, low=-math.inf)
    return interval


def as_ratio(interval: Interval) -> Interval:
    """An interval on logarithms as one on ratios: the geometric mean and its bounds in [0, inf]."""
    return replace(
        interval,
        mean=math.exp(interval.mean),
        low=math.exp(interval.low),
        high=math.exp(interval.high),
    )


def _crossing(at: NDArray, curve: NDArray, target: float, i: int) -> float:
    """Where the line from evaluation i - 1 to i, the first at or above the target, meets it."""
    if i == 0 or math.isnan(curve[i - 1]):
        return float(at[i])
    share = (target - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(at[i - 1] + share * (at[i] - at[i - 1]))


def _log_steps(run: StepsReached) -> float:
    steps, _ = run
    if not steps > 0:
        raise UserError(f"A ratio of steps needs positive steps, not {steps}.")
    return math.log(steps)


def _finite(values: ArrayLike, purpose: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise UserError(
            f"Finite numbers, at least one, are needed for {purpose}; got {array.tolist()}."
        )
    return array


def check_level(level: float) -> None:
    """UserError unless it is a share of samples, such as 0.95."""
    if not 0 < level < 1:
        raise UserError(f"A confidence level lies between 0 and 1, not {level}.")
