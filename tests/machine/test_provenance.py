"""What a number was made by."""

import os
import shutil
import subprocess

import jax
import pytest

from tests.conftest import ROOT
from vggbn.experiment import summary
from vggbn.machine import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package that lies in no checkout."""
    copy = tmp_path / "vggbn"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    return copy


def test_the_setting_has_what_two_numbers_must_share(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    setting = provenance.setting.__wrapped__()
    assert list(setting) == ["jaxlib", "device", "threads"]
    assert all(setting.values())


@pytest.mark.parametrize("products", ["highest", None])
def test_on_an_accelerator_the_setting_says_what_products_are_rounded_to(monkeypatch, products):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.default_matmul_precision(products):
        setting = provenance.setting.__wrapped__()
    assert list(setting) == ["jaxlib", "device", "threads", "products"]
    assert setting["products"] == (products or "default")


def test_of_several_devices_the_setting_says_how_many(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert provenance.setting.__wrapped__()["devices"] == 8


def test_threads_are_those_of_xla(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    assert provenance.threads() == 3
    monkeypatch.delenv("NPROC")
    assert provenance.threads() == os.cpu_count()


def test_versions_name_python_and_the_libraries():
    assert provenance.versions().keys() == {"python", "jax", "jaxlib", "flax", "optax", "numpy"}


def test_the_commit_is_that_of_the_checkout():
    head = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = provenance.commit.__wrapped__()
    assert commit.rstrip("+") == head.stdout.strip()[:12]


def test_the_source_of_a_commit_is_that_of_the_checkout():
    found = provenance.source_at("HEAD")
    assert found is not None and len(found) > 50
    shown = subprocess.run(
        ["git", "-C", str(ROOT), "show", "HEAD:vggbn/__init__.py"], capture_output=True, check=False
    )
    assert found["__init__.py"] == shown.stdout.decode()
    assert provenance.source_at("0" * 40) is None


def test_outside_of_git_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parent.parent))
    assert provenance.commit.__wrapped__() == "" and provenance.source_at("HEAD") is None
    monkeypatch.setenv("PATH", "")
    assert provenance.source_at("HEAD") is None
    assert provenance.commit.__wrapped__() == ""


def test_the_processor_has_a_name_without_proc(monkeypatch):
    def unreadable(self, *arguments, **options):
        raise OSError

    monkeypatch.setattr(provenance.Path, "read_text", unreadable)
    assert provenance._cpu()


def test_a_report_says_what_an_accelerators_products_are_rounded_to():
    cpu = {"device": "cpu: X", "threads": 1}
    assert summary._hardware(cpu) == "cpu: X, 1 thread a run"
    gpu = {"device": "H100", "threads": 16, "products": "highest"}
    assert summary._hardware(gpu) == "H100, precision of products: highest"
