"""Results on disk, and what claims read from them."""

import json
import math
import multiprocessing
import os
import signal
import time

import pytest

from tests.support.result_lines import SETTING, STEPS, diverged, line
from vggbn.claims.results import MissingRuns, Results, append, newest_setting, read
from vggbn.errors import UserError

IDS = {name: f"id of {name}" for name in ("base", "bn")}


def results(*lines, ids=IDS, setting=SETTING):
    return Results(lines, ids, setting)


# --- the file ------------------------------------------------------------------------------------


def test_no_file_is_no_lines(tmp_path):
    assert read(tmp_path / "results.jsonl") == []


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "new" / "folder" / "results.jsonl"
    lines = [line("base", 0), line("bn", 1, test=1 / 3), diverged("bn", 2)]
    for written in lines:
        append(path, written)
    assert read(path) == lines
    assert path.read_bytes().count(b"\n") == 3


def test_not_a_number_survives(tmp_path):
    append(tmp_path / "r", line(history=[{"step": 1, "val_loss": math.nan, "val_accuracy": 0.0}]))
    assert math.isnan(read(tmp_path / "r")[0]["history"][0]["val_loss"])


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, kept):
    path = tmp_path / "results.jsonl"
    append(path, line("base", 0))
    whole = json.dumps(line("base", 1)).encode() + b"\n"
    with path.open("ab") as file:
        file.write(whole[:kept])
    assert [found["seed"] for found in read(path)] == [0]
    append(path, line("base", 2))
    assert [found["seed"] for found in read(path)] == [0, 2]


@pytest.mark.parametrize("damage", ["{broken", "[1, 2]", '"text"', '{"variant": "base"}', ""])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, damage):
    path = tmp_path / "results.jsonl"
    good = json.dumps(line())
    path.write_text("\n".join([good, damage, good]) + "\n")
    with pytest.raises(UserError, match=r"results\.jsonl, line 2, is damaged: delete"):
        read(path)


def test_bytes_that_are_no_text_are_damage(tmp_path):
    (tmp_path / "r").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="line 1, is damaged"):
        read(tmp_path / "r")


def _append_for_ever(path):
    seed = 0
    while True:
        append(path, line("base", seed))
        seed += 1


def test_a_writer_may_be_killed_at_any_time(tmp_path):
    path = tmp_path / "results.jsonl"
    for count in range(3):
        before = len(read(path))
        writer = multiprocessing.get_context("spawn").Process(target=_append_for_ever, args=(path,))
        writer.start()
        deadline = time.monotonic() + 600
        while len(read(path)) < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01 * (1 + count))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        lines = read(path)
        assert len(lines) >= before + 5
        assert all(found == line("base", found["seed"]) for found in lines)


# --- what counts ---------------------------------------------------------------------------------


OTHER = SETTING | {"device": "cpu: another"}


def test_only_lines_of_this_code_and_recipe_count():
    lines = [
        line("base", 0),
        line("base", 2, setting=SETTING | {"code": "other"}),
        line("base", 3, id="another recipe"),
        line("unknown", 4),
        line("bn", 0),
    ]
    made = lambda name, line: line["setting"]["code"] == SETTING["code"]  # noqa: E731
    found = Results(lines, IDS, SETTING, made=made)
    assert {name: list(runs) for name, runs in found.runs.items()} == {"base": [0], "bn": [0]}
    assert found.left_out == {"of other recipes": 2, "of other code": 1}
    assert found.why_left_out() == "3 lines were left out: 2 of other recipes, 1 of other code."
    assert ("base", 0) in found and ("bn", 0) in found
    assert ("base", 3) not in found and ("unknown", 4) not in found
    assert len(found.lines()) == 2


@pytest.mark.parametrize("field", ["jaxlib", "device", "threads"])
def test_another_seed_may_come_from_another_machine(field):
    other = SETTING | {field: "another"}
    whole = line("base", 1, setting=other), line("bn", 1, setting=other)
    found = results(line("base", 0), line("bn", 0), *whole)
    assert found.seeds("base", "bn") == [0, 1]
    assert not found.left_out and found.why_left_out() == ""
    assert found.missing(range(3)) == [("base", 2), ("bn", 2)]


def test_a_seed_is_held_by_the_machine_that_has_most_of_it():
    here = line("base", 0, test=0.1)
    there = [line(name, 0, test=0.2, setting=OTHER) for name in ("base", "bn")]
    for lines in ([here, *there], [*there, here]):
        found = results(*lines)
        assert found.final("base") == found.final("bn") == {0: 0.2}
        reason = "1 of seeds that another machine has more of"
        assert found.why_left_out() == f"1 line was left out: {reason}."
        assert found.missing(range(1)) == []
    # at a tie it is this one, and half a seed is begun anew
    found = results(there[0], here)
    assert found.final("base") == {0: 0.1}
    assert found.missing(range(1)) == [("bn", 0)]
    found = results(there[0])
    assert found.final("base") == {0: 0.2} and found.seeds("base") == [0]
    assert found.missing(range(1)) == [("base", 0), ("bn", 0)]


