"""VGG section 4.3, Table 5: dense evaluation, crops, and both; V-13: the mirror image.

The same nets, trained with scale jitter, are tested in each way at Q = 256, 384 and 512 (in the
paper's pixels, where a crop has 224). Dense evaluation surrounds every crop with the real
neighbouring pixels, multi-crop with zeros.

    python -m experiments.vgg_dense_eval                                 small, embedded
    python -m experiments.vgg_dense_eval --size full --data folder:PATH    photographs, n = 5
"""

from __future__ import annotations

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size, Verdict
from vggbn.experiment.gate import FOR_ANY_NET
from vggbn.experiment.judges import judge_images
from vggbn.experiment.views import View, view
from vggbn.report import Table
from vggbn.training.recipe import Recipe

SCALES = (256, 384, 512)
WAYS = {"dense": ("dense",), "multi-crop": ("multi_crop",), "both": ("dense", "multi_crop")}


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """The nets of the size after scale jitter; their ancestors are found or trained."""
    starts = {net: nets.table_net(base, net, size) for net in size.options["nets"]}
    return {
        f"{net} jitter": nets.scale_arms(net, start, size.options["fine-tuning"])[f"{net} jitter"]
        for net, start in starts.items()
    }


def views(variants) -> dict[str, View]:
    """Every way at the three scales, and at the middle one what the mirror image adds."""
    found = {}
    for arm, recipe in variants.items():
        sides = [nets.side(recipe, side) for side in SCALES]
        found |= {f"{arm} {way}": view(arm, *sides, by=by) for way, by in WAYS.items()}
        for by in ("centre", "dense"):
            found[f"{arm} {by} @384"] = view(arm, sides[1], by=(by,))
            found[f"{arm} {by} @384, no mirror"] = view(arm, sides[1], by=(by,), mirrored=False)
    return found


# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

MARGIN = 0.5  # points; the same images are tested both ways, so small differences show
PRIMARY = "folder:clothing"


def judge_both(results: Results) -> Verdict:
    pairs = [
        (f"{arm} both", f"{arm} {way}") for arm in arms(results) for way in ("dense", "multi-crop")
    ]
    return judge_images(pairs, margin=MARGIN)(results)


def judge_mirror(results: Results) -> Verdict:
    pairs = [(f"{arm} dense @384", f"{arm} dense @384, no mirror") for arm in arms(results)]
    return judge_images(pairs, margin=MARGIN)(results)


def arms(results: Results) -> list[str]:
    """The trained nets, not the views of them."""
    return [name for name in results.variants if name.endswith("jitter")]


RULE = (
    "Test accuracy, paired by trained net: gap above 0 for every net; no effect inside "
    f"±{MARGIN:g} point. Image by image (McNemar) is shown beside and decides nothing."
)
CLAIMS = (
    Claim(
        id="V-12",
        sentence="Dense evaluation and crops complement each other: both together beat each.",
        criterion=RULE,
        paper="D: 24.4 against 24.8 (dense) and 24.6 (multi-crop) % top-1, E the same",
        primary=PRIMARY,
        judge=judge_both,
        gate=FOR_ANY_NET,
    ),
    Claim(
        id="V-13",
        sentence="Averaging over the mirror image lowers the error.",
        criterion=RULE,
        paper="used throughout, no figure",
        primary=PRIMARY,
        judge=judge_mirror,
        gate=FOR_ANY_NET,
    ),
)

# --- tables --------------------------------------------------------------------------------------

TABLE_5 = {
    "D jitter dense": "24.8 / 7.5",
    "D jitter multi-crop": "24.6 / 7.5",
    "D jitter both": "24.4 / 7.2",
    "E jitter dense": "24.8 / 7.5",
    "E jitter multi-crop": "24.6 / 7.4",
    "E jitter both": "24.4 / 7.1",
}


def tables(results: Results) -> list[Table]:
    """Table 5 with what each way costs, then the single scale."""
    headers = ("net", "how", "paper: top-1 / top-5 error, %", "error, %", "balanced error, %")
    rows, single = [], []
    for arm in arms(results):
        one = milliseconds(results, f"{arm} centre @384")
        for way in WAYS:
            rows.append((*_row(results, arm, way), cost(results, f"{arm} {way}", one)))
        for way in ("centre @384, no mirror", "centre @384", "dense @384, no mirror", "dense @384"):
            single.append(_row(results, arm, way))
    note = (
        "Q = 256, 384, 512 in the paper's pixels, with the mirror image. Time of a process with "
        "one thread, rescaling counted in, over that of the centre crop with its mirror image."
    )
    return [
        Table((*headers, "time an image"), rows, "Table 5: dense evaluation and crops", note),
        Table(headers, single, "One scale, with and without the mirror image", "Q = 384."),
    ]


def _row(results: Results, arm: str, way: str) -> tuple[str, ...]:
    name = f"{arm} {way}"
    ours = [judges.error_text(results, name, score) for score in ("accuracy", "balanced")]
    return (arm.split()[0], way, TABLE_5.get(name, "–"), *ours)


def milliseconds(results: Results, name: str) -> float:
    """Mean milliseconds an image of a view, over seeds."""
    results.seeds(name)
    lines = results.runs[name].values()
    return sum(1e3 * line["seconds"]["all"] / line["final"]["test_n"] for line in lines) / len(
        lines
    )


def cost(results: Results, name: str, one: float) -> str:
    """Milliseconds an image, and over `one`."""
    time = milliseconds(results, name)
    return f"{time:.1f} ms, ×{time / one:.0f}"


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(
        seeds=2, edits={"steps": 20, "lr_every": 12}, options={"nets": ("A",), "fine-tuning": 10}
    ),
    "small": Size(seeds=3, edits=nets.SMALL, options=nets.SMALL_OPTIONS),
    "full": Size(
        seeds=5,
        edits=nets.PHOTOS | nets.FULL,
        options={"nets": ("D", "E"), **nets.FULL_OPTIONS},
        tuned=nets.PHOTO_TUNED,
    ),
    "paper": Size(seeds=1, edits=nets.PAPER, options={"nets": ("D", "E"), **nets.PAPER_OPTIONS}),
}

EXPERIMENT = Experiment(
    name="vgg_dense_eval",
    title="Dense evaluation and crops",
    question=(
        "Do dense evaluation, 50 crops a scale and the mirror image each lower the test error of "
        "one and the same net, and at what cost?"
    ),
    base=nets.BASE,
    baseline="A jitter",
    variants=variants,
    views=views,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={"scale jitter": ("A jitter", "D jitter", "E jitter")},
    sweep="vgg_depth",
    any_images=nets.PHOTOS,
    gallery=True,
)

if __name__ == "__main__":
    main(EXPERIMENT)
