"""What `import vggbn` hands out, when it is imported, and the snippets of README.md."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import vggbn
from tests.conftest import ROOT


def test_importing_the_package_alone_imports_neither_jax_nor_numpy():
    code = (
        "import sys, vggbn\n"
        "assert not {'jax', 'numpy'} & sys.modules.keys()\n"
        "assert vggbn.__version__ and 'batch_norm' in dir(vggbn)\n"
        "assert not {'jax', 'numpy'} & sys.modules.keys()\n"
        "from jax._src.xla_bridge import backends_are_initialized\n"
        "assert all(getattr(vggbn, name) is not None for name in vggbn.__all__)\n"
        "assert not backends_are_initialized()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_what_is_handed_out_is_what_it_is_called():
    from vggbn import evaluate, models
    from vggbn.nn.batch_norm import batch_norm

    assert vggbn.batch_norm is batch_norm and vggbn.nets is models and vggbn.evaluate is evaluate
    others = set(vggbn.__all__) - {"__version__", "batch_norm", "nets", "evaluate"}
    for name in others:
        assert getattr(vggbn, name) is getattr(evaluate, name)
    assert {"dense", "multi_crop", "centre", "by_batch", "Trained"} <= others


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'batchnorm'"):
        vggbn.batchnorm  # noqa: B018  # type: ignore


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "vggbn" / "__init__.pyi").read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in imported for alias in node.names
    }  # fmt: skip
    listed = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert {*seen, "__version__"} == set(vggbn.__all__) == set(*listed)
    for name, (module, there) in seen.items():
        if module != "vggbn":
            assert getattr(vggbn, name) is getattr(import_module(module), there)


def test_the_snippets_of_the_readme_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippets
    for snippet in snippets:
        names: dict = {}
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["logits"].shape == (32, 10) and names["y"].shape == (32, 100)


# --- the oldest versions -------------------------------------------------------------------------


def floors() -> dict[str, Version]:
    """{package: the oldest version that pyproject.toml allows} of what [dev] installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    found = {}
    for asked in map(Requirement, lines):
        (bound,) = asked.specifier
        assert bound.operator == ">=", asked
        found[canonicalize_name(asked.name)] = Version(bound.version)
    return found


def test_the_oldest_versions_that_are_tested_are_those_that_pyproject_allows():
    pins = {}
    for line in (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()[1:]:
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_full_version": "3.11.0"}):
            pins[pin.name] = Version(str(pin.specifier).removeprefix("=="))
    assert {name: pins[name] for name in floors()} == floors(), "run `make constraints`"


@pytest.mark.parametrize("page", ["README.md", "notebooks/colab_tpu.ipynb"])
def test_the_oldest_jax_is_the_one_that_is_said(page):
    said = re.findall(r"(\d+\.\d+\.\d+) or newer", (ROOT / page).read_text(encoding="utf-8"))
    assert [Version(version) for version in said] == [floors()["jax"]]
