"""BN section 4.2.3, Figure 4: do several nets beat one, and many crops one view?

Six nets with BN for every seed, alike but for all that is random, on the same training images;
their class probabilities are averaged. And one net's probabilities over a grid of crops and their
mirror images, against its central crop alone.

    python -m experiments.bn_ensemble                                             small, canvas
    python -m experiments.bn_ensemble --size full --data-dir DIR                  photographs
"""

from __future__ import annotations

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.claims.stats import paired_interval, verdict
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned, Verdict
from vggbn.experiment.gate import FOR_ANY_NET
from vggbn.experiment.judges import judge_images, verdict_interval
from vggbn.experiment.plan import edited
from vggbn.experiment.views import Look, View, view
from vggbn.report import Table
from vggbn.training.recipe import Recipe

MEMBERS = 6  # Figure 4's ensemble


def member(i: int) -> str:
    """The name of a member's arm."""
    return f"net {i + 1}"


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """VGG-A with BN, drawn six times."""
    bn = edited(base, {"norm": "batch", "norm_fc": True, **size.tuned.arms["bn"]})
    return {member(i): bn if i == 0 else bn.but(draw=i) for i in range(MEMBERS)}


def views(variants):
    """Each net by its central crop; all six together; the first by many crops, at one scale and
    at three."""
    sides = {name: recipe.test_side for name, recipe in variants.items()}
    recipe = variants[member(0)]
    found = {
        f"{name}, one crop": view(name, side, by=("centre",), mirrored=False)
        for name, side in sides.items()
    }
    looks = tuple(Look(name, (side,), ("centre",)) for name, side in sides.items())
    found["ensemble, one crop"] = View(looks, mirrored=False)
    scales = tuple(nets.side(recipe, paper) for paper in (256, 288, 320))
    for name, own in {"50 crops": scales[:1], "150 crops": scales}.items():
        found[f"net 1, {name}"] = view(member(0), *own, by=("multi_crop",))
        looks = tuple(Look(name, own, ("multi_crop",)) for name in variants)
        found[f"ensemble, {name}"] = View(looks)
    return found


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "folder:clothing"
MARGIN = 0.5  # points


def judge_bn_28(results: Results) -> Verdict:
    """The ensemble against the member that is best on the test images, seed by seed."""
    singles = [f"{member(i)}, one crop" for i in range(MEMBERS)]
    seeds = results.seeds("ensemble, one crop", *singles)
    final = {name: results.final(name) for name in ("ensemble, one crop", *singles)}
    ours = final["ensemble, one crop"]
    gaps = [100 * (ours[s] - max(final[name][s] for name in singles)) for s in seeds]
    mean = [100 * (ours[s] - sum(final[name][s] for name in singles) / MEMBERS) for s in seeds]
    interval, average = verdict_interval(gaps), paired_interval(mean)
    detail = (
        f"against the mean single net {average.mean:+.2f} [{average.low:+.2f}, {average.high:+.2f}]"
    )
    return Verdict(verdict(interval, margin=MARGIN), interval, "points", detail)


CLAIMS = (
    Claim(
        id="BN-28",
        sentence="The averaged class probabilities of six nets beat the best single net.",
        criterion=(
            "Test accuracy, one crop, less that of the member which is best on the test images: "
            f"above 0; no effect inside ±{MARGIN:g} points."
        ),
        paper="20.1 against 21.99 % top-1 error (with crops, against one net)",
        primary=PRIMARY,
        judge=judge_bn_28,
        gate=FOR_ANY_NET,
    ),
    Claim(
        id="BN-29",
        sentence="Many crops beat one.",
        criterion=(
            "Test accuracy of one net by 150 crops of three scales less that by the central crop: "
            f"above 0; no effect inside ±{MARGIN:g} points. Image by image (McNemar) is shown "
            "beside and decides nothing."
        ),
        paper="21.99 against 25.2 % top-1 error",
        primary=PRIMARY,
        judge=judge_images([("net 1, 150 crops", "net 1, one crop")], margin=MARGIN),
        gate=FOR_ANY_NET,
    ),
)

# --- tables --------------------------------------------------------------------------------------

FIGURE_4 = {
    ("net 1", "one crop"): "25.2 / 7.82",
    ("net 1", "150 crops"): "21.99 / 5.82 (144 crops)",
    ("ensemble", "150 crops"): "20.1 / 4.9 (144 crops)",
}


def tables(results: Results) -> list[Table]:
    """Figure 4's rows of BN-Inception."""
    rows = [
        (
            {"net 1": "1", "ensemble": str(MEMBERS)}[nets_],
            crops,
            FIGURE_4.get((nets_, crops), "–"),
            judges.error_text(results, f"{nets_}, {crops}"),
            judges.error_text(results, f"{nets_}, {crops}", "balanced"),
        )
        for nets_ in ("net 1", "ensemble")
        for crops in ("one crop", "50 crops", "150 crops")
    ]
    headers = ("nets", "crops", "paper: top-1 / top-5 error, %", "error, %", "balanced error, %")
    note = "Mean ± half the 95 % interval over seeds."
    return [Table(headers, rows, "Figure 4", note)]


# --- sizes ---------------------------------------------------------------------------------------

# What the sweeps chose (sweep.json beside the results).
SMALL = Tuned(arms={"bn": {"lr": 0.03}})
FULL = Tuned(arms={"bn": {"lr": 0.01}})

SIZES = {
    "smoke": Size(
        seeds=2,
        edits={"steps": 10, "lr_every": 6, "fc": 32},
        tuned=SMALL,
        arms=tuple(map(member, range(MEMBERS))),
    ),
    "small": Size(seeds=3, edits={"steps": 400, "lr_every": 240, "fc": 256}, tuned=SMALL),
    "full": Size(seeds=5, edits=nets.PHOTOS | {"steps": 2000, "lr_every": 1200}, tuned=FULL),
}

EXPERIMENT = Experiment(
    name="bn_ensemble",
    title="Ensembles and crops",
    question="Do six nets with BN beat the best of them, and many crops the central one?",
    base=nets.BASE,
    baseline=member(0),
    variants=variants,
    views=views,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={"the members": tuple(map(member, range(MEMBERS)))},
    sweep=Sweep(
        arms={"BN": {"norm": "batch", "norm_fc": True}}, rates=(0.003, 0.01, 0.03, 0.1), seeds=2
    ),
    any_images=nets.PHOTOS,
    notes=(
        "The best member is chosen on the test images: the hardest rival. The paper's members "
        "differ in more than chance (initial scale, dropout, where BN stands).",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
