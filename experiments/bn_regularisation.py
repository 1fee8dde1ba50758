"""BN section 3.4: does BN regularise, so that dropout can go?

VGG-A on a few training images, so that it over-fits. BN-20: {no BN, BN} × {no dropout, dropout}.
BN-21: is it the noise of the batch? The same net normalised by statistics of 4 to 32 examples, and
by the moving averages (batch renormalisation), which carry almost none of a batch's noise.

    python -m experiments.bn_regularisation                                    small, MNIST-5k
    python -m experiments.bn_regularisation --size full --data-dir DIR         CIFAR-10
"""

from __future__ import annotations

from vggbn.claims.parts import Part
from vggbn.claims.results import Results
from vggbn.claims.stats import not_worse, p_not_worse, verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Effect, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.gate import FOR_FITTED_NETS
from vggbn.experiment.judges import mean_text, verdict_interval, verdict_on
from vggbn.experiment.plan import edited
from vggbn.report import Table
from vggbn.training.recipe import Recipe

# What the sweeps chose (sweep.json beside the results): the rate without BN and with it.
SMALL = Tuned({"lr": 0.01}, arms={"bn": {"lr": 0.1}})
FULL = Tuned({"lr": 0.003}, arms={"bn": {"lr": 0.03}})

BASE = Recipe(
    model="vgg_a",
    width=1 / 8,
    fc=128,
    norm_fc=True,
    batch=32,
    dropout=0.0,
    l2=0.0,
    train_size=500,
    schedule="exponential",
    lr_factor=0.1,
    split="fixed",
)
GROUPS = {"bn, 16 examples": 2, "bn, 4 examples": 8}


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """The factorial of BN and dropout, and BN with more noise and with less."""
    bn = edited(base, {"norm": "batch", **size.tuned.arms["bn"]})
    arms = {"plain": base, "plain dropout": base.but(dropout=0.5)}
    arms |= {"bn": bn, "bn dropout": bn.but(dropout=0.5)}
    arms |= {name: bn.but(bn_groups=groups) for name, groups in GROUPS.items()}
    return arms | {"renorm": bn.but(norm="batch_renorm")}


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "cifar10"
MARGIN = 1.0  # points


def accuracy(results: Results, arm: str, seed: int) -> float:
    """Final test accuracy in %."""
    return 100 * results.final(arm)[seed]


def overfit(results: Results, arm: str, seed: int) -> float:
    """Accuracy on training images less that on test images, at the end, in points."""
    return 100 * results.final(arm, "train_accuracy")[seed] - accuracy(results, arm, seed)


def effects_bn_20(results: Results) -> list[Effect]:
    seeds = results.seeds("plain", "plain dropout", "bn", "bn dropout")

    def gain(arm: str, seed: int) -> float:
        return accuracy(results, f"{arm} dropout", seed) - accuracy(results, arm, seed)

    less = {seed: gain("plain", seed) - gain("bn", seed) for seed in seeds}
    without = {seed: -gain("bn", seed) for seed in seeds}
    return [
        Effect("gain of dropout without BN less with it", less),
        Effect("BN, no dropout less dropout", without),
    ]


def judge_bn_20(results: Results) -> Verdict:
    effects = effects_bn_20(results)
    less, without = (verdict_interval(effect.values, parts=2) for effect in effects)
    verdicts = (verdict(less, margin=MARGIN), not_worse(without, MARGIN))
    return verdict_on(
        [
            Part(effects[0].name, less, verdicts[0]),
            Part(effects[1].name, without, verdicts[1], p_not_worse(without, MARGIN)),
        ]
    )


def effects_bn_21(results: Results) -> list[Effect]:
    more = {
        seed: overfit(results, "renorm", seed) - overfit(results, "bn", seed)
        for seed in results.seeds("renorm", "bn")
    }
    return [Effect("train–test gap of renorm less that of bn", more)]


def judge_bn_21(results: Results) -> Verdict:
    (effect,) = effects_bn_21(results)
    interval = verdict_interval(effect.values)
    means = {
        arm: sum(overfit(results, arm, s) for s in results.seeds(arm)) / len(results.seeds(arm))
        for arm in ("renorm", "bn", *GROUPS)
    }
    detail = "train–test gap: " + ", ".join(f"{arm} {value:.1f}" for arm, value in means.items())
    return Verdict(verdict(interval, margin=MARGIN), interval, "points", detail)


CLAIMS = (
    Claim(
        id="BN-20",
        is_primary=True,
        sentence="With BN, dropout can be removed.",
        criterion=(
            "On few training images: dropout gains less test accuracy with BN than without (above "
            f"0), and BN without dropout is not worse than with it (not below −{MARGIN:g} point)."
        ),
        paper="removed from BN-x5; “no more overfitting” (no figure)",
        primary=PRIMARY,
        judge=judge_bn_20,
        gate=FOR_FITTED_NETS,
        effects=effects_bn_20,
    ),
    Claim(
        id="BN-21",
        sentence="The noise of the batch's statistics regularises.",
        criterion=(
            "Accuracy on training images less that on test images: larger where the statistics are "
            "the moving averages (batch renormalisation) than with BN; no effect inside "
            f"±{MARGIN:g} point."
        ),
        paper="section 3.4, observed (no figure)",
        primary=PRIMARY,
        judge=judge_bn_21,
        gate=FOR_FITTED_NETS,
        effects=effects_bn_21,
    ),
)

# --- tables --------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """Accuracy on training and on test images, and the gap."""
    rows = []
    for arm in results.variants:
        if not results.runs[arm]:
            continue
        seeds = results.seeds(arm)
        columns = (
            [100 * results.final(arm, "train_accuracy")[s] for s in seeds],
            [accuracy(results, arm, s) for s in seeds],
            [overfit(results, arm, s) for s in seeds],
        )
        rows.append((arm, *map(mean_text, columns)))
    headers = ("net", "training images, %", "test images, %", "gap, points")
    return [Table(headers, rows, "Over-fitting", "Mean ± half the 95 % interval over seeds.")]


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 20, "lr_every": 12, "evaluations": 2}, tuned=SMALL),
    "small": Size(seeds=5, edits={"steps": 500, "lr_every": 300}, tuned=SMALL),
    "full": Size(
        seeds=5,
        edits={
            "data": "cifar10",
            "image_size": 32,
            "train_size": 5_000,
            "steps": 6_000,
            "lr_every": 3_600,
        },
        tuned=FULL,
        sweep_steps=2_000,
    ),
}

EXPERIMENT = Experiment(
    name="bn_regularisation",
    title="BN as a regulariser",
    question="Does BN take dropout's place, and does the noise of its statistics regularise?",
    base=BASE,
    baseline="plain",
    variants=variants,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={
        "dropout": ("plain", "plain dropout", "bn", "bn dropout"),
        "noise": ("renorm", "bn", *GROUPS),
    },
    sweep=Sweep(
        arms={"no BN": {}, "BN": {"norm": "batch"}},
        rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        seeds=2,
    ),
    notes=(
        "No augmentation and no L2, so that nothing else regularises. Training images are scored "
        "in evaluation mode, on 2,000 of them where there are more.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
