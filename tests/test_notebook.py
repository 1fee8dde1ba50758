"""The Colab notebook: committed clean, careful with the image's jax, good from top to bottom."""

import ast
import html
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient

from tests.conftest import ROOT
from tests.support import programs

PATH = ROOT / "notebooks" / "colab_tpu.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=4)
CODE = {cell.id: cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"}
HANGS = 3600  # seconds of a cell that does not end: far more than a slow machine takes


def test_it_is_committed_clean():
    nbformat.validate(NOTEBOOK)
    for cell in NOTEBOOK.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id
    assert set(NOTEBOOK.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}


def test_cells_have_names_and_keep_them():
    """Editors give new cells random ids, and other ones each time: a diff of names says more."""
    ids = [cell.id for cell in NOTEBOOK.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids), ids


def test_the_badges_open_the_notebook_where_the_project_is_published():
    """As pyproject.toml names the place; until it does, by the names that stand for one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project.get("urls", {}).get("Repository", "https://github.com/OWNER/NAME")
    place = home.removeprefix("https://github.com/").rstrip("/")
    link = f"(https://colab.research.google.com/github/{place}/blob/main/notebooks/{PATH.name})"
    for text in (NOTEBOOK.cells[0].source, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.findall(r"!\[Open in Colab\]\(.*?\)\](\(.*?\))", text) == [link]


@pytest.mark.parametrize("name", CODE)
def test_every_cell_is_plain_python(name):
    """No line magic: the cells are also read by ruff, and run by the tests below."""
    ast.parse(CODE[name], name)


@pytest.mark.parametrize("name", CODE)
def test_the_notebook_itself_never_starts_jax(name):
    """A TPU belongs to one process: were it the notebook's, no training could have it."""
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(CODE[name]))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        str(node.module).partition(".")[0]
        for node in ast.walk(ast.parse(CODE[name]))
        if isinstance(node, ast.ImportFrom)
    }
    assert not imported & {"jax", "vggbn", "experiments"}


