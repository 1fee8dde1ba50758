"""The benchmark compares the same net on all sides, and says so where it does not."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks import bench, cases, measure, table
from benchmarks.cases import CASES, CONTESTANTS, Case, flop
from vggbn.errors import UserError
from vggbn.models import MODELS, Net

TINY = Case("A", 8, 3, 16, fc=16, width=1 / 16, l2=0.05)
STEPS = 3


@pytest.fixture(scope="module")
def ours():
    return trained("vggbn")


def trained(name):
    """(the contestant after three steps on one thread, its losses)"""
    from benchmarks import jax_nets

    contestant = CONTESTANTS[name]
    if contestant.side == "torch":
        pytest.importorskip("torch")
        from benchmarks import torch_nets

        runner = torch_nets.Runner(TINY, contestant, "cpu", threads=1)
    else:
        runner = jax_nets.Runner(TINY, contestant)
    losses = []
    for _ in range(STEPS):
        runner.step()
        losses.append(runner.wait())
    return runner, losses


def test_linen_trains_the_same_net(ours):
    (mine, my_losses), (linen, losses) = ours, trained("linen")
    np.testing.assert_allclose(losses, my_losses, rtol=1e-4)
    assert linen.parameters() == mine.parameters()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *(jax.device_get(runner.state[0]) for runner in (mine, linen)),
    )


@pytest.mark.parametrize("name", ["torch", "torch-channels-last"])
def test_torch_trains_the_same_net(ours, name):
    (mine, my_losses), (torchs, losses) = ours, trained(name)
    from benchmarks.torch_nets import to_torch

    np.testing.assert_allclose(losses, my_losses, rtol=1e-4)
    assert torchs.parameters() == mine.parameters()
    params, stats = jax.device_get(mine.state[:2])
    close = {"rtol": 1e-4, "atol": 1e-5}
    for layer, leaf in params.items():
        module = torchs.net.get_submodule(layer)
        weight = to_torch(TINY, layer, leaf["kernel"]) if "kernel" in leaf else leaf["scale"]
        np.testing.assert_allclose(module.weight.detach().numpy(), weight, **close)
        if "bias" in leaf:
            np.testing.assert_allclose(module.bias.detach().numpy(), leaf["bias"], **close)
    for layer, leaf in stats.items():
        module = torchs.net.get_submodule(layer)
        np.testing.assert_allclose(module.running_mean.numpy(), leaf["mean"], **close)
        np.testing.assert_allclose(module.running_var.numpy(), leaf["var"], **close)


@pytest.mark.parametrize("net", CASES)
def test_the_layers_are_this_suite_s(net):
    case = CASES[net]
    image = (case.side, case.side, case.channels)
    description = Net(image, case.classes, norm="batch", width=case.width, fc=case.fc)
    init = MODELS[f"vgg_{case.config.lower()}"](description).init
    variables = jax.eval_shape(lambda key: init(key, "he"), jax.random.key(0))
    params = variables["params"]
    kernels = {name: leaf["kernel"].shape for name, leaf in params.items() if "kernel" in leaf}
    assert {layer.name: layer.kernel for layer in cases.layers(case)} == kernels


def test_flop_of_vgg16():
    """15.47 G multiply-adds an image is the usual count, which takes the zeros around a map in."""
    case = CASES["d224"]
    per_image = flop(replace(case, batch=1))
    first = 3 * 64 * (3 * 224 - 2) ** 2
    assert 0.96 < (per_image + 2 * first) / 6 / 15.47e9 < 0.97
    assert flop(case) == case.batch * per_image


def line(name, speeds, **more):
    base = {
        "contestant": name, "precision": CONTESTANTS[name].precision, "parameters": 7,
        "losses": [2.0, 1.5], "images_per_s": speeds, "gflop_per_image": 2.0,
        "gemm_gflops": 100.0, "peak_mb": 1234, "first_step_s": 1.0, "title": "VGG", "processes": 1,
        "threads": 2, "backend": "cpu", "device": "cpu: x", "date": "2026", "commit": "abc",
        "versions": {"jax": "0"},
    }  # fmt: skip
    return base | more


def test_ratios_are_of_rounds_and_against_the_best():
    race = [
        line("vggbn", [20.0, 30.0, 40.0]),
        line("torch", [20.0, 10.0, 20.0]),
        line("torch-channels-last", [1.0, 1.0, 1.0]),
        line("torch-bf16", [99.0, 99.0, 99.0]),
    ]
    assert table.ratios(race) == ["vggbn / PyTorch's best float32 (torch): 2.00 (1.00–3.00)"]
    assert table.share(race[0]) == 0.6


def test_the_page_shows_the_newest_race():
    old, new = line("vggbn", [1.0]), line("vggbn", [2.0], date="2027")
    page = table.markdown([line("linen", [5.0]), old, new])
    assert "| vggbn | 2.0 | 2.0–2.0 | 4% | 1,234 | 1.0 s |" in page
    assert "linen |" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"parameters": 8}, "7 and 8 parameters"),
        ({"losses": [2.001, 1.5]}, "2 and 2.001"),
        ({"losses": [2.0, 1.51]}, "1.5 and 1.51"),
        ({"losses": [2.0, float("nan")]}, "nan"),
    ],
)
def test_another_net_is_seen(change, words):
    found = measure.differences([line("vggbn", [1.0]), line("torch", [1.0], **change)], "cpu")
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--nets a33", ["net 'a33'", "Did you mean 'a32'"]),
        ("--only touch", ["contestant 'touch'", "Did you mean 'torch'"]),
        ("--rounds 0", ["--rounds must be positive, not 0"]),
        ("--seconds -1", ["--seconds must be positive"]),
        ("--threads 9999", ["--threads 9999", "this machine's"]),
        ("--net a32", ["--net", "--help"]),
    ],
)
def test_a_mistake_gets_one_sentence(argv, words):
    with pytest.raises(UserError) as error:
        bench.run(argv.split())
    assert all(word in str(error.value) for word in words)


@pytest.mark.slow
def test_a_race_of_processes(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(CASES, "tiny", TINY)
    argv = ["--nets", "tiny", "--only", "vggbn", "linen", "--rounds", "2", "--seconds", "0.1"]
    status = bench.run([*argv, "--no-per-core", "--results", str(tmp_path / "r.jsonl")])
    assert status == 0, capsys.readouterr().out
    lines = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [line["contestant"] for line in lines] == ["vggbn", "linen"]
    assert all(len(line["images_per_s"]) == 2 and line["peak_mb"] > 50 for line in lines)
