"""The same numbers on one device and on eight: V-15, and what BN averages over."""

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.conftest import ROOT
from tests.machine.mesh_jobs import NETS, WHAT
from tests.support import programs
from vggbn.errors import UserError
from vggbn.machine import mesh
from vggbn.runs import run as runs
from vggbn.training import loop
from vggbn.training.task import Task

# Of WHAT, on eight devices of one process and in two processes of one device.
EIGHT = ("none", "batch", "batch:8", "parts:1", "vgg:1")
TWO = ("batch", "stream:3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(what, devices, processes) -> {leaf: array}, computed by so many processes with so
    many CPU devices in all; the leaves are the last process's."""

    @cache
    def run(devices: int, processes: int) -> Path:
        folder = tmp_path_factory.mktemp("mesh")
        names = {(1, 1): WHAT, (8, 1): EIGHT, (2, 2): TWO}[devices, processes]
        jobs = []
        for i, join in enumerate(joining(processes)):
            (folder / str(i)).mkdir()
            jobs.append(start(folder / str(i), devices // processes, join, *names))
        for job in jobs:
            out, errors = job.communicate(timeout=1200)
            assert job.returncode == 0, errors[-2000:]
            assert out.split()[-1] == str(devices)
        return folder / str(processes - 1)

    def of(what: str, devices: int, processes: int = 1) -> dict[str, np.ndarray]:
        with np.load(run(devices, processes) / f"{what}.npz") as found:
            return dict(found)

    return of


def joining(processes: int) -> list[str]:
    """The argument of `mesh.join` for each process; empty for one alone."""
    if processes == 1:
        return [""]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [f"127.0.0.1:{port},{processes},{i}" for i in range(processes)]


def start(folder: Path, devices: int, *arguments: str) -> subprocess.Popen:
    flags = f"{programs.QUICK} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.machine.mesh_jobs", str(folder), *arguments],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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


def test_fifty_steps_in_float64_are_the_same_in_two_processes(trained):
    """V-15: the sums over the batch go from process to process, by gloo."""
    assert deviation(trained("batch", 2, 2), trained("batch", 1)) < 1e-9


def test_a_float32_step_of_a_smooth_net_is_the_same_on_eight_devices(trained):
    """By `loop.fit`; a batch in parts, each with statistics of its eighths."""
    assert deviation(trained("parts:1", 8), trained("parts:1", 1)) < 1e-5


def test_a_streamed_set_trains_alike_in_two_processes(trained):
    """Each decodes its half of every batch, at the scales and crops that one process draws."""
    assert deviation(trained("stream:3", 2, 2), trained("stream:3", 1)) < 1e-5


def test_crops_colours_dropout_and_convolutions_are_the_same_on_eight_devices(trained):
    """What is drawn does not depend on the devices."""
    assert deviation(trained("vgg:1", 8), trained("vgg:1", 1)) < 1e-4  # max pooling is not smooth


def test_statistics_of_the_whole_batch_are_not_those_of_each_device_s_part(trained):
    whole, parts = trained("batch", 1), trained("batch:8", 1)
    assert deviation(parts, whole) > 1e-3


def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(monkeypatch):
    monkeypatch.setattr(mesh, "devices", lambda: 8)
    with pytest.raises(UserError, match="batch of 60 cannot be shared out evenly over 8 devices"):
        mesh.share_out(np.zeros((3, 60), np.int32))
    monkeypatch.setattr(mesh, "processes", lambda: 2)
    with pytest.raises(UserError, match="batch of 12 cannot be shared out evenly over 8 devices"):
        mesh.join_parts(np.zeros(6, np.int32))


def test_what_is_cut_is_the_batch_axis(monkeypatch):
    monkeypatch.setattr(mesh, "devices", lambda: 16)
    monkeypatch.setattr(mesh, "processes", lambda: 2)
    rows_TN, images_NP = np.zeros((3, 16), np.int32), np.zeros((16, 3), np.uint8)
    assert mesh.share_out(rows_TN).sharding.spec == PartitionSpec(None, mesh.AXIS)
    assert mesh.share_out(images_NP, axis=0).sharding.spec == PartitionSpec(mesh.AXIS, None)
    assert mesh.join_parts(images_NP[:8]).sharding.spec == PartitionSpec(mesh.AXIS, None)


def test_a_part_that_cannot_be_shared_out_evenly_is_refused(monkeypatch):
    """The numbers would be right, but every device would be sent all images."""
    monkeypatch.setattr(mesh, "devices", lambda: 8)
    recipe = NETS["parts"].but(batch=8, bn_groups=1)
    dataset = runs.load_data(recipe, 0, runs.Store(Path("runs")))
    with pytest.raises(UserError, match="part of 4 cannot be shared out evenly over 8 devices"):
        loop.fit(Task.of(recipe, 0, dataset))


def test_on_one_device_nothing_is_shared_out():
    rows, tree = np.zeros((3, 60), np.int32), {"a": np.ones(2)}
    assert mesh.devices() > 1 or mesh.share_out(rows) is rows
    assert mesh.devices() > 1 or mesh.keep_replicated(tree) is tree
