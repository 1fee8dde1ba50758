"""BN section 4.2, Figures 2 and 3: what accelerates a BN network, one change at a time.

The paper's BN-x5 differs from Inception in Batch Normalization AND seven more changes (4.2.1), made
at once. Here the same changes are the factors of an experiment on a small VGG. The size `small` is
Figure 2: without and with BN at rates ×1, ×5, ×30, and BN with all changes, and with all but one of
four, in a third of the budget. The full sizes are a factorial: {no BN, BN} × {none, each change
alone, all but one, all}, in one budget.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

from experiments import _bn_changes as changes
from vggbn.claims.looks import LEVEL
from vggbn.claims.results import NotTested, Results
from vggbn.claims.stats import as_ratio, fisher, log_ratio_interval, not_worse, p_not_worse, verdict
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Effect, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.gate import FOR_FAILURES, FOR_FITTED_NETS, FOR_SPEEDS
from vggbn.experiment.judges import seldom, verdict_interval
from vggbn.training.recipe import Recipe

# What the sweeps chose (sweep.json beside the results): better of two initialisations and rate of
# the baseline, rate of BN.
SMALL = Tuned({"init": "he", "lr": 0.03}, arms={"bn": {"lr": 0.03}})
FULL = Tuned({"init": "he", "lr": 0.01}, arms={"bn": {"lr": 0.03}})
CIFAR10 = Tuned({"init": "glorot", "lr": 0.01}, arms={"bn": {"lr": 0.01}})

# The Inception of this experiment: VGG A-LRN with dropout, L2, LRN, slow decay, batches of fixed
# composition and full distortion. lr and init come from the sweep (above).
BASE = Recipe(
    model="vgg_a_lrn",
    width=1 / 8,
    fc=128,
    norm_fc=True,  # where there is a norm: on the input of every non-linearity (BN 4.2)
    batch=32,  # BN 4.2
    dropout=0.5,
    l2=5e-4,
    shuffle="fixed",
    crop_pad=2,
    flip=True,  # where the labels allow it
    distortion=0.3,
    schedule="exponential",
    lr_factor=0.96,
    lr_every=21,
    steps=1200,
    split="fixed",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """All arms. `base` and `bn` differ in Batch Normalization and in nothing else."""
    part = size.options.get("part")
    return changes.figure_2(base, part) if part else changes.factorial(base, size)


# --- claims: criterion and margin are fixed here, before the runs --------------------------------

MARGIN = 1.0  # percentage points
POINTS = 100  # an accuracy of 1


def difference(results: Results, plus: str, minus: str, *others: str) -> list[float]:
    """Final test accuracy of `plus` less that of `minus`, in points, by seed that all share."""
    seeds = results.seeds(plus, minus, *others)
    ours, theirs = results.final(plus), results.final(minus)
    return [POINTS * (ours[seed] - theirs[seed]) for seed in seeds]


def speed_up(results: Results, slow: str, fast: str, target: str):
    """Interval of log(steps of slow / steps of fast) to the target set by the arm `target`."""
    results.seeds(slow, fast, target)
    targets = results.targets(target)
    a, b = results.to_target(slow, targets), results.to_target(fast, targets)
    seeds = sorted(a.keys() & b.keys())
    return log_ratio_interval([a[s] for s in seeds], [b[s] for s in seeds], LEVEL)


def speed_effect(slow: str, fast: Callable[[Results], str]):
    """What each seed says of "`fast` needs fewer steps than `slow`" to a target that a pilot fixed:
    the logarithm of the ratio. A run that does not get there counts with all of its budget."""

    def effects(results: Results) -> list[Effect]:
        quick = fast(results)
        targets = dict.fromkeys(results.seeds(slow, quick), pilot_s_target(results))
        a, b = results.to_target(slow, targets), results.to_target(quick, targets)
        logs = {seed: log(a[seed][0] / b[seed][0]) for seed in targets}
        return [Effect(f"steps of {slow} over those of {quick}", logs, "ratio")]

    return effects


def pilot_s_target(results: Results) -> float:
    """The accuracy that speeds are measured to. NotTested: no pilot fixed one."""
    if results.target is None:
        raise NotTested("no pilot of this data fixed a target beforehand.")
    return results.target


def judge_bn_15(results: Results) -> Verdict:
    """At a constant rate where there are such arms, else by the schedule that both share."""
    constant = "base+constant" in results.variants
    slow, fast = ("base+constant", "bn+constant") if constant else ("base", "bn")
    log_ratio = speed_up(results, slow, fast, slow)
    detail = ""
    if constant:
        decayed = as_ratio(speed_up(results, "base", "bn", "base")).mean
        detail = f"with the decaying rate of the baseline the ratio is {decayed:.2f}"
    return Verdict(
        verdict(log_ratio, margin=None, size=log(2)), as_ratio(log_ratio), "ratio", detail
    )


def judge_speed(slow: str, fast: Callable[[Results], str]):
    """The judge of "`fast` needs fewer steps than `slow`" to a target that a pilot fixed."""

    def judge(results: Results) -> Verdict:
        quick = fast(results)
        pilot_s_target(results)
        log_ratio = speed_up(results, slow, quick, "base")
        return Verdict(verdict(log_ratio, margin=None), as_ratio(log_ratio), "ratio")

    return judge


def fails(line: dict) -> bool:
    """Diverged, or no better than twice chance."""
    return line["diverged_at"] is not None or (
        line["final"]["test_accuracy"] < 2 / line["data"]["classes"]
    )


HIGH_RATES = ("lr_x5", "lr_x30")
ARMS_16 = ("base", *(f"{arm}+{rate}" for arm in ("base", "bn") for rate in HIGH_RATES))


def failures_16(results: Results) -> dict[str, dict[int, bool]]:
    """{arm: {seed: whether its net fails}}."""
    seeds = results.seeds(*ARMS_16)
    return {arm: {seed: fails(results.runs[arm][seed]) for seed in seeds} for arm in ARMS_16}


def effects_bn_16(results: Results) -> list[Effect]:
    """Whether a seed shows it: at one of the rates the net without BN fails and the one with BN
    does not, and the baseline does not."""
    failed = failures_16(results)
    shown = {
        seed: not broken
        and any(failed[f"base+{r}"][seed] and not failed[f"bn+{r}"][seed] for r in HIGH_RATES)
        for seed, broken in failed["base"].items()
    }
    return [Effect("at ×5 or ×30 only the net with BN trains, as both do at ×1", shown, "seeds")]


def judge_bn_16(results: Results) -> Verdict:
    """How often nets fail, by Fisher's test: means of nets that fail and nets that do not say
    little."""
    rates, arms = HIGH_RATES, ARMS_16
    failed = failures_16(results)
    broken, n = {arm: sum(failed[arm].values()) for arm in arms}, len(failed["base"])
    p = {r: fisher(broken[f"base+{r}"], broken[f"bn+{r}"], n) * len(rates) for r in rates}
    best = min(rates, key=lambda rate: p[rate])
    gap = verdict_interval(difference(results, f"bn+{best}", f"base+{best}", *arms))
    outcome = "reproduced" if p[best] < 1 - LEVEL and not broken["base"] else "inconclusive"
    if not any(broken.values()) and seldom(0, n):
        outcome = "contradicted"
    detail = "fail: " + ", ".join(f"{arm} {k} of {n}" for arm, k in broken.items())
    least = min(1.0, p[best])
    return Verdict(outcome, gap, "points", f"{detail}; Fisher p = {least:.2g}", least)


def judge_difference(plus: str, minus: str):
    """The judge of `plus` against `minus` by final test accuracy and MARGIN."""

    def judge(results: Results) -> Verdict:
        interval = verdict_interval(difference(results, plus, minus))
        found = verdict(interval, margin=MARGIN)
        return Verdict(found, interval, "points", f"{plus} less {minus}")

    return judge


def judge_bn_24(results: Results) -> Verdict:
    interval = verdict_interval(difference(results, "bn+no_lrn", "bn"))
    found, p = not_worse(interval, MARGIN), p_not_worse(interval, MARGIN)
    return Verdict(found, interval, "points", "bn+no_lrn less bn", p)


PILOT_S_TARGET = "Steps to 98 % of what the baseline reached in a pilot's seeds"

CLAIMS = (
    Claim(
        id="BN-15",
        is_primary=True,
        sentence=(
            "Batch Normalization alone more than halves the steps to the baseline's best accuracy."
        ),
        criterion=(
            "Steps to the target (98 % of a pilot's best; without a pilot the baseline's best over "
            "the other seeds), same rate: the interval of the ratio lies at or above 2."
        ),
        paper="2.33× (31.0 against 13.3 million steps to 72.2 %)",
        primary="cifar10",
        judge=judge_bn_15,
        gate=FOR_SPEEDS,
        effects=speed_effect("base", lambda results: "bn"),
    ),
    Claim(
        id="BN-15 fewer",
        sentence="Batch Normalization alone, at the baseline's rate, needs fewer steps.",
        criterion=f"{PILOT_S_TARGET}: the interval of the ratio lies above 1.",
        paper="31.0 against 13.3 million steps to 72.2 %",
        primary="mnist5k",
        judge=judge_speed("base", lambda results: "bn"),
        gate=FOR_SPEEDS,
        effects=speed_effect("base", lambda results: "bn"),
    ),
    Claim(
        id="BN-16",
        is_primary=True,
        sentence=(
            "Rates of 5 and 30 times the baseline's tuned one break it, and BN trains with them."
        ),
        criterion=(
            "At ×5 or at ×30 nets without BN fail (diverge, or end below twice chance) more often "
            "than nets with it, by Fisher's one-sided test, doubled for two rates, and never at "
            "the baseline's rate; contradicted if none fails in ten."
        ),
        paper="×5 sent Inception's parameters to machine infinity",
        primary="cifar10",
        judge=judge_bn_16,
        gate=FOR_FAILURES,
        effects=effects_bn_16,
    ),
    Claim(
        id="BN-17",
        is_primary=True,
        sentence="BN with all seven changes needs far fewer steps still than BN alone.",
        criterion=(
            f"{PILOT_S_TARGET}, BN alone in the whole budget, all changes in one of their own: the "
            "interval of the ratio lies above 1."
        ),
        paper="14.8× (31.0 against 2.1 million steps)",
        primary="cifar10",
        judge=judge_speed("bn", changes.whole_arm),
        gate=FOR_SPEEDS,
        effects=speed_effect("bn", changes.whole_arm),
    ),
    Claim(
        id="BN-18",
        is_primary=True,
        sentence="Rate ×30 learns more slowly than ×5 at first and ends higher.",
        paper="×30: 2.7 against 2.1 million steps to 72.2 %, then 74.8 against 73.0 %",
        primary="cifar10",
        not_tested=changes.DESTROYED,
    ),
    Claim(
        id="BN-22",
        sentence="With BN, an L2 weight five times weaker generalises better.",
        criterion=f"Final test accuracy of bn+l2_5th less bn; no effect inside ±{MARGIN:g} point.",
        paper="improves held-out accuracy (no figure)",
        primary="cifar10",
        judge=judge_difference("bn+l2_5th", "bn"),
        gate=FOR_FITTED_NETS,
    ),
    Claim(
        id="BN-24",
        is_primary=True,
        sentence="With BN, local response normalisation is unnecessary.",
        criterion=(
            "Final test accuracy of bn+no_lrn less bn: reproduced if above "
            f"−{MARGIN:g} point (one-sided, 0.9 % an error at each look)."
        ),
        paper="not necessary (no figure)",
        primary="cifar10",
        judge=judge_bn_24,
        gate=FOR_FITTED_NETS,
    ),
    Claim(
        id="BN-25 decay",
        is_primary=True,
        sentence="Faster decay of the rate suits BN more than it suits the baseline.",
        paper="6 times faster, because BN trains faster (no figure)",
        primary="cifar10",
        not_tested=changes.DESTROYED,
    ),
    Claim(
        id="BN-25 distortion",
        sentence="Weaker photometric distortion suits BN more than it suits the baseline.",
        paper="BN sees each image fewer times (no figure)",
        primary="cifar10",
        not_tested=(
            "the margin of 1 point is wider than what distortion does to either net here (0.7 "
            "points): no interval inside it could tell."
        ),
    ),
)

# --- sizes ---------------------------------------------------------------------------------------

# The arms that claims read: they get the long budget where there are two.
RATES = tuple(
    f"{arm}{edit}" for arm in ("base", "bn") for edit in ("", "+lr_x5", "+lr_x30", "+constant")
)
JUDGED = (
    *(*RATES, "bn+all", "bn+all+lr_x30", "bn+l2_5th", "bn+no_lrn"),
    *(f"{arm}+{change}" for arm in ("base", "bn") for change in ("decay_x6", "colour_3rd")),
)

# Figure 2 on digits: nets that are trained to the end in minutes. The rate falls to a tenth over an
# arm's own budget, and every tenth step is evaluated, whatever the budget.
DIGITS = {"batch": 128, "dropout": 0.2, "crop_pad": 1, "spacing": "even"}


def figure_2_edits(steps: int) -> dict:
    return DIGITS | {"steps": steps, "lr_every": steps / 57, "evaluations": steps // 10}


SIZES = {
    "smoke": Size(seeds=2, edits=figure_2_edits(30), tuned=SMALL, options={"part": 3}),
    # The sweep's three seeds are the pilot's: nothing that is judged has been looked at.
    "small": Size(
        seeds=5,
        first_seed=3,
        target=0.937,
        edits=figure_2_edits(480),
        tuned=SMALL,
        options={"part": 3},
        sweep_seeds=3,
    ),
    "full": Size(
        seeds=5,
        edits={"image_size": 32, "fit": "pad", "crop_pad": 4, "steps": 800, "lr_every": 14.0},
        tuned=FULL,
    ),
    # 15.7 epochs of 45,000 images; the other arms 6.0, at the same rate of decay. The sweep's runs
    # get 2 epochs, and each arm's four best rates the 15.7 again.
    "full-cifar10": Size(
        seeds=5,
        edits={"image_size": 32, "crop_pad": 4, "steps": 22_100, "lr_every": 387.0},
        tuned=CIFAR10,
        core=JUDGED,
        others={"steps": 8_438},
        sweep_steps=2_813,
        sweep_seeds=1,
        finalists=4,
    ),
}

EXPERIMENT = Experiment(
    name="bn_ablation",
    title="What accelerates a BN network",
    question=(
        "Which of the Batch Normalization paper's claims about speed, learning rate and the seven "
        "changes of section 4.2.1 hold on a small VGG, one change at a time?"
    ),
    base=BASE,
    baseline="base",
    variants=variants,
    claims=CLAIMS,
    sizes=SIZES,
    panels={
        "what each change gives": (
            "base",
            "bn",
            "bn+all/3",
            *(f"bn+all-{name}/3" for name in changes.LEFT_OUT),
        ),
        "learning rate without BN": ("base", "base+lr_x5", "base+lr_x30"),
        "learning rate with BN": ("bn", "bn+lr_x5", "bn+lr_x30", "bn+tuned"),
        "constant rate": ("base+constant", "bn+constant"),
        "all seven changes": ("base", "bn", "base+all", "bn+all-lr_x5", "bn+all", "bn+all+lr_x30"),
        "one change, without BN": ("base", *(f"base+{name}" for name in changes.CHANGES)),
        "one change, with BN": ("bn", *(f"bn+{name}" for name in changes.CHANGES)),
        "all but one, without BN": ("base+all", *(f"base+all-{name}" for name in changes.CHANGES)),
        "all but one, with BN": ("bn+all", *(f"bn+all-{name}" for name in changes.CHANGES)),
        "sigmoid": ("base+all+sigmoid", "bn+all+sigmoid"),
        "the two readings of VGG's initialisation": ("base", "base+std_0.01", "base+std_0.1"),
        "L2 with BN": ("bn+l2_x5", "bn", "bn+l2_5th", "bn+l2_0"),
    },
    opening=("base", "bn", "bn+all/3", "base+lr_x5", "bn+lr_x5"),
    tables=changes.tables,
    charts=changes.charts,
    sweep=Sweep(
        arms={
            "no BN, He": {"init": "he"},
            "no BN, Glorot": {"init": "glorot"},
            "BN, He": {"init": "he", "norm": "batch"},
            "BN, Glorot": {"init": "glorot", "norm": "batch"},
        },
        rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        seeds=2,
    ),
    notes=(
        "Seeds differ in initial weights, batches, crops and dropout and share the test images; "
        "rates and initialisation were chosen on the validation images only.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
