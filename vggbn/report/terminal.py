"""What a terminal shows of a report: its width, its colours, the table of arms."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from vggbn.claims.stats import StepsReached
from vggbn.report.accuracies import Accuracy, final_accuracy
from vggbn.report.records import Report
from vggbn.report.words import short

WIDE = 110  # columns where the output is no terminal
SPREAD = "… lowest to highest seed: too few seeds, or too far apart, for a 95 % interval"


def width() -> int:
    """Columns of the terminal; of a file or a pipe a fixed number."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def has_colour() -> bool:
    """Whether colour is seen, and not refused (NO_COLOR, https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def arms_table(report: Report, columns: int = WIDE) -> str:
    """Each arm's final test accuracy and steps to the target, aligned; empty without any arm.

    A name is cut where the line would be longer than `columns`.
    """
    found = {name: final_accuracy(report, name) for name in report.variants}
    names = [name for name in found if name in report.finals]
    if not names:
        return ""
    rows = [("arm", "n", "test %", "95 % interval", "steps to the target")]
    rows += [(name, *_accuracy(found[name]), _steps(report, name)) for name in names]
    if not any(report.to_target.values()):
        rows = [row[:-1] for row in rows]
    lines = _aligned(rows, columns)
    if any("…" in row[3] for row in rows):
        lines.append(SPREAD)
    return "\n".join(lines)


def _accuracy(found: Accuracy | None) -> tuple[str, str, str]:
    """n, mean, interval."""
    if found is None:
        return "0", "–", ""
    form = "[{:.2f}, {:.2f}]" if found.is_interval else "{:.2f} … {:.2f}"
    bounds = form.format(found.low, found.high) if found.n > 1 else ""
    return str(found.n), f"{found.mean:.2f}", bounds


def _steps(report: Report, name: str) -> str:
    runs: Sequence[StepsReached] = list(report.to_target.get(name, {}).values())
    reached = [taken for taken, was_reached in runs if was_reached]
    if not runs:
        return ""
    if len(reached) < len(runs):
        return f"reached by {len(reached)} of {len(runs)}"
    return f"{sum(reached) / len(reached):,.0f}"


def _aligned(rows: Sequence[tuple[str, ...]], columns: int) -> list[str]:
    """Lines of at most `columns`: the first cell to the left and as wide as there is room."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] = max(8, min(widths[0], columns - sum(widths[1:]) - 2 * (len(widths) - 1)))
    return [
        "  ".join(
            [
                short(row[0], widths[0]).ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
