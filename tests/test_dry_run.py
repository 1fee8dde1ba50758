"""--dry-run: the plan of a run, counted and compiled without data."""

from importlib import import_module
from pathlib import Path

import pytest

from vggbn import dry_run, fast, runs
from vggbn.errors import UserError
from vggbn.experiment import make_plan
from vggbn.recipe import Recipe, static
from vggbn.run_experiment import run

NOWHERE = runs.Store(Path("nowhere") / "runs", "nowhere")


def imagenet(*only, **edits):
    experiment = import_module("experiments.vgg_depth").EXPERIMENT
    return make_plan(
        experiment, "paper", out=Path("out"), data="imagenet2012", only=list(only), edits=edits
    )


# A narrow net on the paper's images: its compilation takes a second, D's and E's ten each.
SLIM = {"width": 1 / 64, "fc": 8, "batch": 16}


def test_the_plan_of_imagenet_needs_no_data():
    text = dry_run.dry_run(imagenet("D", **SLIM), NOWHERE, 8)
    assert "1,281,167 training and 50,000 validation images, 1000 classes" in text
    assert "8 device(s)" in text and "batch of 16, 2 a device" in text
    # the parent that D starts from is planned too
    assert text.index("vgg_a, 224×224×3, S = 256") < text.index("D: vgg_d, 224×224×3, S = 256")
    assert text.count("parameters ") == 2


@pytest.mark.slow
def test_the_papers_d_and_e():
    text = dry_run.dry_run(imagenet("D", "E"), NOWHERE, 8)
    assert "138,357,544" in text and "143,667,240" in text
    assert "fc1                  25088×4096" in text and "conv5_4              3×3×512×512" in text
    assert text.count("370,000 = 73.9 epochs") == 3
    assert "553 MB of gradients" in text


def test_multiply_adds_are_the_products_of_the_layers():
    recipe = Recipe(model="mlp", fc=32, image_size=8, fit="resize")
    fixed = static(recipe, image=(8, 8, 1), classes=10, flip=False)
    cost = dry_run.cost_of(recipe, fixed, 4)
    products = 64 * 32 + 32 * 32 + 32 * 32 + 32 * 10
    assert 1 <= cost.forward_flops / (2 * products) < 1.1  # activations and biases come on top
    assert cost.parameters == products + 3 * 32 + 10


def test_more_devices_hold_less():
    recipe = imagenet("A", **SLIM).base
    fixed = static(recipe, image=(224, 224, 3), classes=10, flip=True)
    few, many = (dry_run.cost_of(recipe, fixed, batch).memory for batch in (8, 2))
    assert few > 2 * many > 0


def test_the_fast_forms_come_back():
    before = fast.ENABLED
    with pytest.raises(ZeroDivisionError), dry_run.plain_forms():
        assert fast.ENABLED is False
        1 / 0  # noqa: B018
    assert fast.ENABLED is before


@pytest.mark.parametrize("devices", [3, 0])
def test_devices_that_cannot_share_a_batch_are_refused(devices):
    with pytest.raises(UserError, match="--devices"):
        dry_run.dry_run(imagenet("A", **SLIM), NOWHERE, devices)


def test_the_command_line_trains_nothing(tmp_path, capsys):
    experiment = import_module("experiments.bn_ablation").EXPERIMENT
    flags = ["--size", "smoke", "--only", "base", "--dry-run", "--out", str(tmp_path / "o")]
    assert run(experiment, flags) == 0
    out = capsys.readouterr().out
    assert "3,500 training and 500 validation images" in out
    assert "steps                20 = 0.2 epochs" in out and "nothing on one device" in out
    assert not (tmp_path / "o" / "runs").exists()
