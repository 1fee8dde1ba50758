"""BN section 4.2.1: does BN gain from batches whose examples do not always meet again?

Batches of fixed composition, visited in a new order each epoch, against a new permutation of all
examples each epoch; with BN and without.

    python -m experiments.bn_shuffle                                             small, MNIST-5k
    python -m experiments.bn_shuffle --size full --data-dir DIR                  CIFAR-10
"""

from __future__ import annotations

from vggbn.claims.results import Results
from vggbn.claims.stats import paired_interval, verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.gate import FOR_FITTED_NETS
from vggbn.experiment.judges import verdict_interval
from vggbn.experiment.plan import edited
from vggbn.training.recipe import Recipe

# What the sweeps chose (sweep.json beside the results): the rate without BN and with it.
SMALL = Tuned({"lr": 0.01}, arms={"bn": {"lr": 0.1}})
FULL = Tuned({"lr": 0.003}, arms={"bn": {"lr": 0.01}})

BASE = Recipe(
    model="vgg_a",
    width=1 / 8,
    fc=128,
    norm_fc=True,
    batch=32,
    dropout=0.0,
    shuffle="fixed",
    crop_pad=2,
    flip=True,  # where the labels allow it
    schedule="exponential",
    lr_factor=0.1,
    split="fixed",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """{no BN, BN} × {fixed batches, fresh ones}, each at its own rate."""
    arms = {}
    bn = edited(base, {"norm": "batch", **size.tuned.arms["bn"]})
    for name, start in {"plain": base, "bn": bn}.items():
        arms[f"{name} fixed"] = start
        arms[f"{name} fresh"] = start.but(shuffle="fresh")
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "cifar10"
MARGIN = 0.5  # points


def judge_bn_23(results: Results) -> Verdict:
    seeds = results.seeds("plain fixed", "plain fresh", "bn fixed", "bn fresh")
    final = {arm: results.final(arm) for arm in results.variants}

    def gain(arm: str, seed: int) -> float:
        return 100 * (final[f"{arm} fresh"][seed] - final[f"{arm} fixed"][seed])

    interval = verdict_interval([gain("bn", s) - gain("plain", s) for s in seeds])
    each = {arm: paired_interval([gain(arm, s) for s in seeds]) for arm in ("bn", "plain")}
    texts = [f"{arm} {i.mean:+.2f} [{i.low:+.2f}, {i.high:+.2f}]" for arm, i in each.items()]
    found = verdict(interval, margin=MARGIN)
    return Verdict(found, interval, "points", "gain of fresh batches: " + ", ".join(texts))


CLAIMS = (
    Claim(
        id="BN-23",
        sentence="BN gains from more thorough shuffling, as if it were a regulariser.",
        criterion=(
            "Gain of fresh batches in final test accuracy with BN less the gain without: above 0; "
            f"no effect inside ±{MARGIN:g} points. The paper's 1 % is no target."
        ),
        paper="about 1 % better validation accuracy",
        primary=PRIMARY,
        judge=judge_bn_23,
        gate=FOR_FITTED_NETS,
    ),
)

# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 20, "lr_every": 12, "evaluations": 2}, tuned=SMALL),
    "small": Size(seeds=5, edits={"steps": 600, "lr_every": 360}, tuned=SMALL),
    "full": Size(
        seeds=10,
        edits={
            "data": "cifar10",
            "image_size": 32,
            "crop_pad": 4,
            "steps": 8_438,
            "lr_every": 5_000,
        },
        tuned=FULL,
        sweep_steps=2_110,
    ),
}

EXPERIMENT = Experiment(
    name="bn_shuffle",
    title="Shuffling",
    question="Do nets with BN gain more than others from batches that are never the same twice?",
    base=BASE,
    baseline="plain fixed",
    variants=variants,
    claims=CLAIMS,
    sizes=SIZES,
    panels={"shuffling": ("plain fixed", "plain fresh", "bn fixed", "bn fresh")},
    sweep=Sweep(
        arms={"no BN": {}, "BN": {"norm": "batch"}},
        rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        seeds=2,
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
