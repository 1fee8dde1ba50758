"""The report's tables as headers and rows of text, the same for the terminal, Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vggbn.claims import power
from vggbn.claims.stats import (
    Interval,
    Judgement,
    StepsReached,
    as_ratio,
    log_ratio_interval,
)
from vggbn.report.accuracies import Accuracy, final_accuracy
from vggbn.report.records import Report, Table, finished, mishaps

NOTHING = "–"


def verdicts(judgements: Sequence[Judgement]) -> Table:
    """Each claim with its verdict and what it rests on, beside the paper's own figures."""
    headers = ("claim", "verdict", "effect [interval]", "n", "in words", "paper")
    return Table(headers, [_verdict_row(j) for j in judgements])


def rules(judgements: Sequence[Judgement]) -> Table:
    """The rule of each claim, and what was found beside its interval."""
    return Table(("claim", "rule", "found"), [_rule_row(j) for j in judgements])


def variants(report: Report) -> Table:
    """Each variant as its difference from the baseline."""
    rows = [(name, edits_text(report.variants[name])) for name in report.variants]
    return Table(("variant", "edits of the baseline"), rows)


def finals(report: Report) -> Table:
    """Final test accuracy, end learning rate and mishaps of each variant."""
    names = [v for v in report.variants if v in report.finals or v in report.statuses]
    headers = (
        "variant",
        "test accuracy, % [95 % interval]",
        "lowest to highest",
        "n",
        "end learning rate",
        "runs",
    )
    return Table(headers, [_final_row(report, name) for name in names])


def steps(report: Report) -> Table:
    """Steps to the target for each seed, and how many times fewer they are than the baseline's."""
    names = [v for v in report.variants if report.to_target.get(v)]
    headers = ("variant", "steps, seed by seed", "times fewer than baseline [95 % interval]", "n")
    return Table(headers, [_steps_row(report, name) for name in names])


def effect_text(judgement: Judgement) -> str:
    """The effect with its interval, in its unit; a bound (one side open) is marked as one.

    What was computed has neither, and says so.
    """
    if judgement.exact:
        return "measured" if judgement.measured else "exact"
    if math.isnan(judgement.effect):
        return NOTHING
    interval = Interval(judgement.effect, judgement.low, judgement.high, judgement.n)
    if judgement.unit == "ratio":
        return ratio_text(interval)
    sign, suffix = ("+", " points") if judgement.unit == "points" else ("", "")
    form = f"{sign}.2f" if suffix else ".3g"
    return _bound(interval, -math.inf) + _interval_text(interval, form) + suffix


def verdict_text(judgement: Judgement) -> str:
    """The verdict, with what weakens it."""
    if judgement.n == 0 and judgement.verdict == "inconclusive":
        return f"{judgement.verdict} (no data)"
    return judgement.verdict + (" (provisional)" if judgement.provisional else "")


def n_text(judgement: Judgement) -> str:
    """The number of seeds, a dash where the claim has none."""
    return NOTHING if judgement.exact else str(judgement.n)


def power_text(judgement: Judgement) -> str:
    """How far the seeds spread, the smallest effect that so many of them see in four of five cases,
    and how many would see the effect that was found; empty where no Student interval judged."""
    spread = power.spread_of(judgement)
    if math.isnan(spread):
        return ""
    unit = " points" if judgement.unit == "points" else ""
    seen = power.smallest_effect(spread, judgement.n, judgement.level)
    found = math.log(judgement.effect) if judgement.unit == "ratio" else judgement.effect
    needed = power.seeds_needed(spread, found, judgement.level)
    if judgement.unit == "ratio":
        texts = f"seeds differ ×{math.exp(spread):.2f}, {judgement.n} see ×{math.exp(seen):.2f}"
    else:
        texts = f"seeds differ by {spread:.2g}{unit}, {judgement.n} see {seen:.2g}{unit}"
    return f"{texts}, {number(needed, '.0f')} would see what was found"


