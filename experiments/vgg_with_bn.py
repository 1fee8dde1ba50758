"""The pairing this project is named for: VGG with and without Batch Normalization.

A, D and E, ReLU, each at its own rate and at ten times that, with and without BN; and D from the
bad initialisations of `vgg_init` with BN: does it replace the weights from net A? The VGG paper has
no BN; the claims are the BN paper's (sections 1 and 3.3), tried on VGG's nets.

    python -m experiments.vgg_with_bn                                 small, embedded
    python -m experiments.vgg_with_bn --size full --data folder:PATH    photographs, n = 5
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.claims.stats import verdict
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size, Verdict
from vggbn.experiment.gate import FOR_FAILURES, untrained
from vggbn.experiment.judges import verdict_interval
from vggbn.report import Table
from vggbn.training.recipe import Recipe

BN, FAST = " + BN", " ×10"


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Each net × {no BN, BN} × {its rate, ten times that}; D from normal weights × {no BN, BN}."""
    arms = {}
    for net in size.options["nets"]:
        plain = nets.table_net(base, net, size)
        for norm, recipe in {"": plain, BN: plain.but(norm="batch", norm_fc=True)}.items():
            arms[f"{net}{norm}"] = recipe
            arms[f"{net}{norm}{FAST}"] = recipe.but(lr=10 * recipe.lr)
    deep = size.options["nets"][min(1, len(size.options["nets"]) - 1)]
    for name, init in nets.NORMAL.items():
        for norm in ("", BN):
            arms[f"{deep}{norm}, {name}"] = arms[f"{deep}{norm}"].but(init=init)
    return arms


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

MARGIN = 1.0  # points
PRIMARY = "folder:clothing"


def trained_nets(results: Results) -> list[str]:
    """The nets that this size has with and without BN."""
    return [net for net in nets.MODELS if {net, net + BN} <= set(results.variants)]


def mean_interval(results: Results, ways: Sequence[str], score):
    """The interval of the mean over nets of score(net, seed), in points; each net is needed in all
    of these ways."""
    names = trained_nets(results)
    seeds = results.seeds(*(net + way for net in names for way in ways))
    return verdict_interval([sum(score(n, seed) for n in names) / len(names) for seed in seeds])


def judge_accuracy(results: Results) -> Verdict:
    def gain(net, seed):
        return 100 * (results.final(net + BN)[seed] - results.final(net)[seed])

    interval = mean_interval(results, ("", BN), gain)
    return Verdict(verdict(interval, margin=MARGIN), interval, "points", "mean over the nets")


def judge_rate(results: Results) -> Verdict:
    def gain(arm, seed):
        return 100 * (results.final(arm + FAST)[seed] - results.final(arm)[seed])

    interval = mean_interval(
        results,
        ("", BN, FAST, BN + FAST),
        lambda net, seed: gain(net + BN, seed) - gain(net, seed),
    )
    lost = ", ".join(
        f"{arm}{FAST} {sum(map(untrained, results.runs[arm + FAST].values()))}"
        for net in trained_nets(results)
        for arm in (net, net + BN)
    )
    return Verdict(verdict(interval, margin=MARGIN), interval, "points", f"untrained seeds: {lost}")


def judge_init(results: Results) -> Verdict:
    arms = [arm for arm in results.variants if arm.endswith(tuple(nets.NORMAL))]
    plain, mended = ([arm for arm in arms if (BN in arm) == with_bn] for with_bn in (False, True))
    return judges.verdict_on_failures(results, plain, mended)


CLAIMS = (
    Claim(
        id="VGG+BN accuracy",
        sentence="BN raises the test accuracy of VGG's nets.",
        criterion=(
            "Final test accuracy with BN less without, at each net's own rate without BN, mean "
            f"over the nets: above 0; no effect inside ±{MARGIN:g} point."
        ),
        paper="of Inception: 74.8 against 72.2 %",
        primary=PRIMARY,
        judge=judge_accuracy,
    ),
    Claim(
        id="VGG+BN rate",
        sentence="With BN a rate ten times higher does less harm than without.",
        criterion=(
            "What ten times the rate gains with BN less what it gains without, mean over the nets: "
            f"above 0; no effect inside ±{MARGIN:g} point."
        ),
        paper="higher rates train only with BN (no VGG)",
        primary=PRIMARY,
        judge=judge_rate,
        gate=FOR_FAILURES,
    ),
    Claim(
        id="VGG+BN start",
        sentence="BN replaces the initialisation from net A.",
        criterion=(
            "Some normal initialisation leaves more seeds at chance without BN than each of them "
            "does with BN, by Fisher's one-sided test; contradicted if none of ten does without BN."
        ),
        paper="less careful about initialisation (no figure)",
        primary=PRIMARY,
        judge=judge_init,
        gate=FOR_FAILURES,
    ),
)


def tables(results: Results) -> list[Table]:
    """Each arm's fit and error."""
    note = "Centre crop at Q = S."
    return [judges.fit_table(results, "VGG with and without BN", "net", note)]


SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 20, "lr_every": 12}, options={"nets": ("A",)}),
    "small": Size(seeds=3, edits=nets.DIGITS, options={"nets": ("A", "D")}),
    "full": Size(
        seeds=5,
        edits=nets.PHOTOS | nets.FULL,
        options={"nets": ("A", "D", "E"), **nets.FULL_OPTIONS},
        tuned=nets.PHOTO_TUNED,
    ),
    "paper": Size(seeds=1, edits=nets.PAPER | {"init": "he"}, options={"nets": ("A", "D", "E")}),
}

EXPERIMENT = Experiment(
    name="vgg_with_bn",
    title="VGG with Batch Normalization",
    question=(
        "What does Batch Normalization give VGG's nets: accuracy, a tolerance of high rates, and "
        "freedom from the initialisation that the paper needed?"
    ),
    base=nets.BASE,
    baseline="A",
    variants=variants,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={
        net: tuple(f"{net}{norm}{fast}" for norm in ("", BN) for fast in ("", FAST))
        for net in ("A", "D", "E")
    },
    sweep="vgg_depth",
    any_images=nets.PHOTOS,
)

if __name__ == "__main__":
    main(EXPERIMENT)
