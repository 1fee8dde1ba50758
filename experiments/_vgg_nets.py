"""The nets of the VGG paper's tables, which several experiments share through `get_run`.

Scales keep the paper's proportions: a crop of 224 with S = 256, 384 or [256, 512] is, for a crop of
64, S = 73, 110 or [73, 146].
"""

from __future__ import annotations

from typing import Any

from vggbn.experiment.design import Size, Tuned
from vggbn.experiment.plan import edited
from vggbn.training.recipe import Recipe

CROP = 224

# VGG 3.1, on small images. Differs: the rate falls tenfold once, after 60 % of the steps, not three
# times on a plateau: a few hundred validation images are too few to tell one, and every net of a
# table gets the same number of steps. lr comes from a sweep for each net.
BASE = Recipe(
    data="canvas",
    split="fixed",
    fit="whole",
    image_size=32,
    source_side=73,
    scale_min=37,
    scale_max=37,
    pools=2,  # 8×8 cells for fc1, as many as the paper's 7×7: see vgg_blocks
    model="vgg_a",
    width=1 / 8,
    fc=512,
    init="he",
    batch=32,  # Differs: 256; of a few thousand images that is a dozen updates an epoch
    momentum=0.9,
    l2=5e-4,
    dropout=0.5,
    schedule="exponential",
    lr_factor=0.1,
    lr=0.01,
    flip=True,  # where the labels allow it
    distortion=0.1,
)

# Real photographs: 64-pixel crops, five folds, seed s tests fold s.
PHOTOS = {
    "data": "folder:clothing",
    "loading": "memory",  # at the size "paper" too
    "split": "folds",
    "image_size": 64,
    "source_side": 146,
    "scale_min": 73,
    "scale_max": 73,
    "pools": 3,
}
# As printed, on ImageNet. A test image is rescaled from the largest scale that any table uses.
PAPER = {
    "data": "imagenet2012",
    "loading": "stream",  # a terabyte of pixels at that scale
    "image_size": 224,
    "source_side": 512,
    "scale_min": 256,
    "scale_max": 256,
    "pools": 5,
    "width": 1.0,
    "fc": 4096,
    "batch": 256,
    "steps": 370_000,
    "schedule": "plateau",
    "lr_every": 3.0,
    "evaluations": 74,  # one an epoch
    "init": "normal_0.1",  # "variance 10^-2"
}
# Deeper nets start from net A; how long each fine-tuning took is unstated: as long at the most.
PAPER_OPTIONS: dict[str, Any] = {"from A": True, "fine-tuning": 370_000}

# What the sweep chose (sweep.json beside the results): the rate of each net.
PHOTO_RATES = {"A": 0.01, "A-LRN": 0.01, "B": 0.005, "C": 0.005, "D": 0.0025, "E": 0.0025}
PHOTO_TUNED = Tuned(arms={net: {"lr": rate} for net, rate in PHOTO_RATES.items()})

# "Variance 10^-2" (VGG 3.1) in both its readings, as initialisers.
NORMAL = {"std 0.1": "normal_0.1", "std 0.01": "normal_0.01"}

# Steps of the nets from scratch; "fine-tuning" in a size's options is those of each later stage.
# On the canvas deeper nets without BN take longer than minutes to leave chance, on the digits not.
SMALL = {"fc": 256, "steps": 1500, "lr_every": 900}
SMALL_OPTIONS: dict[str, Any] = {"nets": ("A",), "fine-tuning": 700}
DIGITS = {"data": "mnist5k", "fc": 256, "steps": 450, "lr_every": 270}
FULL = {"steps": 4000, "lr_every": 2400}
FULL_OPTIONS: dict[str, Any] = {"fine-tuning": 1200}

# Table 1's nets, and the controls of the text.
MODELS = {
    "A": "vgg_a",
    "A-LRN": "vgg_a_lrn",
    "B": "vgg_b",
    "C": "vgg_c",
    "D": "vgg_d",
    "E": "vgg_e",
    "B 5×5": "vgg_b_5x5",
    "C linear": "vgg_c_linear",
}


def side(recipe: Recipe, paper: int) -> int:
    """The smallest side that is to this recipe's crop what `paper` is to 224."""
    return int(paper * recipe.image_size / CROP + 0.5)


def table_net(base: Recipe, name: str, size: Size) -> Recipe:
    """Net `name` of MODELS trained from scratch at S = 256, at its own rate: a control's is that
    of the net it is made from. With the option "from A" it starts from net A by stage (VGG 3.1)."""
    own = size.tuned.arms.get(name.split()[0], {})
    net = edited(base, {"model": MODELS[name], **own})
    if size.options.get("from A") and name not in ("A", "A-LRN"):
        return net.but(parent=table_net(base, "A", size), inherit="stages")
    return net


def fine_tuned(parent: Recipe, steps: int, smin: int, smax: int, *, rate: float) -> Recipe:
    """All layers of a trained net trained on, at scales in the paper's pixels (VGG 3.1)."""
    edits = {"parent": parent, "inherit": "all", "steps": steps, "lr": rate}
    edits |= {"scale_min": side(parent, smin), "scale_max": side(parent, smax)}
    if parent.schedule == "exponential":
        edits["lr_every"] = 0.6 * steps
    return edited(parent, edits)


def scale_arms(net: str, s256: Recipe, steps: int, *, share: float = 0.1) -> dict[str, Recipe]:
    """S = 384 from S = 256, then jitter from S = 384, and the control: S = 384 for as many steps.

    All start at a share of the first rate, a tenth (VGG 3.1; for jitter the paper states none).
    """
    rate = share * s256.lr
    s384 = fine_tuned(s256, steps, 384, 384, rate=rate)
    return {
        f"{net} S384": s384,
        f"{net} S384 on": fine_tuned(s384, steps, 384, 384, rate=rate),
        f"{net} jitter": fine_tuned(s384, steps, 256, 512, rate=rate),
    }
