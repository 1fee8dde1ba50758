"""The pilot's page is what its lines say."""

from benchmarks import pilot_table
from vggbn.claims.results import read


def test_the_page_is_that_of_the_lines():
    assert pilot_table.PAGE.read_text(encoding="utf-8") == pilot_table.page(read(pilot_table.LINES))


def test_a_seed_that_diverged_reaches_nothing_and_lowers_its_arm():
    good = {"diverged_at": None, "final": {"test_accuracy": 0.5}, "history": []}
    good["history"] = [{"step": 10, "val_accuracy": 0.4}, {"step": 2_000, "val_accuracy": 0.6}]
    lost = good | {"diverged_at": 3, "history": []}
    assert pilot_table.percent(good, "test") == "50.0"
    assert pilot_table.percent(lost, "test") == "diverged"
    assert pilot_table.reached_at(good, 0.5) == "2,000"
    assert pilot_table.reached_at(lost, 0.5) == pilot_table.reached_at(good, 0.7) == "–"
    assert pilot_table.mean_best([good, lost]) == 0.3