def ratio_text(interval: Interval) -> str:
    """A ratio with its interval, such as "≥ 2.3× [1.4, ∞]"."""
    if interval.n > 1 and interval.low == 0 and interval.high == math.inf:
        return "not known [0, ∞]"  # some seed of each arm never reached the target
    mean, low, high = _texts(interval, ".3g")
    return f"{_bound(interval, 0.0)}{mean}× [{low}, {high}]"


def points_text(interval: Interval) -> str:
    """A difference in percentage points with its interval, such as "+1.2 [+0.3, +2.1]"."""
    return _interval_text(interval, "+.1f")


def edits_text(edits: Mapping[str, tuple[Any, Any]]) -> str:
    """A variant's edits on one line: "lr 0.01 → 0.05, norm none → bn"."""
    return ", ".join(f"{name} {old} → {new}" for name, (old, new) in edits.items()) or "none"


def number(value: float, form: str) -> str:
    """A number as text, infinity as ∞ and NaN as a dash."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format(value, form).replace("-", "−")


def _verdict_row(j: Judgement) -> tuple[str, ...]:
    return (
        j.claim + (" (primary)" if j.is_primary else ""),
        verdict_text(j),
        effect_text(j),
        n_text(j) if j.n else NOTHING,
        j.sentence,
        j.paper or NOTHING,
    )


def _rule_row(j: Judgement) -> tuple[str, ...]:
    criterion = f"{j.criterion} (primary data: {j.primary})" if j.primary else j.criterion
    found = "; ".join(text for text in (j.detail, power_text(j)) if text)
    return j.claim, criterion or NOTHING, found or NOTHING


def _final_row(report: Report, name: str) -> tuple[str, ...]:
    values = [100 * value for value in finished(report, name).values()]
    spread = f"{min(values):.2f} to {max(values):.2f}" if values else NOTHING
    end = number(report.end_lr.get(name, math.nan), ".3g")
    mean = accuracy_text(final_accuracy(report, name))
    return (name, mean, spread, str(len(values)), end, _runs_text(report, name))


def accuracy_text(found: Accuracy | None) -> str:
    """A mean accuracy in %, with its interval where it has one."""
    if found is None:
        return NOTHING
    interval = f" [{found.low:.2f}, {found.high:.2f}]" if found.is_interval else ""
    return f"{found.mean:.2f}{interval}"


def _runs_text(report: Report, name: str) -> str:
    stopped = mishaps(report, name)
    return ", ".join(f"seed {seed} {status}" for seed, status in stopped.items()) or "all finished"


def _steps_row(report: Report, name: str) -> tuple[str, ...]:
    runs, base = report.to_target[name], report.to_target.get(report.baseline_name, {})
    paired = sorted(runs.keys() & base.keys())
    steps = _steps_text([runs[seed] for seed in sorted(runs)])
    if name == report.baseline_name or not paired:
        return (name, steps, NOTHING, str(len(runs)))
    logs = log_ratio_interval([base[s] for s in paired], [runs[s] for s in paired])
    return (name, steps, ratio_text(as_ratio(logs)), str(len(paired)))


def _steps_text(runs: Sequence[StepsReached]) -> str:
    """The steps of each run; one that did not reach the target has more than its budget."""
    if not any(reached for _, reached in runs):
        return f"never reached in {max(taken for taken, _ in runs):,.0f}"
    return "; ".join(f"{taken:,.0f}" if reached else f"> {taken:,.0f}" for taken, reached in runs)


def _interval_text(interval: Interval, form: str) -> str:
    mean, low, high = _texts(interval, form)
    return f"{mean} [{low}, {high}]"


def _texts(interval: Interval, form: str) -> tuple[str, str, str]:
    return number(interval.mean, form), number(interval.low, form), number(interval.high, form)


def _bound(interval: Interval, lowest: float) -> str:
    """The mark of a one-sided result: with only the upper side open the mean is a lower bound."""
    open_low, open_high = interval.low == lowest, interval.high == math.inf
    if open_low == open_high:
        return ""
    return "≥ " if open_high else "≤ "
