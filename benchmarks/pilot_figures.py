"""A pilot of the Batch Normalization paper's Figures 2 and 3 at full width: rates and budgets.

No verdict comes from it, and its seeds (0, 1) are used up: what it settles is what a judged run
needs beforehand, the rate of each arm and the target in steps. Two sizes: `rates` searches the
rates of the net with and without BN over the whole budget, on a grid of factor 2; `budgets`, at the
rate named by --set lr=…, has every arm in a fifth of it, its schedule compressed as much.

    python -m benchmarks.pilot_figures --size rates
    python -m benchmarks.pilot_figures --size budgets --set lr=0.04
"""

from __future__ import annotations

from math import log, sqrt

from experiments._bn_changes import CHANGES, changed
from vggbn.commands.experiment import main
from vggbn.experiment.design import Experiment, Size
from vggbn.training.recipe import Recipe

EPOCH = 351  # steps: 45,000 of CIFAR-10's training images in batches of 128
WHOLE, FIFTH = 60 * EPOCH, 12 * EPOCH
DROPS = log(0.01) / log(0.96)  # the rate falls to a hundredth over an arm's own budget

BASE = Recipe(
    data="cifar10",
    image_size=32,
    model="vgg_a_lrn",
    fc=512,
    norm_fc=True,
    batch=128,
    dropout=0.25,
    l2=5e-4,
    shuffle="fixed",
    crop_pad=4,
    flip=True,
    distortion=0.1,
    precision="bfloat16",
    schedule="exponential",
    lr_factor=0.96,
    lr_every=WHOLE / DROPS,
    steps=WHOLE,
    evaluations=80,
    split="fixed",
)

# The grid's inner rates come first: where time ends early, the edges are missing.
RATES = {"base": (0.02, 0.04, 0.01, 0.08), "bn": (0.1, 0.2, 0.05, 0.4)}
# In a fifth of the budget a schedule that is compressed as much is the rule, not a change.
SIX = [name for name in CHANGES if name != "decay_x6"]


def rates(base: Recipe) -> dict[str, Recipe]:
    """Every rate of every arm, both arms side by side."""
    starts = {"base": base, "bn": base.but(norm="batch")}
    return {
        f"{arm} {rate:g}": starts[arm] if rate == base.lr else starts[arm].but(lr=rate)
        for both in zip(*RATES.values(), strict=True)
        for arm, rate in zip(RATES, both, strict=True)
    }


def budgets(base: Recipe) -> dict[str, Recipe]:
    """The arms of Figures 2 and 3, and the seven changes left out one at a time."""
    bn = base.but(norm="batch")
    arms = {"base": base, "bn": bn, "bn+all": changed(bn, *SIX), "base+all": changed(base, *SIX)}
    arms["bn+all+lr_x30"] = arms["bn+all"].but(lr=30 * base.lr)
    arms |= {f"bn+lr_x{k}": bn.but(lr=k * base.lr) for k in (2, 5)}
    arms |= {f"base+lr_x{k}": base.but(lr=k * base.lr) for k in (5, 30)}
    for name in SIX:
        arms[f"bn+all-{name}"] = changed(bn, *(other for other in SIX if other != name))
    arms["bn+all-decay_x6"] = arms["bn+all"].but(lr_every=WHOLE / DROPS)
    # BN ignores a kernel's scale: a rate ×5 with a fifth of L2 is what smaller kernels are.
    small = changed(bn, *(name for name in SIX if name not in ("lr_x5", "l2_5th")))
    arms["bn+all, small kernels"] = small.but(init_scale=1 / sqrt(5))
    return arms


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    return rates(base) if size.options["search"] else budgets(base)


EXPERIMENT = Experiment(
    name="pilot_figures",
    title="Pilot of Figures 2 and 3",
    question="Which rate suits each arm, and how far does each get in a fifth of the budget?",
    base=BASE,
    variants=variants,
    sizes={
        "rates": Size(seeds=2, edits={"lr": RATES["base"][0]}, options={"search": True}),
        "budgets": Size(
            seeds=2,
            edits={"steps": FIFTH, "lr_every": FIFTH / DROPS},
            options={"search": False},
        ),
    },
)

if __name__ == "__main__":
    main(EXPERIMENT)
