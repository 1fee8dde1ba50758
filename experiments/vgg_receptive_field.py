"""VGG section 2.3 and Table 2: what 3×3 kernels cost, and how far they see. No training; 1 minute.

Parameter counts of A to E, the weights of stacked 3×3 layers against one larger layer, and the
receptive fields of stacks and of whole nets are exact: each is computed from our layers and nets
and compared with the paper's figure, or with what its Table 1 implies. A picture shows how much of
its field a unit of an untrained net uses: the effective receptive field of Luo et al. (2016,
arXiv 1701.04128).
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vggbn.commands.exact import main
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.machine import compiling
from vggbn.models import Net
from vggbn.models.vgg import CONFIGS, vgg, vgg_blocks
from vggbn.nn import layers
from vggbn.report import Picture
from vggbn.report.heat import heat_map

# Table 2 in millions, and Table 1 counted with biases.
PRINTED = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}
# Table 1's fields in pixels, which the paper does not print: of one cell after the fifth pool, and
# of the 7×7 cells that fc1 sees.
FIELDS = {
    "A": (150, 342),
    "A-LRN": (150, 342),
    "B": (156, 348),
    "C": (156, 348),
    "D": (212, 404),
    "E": (268, 460),
}
CHANNELS = (1, 3, 64, 512)  # where 27C² and the like are counted


def model(config: str, net: Net):
    """The net of Table 1's column `config`."""
    return vgg(CONFIGS[config], net)


def shapes(config: str, net: Net):
    """The shapes of its parameters; nothing is allocated."""
    init = model(config, net).init
    return jax.eval_shape(lambda key: init(key, "he")["params"], jax.random.key(0))


# --- V-1: Table 2 --------------------------------------------------------------------------------


def parameters(config: str) -> int:
    """The number of parameters at the paper's size: 224×224×3, 1000 classes."""
    tree = shapes(config, Net(image=(224, 224, 3), classes=1000))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def check_parameters() -> tuple[bool, str]:
    """V-1, Table 2: every net counts as Table 1 says and rounds to the printed figure."""
    found = {config: parameters(config) for config in PARAMETERS}
    millions = {config: round(count / 1e6) for config, count in found.items()}
    detail = ", ".join(f"{config} {count:,}" for config, count in found.items())
    return found == PARAMETERS and millions == PRINTED, detail


# --- V-2: section 2.3 ----------------------------------------------------------------------------


def weights(sides: tuple[int, ...], channels: int) -> int:
    """Weights, without biases, of a stack of convolutions of C channels with these kernels."""
    init = partial(layers.linear_init, initialiser="he", bias=False)
    trees = [
        jax.eval_shape(partial(init, shape=(side, side, channels, channels)), jax.random.key(0))
        for side in sides
    ]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trees))


def check_weights() -> tuple[bool, str]:
    """V-2, section 2.3: 27C² against 49C²; 18C² against 25C²."""
    wanted = {(3, 3, 3): 27, (7,): 49, (3, 3): 18, (5,): 25}
    exact = all(weights(sides, c) == k * c**2 for sides, k in wanted.items() for c in CHANNELS)
    seven, five = (
        round(100 * (weights((one,), 64) / weights((3,) * n, 64) - 1))
        for one, n in ((7, 3), (5, 2))
    )
    detail = f"7×7 has {seven} % more weights than three 3×3, 5×5 {five} % more than two"
    return exact and (seven, five) == (81, 39), f"{detail}; C = {', '.join(map(str, CHANNELS))}"


