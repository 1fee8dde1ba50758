"""docs/choices.md says what the code does."""

import re

import pytest

from experiments.bn_ablation import EXPERIMENT
from tests.conftest import ROOT
from vggbn.training.recipe import Recipe

ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \|", re.MULTILINE)
PAGE = (ROOT / "docs" / "choices.md").read_text()
EVERYWHERE, ABLATION = PAGE.split("## `experiments/bn_ablation.py`")


@pytest.mark.parametrize(
    ("section", "recipe"), [(EVERYWHERE, Recipe()), (ABLATION, EXPERIMENT.base)]
)
def test_every_value_in_the_table_is_the_code_s(section, recipe):
    rows = ROW.findall(section)
    assert len(rows) >= 10
    assert {name: str(getattr(recipe, name)) for name, _ in rows} == dict(rows)