# --- the install cell, where pip is a script that writes down what it was asked ------------------


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A Python without the suite, whose pip copies its constraints to `held` and runs `then`."""
    fake = tmp_path / "python"

    def write(then=""):
        fake.write_text(
            f'#!/bin/sh\necho "pip says hello"\necho "$@" > {tmp_path}/asked\n'
            f'cat "$6" > {tmp_path}/held\n{then}\n'
        )
        fake.chmod(0o755)
        return tmp_path

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vggbn" else find(name, *a)
    )
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.chdir(tmp_path)
    return write


def install(repository="https://example.org/suite"):
    """Run the install cell with this in its form; returns its names."""
    cell = CODE["install"]
    assert 'REPOSITORY = ""' in cell
    names = {}
    exec(cell.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}"), names)
    return names


def test_pip_is_told_to_keep_jax_and_numpy(pip, capsys):
    folder = pip()
    install()
    version = importlib.metadata.version
    held = (folder / "held").read_text().splitlines()
    assert {f"{name}=={version(name)}" for name in ("jax", "jaxlib", "numpy")} <= set(held)
    with suppress(importlib.metadata.PackageNotFoundError):
        assert f"libtpu=={version('libtpu')}" in held
    asked = (folder / "asked").read_text().split()
    assert asked[:4] == ["-m", "pip", "install", "-q"] and asked[4] == "--constraint"
    assert asked[6:] == ["git+https://example.org/suite"]
    assert "pip says hello" in capsys.readouterr().out


def test_in_a_checkout_the_checkout_is_installed(pip, monkeypatch):
    folder = pip()
    monkeypatch.chdir(ROOT / "notebooks")
    install(repository="")
    assert (folder / "asked").read_text().split()[6:] == [str(ROOT)]


def test_without_an_address_it_asks_for_one(pip):
    folder = pip()
    with pytest.raises(RuntimeError, match="address of the repository into REPOSITORY"):
        install(repository="")
    assert not (folder / "asked").exists()


def test_pip_that_fails_ends_the_cell(pip):
    pip("exit 3")
    with pytest.raises(RuntimeError, match="status 3"):
        install()


def test_a_jax_that_pip_changed_ends_the_cell(pip, monkeypatch):
    folder = pip(then="touch changed")
    version = importlib.metadata.version

    def after(name):
        changed = name == "jax" and (folder / "changed").exists()
        return "99.0" if changed else version(name)

    monkeypatch.setattr(importlib.metadata, "version", after)
    with pytest.raises(RuntimeError, match=r"pip changed jax, .*99\.0.*report"):
        install()


@pytest.mark.parametrize("expect", ["tpu", "cpu"])
def test_another_device_than_expected_ends_the_cell(expect, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    names = install()
    cell = CODE["platform"]
    assert 'EXPECT = "any"' in cell
    cell = cell.replace('EXPECT = "any"', f'EXPECT = "{expect}"')
    if expect == "cpu":
        exec(cell, names)
    else:
        with pytest.raises(RuntimeError, match="You expect tpu and jax found cpu"):
            exec(cell, names)
    assert "platform: cpu" in capsys.readouterr().out


def test_tpus_get_the_compiler_that_goes_with_this_jax(pip, monkeypatch):
    folder, asked = pip(), []
    names = install() | {"SIZE": "small", "experiment": lambda *flags: asked.append(flags)}
    cell = CODE["tpu"]
    assert 'SLICE = ""' in cell
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else find(name, *a)
    )
    exec(cell.replace('SLICE = ""', 'SLICE = "tpu:v5e:1x1"'), names)
    assert (folder / "asked").read_text().split()[6:] == ["jax[tpu]"]
    assert f"jax=={importlib.metadata.version('jax')}" in (folder / "held").read_text().split()
    assert asked[0][-3:] == ("--dry-run", "--on", "tpu:v5e:1x1")


# --- top to bottom -------------------------------------------------------------------------------


class OwnKernel(KernelSpecManager):
    """This very interpreter as the kernel, whatever kernels are installed on the machine."""

    def get_kernel_spec(self, kernel_name):
        # The debugger warns of frozen modules, which it cannot step into.
        launch = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
        return KernelSpec(argv=[*launch, "-f", "{connection_file}"], language="python")


class OwnKernelManager(AsyncKernelManager):
    """What nbclient makes, and therefore closes: it leaves a manager that it was given running."""

    def __init__(self, **traits):
        super().__init__(kernel_spec_manager=OwnKernel(), **traits)


def files_of_the_checkout():
    """{file: time of its last change}, without caches and hidden folders."""
    return {
        path: path.stat().st_mtime_ns
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        and "__pycache__" not in path.parts
    }


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """For a kernel that imports this checkout, on a CPU, and keeps out of the user's home."""
    programs.as_users_do(monkeypatch)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def shown(notebook, kind):
    """{cell: all that it shows as text, or as HTML}."""
    return {
        cell.id: "".join(
            output.text if kind == "text" else output.data["text/html"]
            for output in cell.outputs
            if (kind == "text") == (output.output_type == "stream")
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(at_home, tmp_path):
    """As it is committed."""
    before, jax = files_of_the_checkout(), importlib.metadata.version("jax")
    where = tmp_path / "content"
    where.mkdir()
    notebook = nbformat.read(PATH, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_manager_class=OwnKernelManager,
        kernel_name="own",
        timeout=HANGS,
        resources={"metadata": {"path": str(where)}},
    )
    client.execute()

    text, page = shown(notebook, "text"), shown(notebook, "html")
    assert "The suite is installed already" in text["install"] and f"jax {jax}" in text["install"]
    assert "platform: cpu" in text["platform"] and "CpuDevice" in text["platform"]
    assert re.search(r"^claim +verdict +effect", text["ablation"], re.MULTILINE)
    assert text["ablation"].count("seed 4 ") >= 12  # the second: a pilot had 0, 1 and 2
    verdicts, curves = html.unescape(page["verdicts"]), html.unescape(page["curves"])
    assert "<h2>Verdicts</h2>" in verdicts and all(f"BN-{n}" in verdicts for n in (15, 16, 17))
    assert curves.count('role="img"') >= 4 and "learning rate with BN" in curves
    assert "Final test accuracy" in curves and "--s0" in curves
    assert "nothing to do" in text["own-data"] and "nothing to do" in text["tpu"]
    assert Path(text["download"].strip()).is_file()
    assert importlib.metadata.version("jax") == jax
    assert files_of_the_checkout() == before