def test_runs_of_one_seed_from_two_machines_make_no_pair():
    found = Results([line("base", 0), line("bn", 0, setting=OTHER)], IDS, SETTING, core={"base"})
    assert found.final("base") and found.final("bn")
    with pytest.raises(MissingRuns):
        found.seeds("base", "bn")


def test_the_core_comes_first_seed_by_seed_and_the_rest_is_a_set_of_its_own():
    names = ("minor", "base", "bn")
    ids = {name: f"id of {name}" for name in names}
    found = Results([line("base", 1), line("minor", 0, setting=OTHER)], ids, SETTING, IDS)
    assert found.missing(range(2)) == [("base", 0), ("bn", 0), ("bn", 1), ("minor", 1)]
    assert found.final("minor") == {0: 0.9}


def test_the_last_of_two_lines_of_one_run_counts():
    found = results(line(test=0.1), line(test=0.2))
    assert found.final("base") == {0: 0.2}
    assert found.why_left_out() == "1 line was left out: 1 run again."


def test_the_code_of_two_recipes_differs_and_they_pair_all_the_same():
    lines = [line("base"), line("bn", setting=SETTING | {"code": "bn's"})]
    found = Results(lines, IDS, {k: v for k, v in SETTING.items() if k != "code"})
    assert found.seeds("base", "bn") == [0] and found.missing([0]) == []


def test_different_data_under_one_name_is_refused():
    other = line()["data"] | {"digest": "d2"}
    with pytest.raises(UserError, match="--out"):
        results(line("base", 0), line("bn", 0, data=other))
    # Folds: another seed may well see other images.
    assert len(results(line("base", 0), line("bn", 1, data=other)).lines()) == 2
    # What is left out cannot mix.
    assert len(results(line("base", 0), line("bn", 0, data=other, id="old")).lines()) == 1


def test_the_newest_setting_is_that_of_the_last_line():
    assert newest_setting([]) is None
    assert newest_setting([line(setting={"threads": 2}), line()]) == SETTING


# --- what claims read ----------------------------------------------------------------------------


def test_shared_seeds():
    found = results(line("base", 2), line("base", 0), line("bn", 2), line("bn", 1))
    assert found.seeds("base") == [0, 2]
    assert found.seeds("base", "bn") == [2]
    with pytest.raises(MissingRuns, match="needs runs of base, gone"):
        found.seeds("base", "gone")
    with pytest.raises(MissingRuns):
        results(line("base", 0), line("bn", 1)).seeds("base", "bn")


def test_final_scores_and_curves():
    found = results(line("base", 1, test=0.7), line("base", 0, test=0.6))
    assert found.final("base") == {0: 0.6, 1: 0.7}
    assert list(found.final("base")) == [0, 1]
    assert found.final("base", "val_accuracy") == {0: 0.9, 1: 0.9}
    assert found.curve("base", 0) == (list(STEPS), [0.2, 0.5, 0.9, 0.9])
    with pytest.raises(MissingRuns, match="needs runs of gone"):
        found.final("gone")


def test_the_best_is_that_of_the_smoothed_curve():
    assert results(line(curve=(0.2, 0.99, 0.5, 0.6))).best("base", 0) == pytest.approx(0.6)
    assert results(line(curve=(0.2, 0.4, math.nan, math.nan))).best("base", 0) == pytest.approx(0.3)
    assert math.isnan(results(line(curve=(math.nan,) * 4)).best("base", 0))


def test_a_target_comes_from_the_other_seeds():
    found = results(*(line("base", seed, curve=(0.1, top, top, top))
                      for seed, top in enumerate((0.7, 0.8, 0.9))))  # fmt: skip
    assert found.targets("base") == pytest.approx({0: 0.85, 1: 0.8, 2: 0.75})


def test_no_target_without_two_seeds_that_learn():
    with pytest.raises(MissingRuns, match="two seeds of base"):
        results(line()).targets("base")
    with pytest.raises(MissingRuns):
        results().targets("base")
    with pytest.raises(MissingRuns, match="all of which learn"):
        results(line("base", 0), line("base", 1, curve=(math.nan,) * 4)).targets("base")


def test_steps_to_a_target_are_censored_at_the_budget():
    found = results(line("base", 0), line("base", 1, curve=(0.1, 0.1, 0.1, 0.1)))
    reached = found.to_target("base", {0: 0.5, 1: 0.5, 2: 0.5})
    assert reached == {0: (100.0, True), 1: (1000.0, False)}


def test_steps_to_a_target_of_a_run_that_diverged():
    found = results(diverged("base", 0, step=40))
    assert found.to_target("base", {0: 0.5}) == {0: (1000.0, False)}
