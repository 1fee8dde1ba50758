"""VGG section 4.1, Table 3: does error fall with depth, and by what?

A (8 convolutions) to E (16), A with LRN, C's 1×1 convolutions with and without their
non-linearity, and B with each pair of 3×3 convolutions replaced by one 5×5, as printed and with
as many weights. Every net is trained from scratch by one rule at its own best rate of one grid,
and tested densely at Q = S.

    python -m experiments.vgg_depth                                   small, on embedded digits
    python -m experiments.vgg_depth --size full --data folder:PATH    photographs, n = 5
"""

from __future__ import annotations

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Verdict
from vggbn.experiment.judges import judge_gaps
from vggbn.experiment.views import view
from vggbn.report import Table
from vggbn.training.recipe import Recipe

MATCHED = 0.93  # of B's width: then B 5×5 has as many convolution weights as B, to 2 %


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Table 1's nets and the controls."""
    arms = {name: nets.table_net(base, name, size) for name in nets.MODELS}
    five = arms["B 5×5"]
    return arms | {"B 5×5 matched": five.but(width=MATCHED * five.width)}


def views(variants):
    """Each net on whole images at the scale that it was trained at, with the mirror image."""
    return {dense(name): view(name, recipe.scale_min) for name, recipe in variants.items()}


def dense(net: str) -> str:
    """The name of the arm that tests `net`."""
    return f"{net} dense"


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

MARGIN = 2.0  # points: five folds of some 750 test photographs can hardly settle less
PRIMARY = "folder:clothing"


def better(*pairs: tuple[str, str]):
    """The judge of "each first net beats its second"."""
    trained = dict.fromkeys(name for pair in pairs for name in pair)
    tested = [(dense(a), dense(b)) for a, b in pairs]
    judge = judge_gaps(tested, trained, margin=MARGIN)

    def with_fits(results: Results) -> Verdict:
        found = judge(results)
        fits = ", ".join(f"{net} {judges.trained_text(results, net)} %" for net in trained)
        return found._replace(detail=f"{found.detail}; training images: {fits}")

    return with_fits


RULE = f"Test accuracy, dense at Q = S: paired gap above 0; no effect inside ±{MARGIN:g} points."

NEVER_TRAINED = (
    "some of these nets stay at chance on the photographs, and the others fit half of their "
    "training images: what such nets differ by says nothing of depth."
)
TOO_FEW = (
    "five folds of some 750 photographs settle 2 points, and half a point would matter: it takes "
    "more and larger test sets."
)

CLAIMS = (
    Claim(
        id="V-3",
        is_primary=True,
        sentence="Error falls with depth: from A to B and from B to D.",
        paper="29.6 → 28.7 → 27.0 % top-1",
        primary=PRIMARY,
        not_tested=NEVER_TRAINED,
    ),
    Claim(
        id="V-3 saturation",
        sentence="Error saturates at 19 layers: E is no better than D.",
        paper="27.3 against 27.0 %",
        primary=PRIMARY,
        not_tested=TOO_FEW,
    ),
    Claim(
        id="V-4",
        is_primary=True,
        sentence="Local response normalisation does not help, and costs time.",
        paper="29.7 against 29.6 %",
        primary=PRIMARY,
        not_tested=TOO_FEW,
    ),
    Claim(
        id="V-5",
        sentence="An extra non-linearity helps: C beats B, and its 1×1 convolutions without one.",
        criterion=RULE + " Both must hold.",
        paper="28.1 against 28.7 % (the linear control is ours)",
        primary=PRIMARY,
        judge=better(("C", "B"), ("C", "C linear")),
    ),
    Claim(
        id="V-6",
        sentence="Spatial context helps: D's 3×3 beats C's 1×1.",
        paper="27.0 against 28.1 %",
        primary=PRIMARY,
        not_tested=NEVER_TRAINED,
    ),
    Claim(
        id="V-7",
        sentence="Two 3×3 convolutions beat one 5×5, as printed and with as many weights.",
        criterion=RULE + " Both must hold.",
        paper="5×5: 7 % higher top-1 error (centre crop)",
        primary=PRIMARY,
        judge=better(("B", "B 5×5"), ("B", "B 5×5 matched")),
    ),
)

# --- tables --------------------------------------------------------------------------------------

TABLE_3 = {
    "A": "29.6 / 10.4",
    "A-LRN": "29.7 / 10.5",
    "B": "28.7 / 9.9",
    "C": "28.1 / 9.4",
    "D": "27.0 / 8.8",
    "E": "27.3 / 9.0",
}


def tables(results: Results) -> list[Table]:
    """Table 3's rows of S = 256, and the controls."""
    names = [name for name in results.variants if dense(name) in results.runs]
    rows = [
        (
            name,
            TABLE_3.get(name, "–"),
            judges.error_text(results, dense(name)),
            judges.error_text(results, dense(name), "balanced"),
            judges.error_text(results, dense(name), "top5"),
            judges.trained_text(results, name),
        )
        for name in names
    ]
    headers = (
        "net",
        "paper: top-1 / top-5 error, %",
        "error, %",
        "balanced error, %",
        "top-5 error, %",
        "training accuracy at the end (with dropout), %",
    )
    note = "Mean ± half the 95 % interval over seeds; dense at Q = S, with the mirror image."
    return [Table(headers, rows, "Table 3, S = 256: single test scale", note)]


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 20, "lr_every": 12}, arms=("A", "B")),
    "small": Size(seeds=3, edits=nets.DIGITS),
    "full": Size(
        seeds=5,
        edits=nets.PHOTOS | nets.FULL,
        tuned=nets.PHOTO_TUNED,
        sweep_steps=1200,
    ),
    "paper": Size(seeds=1, edits=nets.PAPER, options=nets.PAPER_OPTIONS, arms=tuple(nets.MODELS)),
}

EXPERIMENT = Experiment(
    name="vgg_depth",
    title="Depth",
    question=(
        "Does test error fall from VGG-A to VGG-E when every net is trained by the same rule, and "
        "which of the paper's reasons (non-linearities, spatial context, small kernels) holds?"
    ),
    base=nets.BASE,
    baseline="A",
    variants=variants,
    views=views,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={
        "depth": ("A", "B", "D", "E"),
        "the same depth": ("A", "A-LRN"),
        "what B becomes": ("B", "C", "C linear", "D", "B 5×5", "B 5×5 matched"),
    },
    sweep=Sweep(
        arms={name: {"model": nets.MODELS[name]} for name in TABLE_3},
        rates=(0.0025, 0.005, 0.01),
        seeds=3,  # a net without BN may stay at chance in one seed and not in another
    ),
    any_images=nets.PHOTOS,
)

if __name__ == "__main__":
    main(EXPERIMENT)
