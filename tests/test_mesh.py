"""The same numbers on one device and on eight: V-15, and what BN averages over (D5)."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from tests.conftest import ROOT
from vggbn import mesh
from vggbn.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(what, devices) -> {leaf: array}, computed in a process with so many CPU devices."""

    @cache
    def run(what: str, devices: int) -> dict[str, np.ndarray]:
        folder = tmp_path_factory.mktemp("mesh")
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-m", "tests.mesh_jobs", str(folder / "out.npz"), what],
            cwd=folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.split()[1] == str(devices)
        with np.load(folder / "out.npz") as found:
            return dict(found)

    return run


def deviation(found, wanted) -> float:
    """The largest of all leaves, each relative to its largest value."""
    assert found.keys() == wanted.keys()
    return max(
        np.abs(found[leaf] - wanted[leaf]).max() / np.abs(wanted[leaf]).max()
        for leaf in wanted
        if wanted[leaf].any()
    )


@pytest.mark.parametrize("what", ["none", "batch", "batch:8"])
def test_fifty_steps_in_float64_are_the_same_on_eight_devices(trained, what):
    """V-15. `batch:8` is a statistic of its own for every device's part of the batch."""
    found = trained(what, 8)
    assert next(iter(found.values())).dtype == np.float64
    assert deviation(found, trained(what, 1)) < 1e-9


@pytest.mark.parametrize("net", ["plain", "mlp", "groups"])
def test_a_float32_step_of_a_smooth_net_is_the_same_on_eight_devices(trained, net):
    """By `train.fit`, dropout and all: what is drawn does not depend on the devices."""
    assert deviation(trained(f"{net}:1", 8), trained(f"{net}:1", 1)) < 1e-5


def test_crops_colours_and_convolutions_are_the_same_on_eight_devices(trained):
    assert deviation(trained("vgg:1", 8), trained("vgg:1", 1)) < 1e-4  # max pooling is not smooth


def test_statistics_of_the_whole_batch_are_not_those_of_each_device_s_part(trained):
    whole, parts = trained("batch", 1), trained("batch:8", 1)
    assert deviation(parts, whole) > 1e-3


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(monkeypatch):
    monkeypatch.setattr(mesh, "devices", lambda: 8)
    with pytest.raises(UserError, match="batch of 60 cannot be shared out evenly over 8 devices"):
        mesh.share_out(np.zeros((3, 60), np.int32))


def test_on_one_device_nothing_is_moved():
    rows, tree = np.zeros((3, 60), np.int32), {"a": np.ones(2)}
    assert mesh.devices() > 1 or mesh.share_out(rows) is rows
    assert mesh.devices() > 1 or mesh.replicate(tree) is mesh.keep_replicated(tree) is tree
