"""Every figure of experiments/vgg_receptive_field.py by another way, and nets that must fail."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import experiments.vgg_receptive_field as this
from vggbn.commands.exact import main
from vggbn.models.vgg import CONFIGS
from vggbn.nn import layers

# VGG's Table 1 by hand: kernels in order, P a pool; its field from the last map's first and all
# 7×7 cells; parameters with biases.
TABLE_1 = {
    "A": ("3 P 3 P 3 3 P 3 3 P 3 3 P", 150, 342, 132_863_336),
    "A-LRN": ("3 P 3 P 3 3 P 3 3 P 3 3 P", 150, 342, 132_863_336),
    "B": ("3 3 P 3 3 P 3 3 P 3 3 P 3 3 P", 156, 348, 133_047_848),
    "C": ("3 3 P 3 3 P 3 3 1 P 3 3 1 P 3 3 1 P", 156, 348, 133_638_952),
    "D": ("3 3 P 3 3 P 3 3 3 P 3 3 3 P 3 3 3 P", 212, 404, 138_357_544),
    "E": ("3 3 P 3 3 P 3 3 3 3 P 3 3 3 3 P 3 3 3 3 P", 268, 460, 143_667_240),
}
LAST_CONV = {"A": 134, "A-LRN": 134, "B": 140, "C": 140, "D": 196, "E": 252}
QUICK = ("A", "C", "E")


def paths_64(words: str, cells: int):
    """How many paths lead from each pixel of a line to so many cells: float64, ones for kernels."""
    counts = np.ones(cells)
    for word in reversed(words.split()):
        # The gradient of a 2×2 mean pool is spread over both pixels, as that of all max pools is.
        counts = np.repeat(counts, 2) if word == "P" else np.convolve(counts, np.ones(int(word)))
    return counts


# --- oracles -------------------------------------------------------------------------------------


def test_the_constants_are_those_derived_by_hand():
    assert {c: row[3] for c, row in TABLE_1.items()} == this.PARAMETERS
    assert {c: row[1:3] for c, row in TABLE_1.items()} == this.FIELDS
    assert dict(zip(TABLE_1, (133, 133, 133, 134, 138, 144), strict=True)) == this.PRINTED


@pytest.mark.parametrize("config", TABLE_1)
def test_the_parameters_are_counted_layer_by_layer(config):
    channels, total = 3, 0
    for block, width in zip(
        TABLE_1[config][0].split("P"), (64, 128, 256, 512, 512, 0), strict=True
    ):
        for kernel in map(int, block.split()):
            total += kernel**2 * channels * width + width
            channels = width
    for inputs, outputs in ((7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)):
        total += inputs * outputs + outputs
    assert this.parameters(config) == total == TABLE_1[config][3]


@pytest.mark.parametrize("cells", [1, 7])
@pytest.mark.parametrize("config", TABLE_1)
def test_the_recurrence_equals_a_convolution_of_ones(config, cells):
    words, *fields, _ = TABLE_1[config]
    paths = paths_64(words, cells)
    assert (paths > 0).all()
    assert this.field(config, this.field_net(cells), cells) == paths.size == fields[cells == 7]
    if cells == 1:
        last = paths_64(words.removesuffix(" P"), 1)
        assert this.field(config, this.last_conv_net()) == last.size == LAST_CONV[config]


@pytest.mark.parametrize("cells", [1, 7])
@pytest.mark.parametrize(
    "config", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in TABLE_1]
)
def test_the_gradient_of_the_real_net_fills_the_field(config, cells):
    side = paths_64(TABLE_1[config][0], cells).size
    assert this.measured_field(config, this.field_net(cells)) == (side, side)


@pytest.mark.parametrize("sides", [(3,), (3, 3), (3, 3, 3), (5,), (7,), (1, 3)])
def test_a_stack_sees_what_a_convolution_of_ones_covers(sides):
    covered = paths_64(" ".join(map(str, sides)), 1)
    expected = np.zeros((15, 15), bool)
    half = covered.size // 2
    expected[7 - half : 8 + half, 7 - half : 8 + half] = True
    np.testing.assert_array_equal(this.stack_support(sides), expected)


def test_the_weights_of_stacks():
    counts = [this.weights(sides, 10) for sides in ((3, 3, 3), (7,), (3, 3), (5,))]
    assert counts == [2700, 4900, 1800, 2500]


def test_the_extent_of_a_mask():
    mask = np.zeros((5, 6), bool)
    assert this.extent(mask) == (0, 0)
    mask[1, 2] = mask[3, 2] = True
    assert this.extent(mask) == (3, 1)


# --- verdicts, and what must change them ---------------------------------------------------------


def only(monkeypatch, *configs):
    monkeypatch.setattr(this, "FIELDS", {c: this.FIELDS[c] for c in configs})


def test_what_is_computed_in_no_time_holds():
    for check in (this.check_parameters, this.check_weights, this.check_stacks):
        holds, detail = check()
        assert holds, detail


def test_the_fields_hold(monkeypatch):
    only(monkeypatch, "D")
    assert this.check_fields() == (True, "one pool5 cell/7×7: D 212/404")


@pytest.mark.slow
def test_all_fields_hold():
    holds, detail = this.check_fields()
    assert holds and detail.endswith("C 156/348, D 212/404, E 268/460")


D = CONFIGS["D"]
WRONG = {
    "a 5×5 for a 3×3": ("3 3", "3 3", "3 3 3", "3 3 3", "3 3 5"),
    "a 1×1 for a 3×3": ("3 3", "3 3", "3 3 1", "3 3 3", "3 3 3"),
    "a 3×3 more": ("3 3 3", *D[1:]),
    "a 3×3 less": ("3", *D[1:]),
}


def measure(monkeypatch, config):
    """The gradient finds the paper's fields, so that the recurrence alone decides: in no time."""
    only(monkeypatch, config)
    sides = iter(this.FIELDS[config])
    monkeypatch.setattr(this, "measured_field", lambda config, net: (next(sides),) * 2)