def stack_support(sides: tuple[int, ...], image: int = 15):
    """Which pixels [H, W] one cell of a linear stack sees: where its gradient is not zero.

    All weights are one, so that no two paths cancel: the gradient counts the paths.
    """
    kernels = [{"kernel": jnp.ones((side, side, 1, 1))} for side in sides]

    def centre(x_NHWC):
        for params in kernels:
            x_NHWC = layers.conv(params, x_NHWC)
        return jnp.asarray(x_NHWC)[0, image // 2, image // 2, 0]

    gradient_NHWC = np.asarray(jax.grad(centre)(jnp.zeros((1, image, image, 1))))
    return gradient_NHWC[0, :, :, 0] != 0


def extent(mask_HW) -> tuple[int, int]:
    """Rows and columns from the first to the last one that holds a True."""
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    return _span(rows), _span(columns)


def _span(at) -> int:
    return int(at[-1] - at[0] + 1) if at.size else 0


def check_stacks() -> tuple[bool, str]:
    """V-2, section 2.3: 5×5 and 7×7, every pixel of them and no other."""
    wanted = {(3, 3): 5, (5,): 5, (3, 3, 3): 7, (7,): 7}
    seen = {sides: stack_support(sides) for sides in wanted}
    square = all(
        extent(seen[sides]) == (side, side) and seen[sides].sum() == side**2
        for sides, side in wanted.items()
    )
    found = ((" ".join(f"{k}×{k}" for k in sides), extent(mask)) for sides, mask in seen.items())
    return square, ", ".join(f"{words} sees {h}×{w}" for words, (h, w) in found)


# --- the fields of whole nets, implied by Table 1 ------------------------------------------------

IMAGE = 576  # pixels a side: more than any field, so that no padding is seen


def field(config: str, net: Net, cells: int = 1) -> int:
    """Side in pixels of what cells×cells of the last map see, by the recurrence over Table 1.

    A layer with kernel k and stride s adds (k - 1) · j to the side and makes the stride j · s.
    """
    side, stride = 1, 1
    for block in vgg_blocks(CONFIGS[config], net):
        side += sum(kernel - 1 for _, kernel, _ in block.convs) * stride
        if block.pool:
            side, stride = side + stride, 2 * stride
    return side + (cells - 1) * stride


def field_net(cells: int) -> Net:
    """One channel wide; fc1 sees cells×cells of the last map."""
    return Net(image=(32 * cells, 32 * cells, 1), classes=1, width=1 / 512, fc=1)


def measured_field(config: str, net: Net, image: int = IMAGE) -> tuple[int, int]:
    """Rows and columns of the pixels that one logit of the net, slid over an image, depends on.

    Exact, by the gradient of the real net. Kernels are means, so ReLU is the identity and no path
    cancels another. A max pool passes a gradient on to its largest pixel only: on an image that
    grows towards one corner that is the pixel towards it, so the gradient reaches this corner of
    the field and nothing beyond. Four images, one a corner, give the whole extent.
    """
    params = jax.tree_util.tree_map_with_path(_mean_or_zero, shapes(config, net))
    apply = model(config, net).score_map
    up = np.linspace(0, 1, image)
    ramps = [y[:, None] + x[None] for y in (up, up[::-1]) for x in (up, up[::-1])]

    def middle(x_NHWC):
        y_NHWC = apply({"params": params, "batch_stats": {}}, x_NHWC)  # pyright: ignore
        return y_NHWC[:, y_NHWC.shape[1] // 2, y_NHWC.shape[2] // 2].sum()

    gradient_NHWC = compiling.jit(jax.grad(middle))(np.stack(ramps)[..., None].astype(np.float32))
    return extent((np.asarray(gradient_NHWC) != 0).any(axis=(0, 3)))


def _mean_or_zero(path, leaf):
    """A kernel that takes the mean over its inputs; a bias of zero."""
    kernel = path[-1].key == "kernel"
    return np.full(leaf.shape, 1 / math.prod(leaf.shape[:-1]) if kernel else 0, np.float32)


def check_fields() -> tuple[bool, str]:
    """Table 1: recurrence and gradient both give the sides derived by hand."""
    nets = [field_net(cells) for cells in (1, 7)]
    derived = {c: (field(c, nets[0]), field(c, nets[1], cells=7)) for c in FIELDS}
    measured = {c: tuple(measured_field(c, net) for net in nets) for c in FIELDS}
    square = {c: tuple((side, side) for side in FIELDS[c]) for c in FIELDS}
    sides = {c: "/".join(f"{h}" if h == w else f"{h}×{w}" for h, w in measured[c]) for c in FIELDS}
    detail = "one pool5 cell/7×7: " + ", ".join(f"{c} {text}" for c, text in sides.items())
    return derived == FIELDS and measured == square, detail


# --- the effective receptive field (Luo et al. 2016) ---------------------------------------------

DRAWN = ("A", "B", "C", "D", "E")
BLOCK = 4  # pixels a side of a value in the heat map
SHARE = 0.95


def last_conv_net() -> Net:
    """An eighth as wide, without the fifth pool; fc1 sees one cell of the last convolution."""
    return Net(image=(16, 16, 3), classes=1, width=1 / 8, fc=1, pools=4)


def random_net(config: str, net: Net, rng) -> dict:
    """He's initialisation: normal, variance 2 / fan-in; zero biases.

    The fully connected layers are ones, so that the logit is the sum of a cell's channels.
    """

    def draw(path, leaf):
        if path[-1].key == "bias":
            return np.zeros(leaf.shape, np.float32)
        if path[0].key.startswith("fc"):
            return np.ones(leaf.shape, np.float32)
        std = math.sqrt(2 / math.prod(leaf.shape[:-1]))
        return rng.normal(0, std, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(config, net))


def effective_field(config: str, draws: int, *, image: int = 304, batch: int = 4):
    """Mean |d centre of the last convolution's map / d x| [H, W] over nets and normal images.

    The centre is the sum over the channels of the middle cell, after ReLU. A draw is one net with
    `batch` images; `image` is an odd number of cells of 16 pixels, so that the middle is one cell.
    """
    net, rng = last_conv_net(), np.random.default_rng(0)
    apply = model(config, net).score_map

    def centre(params, x_NHWC):
        y_NHWC = apply({"params": params, "batch_stats": {}}, x_NHWC)  # pyright: ignore
        return y_NHWC[:, y_NHWC.shape[1] // 2, y_NHWC.shape[2] // 2].sum()

    gradient, total_HW = compiling.jit(jax.grad(centre, argnums=1)), np.zeros((image, image))
    for _ in range(draws):
        params = random_net(config, net, rng)
        x_NHWC = rng.normal(size=(batch, image, image, 3)).astype(np.float32)
        total_HW += np.abs(np.asarray(gradient(params, x_NHWC), np.float64)).mean(axis=(0, 3))
    return total_HW / draws


def side_holding(map_HW, share: float = SHARE) -> int:
    """The smallest even side of a square around the centre that holds this share of the sum."""
    middle = len(map_HW) // 2
    for half in range(1, middle + 1):
        inside = map_HW[middle - half : middle + half, middle - half : middle + half]
        if inside.sum() >= share * map_HW.sum():
            break
    return 2 * half


def picture(config: str, draws: int) -> Picture:
    """The effective field of one net, with its field and the square that holds 95 % of it."""
    map_HW, whole = effective_field(config, draws), field(config, last_conv_net())
    used = side_holding(map_HW)
    side = len(map_HW) // BLOCK
    blocks = map_HW.reshape(side, BLOCK, side, BLOCK).mean(axis=(1, 3))
    label = f"Effective receptive field of VGG {config}"
    drawing = heat_map(blocks, BLOCK, {1: whole, 2: used}, label)
    legend = {f"its field, {whole} px": 1, f"{100 * SHARE:.0f} % of the gradient, {used} px": 2}
    note = f"field {whole} px; {100 * SHARE:.0f} % of the gradient within {used} px, "
    note += f"{used / whole:.2f} of the side"
    return Picture(f"VGG {config}", drawing, note, legend)


def pictures(draws: int) -> list[Picture]:
    """One a net, all on the same scale."""
    return [picture(config, draws) for config in DRAWN]


CLAIMS = (
    ExactClaim(
        id="V-1",
        sentence="Nets A to E have 133 to 144 million parameters: depth costs few.",
        criterion=(
            "The shapes of our nets at 224×224×3 and 1000 classes, with biases, add up to Table "
            "1's count, and to Table 2's figures in millions."
        ),
        paper="133, 133, 134, 138, 144 million",
        check=check_parameters,
    ),
    ExactClaim(
        id="V-2 weights",
        sentence=(
            "Three 3×3 layers of C channels have 27C² weights, one 7×7 has 49C²; two have 18C², "
            "one 5×5 has 25C²."
        ),
        criterion="The kernels of our layers, for several C; the excess rounds to 81 % and 39 %.",
        paper="27C² against 49C², 81 % more",
        check=check_weights,
    ),
    ExactClaim(
        id="V-2 stacks",
        sentence="Two 3×3 layers see 5×5 pixels, three see 7×7.",
        criterion=(
            "The pixels with a gradient to one cell of our layers, without activation, fill that "
            "square, and it is that of one 5×5 or 7×7 layer."
        ),
        paper="5×5, 7×7",
        check=check_stacks,
    ),
    ExactClaim(
        id="V-2 fields",
        sentence=(
            "So Table 1's nets see 150 to 268 pixels from one cell of the last map, 342 to 460 "
            "from the map."
        ),
        criterion=(
            "For each net the recurrence over Table 1 and the extent of the gradient of our net "
            "both give the side derived by hand."
        ),
        paper="not printed",
        check=check_fields,
    ),
)

EXPERIMENT = ExactExperiment(
    name="vgg_receptive_field",
    title="What 3×3 kernels cost, and how far they see",
    question=(
        "Do VGG's parameter counts and its argument for stacks of small kernels hold exactly, and "
        "how much of its receptive field does a unit use?"
    ),
    claims=CLAIMS,
    pictures=pictures,
    notes=(
        "At 224×224 what fc1 sees reaches beyond the image: it sees the padding too.",
        "Pictures: mean absolute gradient of the middle cell of the last convolution (summed over "
        "channels) with respect to the input, over nets of an eighth of the width with He's "
        "initialisation and over normal noise, in blocks of 4×4 pixels. The six shades hold 25, "
        "50, 75, 90, 95 and 99 % of it. Untrained nets: training widens it (Luo et al. 2016).",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
