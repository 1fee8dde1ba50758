"""CONTRIBUTING.md: its skeletons run as printed, and what it sends one to is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The first line of a block: a file, and where in it.
PLACE = re.compile(r"# ([\w/]+\.py)(?:, (among the imports|in (\w+)))?\n")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def put(block: str, folder: Path) -> None:
    """Write a block where its first line says."""
    place = PLACE.match(block)
    assert place, f"a block does not say where it goes: {block[:60]}"
    path, text = folder / place[1], block[place.end() :]
    if place[2] is None:
        assert not path.exists(), f"{place[1]} is there already"
        path.write_text(text, encoding="utf-8")
        return
    before = path.read_text(encoding="utf-8")
    anchor = rf"^{place[3]}\b.*\n" if place[3] else r"^from vggbn.*\n"
    found = re.search(anchor, before, re.MULTILINE)
    assert found, f"{place[1]} has no {place[2]}"
    at = found.end() if place[3] else found.start()
    path.write_text(before[:at] + text + before[at:], encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The house with every skeleton in it."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("vggbn", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("nn", "support"):
        shutil.copytree(ROOT / "tests" / name, folder / "tests" / name, ignore=ignore)
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in BLOCKS:
        put(block, folder)
    return folder


def python(copy: Path, *argv: str) -> str:
    """What a Python in the copy prints, which must succeed."""
    done = subprocess.run(
        [sys.executable, *argv], cwd=copy, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_there_is_a_skeleton_of_each_kind():
    places = {PLACE.match(block)[1].rpartition("/")[0] for block in BLOCKS}  # type: ignore[index]
    assert {"experiments", "vggbn/nn", "vggbn/models", "vggbn/data/readers"} <= places


def test_the_experiment_runs_and_judges(copy):
    flags = ["--size", "smoke", "--set", "steps=2", "--jobs", "1", "--out", "out"]
    said = python(copy, "-m", "experiments.bn_by_rate", *flags)
    (line,) = [line for line in said.splitlines() if line.startswith("rate ")]
    assert re.match(r"rate +not tested ", line)  # after two steps its nets are at chance
    (results,) = (copy / "out" / "bn_by_rate").glob("*/results.jsonl")
    assert len(results.read_text().splitlines()) == 4
    assert results.with_name("report.html").exists()
    assert "bn_by_rate" in python(copy, "-m", "experiments")


def test_the_norm_keeps_the_contract(copy):
    wanted = [
        f"tests/nn/test_norms.py::test_contract_{name}"
        for name in (
            "trees_and_dtypes[rms-float32]",
            "trees_and_dtypes[rms-bfloat16]",
            "evaluation_is_pure[rms]",
            "jit_equals_no_jit[rms]",
        )
    ]
    said = python(copy, "-m", "pytest", "-q", "-n", "0", *wanted)
    assert re.search(r"^4 passed", said, re.MULTILINE), said


def test_the_model_has_its_shapes_and_the_reader_opens_its_set(copy):
    code = (
        "import jax\n"
        "from vggbn.models import Net, build\n"
        "model = build(Net((28, 20, 3), 7, model='lenet', norm='rms', norm_fc=True))\n"
        "variables = jax.eval_shape(lambda key: model.init(key, 'he'), jax.random.key(0))\n"
        "x = jax.ShapeDtypeStruct((4, 28, 20, 3), 'float32')\n"
        "logits, stats = jax.eval_shape(lambda v, x: model.apply(v, x, train=True), variables, x)\n"
        "assert logits.shape == (4, 7) and stats == variables['batch_stats'], logits\n"
        "assert variables['params']['conv2']['kernel'].shape == (5, 5, 6, 16)\n"
        "assert variables['params']['norm_fc1']['scale'].shape == (120,)\n"
        "from vggbn.training.recipe import Recipe\n"
        "assert Recipe(model='lenet', norm='rms').id != Recipe(norm='rms').id\n"
        "from vggbn.data import load\n"
        "found = load('stripes', image_size=8, fit='pad', split='fixed', seed=0, data_dir=None)\n"
        "parts = found.train, found.validation, found.test\n"
        "print(sum(map(len, parts)), found.train.images_NHWC.shape[1:], *found.classes)\n"
    )
    assert python(copy, "-c", code) == "200 (8, 8, 1) lying standing\n"


def test_each_task_opens_at_most_eight_files_and_they_are_there():
    tasks = re.findall(r"^\*\*(.+?)\*\*(.*?)(?=^\*\*|^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert len(tasks) == 5
    for title, text in tasks:
        files = set(re.findall(r"\]\(([\w/.]+)\)", text))
        assert 1 <= len(files) <= 8, title
        for file in files:
            assert (ROOT / file).exists(), f"{title}: there is no {file}"
        for name in re.findall(r"`(_?[a-z]\w+)`(?= in)", text):
            assert any(re.search(rf"^def {name}\(", (ROOT / f).read_text(), re.M) for f in files)
