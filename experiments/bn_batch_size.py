"""How many examples should BN's statistics see?

One batch of 128 for every arm, cut into groups that are each normalised by themselves, as on so
many devices: from 128 examples a statistic down to 2. Tested with the moving averages and with
Algorithm 2's statistics. The paper trains with 32 and says only that training needs more than one.

    python -m experiments.bn_batch_size                                             small, MNIST-5k
    python -m experiments.bn_batch_size --size full --data-dir DIR                  CIFAR-10
"""

from __future__ import annotations

from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment.design import Experiment, Size, Sweep, Tuned
from vggbn.experiment.judges import accuracy_text
from vggbn.report import Chart, Table
from vggbn.training.recipe import Recipe

GROUPS = (1, 2, 4, 8, 16, 32, 64)

# What the sweeps chose (sweep.json beside the results).
SMALL = Tuned({"lr": 0.3})
FULL = Tuned({"lr": 0.03})

BASE = Recipe(
    model="vgg_a",
    width=1 / 8,
    fc=128,
    norm="batch",
    norm_fc=True,
    batch=128,
    dropout=0.0,
    crop_pad=2,
    flip=True,  # where the labels allow it
    schedule="exponential",
    lr_factor=0.1,
    split="fixed",
)


def arm(groups: int) -> str:
    """The arm's name: the examples that a statistic sees."""
    return f"{BASE.batch // groups} examples"


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """The same batch in 1 to 64 groups."""
    return {arm(g): base if g == 1 else base.but(bn_groups=g) for g in GROUPS}


SCORES = {
    "moving averages": "test_accuracy",
    "Algorithm 2": "test_accuracy_population",
}


def tables(results: Results) -> list[Table]:
    """Test accuracy by either kind of statistics, and the fit of the training images."""
    rows = [
        (
            name,
            *(accuracy_text(results, name, score) for score in SCORES.values()),
            accuracy_text(results, name, "train_accuracy"),
        )
        for name in results.variants
        if results.runs[name]
    ]
    headers = ("a statistic sees", *(f"test, {by}, %" for by in SCORES), "training images, %")
    return [Table(headers, rows, "Examples behind a statistic", "Mean ± half the 95 % interval.")]


def charts(results: Results) -> dict[str, Chart]:
    """Test accuracy against the logarithm of the number of examples."""
    series = {
        by: {
            float(i): [100 * v for v in results.final(arm(g), score).values()]
            for i, g in enumerate(reversed(GROUPS), 1)
            if arm(g) in results.variants
        }
        for by, score in SCORES.items()
    }
    label = "log2 of the examples that a statistic sees"
    return {"examples behind a statistic": Chart(label, "test accuracy, %", series)}


SIZES = {
    "smoke": Size(
        seeds=2,
        edits={"steps": 10, "lr_every": 6, "evaluations": 2},
        tuned=SMALL,
        arms=(arm(1), arm(64)),
    ),
    "small": Size(seeds=3, edits={"steps": 300, "lr_every": 180}, tuned=SMALL),
    "full": Size(
        seeds=5,
        edits={
            "data": "cifar10",
            "image_size": 32,
            "crop_pad": 4,
            "steps": 2_110,
            "lr_every": 1_266,
        },
        tuned=FULL,
        sweep_steps=1_055,
    ),
}

EXPERIMENT = Experiment(
    name="bn_batch_size",
    title="Examples behind a statistic",
    question="How does accuracy depend on the number of examples that BN's statistics see?",
    base=BASE,
    baseline=arm(1),
    variants=variants,
    claims=(),
    tables=tables,
    charts=charts,
    sizes=SIZES,
    panels={"examples behind a statistic": tuple(map(arm, GROUPS))},
    sweep=Sweep(arms={"BN": {}}, rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3), seeds=2),
    notes=(
        "Every arm has the same batches of 128, and so the same number of steps and the same noise "
        "from sampling; only what is averaged over differs.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
