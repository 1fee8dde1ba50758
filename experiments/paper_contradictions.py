"""Where the three papers contradict themselves, computed from what they print. No training.

An implementation has to take a side at each of these places; docs/papers.md says where they are.
Nothing is run: the figures of the papers' own tables are added up, counted and compared. A claim
here says that the contradiction is there, and holds if it is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from vggbn.commands.exact import main
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.models import Net
from vggbn.models.vgg import CONFIGS, vgg_blocks

# --- the figures that are printed ----------------------------------------------------------------


class Module(NamedTuple):
    """An Inception module as a paper's table prints it: channels, and the input it follows from.

    pool: channels of the projection behind the pool; 0: the pool passes its input on.
    """

    size: int  # the printed side of the output, in pixels
    channels: int  # the printed depth of the output
    one: int
    three_reduce: int
    three: int
    wide_reduce: int
    wide: int  # 5×5 in GoogLeNet, two 3×3 one behind the other in BN-Inception
    pool: int
    stride: int = 1


BN_FIGURE_5 = {
    "3a": Module(28, 256, 64, 64, 64, 64, 96, 32),
    "3b": Module(28, 320, 64, 64, 96, 64, 96, 64),
    "3c": Module(28, 576, 0, 128, 160, 64, 96, 0, stride=2),
    "4a": Module(14, 576, 224, 64, 96, 96, 128, 128),
    "4b": Module(14, 576, 192, 96, 128, 96, 128, 128),
    "4c": Module(14, 576, 160, 128, 160, 128, 160, 128),
    "4d": Module(14, 576, 96, 128, 192, 160, 192, 128),
    "4e": Module(14, 1024, 0, 128, 192, 192, 256, 0, stride=2),
    "5a": Module(7, 1024, 352, 192, 320, 160, 224, 128),
    "5b": Module(7, 1024, 352, 192, 320, 192, 224, 128),
}
BN_PARAMETERS = 13.6e6  # section 4.2

GOOGLENET_TABLE_1 = {
    "3a": Module(28, 256, 64, 96, 128, 16, 32, 32),
    "3b": Module(28, 480, 128, 128, 192, 32, 96, 64),
    "4a": Module(14, 512, 192, 96, 208, 16, 48, 64),
    "4b": Module(14, 512, 160, 112, 224, 24, 64, 64),
    "4c": Module(14, 512, 128, 128, 256, 24, 64, 64),
    "4d": Module(14, 528, 112, 144, 288, 32, 64, 64),
    "4e": Module(14, 832, 256, 160, 320, 32, 128, 128),
    "5a": Module(7, 832, 256, 160, 320, 32, 128, 128),
    "5b": Module(7, 1024, 384, 192, 384, 48, 128, 128),
}
# Its column of parameters, in thousands.
GOOGLENET_PARAMETERS = {
    "conv 7×7": 2.7, "conv 3×3": 112, "3a": 159, "3b": 380, "4a": 364, "4b": 437, "4c": 463,
    "4d": 580, "4e": 840, "5a": 1072, "5b": 1388, "linear": 1000,
}  # fmt: skip
ALEXNET_PARAMETERS = 60e6  # Krizhevsky et al. 2012
FEWER = 12  # "12 times fewer parameters" (introduction)

# Table 3: top-5 error in %, and the difference to the first line that is printed.
GOOGLENET_TABLE_3 = (
    (10.07, 0.0), (9.15, -0.92), (7.89, -2.18), (8.09, -1.98), (7.62, -2.45), (6.67, -3.45),
)  # fmt: skip
GOOGLENET_ONE_NET = {"Table 5": 38.02, "section 8": 40.0}  # mAP in %, one model
MSRA_TOP_5 = {"GoogLeNet's Table 2": 7.35, "VGG's Table 7": 8.1}  # error in %

# VGG's Table 3: top-1 validation error in % at S = Q.
VGG_TABLE_3 = {256: {"D": 27.0, "E": 27.3}, 384: {"D": 26.8, "E": 26.9}}
TAKEN_FROM_A = 4  # "the first four convolutional layers" (section 3.1)

# --- Batch Normalization -------------------------------------------------------------------------


def channels(module: Module, before: int) -> int:
    """What its branches add up to, on an input with so many channels."""
    return module.one + module.three + module.wide + (module.pool or before)


def wrong_channels(modules: dict[str, Module], before: int) -> dict[str, tuple[int, int]]:
    """{module: (printed, added up)} where the two differ."""
    wrong = {}
    for name, module in modules.items():
        if channels(module, before) != module.channels:
            wrong[name] = (module.channels, channels(module, before))
        before = module.channels
    return wrong


def check_channels() -> tuple[bool, str]:
    """I-1: the branches of 4c and 4d of Figure 5 add up to more than is printed."""
    wrong = wrong_channels(BN_FIGURE_5, before=192)
    detail = [f"{name} adds up to {found}, not {p}" for name, (p, found) in wrong.items()]
    clean = not wrong_channels(GOOGLENET_TABLE_1, before=192)
    return bool(wrong), ", ".join(detail) + ("; GoogLeNet's Table 1 adds up" if clean else "")


def check_sizes() -> tuple[bool, str]:
    """I-2: a module of stride 2 is printed with the size of its input."""
    sides = [28, *(module.size for module in BN_FIGURE_5.values())]
    before = zip(BN_FIGURE_5.items(), sides, strict=False)
    wrong = [name for (name, m), side in before if m.stride > 1 and m.size == side]
    return bool(wrong), f"{', '.join(wrong)} have stride 2 and the size of what they are given"


def weights(module: Module, before: int, wide_side: int) -> int:
    """Weights of its convolutions, without biases, on an input with so many channels.

    wide_side: 5 counts one 5×5, 3 two 3×3 one behind the other.
    """
    reductions = before * (module.one + module.three_reduce + module.wide_reduce + module.pool)
    wide = wide_side**2 * module.wide_reduce * module.wide
    if wide_side == 3:
        wide += 9 * module.wide**2
    return reductions + 9 * module.three_reduce * module.three + wide


def module_weights(modules: dict[str, Module], before: int, wide_side: int) -> dict[str, int]:
    """{module: weights}, each on what the branches of the one before it add up to."""
    found = {}
    for name, module in modules.items():
        found[name] = weights(module, before, wide_side)
        before = channels(module, before)
    return found


SEPARABLE = 7 * 7 * 3 * 8 + 8 * 3 * 64  # the first layer: depth multiplier 8, then 1×1 to 64
SECOND = 64 * 64 + 9 * 64 * 192  # the second: 1×1 to 64, 3×3 to 192
LINEAR = 1024 * 1000


def check_bn_parameters() -> tuple[bool, str]:
    """I-3: Figure 5 has fewer parameters than the text says."""
    counted = SEPARABLE + SECOND + LINEAR + sum(module_weights(BN_FIGURE_5, 192, 3).values())
    quarter_more = 1.25e-3 * sum(GOOGLENET_PARAMETERS.values())
    detail = (
        f"{counted:,} weights against {BN_PARAMETERS / 1e6:g} million; a quarter more than "
        f"GoogLeNet's Table 1 would be {quarter_more:.1f} million"
    )
    return BN_PARAMETERS / counted > 1.1, detail


# --- VGG -----------------------------------------------------------------------------------------


def convolutions(config: str) -> list[tuple[int, int]]:
    """(input, output) channels of each convolution of Table 1's column, in order."""
    blocks = vgg_blocks(CONFIGS[config], Net(image=(224, 224, 3), classes=1000))
    widths = [width for block in blocks for _, _, width in block.convs]
    return list(zip([3, *widths], widths, strict=False))


