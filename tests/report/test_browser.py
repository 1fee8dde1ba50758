"""The report in a browser, as wide as a laptop's and as narrow as a phone's."""

import os

import pytest

from tests.report.test_page import full
from tests.support.browser import find_chromium, lay_out
from vggbn.report import Chart, Table
from vggbn.report.html import page

WIDTHS = (1280, 390)
LONG = "base+all-photometric_distortion, third"


@pytest.fixture
def chromium():
    found = find_chromium()
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("Chromium is not installed; .ci/run installs it")
    return found or pytest.skip("Chromium is not installed (apt-get install chromium)")


def crowded():
    """Long names, ten seeds, many columns: what a page has to make room for."""
    arms = [f"{LONG} {i}" for i in range(7)]
    curve, seeds = full().curves["base"], range(10)
    return full(
        variants={name: {"lr": (0.01, 0.30000000000000004)} for name in arms},
        baseline_name=arms[0],
        curves=dict.fromkeys(arms, curve),
        panels={"all of them": arms},
        opening=arms,
        finals={name: {s: 0.9 + s / 1000 for s in seeds} for name in arms},
        statuses={},
        to_target={name: dict.fromkeys(seeds, (22_100.0, name == arms[0])) for name in arms},
        tables=[Table([f"column {i}" for i in range(9)], [["24.8 [22.5, 27.1]"] * 9], "Table 4")],
        charts={"one": Chart("scale", "error, %", {LONG: {1: [20.0, 22.0], 2: [18.0]}})},
        facts={"code digest": ";".join(["0123456789abcdef"] * 9)},
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("report", [full, crowded])
def test_the_page_fits_its_window_and_its_console_is_silent(chromium, tmp_path, report, width):
    found = lay_out(chromium, page(report()), width, tmp_path)
    assert (found.wide, found.console) == ([], [])
    assert found.scrolled <= width
    assert found.smallest is not None and found.smallest >= 10, "as high as text of 9 px"


def test_a_wide_element_and_an_error_would_be_found(chromium, tmp_path):
    broken = '<p style="width: 500px">wide</p><script>console.error("bad")</script>'
    found = lay_out(chromium, page(full()).replace("</body>", f"{broken}</body>"), 390, tmp_path)
    assert ["wide" in each for each in found.wide] == [True]
    assert len(found.console) == 1 and "bad" in found.console[0]
    assert found.scrolled > 390
