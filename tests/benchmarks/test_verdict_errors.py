"""The page's table of simulated errors is of today's rules, and no rule errs more than it may."""

import re

from benchmarks import verdict_errors
from benchmarks.verdict_errors import BEGIN, CASES, END, SETS, Case

PAGE = verdict_errors.PAGE.read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in row.strip("|").split("|")]
    for row in PAGE.partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
]


def test_the_table_is_of_the_rules_that_there_are():
    assert [row[:3] for row in ROWS] == [[case.rule, case.error, case.nominal] for case in CASES]
    assert f"{SETS:,} sets a row" in PAGE


def test_rules_err_as_often_as_they_say_and_the_habits_they_replace_more_often():
    for rule, _, nominal, simulated in ROWS:
        number = float(re.sub("at most ", "", nominal))
        error = 100 * (number / 100 * (1 - number / 100) / SETS) ** 0.5
        if rule.startswith("in its place"):
            assert float(simulated) > number + 10 * error, rule
        else:
            assert float(simulated) <= number + 3 * error + 0.05, rule
        if nominal == "5" and rule.startswith("R"):
            assert float(simulated) > number - 3 * error


def test_the_table_is_put_between_its_marks_and_is_the_same_at_every_call(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}old\n{END}\nbelow\n")
    monkeypatch.setattr(verdict_errors, "PAGE", page)
    monkeypatch.setattr(verdict_errors, "SETS", 50)
    coin = Case("a coin", "tails", "50", lambda rng: bool(rng.random() < 0.5))
    monkeypatch.setattr(verdict_errors, "CASES", (coin, coin))
    text = verdict_errors.table()
    verdict_errors.put(text)
    assert page.read_text() == f"above\n{BEGIN}{text}{END}\nbelow\n"
    assert text == verdict_errors.table()
    first, second = text.splitlines()[2:]
    assert first != second  # each row draws numbers of its own
    assert 20 < float(first.split("|")[-2]) < 80