def test_where_both_ways_agree_the_fields_hold(monkeypatch):
    measure(monkeypatch, "D")
    assert this.check_fields() == (True, "one pool5 cell/7×7: D 212/404")


@pytest.mark.parametrize("mutation", WRONG)
def test_another_net_contradicts_counts_and_fields(mutation, monkeypatch):
    measure(monkeypatch, "D")
    monkeypatch.setitem(CONFIGS, "D", WRONG[mutation])
    assert not this.check_parameters()[0]
    assert not this.check_fields()[0]


def test_layers_in_another_order_change_the_field_alone(monkeypatch):
    measure(monkeypatch, "C")
    monkeypatch.setitem(CONFIGS, "C", ("3 3", "3 3", "3 3 1", "3 3 3", "3 1 1"))
    assert this.check_parameters()[0]
    assert not this.check_fields()[0]


def test_a_wrong_figure_of_the_paper_contradicts(monkeypatch):
    monkeypatch.setitem(this.PRINTED, "C", 133)
    assert not this.check_parameters()[0]


def dilated(params, x_NHWC, *, padding="SAME", **_):
    y = lax.conv_general_dilated(
        x_NHWC, params["kernel"], (1, 1), padding, rhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return y + params.get("bias", jnp.zeros(y.shape[-1])).reshape(1, 1, 1, -1)


def crossed(params, x_NHWC, **rest):
    """Kernels without their corners: the extent stays, the square is not filled."""
    middle = [np.arange(n) == n // 2 for n in params["kernel"].shape[:2]]
    cross = (middle[0][:, None] | middle[1][None])[..., None, None]
    return CONV({**params, "kernel": params["kernel"] * cross}, x_NHWC, **rest)


CONV = layers.conv


@pytest.mark.parametrize("conv", [dilated, crossed])
def test_other_convolutions_contradict_the_stacks(conv, monkeypatch):
    monkeypatch.setattr(layers, "conv", conv)
    assert not this.check_stacks()[0]


@pytest.mark.parametrize(
    ("layer", "other"),
    [
        ("conv", dilated),
        ("max_pool_2x2", lambda x_NHWC: x_NHWC[:, ::2, ::2]),
        ("max_pool_2x2", lambda x_NHWC: x_NHWC[:, :-1:2, 1::2]),
    ],
    ids=["dilated", "no maximum", "one corner"],
)
def test_other_layers_contradict_the_fields_though_the_recurrence_holds(layer, other, monkeypatch):
    only(monkeypatch, "A")
    monkeypatch.setattr(layers, layer, other)
    assert this.field("A", this.field_net(1)) == 150
    assert not this.check_fields()[0]


def test_biases_are_no_weights(monkeypatch):
    real = layers.linear_init
    biased = lambda key, shape, *, initialiser, bias: real(  # noqa: E731
        key, shape, initialiser=initialiser, bias=True
    )
    monkeypatch.setattr(layers, "linear_init", biased)
    assert not this.check_weights()[0]


# --- the effective field -------------------------------------------------------------------------


def test_nothing_outside_the_field_has_a_gradient_and_the_middle_has_most():
    map_HW = this.effective_field("A", draws=1, batch=1)
    inside = slice(152 - 67, 152 + 67)
    outside = map_HW.copy()
    outside[inside, inside] = 0
    assert map_HW.shape == (304, 304) and (outside == 0).all()
    edge = map_HW[inside, inside]
    assert all(side.any() for side in (edge[:4], edge[-4:], edge[:, :4], edge[:, -4:]))
    assert map_HW[120:184, 120:184].mean() > 2 * edge.mean()
    assert this.side_holding(map_HW, 1 - 1e-12) <= 134  # sums in another order round otherwise


def test_the_square_that_holds_a_share():
    assert this.side_holding(np.ones((20, 20)), 0.95) == 20
    assert this.side_holding(np.ones((20, 20)), 0.81) == 18
    spot = np.zeros((20, 20))
    spot[9:11, 9:11] = 1
    assert this.side_holding(spot) == 2


def test_random_nets_have_hes_variance_and_ones_above():
    net = this.last_conv_net()
    params = this.random_net("D", net, np.random.default_rng(0))
    kernel = params["conv5_3"]["kernel"]
    assert kernel.shape == (3, 3, 64, 64) and kernel.dtype == np.float32
    assert kernel.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert abs(kernel.mean()) < 0.1 * kernel.std()
    assert all((params[f"fc{i}"]["kernel"] == 1).all() for i in (1, 2, 3))
    assert not any(layer["bias"].any() for layer in params.values())


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(("printed", "status"), [(144, 0), (143, 1)])
def test_the_command_line_writes_a_report(printed, status, tmp_path, monkeypatch, capsys):
    only(monkeypatch, "A")
    monkeypatch.setattr(this, "DRAWN", ("A",))
    monkeypatch.setitem(this.PRINTED, "E", printed)
    with pytest.raises(SystemExit) as end:
        main(this.EXPERIMENT, ["--out", str(tmp_path), "--draws", "1"])
    out = capsys.readouterr().out
    assert end.value.code == status
    assert out.count("reproduced  ") == 4 - status
    assert all(words in out for words in ("E 143,667,240", "A 150/342", "VGG A: field 134 px"))
    page = (tmp_path / "vgg_receptive_field" / "report.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("V-2 stacks", "<svg", "its field, 134 px"))
