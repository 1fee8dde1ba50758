"""What a terminal shows at the end: arms, verdicts, and what was not judged."""

import re

import pytest

from tests.report.test_page import MISSING, WITHDRAWN
from tests.report.test_report import exact, judgement, report
from vggbn.report import terminal, verdict_table
from vggbn.report.words import counted, short

FIVE = dict(enumerate([0.90, 0.91, 0.92, 0.93, 0.94]))


def rows(**edits):
    return [line.split() for line in terminal.arms_table(report(**edits)).splitlines()]


def test_each_arm_has_its_accuracy_its_interval_and_its_steps():
    found = rows(finals={"base": FIVE, "bn": {0: 0.96}}, statuses={})
    assert found[1] == ["base", "5", "92.00", "[90.04,", "93.96]", "800"]
    assert found[2] == ["bn", "1", "96.00", "reached", "by", "2", "of", "3"]
    assert len(found) == 3, "an arm that was not run has no row"


def test_few_seeds_show_the_lowest_and_the_highest_and_it_is_said():
    found = rows()
    assert found[1][:6] == ["base", "3", "95.00", "94.00", "…", "96.00"]
    assert found[3] == ["x30", "0", "–"], "no run of it finished"
    assert " ".join(found[-1]) == terminal.SPREAD
    assert terminal.SPREAD not in terminal.arms_table(report(finals={"base": FIVE}, statuses={}))


def test_without_a_target_there_is_no_column_of_steps():
    assert rows(to_target={})[0] == ["arm", "n", "test", "%", "95", "%", "interval"]
    assert terminal.arms_table(report(finals={}, statuses={})) == ""


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_the_table_is_aligned_and_no_wider_than_the_terminal(columns):
    name = "base+all-photometric_distortion, a third of it, and more"
    wanted = report(
        variants={"base": {}, name: {}},
        finals={"base": FIVE, name: FIVE},
        statuses={},
        to_target={},
    )
    lines = terminal.arms_table(wanted, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert len({line.index("92.00") for line in lines[1:3]}) == 1
    assert (name in lines[2]) == (columns == 200)


def test_what_was_not_judged_is_one_line_and_no_row():
    lines = verdict_table([judgement(), MISSING, exact(), WITHDRAWN], width=200).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["BN-15", "V-1"]
    assert lines[-1] == (
        "Not judged: BN-22 (runs are missing); BN-17 (this protocol cannot test it)"
    )
    assert verdict_table([MISSING]) == "Not judged: BN-22 (runs are missing)"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_the_verdicts_breaks(width):
    claims = [judgement("BN-25 decay", "inconclusive", sentence="many words " * 9), MISSING]
    table = verdict_table(claims, width)
    start = len("BN-25 decay  inconclusive  effect [interval]  3*")
    assert max(map(len, table.splitlines())) <= max(width, start)
    assert " ".join(table.split()).count("many words") == 9


def test_colours_change_nothing_but_colour():
    claims = [judgement(f"BN-{i}", v) for i, v in enumerate(("reproduced", "contradicted"))]
    coloured = verdict_table(claims, colour=True)
    assert re.sub(r"\033\[\d+m", "", coloured) == verdict_table(claims)
    assert "\033[32mreproduced" in coloured and "\033[31mcontradicted" in coloured


@pytest.mark.parametrize(
    ("tty", "settings", "expected"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(monkeypatch, tty, settings, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "72"} | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    assert terminal.has_colour() == expected
    assert terminal.width() == (72 if tty else terminal.WIDE)


def test_numbers_and_nouns_agree():
    assert [counted(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert counted(2, "process", "processes") == "2 processes"
    assert (short("abcdef", 6), short("abcdefg", 6), short("abc", 0)) == ("abcdef", "abcde…", "…")
