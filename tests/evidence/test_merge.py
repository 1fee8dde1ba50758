"""Lines that come back from elsewhere."""

import pytest

from tests.support.result_lines import SETTING, line
from vggbn.claims import results
from vggbn.errors import UserError
from vggbn.evidence.merge import merge_lines

NAME = "bn_x/full-mnist/results.jsonl"


def put(folder, *lines):
    for found in lines:
        results.append(folder / NAME, found)
    return folder


def test_what_is_lacking_is_added_and_nothing_twice(tmp_path):
    here = put(tmp_path / "here", line("base", 0), line("bn", 0))
    elsewhere = SETTING | {"device": "NVIDIA"}
    new = [line("bn", 1), line("base", 0, setting=elsewhere), line("base", 0, id="another recipe")]
    there = put(tmp_path / "there", line("bn", 0, finished="later"), *new, new[0])
    assert merge_lines(there, here) == {"bn_x/full-mnist": 3}
    assert results.read(here / NAME) == [line("base", 0), line("bn", 0), *new]
    assert merge_lines(there, here) == {"bn_x/full-mnist": 0}


def test_an_experiment_that_is_not_here_yet_gets_its_folder(tmp_path):
    there = put(tmp_path / "there", line())
    assert merge_lines(there, tmp_path / "here") == {"bn_x/full-mnist": 1}
    assert results.read(tmp_path / "here" / NAME) == [line()]


def test_a_folder_without_lines_and_a_damaged_file_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="has no result lines"):
        merge_lines(tmp_path, tmp_path / "here")
    there = put(tmp_path / "there", line())
    other = there / "bn_y" / "full-mnist" / "results.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text("{\n")
    with pytest.raises(UserError, match="line 1, is damaged"):
        merge_lines(there, tmp_path / "here")
    assert not (tmp_path / "here").exists()