def check_first_layers() -> tuple[bool, str]:
    """I-5: A's first four convolutions do not fit the first four of the deeper nets."""
    given = convolutions("A")[:TAKEN_FROM_A]
    fit = {
        config: sum(a == b for a, b in zip(given, convolutions(config), strict=False))
        for config in ("B", "C", "D", "E")
    }
    detail = ", ".join(f"{config} {n}" for config, n in fit.items())
    return max(fit.values()) < TAKEN_FROM_A, f"of {TAKEN_FROM_A} kernels as many fit: {detail}"


def check_depth() -> tuple[bool, str]:
    """I-7: E errs more often than D where both have one scale."""
    worse = [scale for scale, errors in VGG_TABLE_3.items() if errors["E"] > errors["D"]]
    detail = (
        f"S = {s}: D {VGG_TABLE_3[s]['D']:.1f} %, E {VGG_TABLE_3[s]['E']:.1f} %" for s in worse
    )
    return bool(worse), "; ".join(detail)


# --- GoogLeNet -----------------------------------------------------------------------------------


def googlenet_weights() -> dict[str, int]:
    """{line of Table 1: weights}, counted from its channels, the first layer as it is printed."""
    ends = {"conv 7×7": 7 * 7 * 3 * 64, "conv 3×3": SECOND, "linear": LINEAR}
    return ends | module_weights(GOOGLENET_TABLE_1, 192, 5)


def check_fewer() -> tuple[bool, str]:
    """I-8: Table 1 has more parameters than a twelfth of AlexNet's."""
    printed = 1e3 * sum(GOOGLENET_PARAMETERS.values())
    counted = sum(googlenet_weights().values())
    wanted = ALEXNET_PARAMETERS / FEWER
    detail = (
        f"a twelfth is {wanted / 1e6:g} million, Table 1 prints {printed / 1e6:.2f} and counts to "
        f"{counted / 1e6:.2f}: {ALEXNET_PARAMETERS / printed:.1f} and "
        f"{ALEXNET_PARAMETERS / counted:.1f} times fewer"
    )
    return printed > 1.1 * wanted, detail


