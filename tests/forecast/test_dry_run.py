"""--dry-run: the plan of a run, counted and compiled without data."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from tests.support import programs
from vggbn.commands.experiment import run
from vggbn.errors import UserError
from vggbn.experiment.plan import make_plan
from vggbn.forecast import compiled as sharded
from vggbn.forecast import dry_run
from vggbn.forecast.collectives import GRADIENTS, METRICS, OTHER, STATISTICS, Collective
from vggbn.machine import compiling
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe, static

NOWHERE = runs.Store(Path("nowhere") / "runs", "nowhere")


def imagenet(*only, **edits):
    experiment = import_module("experiments.vgg_depth").EXPERIMENT
    return make_plan(
        experiment, "paper", out=Path("out"), data="imagenet2012", only=list(only), edits=edits
    )


# A narrow net on the paper's images: its compilation takes a second, D's and E's seven each.
SLIM = {"width": 1 / 64, "fc": 8}


# --- the step on many devices --------------------------------------------------------------------

DEVICES, BATCH, SIDE, CLASSES, FC = 8, 16, 16, 10, 24
CHANNELS = (4, 8, 16, 16, 32, 32, 32, 32)  # of net A at a sixteenth of its width
WEIGHTS = sum(9 * a * b for a, b in zip((3, *CHANNELS), CHANNELS, strict=False)) + FC * (
    CHANNELS[-1] + FC + CLASSES
)
BASE = Recipe(batch=BATCH, image_size=SIDE, fc=FC, width=1 / 16, crop_pad=2, flip=True)
NETS = {
    "plain": BASE,
    "bn": BASE.but(norm="batch", norm_fc=True, crop_pad=0,
        fit="whole", source_side=40, scale_min=20, scale_max=30,
    ),
    "parts": BASE.but(accumulate=2),
    "remat": BASE.but(remat=True),
}  # fmt: skip


def fixed(recipe: Recipe):
    return static(recipe, image=(SIDE, SIDE, 3), classes=CLASSES, flip=True)


@pytest.fixture(scope="module")
def costs():
    """Of NETS on eight devices, whatever the user's own flags say; in one process."""
    wanted = {name: (name, recipe, fixed(recipe)) for name, recipe in NETS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{programs.QUICK} --xla_force_host_platform_device_count=2")
        patch.setattr(sharded.pool, "default_workers", lambda: 1)
        return sharded.costs_on(DEVICES, wanted)


@pytest.mark.parametrize("net", NETS)
def test_gradients_statistics_and_metrics_are_all_that_is_sent(costs, net):
    """No images, no activations: closed forms to the byte."""
    layers, bn, parts = (*CHANNELS, FC, FC), net == "bn", NETS[net].accumulate
    parameters = WEIGHTS + (2 if bn else 1) * sum(layers) + CLASSES  # scale and bias, or bias
    found = costs[net]
    assert found.parameters == parameters
    assert found.sent(purpose=GRADIENTS) == parts * 4 * parameters
    # the sum, its correction and the squares: what norm._moments adds up
    assert found.sent(purpose=STATISTICS) == (3 * 4 * sum(layers) if bn else 0)
    assert found.sent(purpose=METRICS) == parts * (4 + 4)
    assert {c.kind for c in found.exchanged} == {"all-reduce"}
    assert sum(c.size for c in found.exchanged) == found.sent()


@pytest.mark.parametrize("net", ["plain", "bn", "parts"])
def test_a_device_is_given_the_weights_and_its_part_of_the_batch(costs, net):
    found = costs[net]
    statistics = 4 * 2 * sum((*CHANNELS, FC, FC)) if net == "bn" else 0
    pixels, size = (40 * 71, 8) if net == "bn" else (SIDE * SIDE, 0)  # of a frame of 16:9
    images = BATCH // DEVICES * (3 * pixels + size + 4)
    scalars = found.arguments - (2 * 4 * found.parameters + statistics + images)
    assert 0 < scalars < 300


def test_a_step_is_about_three_forward_passes(costs):
    images = BATCH // DEVICES
    assert 2.5 < costs["plain"].flops / (images * costs["plain"].forward_flops) < 4


def test_all_parts_are_counted(costs):
    """The sums of the same images; the update is counted with every part."""
    whole, parts = costs["plain"], costs["parts"]
    assert whole.flops < parts.flops < whole.flops + 10 * whole.parameters
    assert whole.touched < parts.touched < 2 * whole.touched


def test_blocks_that_are_computed_again_cost_a_forward_pass_and_free_memory(costs):
    kept, again = costs["plain"], costs["remat"]
    images = BATCH // DEVICES
    assert 0.7 < (again.flops - kept.flops) / (images * again.forward_flops) < 1.1
    assert again.temporaries < 0.9 * kept.temporaries


def test_multiply_adds_are_the_products_of_the_layers():
    recipe = Recipe(model="mlp", fc=32, image_size=8, fit="resize", batch=4)
    cost = sharded.cost_of(recipe, static(recipe, image=(8, 8, 1), classes=10, flip=False))
    products = 64 * 32 + 32 * 32 + 32 * 32 + 32 * 10
    assert 1 <= cost.forward_flops / (2 * products) < 1.1  # activations and biases come on top
    assert cost.parameters == products + 3 * 32 + 10


def test_what_cannot_be_compiled_is_named():
    fine = fixed(BASE)
    broken = fine._replace(net=replace(fine.net, model="vgg_z"))
    with pytest.raises(UserError, match=r"arm Z cannot be compiled for 2 devices \(KeyError: .*\)"):
        sharded.costs_on(2, {"z": ("arm Z", BASE, broken)})


def test_the_fast_forms_come_back():
    before = compiling.ENABLED
    with pytest.raises(ZeroDivisionError), sharded.plain_forms():
        assert compiling.ENABLED is False
        1 / 0  # noqa: B018
    assert compiling.ENABLED is before


# --- the plan ------------------------------------------------------------------------------------

COST = sharded.Cost(
    parameters=10, forward_flops=1e9, arguments=int(9e9), temporaries=int(8e9), flops=3e12,
    touched=1e9, exchanged=[],
)  # fmt: skip


def test_the_plan_of_imagenet_on_a_pod_needs_no_data(monkeypatch):
    compile_for = {256: dry_run.costs_on, 8: lambda n, wanted: dict.fromkeys(wanted, COST)}
    monkeypatch.setattr(dry_run, "costs_on", lambda n, wanted: compile_for[n](n, wanted))
    text = dry_run.dry_run(imagenet("A", **SLIM), NOWHERE, 256)
    assert "1,281,167 training and 50,000 validation images, 1000 classes" in text
    assert "256 device(s)" in text and "batch of 256, 1 a device" in text
    assert "8 B of loss and accuracy" in text and "sent besides         nothing" in text
    assert "256 × TPU v5e, 1 image(s) each: modelled efficiency" in text
    assert "8 × H100 SXM, 32 image(s) each: modelled efficiency" in text
    assert "a model, not a measurement" in text and "Google Cloud documentation" in text


def test_the_net_that_another_starts_from_is_planned_before_it(monkeypatch):
    monkeypatch.setattr(dry_run, "costs_on", lambda n, wanted: dict.fromkeys(wanted, COST))
    text = dry_run.dry_run(imagenet("D", **SLIM), NOWHERE, 8)
    assert text.index("vgg_a, 224×224×3, S = 256") < text.index("D: vgg_d, 224×224×3, S = 256")
    assert text.count("parameters ") == 2


@pytest.mark.slow
def test_the_papers_d_and_e():
    text = dry_run.dry_run(imagenet("D", "E"), NOWHERE, 256)
    assert "138,357,544" in text and "143,667,240" in text
    assert "fc1                  25088×4096" in text and "conv5_4              3×3×512×512" in text
    assert text.count("370,000 = 73.9 epochs") == 3
    assert "553 MB of gradients" in text and "575 MB of gradients" in text
    assert text.count("fits in 16 GB") == text.count("fits in 80 GB") == 3


@pytest.mark.parametrize("devices", [3, 0])
def test_devices_that_cannot_share_a_batch_are_refused(devices):
    with pytest.raises(UserError, match="--devices"):
        dry_run.dry_run(imagenet("A", **SLIM), NOWHERE, devices)


def test_what_does_not_fit_and_what_there_is_not_is_said():
    recipe = Recipe(batch=24)
    text = "\n".join(dry_run._scaling(recipe, {8: COST}, 8))
    assert text.index("17 GB does NOT fit in 16 GB") < text.index("17 GB fits in 80 GB")
    tpu, gpus = dry_run._scaling(recipe, {12: COST}, 12)
    assert "comes with 4, 8, 16, 32, 64, 128, 256 chips, not with 12" in tpu
    assert "a batch of 24 cannot be shared evenly by 8" in gpus


def test_what_is_sent_besides_all_reduces_is_said():
    gathered = Collective("all-gather", 5_000_000, OTHER)
    assert "5 MB of all-gather" in dry_run._exchanged(COST._replace(exchanged=[gathered]), 8)[1]


def test_one_program_is_compiled_once(monkeypatch):
    """Arms that differ in numbers only share a cost, arms that differ in their net do not."""
    asked = []
    monkeypatch.setattr(dry_run, "costs_on", lambda devices, wanted: asked.append(wanted) or {})
    recipes = {"a": BASE, "b": BASE.but(lr=0.5), "c": BASE.but(norm="batch")}
    dry_run._costs({name: (recipe, fixed(recipe)) for name, recipe in recipes.items()}, 8)
    assert len(asked[0]) == 2


def test_the_command_line_trains_nothing(tmp_path, capsys):
    out = planned("base", "1", tmp_path, capsys)
    assert "3,500 training and 500 validation images" in out
    assert "steps                30 = 1.1 epochs" in out and "nothing on one device" in out
    assert "model, not a measurement" not in out
    assert not (tmp_path / "o" / "runs").exists()


def test_the_command_line_plans_for_eight_devices(tmp_path, capsys):
    out = planned("bn", "8", tmp_path, capsys)
    assert "batch of 128, 16 a device" in out and "sent besides         nothing" in out
    assert "8 × TPU v5e, 16 image(s) each" in out and "8 × H100 SXM, 16 image(s) each" in out
    assert "a model, not a measurement" in out


def planned(variant: str, devices: str, tmp_path, capsys) -> str:
    experiment = import_module("experiments.bn_ablation").EXPERIMENT
    flags = ["--size", "smoke", "--only", variant, "--dry-run", "--devices", devices]
    flags += ["--set", "model=mlp", "--set", "fc=16", "--jobs", "1"]
    assert run(experiment, [*flags, "--out", str(tmp_path / "o")]) == 0
    return capsys.readouterr().out
