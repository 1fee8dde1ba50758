"""The table of the pilot of Figures 2 and 3: `python -m benchmarks.pilot_table`.

Writes pilot_figures.md from pilot_figures.jsonl, the result lines of benchmarks/pilot_figures.py.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from benchmarks.pilot_figures import WHOLE
from vggbn.claims.results import Line, read

LINES = Path(__file__).with_name("pilot_figures.jsonl")
PAGE = LINES.with_suffix(".md")
SHARES = (0.90, 0.95, 0.98)  # of the baseline's mean best: targets of a speed


def main() -> None:
    PAGE.write_text(page(read(LINES)), encoding="utf-8")
    print(f"wrote {PAGE}")


def page(lines: list[Line]) -> str:
    """The whole page, as Markdown."""
    arms: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        arms.setdefault((line["size"], line["variant"]), []).append(line)
    search = {name: runs for (size, name), runs in arms.items() if size == "rates"}
    base = max((runs for name, runs in search.items() if name.startswith("base")), key=mean_best)
    targets = [share * mean_best(base) for share in SHARES]
    first = lines[0]
    return "\n".join(
        [
            "<!-- `python -m benchmarks.pilot_table` writes this; do not edit it. -->",
            "# A pilot of Figures 2 and 3 at full width",
            "",
            "VGG-A-LRN on CIFAR-10, `benchmarks/pilot_figures.py`: what a judged run needs to know",
            "before, and no evidence for any claim. Its seeds (0, 1) are not used again.",
            f"{first['setting']['device']}, jaxlib {first['setting']['jaxlib']}, commit "
            f"{first['commit']}. Targets: "
            + ", ".join(f"{100 * target:.1f} %" for target in targets)
            + f" on the validation images, {', '.join(f'{100 * s:.0f} %' for s in SHARES)} of the",
            f"best that `{base[0]['variant']}` reaches (mean of its seeds).",
            "",
            f"## Rates, {WHOLE:,} steps",
            "",
            *table(search, targets),
            "",
            f"## Every arm in {arms_steps(arms):,} steps, its schedule compressed as much",
            "",
            *table({n: runs for (size, n), runs in arms.items() if size == "budgets"}, targets),
            "",
        ]
    )


def arms_steps(arms: dict[tuple[str, str], list[Line]]) -> int:
    """The budget of the second table."""
    return next(r[0]["recipe"]["steps"] for (size, _), r in arms.items() if size == "budgets")


def table(arms: dict[str, list[Line]], targets: list[float]) -> list[str]:
    """A row an arm, a value a seed."""
    steps = " | ".join(f"steps to {100 * target:.1f} %" for target in targets)
    rows = [
        f"| arm | rate | test % | training images % | {steps} |",
        "|---|" + "---:|" * (3 + len(targets)),
    ]
    # By norm and rate in the search, by name among the arms.
    for name, runs in sorted(arms.items(), key=lambda arm: (arm[0].split(" ")[0], rate(arm[1]))):
        runs = sorted(runs, key=lambda run: run["seed"])
        finals = [[percent(run, which) for run in runs] for which in ("test", "train")]
        reached = [[reached_at(run, target) for run in runs] for target in targets]
        cells = [" · ".join(values) for values in (*finals, *reached)]
        rows.append(f"| {name} | {rate(runs):g} | {' | '.join(cells)} |")
    return rows


def rate(runs: list[Line]) -> float:
    """The learning rate that all runs of an arm share."""
    return runs[0]["recipe"]["lr"]


def mean_best(runs: list[Line]) -> float:
    """Mean over the seeds of the best validation accuracy; of a diverged run 0."""
    return mean(max((at["val_accuracy"] for at in run["history"]), default=0.0) for run in runs)


def percent(run: Line, which: str) -> str:
    if run["diverged_at"] is not None:
        return "diverged"
    return f"{100 * run['final'][f'{which}_accuracy']:.1f}"


def reached_at(run: Line, target: float) -> str:
    """The first evaluated step at the target, or a dash."""
    steps = (at["step"] for at in run["history"] if at["val_accuracy"] >= target)
    return f"{step:,}" if (step := next(steps, None)) else "–"


if __name__ == "__main__":
    main()