def check_googlenet_parameters(most: float = 0.02) -> tuple[bool, str]:
    """I-9: lines of Table 1 that are further from their count than rounding explains.

    A thousand is 1,024, as the second layer and the last one have it to the digit; the lines that
    are not named lie up to `most` beside their count.
    """
    counted = googlenet_weights()
    off = {
        name: thousands
        for name, thousands in GOOGLENET_PARAMETERS.items()
        if abs(1024 * thousands / counted[name] - 1) > most
    }
    detail = (f"{name} prints {off[name]:g}K and has {counted[name]:,}" for name in off)
    return bool(off), f"{', '.join(detail)}; a separable first layer has {SEPARABLE:,}"


def check_difference() -> tuple[bool, str]:
    """I-10: a difference of Table 3 that its own errors do not give."""
    first = GOOGLENET_TABLE_3[0][0]
    wrong = [
        (printed, error - first)
        for error, printed in GOOGLENET_TABLE_3
        if not math.isclose(error - first, printed, abs_tol=0.005)
    ]
    detail = (f"printed {printed:.2f}, computed {found:.2f}" for printed, found in wrong)
    return bool(wrong), ", ".join(detail).replace("-", "−")


def _unlike(figures: dict[str, float]) -> tuple[bool, str]:
    """Whether one figure is printed as several, and as which."""
    detail = ", ".join(f"{place} {figure:g} %" for place, figure in figures.items())
    return len({*figures.values()}) > 1, detail


def check_one_net() -> tuple[bool, str]:
    """I-11: the detector's one model has two accuracies."""
    return _unlike(GOOGLENET_ONE_NET)


def check_msra() -> tuple[bool, str]:
    """I-12: two papers give another team's error."""
    return _unlike(MSRA_TOP_5)


# --- the rows ------------------------------------------------------------------------------------


def claim(number: int, sentence: str, criterion: str, paper: str, check) -> ExactClaim:
    """The row I-`number`."""
    return ExactClaim(
        id=f"I-{number}", sentence=sentence, criterion=criterion, paper=paper, check=check
    )


CLAIMS = (
    claim(
        1,
        "BN's Figure 5 prints 576 channels for 4c and 4d, whose branches add up to 608.",
        "For each module the channels of its branches are added up; some sum is not as printed.",
        "576",
        check_channels,
    ),
    claim(
        2,
        "BN's Figure 5 prints 3c and 4e, of stride 2, with the size before it.",
        "A module of stride 2 has the printed size of the line before.",
        "28×28, 14×14",
        check_sizes,
    ),
    claim(
        3,
        "BN-Inception is said to have 13.6 million parameters; Figure 5 counts to some 11.3.",
        "The weights of Figure 5's convolutions and of the last layer; over a tenth is missing.",
        "13.6 million",
        check_bn_parameters,
    ),
    claim(
        5,
        "The first four convolutions of VGG's A cannot start a deeper net layer by layer: stage by "
        "stage they can.",
        "The kernels' channels in Table 1, in order; not all four fit any of B, C, D, E.",
        "first four layers",
        check_first_layers,
    ),
    claim(
        7,
        "VGG's error is said to fall with depth, and at one scale E errs more than D.",
        "Table 3 at S = Q = 256 and 384; E is worse somewhere.",
        "27.0 and 27.3; 26.8 and 26.9 %",
        check_depth,
    ),
    claim(
        8,
        "Twelve times fewer parameters than AlexNet would be 5 million; GoogLeNet has nearly 7.",
        "The sum of the printed column, and our count; above a twelfth of 60 million by a tenth.",
        "12 times",
        check_fewer,
    ),
    claim(
        9,
        "GoogLeNet's parameters of the first layer, of 4c and 5a do not follow from the channels.",
        "Weights counted from the channels; with thousands of 1,024 some line is off by more than "
        "2 %.",
        "2.7K, 463K, 1072K",
        check_googlenet_parameters,
    ),
    claim(
        10,
        "The last difference of GoogLeNet's Table 3 is printed as −3.45 points and is −3.40.",
        "Each error less the first; some difference is not as printed.",
        "−3.45",
        check_difference,
    ),
    claim(
        11,
        "GoogLeNet's detector of one model has 38.02 % mAP in Table 5 and 40 % in the text.",
        "The two figures differ.",
        "38.02 and 40 %",
        check_one_net,
    ),
    claim(
        12,
        "GoogLeNet's paper gives another team's error as 7.35 %, VGG's as 8.1 %.",
        "The two figures differ.",
        "7.35 and 8.1 %",
        check_msra,
    ),
)

EXPERIMENT = ExactExperiment(
    name="paper_contradictions",
    title="Where the papers contradict themselves",
    question="Which figures of the three papers contradict each other, and by how much?",
    claims=CLAIMS,
    notes=(
        "A claim here is about what is printed: it holds where the contradiction is there. What it "
        "says of the nets themselves is another matter, and has claims of its own.",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
