"""What a number was made by."""

import os
import shutil
import subprocess

import jax
import pytest

from tests.conftest import ROOT
from vggbn.experiment import summary
from vggbn.machine import compiling, provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose digest can be taken after changes."""
    copy = tmp_path / "vggbn"
    shutil.copytree(provenance.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    return copy


def digest():
    return provenance.code_digest.__wrapped__()


@pytest.mark.parametrize(("enabled", "forms"), [(True, ""), (False, " plain")])
def test_the_setting_has_what_two_numbers_must_share(monkeypatch, enabled, forms):
    monkeypatch.setattr(compiling, "ENABLED", enabled)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    setting = provenance.setting.__wrapped__()
    assert list(setting) == ["code", "jaxlib", "device", "threads"]
    assert setting["code"] == digest() + forms
    assert all(setting.values())


@pytest.mark.parametrize("products", ["highest", None])
def test_on_an_accelerator_the_setting_says_what_products_are_rounded_to(monkeypatch, products):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with jax.default_matmul_precision(products):
        setting = provenance.setting.__wrapped__()
    assert list(setting) == ["code", "jaxlib", "device", "threads", "products"]
    assert setting["products"] == (products or "default")


def test_of_several_devices_the_setting_says_how_many(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert provenance.setting.__wrapped__()["devices"] == 8


def test_every_numeric_module_is_there():
    assert all((provenance.PACKAGE / name).exists() for name in provenance.NUMERIC)


@pytest.mark.parametrize(
    "module", ["nn/batch_norm.py", "models/vgg.py", "data/splits.py", "training/train.py"]
)
def test_a_change_of_numeric_code_changes_the_digest(package, module):
    before = digest()
    with (package / module).open("a") as file:
        file.write("\nEXTRA = 1\n")
    assert digest() != before


@pytest.mark.parametrize(
    "text", ["\n# a comment\n", '\n\n\ndef _f():\n    """Doc."""\n', '"""Doc."""\n']
)
def test_comments_docstrings_and_space_do_not(package, text):
    path = package / "nn" / "batch_norm.py"
    bare = path.read_text() + "\n\ndef _f():\n    pass\n"
    path.write_text(bare)
    before = digest()
    changed = {
        "#": bare + text,
        "d": bare.replace("\ndef _f():\n    pass\n", '\ndef _f():\n    """Doc."""\n'),
        '"': bare.replace('"""', '"""Another word. ', 1),
    }[text.strip()[0]]
    assert changed != bare
    path.write_text(changed)
    assert digest() == before


@pytest.mark.parametrize("module", ["jobs/pool.py", "report/html.py", "commands/experiment.py"])
def test_code_that_decides_no_number_does_not(package, module):
    before = digest()
    with (package / module).open("a") as file:
        file.write("\nEXTRA = 1\n")
    assert digest() == before


def test_a_new_numeric_file_changes_the_digest(package):
    before = digest()
    (package / "models" / "extra.py").write_text("EXTRA = 1\n")
    assert digest() != before


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


def test_outside_of_git_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parent.parent))
    assert provenance.commit.__wrapped__() == ""
    monkeypatch.setenv("PATH", "")
    assert provenance.commit.__wrapped__() == ""


def test_the_processor_has_a_name_without_proc(monkeypatch):
    def unreadable(self, *arguments, **options):
        raise OSError

    monkeypatch.setattr(provenance.Path, "read_text", unreadable)
    assert provenance._cpu()


def test_a_report_says_what_an_accelerators_products_are_rounded_to():
    cpu = {"device": "cpu: X", "threads": 1}
    assert summary._hardware(cpu) == "cpu: X, 1 thread(s) a run"
    gpu = {"device": "H100", "threads": 16, "products": "highest"}
    assert summary._hardware(gpu) == "H100, precision of products: highest"
