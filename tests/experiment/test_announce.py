"""What is said before and while an experiment runs."""

import io
from pathlib import Path

import pytest

from experiments.bn_ablation import EXPERIMENT
from vggbn.experiment import announce
from vggbn.experiment.plan import make_plan
from vggbn.experiment.view_progress import ViewProgress
from vggbn.runs.run import Store, load_data


@pytest.fixture
def plan(tmp_path):
    return make_plan(EXPERIMENT, "smoke", out=Path(tmp_path), seeds=1, only=["base", "bn"])


def test_the_data_is_described_by_its_sizes(plan):
    dataset = load_data(plan.base, 0, Store(plan.folder))
    assert announce.describe_data(plan, dataset) == (
        "mnist5k: 5,000 images of 10 classes: 3,500 train, 500 validation, 1,000 test"
    )


def test_the_work_is_counted_in_words_that_agree(plan, monkeypatch):
    monkeypatch.setattr(announce, "read_sweep", lambda plan: None)
    recipe = plan.variants["bn"]
    assert announce.budget(plan, [recipe], 1, 1) == (
        "What accelerates a BN network: 2 arms × 1 seed: 1 run found, 1 to do: "
        "3,840 training images, 1 process"
    )
    assert announce.budget(plan, [], 2, 1).endswith("2 runs found, 0 to do")
    many = announce.budget(plan, [recipe.but(steps=100_000)], 0, 2)
    assert many.endswith("12.8 million training images, 2 processes")
    monkeypatch.setattr(announce, "read_sweep", lambda plan: {"images_per_second": 8})
    assert "; about 8 min at the 8 images/s" in announce.budget(plan, [recipe], 0, 1)


def test_views_are_shown_by_the_names_of_their_nets():
    stream, now = io.StringIO(), [0.0]
    progress = ViewProgress(2, stream, lambda: 100 + now[0])
    progress.report("D jitter seed 0", "dense at 32")
    now[0] = 20.0
    assert progress.line() == "0/2 nets tested, ? left | D jitter seed 0 dense at 32 for 0:20"
    progress.finished("D jitter seed 0", "dense at 32 in 20 s")
    assert progress.head() == "1/2 nets tested, 0:20 left" and progress.rows() == []
    progress.close()
    assert stream.getvalue().splitlines() == [
        "0/2 nets tested, ? left | D jitter seed 0 dense at 32 for 0:00",
        "D jitter seed 0: dense at 32 in 20 s",
    ]
