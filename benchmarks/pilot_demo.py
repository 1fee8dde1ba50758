"""A pilot of experiments/bn_ablation.py at its size `small`: the target of its speeds.

The same arms on seeds 0, 1 and 2, which are used up by it; the judged seeds begin behind them. The
target is 98 % of what the baseline reaches on validation images, mean over these seeds.

    python -m benchmarks.pilot_demo --size small
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean

from experiments import bn_ablation
from vggbn.claims.results import Line, Results
from vggbn.commands.experiment import main

LINES = Path(__file__).with_name("pilot_demo.jsonl")
SHARE = 0.98
SMALL = bn_ablation.SIZES["small"]
SEEDS = SMALL.first_seed

EXPERIMENT = replace(
    bn_ablation.EXPERIMENT,
    name="pilot_demo",
    title=f"Pilot: {bn_ablation.EXPERIMENT.title}",
    sizes={"small": replace(SMALL, first_seed=0, seeds=SEEDS, target=None)},
    claims=(),
)


def target(lines: list[Line]) -> float:
    """The target that these lines of the pilot give, a fraction of 1."""
    runs = Results(lines, {line["variant"]: line["id"] for line in lines}, lines[0]["setting"])
    return SHARE * mean(runs.best("base", seed) for seed in runs.seeds("base"))


if __name__ == "__main__":
    main(EXPERIMENT)
