"""VGG section 4.4, Table 6: averaging the posteriors of several nets.

The paper's submission of seven nets, and its two best ones, D and E trained with scale jitter.
Sides are in the paper's pixels, where a crop has 224.

    python -m experiments.vgg_fusion                                 small, embedded
    python -m experiments.vgg_fusion --size full --data folder:PATH    photographs, n = 5
"""

from __future__ import annotations

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size
from vggbn.experiment.views import Look, View
from vggbn.report import Table
from vggbn.training.recipe import Recipe

FIXED = {"": (224, 256, 288), " S384": (352, 384, 416)}
JITTER = (256, 384, 512)
ALL_WAYS = {"dense": ("dense",), "multi-crop": ("multi_crop",), "both": ("dense", "multi_crop")}


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """C, D and E at two fixed scales, D and E with jitter; of a small size the nets that it has."""
    arms = {}
    for net in size.options["fused"]:
        arms[net] = nets.table_net(base, net, size)
        ways = nets.scale_arms(net, arms[net], size.options["fine-tuning"])
        arms[f"{net} S384"] = ways[f"{net} S384"]
        if net != size.options["fused"][0]:
            arms[f"{net} jitter"] = ways[f"{net} jitter"]
    return arms


def views(variants) -> dict[str, View]:
    """The seven nets of the submission, the two best singly and together."""
    one, *two = dict.fromkeys(name.split()[0] for name in variants)  # C, then D and E

    def look(arm: str, sides, by=("dense",)) -> Look:
        return Look(arm, tuple(nets.side(variants[arm], side) for side in sides), by)

    weak = [look(net + way, FIXED[way]) for net in (one, *two) for way in FIXED]
    found = {"7 nets": View((look(f"{two[0]} jitter", JITTER), *weak))}
    for way, by in ALL_WAYS.items():
        looks = [look(f"{net} jitter", JITTER, by) for net in two]
        found |= {f"{net} {way}": View((k,)) for net, k in zip(two, looks, strict=True)}
        found[f"{'+'.join(two)} {way}"] = View(tuple(looks))
    return found


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "folder:clothing"


def best_two(results: Results) -> list[str]:
    """The nets with jitter."""
    return [name.split()[0] for name in results.variants if name.endswith("jitter")]


NEVER_TRAINED = (
    "some of the seven nets stay at chance on the photographs: what an average with them loses "
    "says nothing of good and of weaker nets."
)

CLAIMS = (
    Claim(
        id="V-14 two",
        sentence="Two good nets together beat either one.",
        paper="D + E: 24.0 against 24.8 and 24.8 % top-1",
        primary=PRIMARY,
        not_tested=NEVER_TRAINED,
    ),
    Claim(
        id="V-14 seven",
        sentence="Two good nets beat seven mostly weaker ones.",
        paper="24.0 against 24.7 % top-1",
        primary=PRIMARY,
        not_tested=NEVER_TRAINED,
    ),
)

# --- tables --------------------------------------------------------------------------------------

TABLE_6 = {
    "7 nets": "24.7 / 7.5",
    "D+E dense": "24.0 / 7.1",
    "D+E multi-crop": "23.9 / 7.2",
    "D+E both": "23.7 / 6.8",
    "D dense": "24.8 / 7.5",
    "E dense": "24.8 / 7.5",
    "D multi-crop": "24.6 / 7.5",
    "E multi-crop": "24.6 / 7.4",
    "D both": "24.4 / 7.2",
    "E both": "24.4 / 7.1",
}


def tables(results: Results) -> list[Table]:
    """Table 6, and the single nets of Table 5 beside it."""
    tested = [name for name in results.variants if name == "7 nets" or name.split()[-1] in ALL_WAYS]
    rows = [
        (
            name,
            TABLE_6.get(name, "–"),
            *(
                judges.error_text(results, name, score)
                for score in ("accuracy", "balanced", "top5")
            ),
        )
        for name in sorted(tested, key=lambda name: (name != "7 nets", "+" not in name))
    ]
    headers = ("nets", "paper: top-1 / top-5 error, %", "error, %", "balanced error, %", "top-5, %")
    note = (
        "Posteriors averaged over nets. The seven: C, D and E at S = 256 (Q = 224, 256, 288) and "
        "384 (Q = 352, 384, 416), and D with jitter (Q = 256, 384, 512); the paper's had only its "
        "dense layers fine-tuned with jitter."
    )
    return [Table(headers, rows, "Table 6: several nets", note)]


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(
        seeds=2,
        edits={"steps": 20, "lr_every": 12},
        options={"fused": ("A", "B", "D"), "fine-tuning": 10},
    ),
    "small": Size(
        seeds=3, edits=nets.DIGITS, options={"fused": ("A", "B", "D"), "fine-tuning": 200}
    ),
    "full": Size(
        seeds=5,
        edits=nets.PHOTOS | nets.FULL,
        options={"fused": ("C", "D", "E"), **nets.FULL_OPTIONS},
        tuned=nets.PHOTO_TUNED,
    ),
    "paper": Size(
        seeds=1, edits=nets.PAPER, options={"fused": ("C", "D", "E"), **nets.PAPER_OPTIONS}
    ),
}

EXPERIMENT = Experiment(
    name="vgg_fusion",
    title="Fusion",
    question="Do two good nets beat each of them, and seven mostly weaker ones?",
    base=nets.BASE,
    baseline="A",
    variants=variants,
    views=views,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={},
    sweep="vgg_depth",
    any_images=nets.PHOTOS,
)

if __name__ == "__main__":
    main(EXPERIMENT)
