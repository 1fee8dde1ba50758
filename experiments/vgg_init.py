"""VGG section 3.1: bad initialisation stalls deep nets; net A's weights or Glorot's rule mend it.

Net D from normal weights with the paper's "variance 10^-2" in both readings (standard deviation 0.1
and 0.01), from a trained net A by stage with the rest drawn either way, and from Glorot's and He's
rules, which make the detour over A unnecessary. At an eighth of the width both readings are milder
than in the paper: the gain of a ReLU layer of 576 inputs is 1.7 at 0.1 and 0.17 at 0.01, of the
paper's 4,608 inputs 4.8 and 0.48.

    python -m experiments.vgg_init                                 small, embedded
    python -m experiments.vgg_init --size full --data folder:PATH    photographs, n = 5
"""

from __future__ import annotations

from experiments import _vgg_nets as nets
from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment import judges
from vggbn.experiment.design import Claim, Experiment, Size, Verdict
from vggbn.experiment.gate import FOR_FAILURES
from vggbn.report import Table
from vggbn.training.recipe import Recipe

MENDED = ("from A, std 0.1", "from A, std 0.01", "Glorot", "He")


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """Net A, which some arms of D start from, and D in every way; He's is vgg_depth's D."""
    a, d = (nets.table_net(base, name, size) for name in ("A", "D"))
    arms = {"A": a, "He": d, "Glorot": d.but(init="glorot")}
    for name, init in nets.NORMAL.items():
        arms[name] = d.but(init=init)
        arms[f"from A, {name}"] = arms[name].but(parent=a, inherit="stages")
    return arms


# --- claims: the criterion is fixed here, before the runs -----------------------------------------

PRIMARY = "folder:clothing"


def judge(reading: str):
    """The judge of "D fails from this reading, and from nothing else"."""

    def judged(results: Results) -> Verdict:
        return judges.verdict_on_failures(results, [reading], MENDED)

    return judged


CLAIMS = tuple(
    Claim(
        id=f"V-8 {reading}",
        sentence=(
            f"Normal weights of {reading.replace('std', 'standard deviation')} stall net D; "
            "weights from net A, Glorot's rule and He's do not."
        ),
        criterion=(
            "It leaves more seeds at chance than each of the mended arms, by Fisher's one-sided "
            "test; contradicted if it leaves none of ten there."
        ),
        paper="said, no figure",
        primary=PRIMARY,
        judge=judge(reading),
        gate=FOR_FAILURES,
    )
    for reading in nets.NORMAL
)


def tables(results: Results) -> list[Table]:
    """Each arm's fit and error."""
    note = "Centre crop at Q = S; A is net A itself."
    return [judges.fit_table(results, "Initialisation", "D starts from", note)]


SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 20, "lr_every": 12}),
    "small": Size(seeds=3, edits=nets.DIGITS),
    "full": Size(seeds=5, edits=nets.PHOTOS | nets.FULL, tuned=nets.PHOTO_TUNED),
    "paper": Size(seeds=1, edits=nets.PAPER | {"init": "he"}),
}

EXPERIMENT = Experiment(
    name="vgg_init",
    title="Initialisation",
    question="Does net D train from the paper's random weights, and if it does not, what mends it?",
    base=nets.BASE,
    baseline="He",
    variants=variants,
    claims=CLAIMS,
    tables=tables,
    sizes=SIZES,
    panels={"random": ("std 0.1", "std 0.01", "Glorot", "He"), "from A": ("A", *MENDED[:2], "He")},
    sweep="vgg_depth",
    any_images=nets.PHOTOS,
)

if __name__ == "__main__":
    main(EXPERIMENT)
