"""What is shown of the accuracies of several seeds."""

import re

import numpy as np
import pytest
from scipy import stats

from tests.report.test_report import report
from vggbn.report import figures, tables
from vggbn.report.accuracies import accuracy, final_accuracy


@pytest.mark.parametrize("n", [5, 8, 20])
def test_the_interval_is_students_where_seeds_are_many_and_close(n):
    seeds = np.random.default_rng(n).uniform(91, 95, n)
    found = accuracy(list(seeds))
    expected = stats.t.interval(0.95, n - 1, seeds.mean(), stats.sem(seeds))
    assert found.is_interval and found.n == n
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "seeds",
    [
        [92.0, 93.0, 94.0, 95.0],  # four
        [10.0, 10.0, 10.0, 10.0, 61.8],  # some trained
        [10.0] * 5,  # none did
        [100.0, 100.0, 100.0, 99.0, 99.5],  # Student's would end at 100.4
        [0.0, 0.0, 0.0, 1.0, 0.5],
    ],
)
def test_elsewhere_the_lowest_and_the_highest_seed_stand_alone(seeds):
    found = accuracy(seeds)
    assert not found.is_interval
    assert (found.mean, found.low, found.high) == (np.mean(seeds), min(seeds), max(seeds))


def test_no_interval_of_an_accuracy_leaves_0_to_100():
    random = np.random.default_rng(0)
    for _ in range(300):
        centre, spread, n = random.uniform(0, 100), random.exponential(5), random.integers(1, 12)
        seeds = np.clip(random.normal(centre, spread, n), 0, 100)
        found = accuracy(list(seeds))
        assert 0 <= found.low <= found.mean + 1e-9 and found.mean - 1e-9 <= found.high <= 100


FIVE = {"base": dict(enumerate([0.90, 0.91, 0.92, 0.93, 0.94]))}


def test_an_arm_of_which_a_run_diverged_has_no_interval():
    whole = report(finals=FIVE, statuses={})
    found = final_accuracy(whole, "base")
    assert found is not None and found.is_interval
    five, six = dict(FIVE["base"]), {5: "diverged at step 7"}
    some = report(finals={"base": five | {5: 0.1}}, statuses={"base": six})
    found = final_accuracy(some, "base")
    assert found is not None and (found.n, found.is_interval) == (5, False)
    assert final_accuracy(whole, "x30") is None


def test_table_and_figure_show_the_interval_where_there_is_one():
    close, apart = report(finals=FIVE), report(finals={"base": FIVE["base"] | {0: 0.2}})
    assert tables.finals(close).rows[0][1] == "92.00 [90.04, 93.96]"
    assert tables.finals(apart).rows[0][1:3] == ("78.00", "20.00 to 94.00")
    bar = re.compile(r"stroke: var\(--ink\); stroke-width: 1.4")
    assert [len(bar.findall(figures.finals(each))) for each in (close, apart)] == [1, 0]
