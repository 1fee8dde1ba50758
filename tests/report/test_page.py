"""The order of the report's page, and what it leaves out."""

import math
import re
from dataclasses import replace

from tests.report.test_report import NONE, Page, exact, judgement, report
from vggbn.report import Curve, curves
from vggbn.report.html import page

FLAT = Curve([10, 100], {0: [0.1, 0.11], 1: [0.1, 0.1]})
MISSING = judgement("BN-22", "inconclusive", detail="not judged: needs runs of bn+l2_5th", **NONE)
WITHDRAWN = judgement("BN-17", "not tested", detail="no budget for it.", **NONE)


def full(**edits):
    fields = {
        "judgements": [judgement("BN-16", detail="fails twice"), MISSING, WITHDRAWN],
        "opening": ["base", "bn"],
        "command": "python -m experiments.bn_ablation --size small",
        "newest": "2026-11-24",
        "reading": ["We read it so."],
    }
    return report(**(fields | edits))


def test_what_was_found_comes_first_and_all_else_is_folded():
    text = page(full())
    wanted = [
        "BN ablation</h1>", "Does BN help?", "Validation accuracy while training", "What was found",
        "✓ reproduced", "BN-16:", "<h2>Verdicts", "2.5× [2.1, 3]", "ratio at least 2", "Not judged",
        "Our reading", "Learning curves", "Final test accuracy", "Steps to the target",
        "Learning-rate sweep", "Variants", "How it was run",
    ]  # fmt: skip
    body, places = text[text.index("<body>") :], []
    for words in wanted:
        assert words in body, words
        places.append(body.index(words, places[-1] if places else 0))
    shown = re.sub(r"<details>.*?</details>", "", body.replace("\n", ""))
    assert "ratio at least 2" not in shown and "0123abc" not in shown
    assert "2.5× [2.1, 3]" in shown and "We read it so." in shown


def test_the_command_and_the_day_are_on_the_page():
    text = Page(page(full())).text
    assert "python -m experiments.bn_ablation --size small" in text
    assert "newest result of 2026-11-24" in text
    assert "newest" not in Page(page(full(command="", newest=""))).text


def test_a_verdict_is_not_parted_from_its_mark():
    marked = re.findall(r'<span class="verdict [a-z-]+">[^<]+</span>', page(full()))
    assert len(marked) == 2 and all("✓ reproduced<" in each for each in marked)
    assert ".verdict { font-weight: 700; white-space: nowrap; }" in page(full())


def test_claims_that_were_not_judged_take_one_line():
    text = page(full())
    line = "Not judged: BN-22 (runs are missing); BN-17 (this protocol cannot test it)"
    assert text.count(line) == 1
    rows = text[text.index("<table class=") : text.index("</table>")]
    assert "BN-16" in rows and "BN-22" not in rows and "BN-17" not in rows
    assert "needs runs of bn+l2_5th" in text and "no budget for it." in text
    assert "Not judged" not in page(full(judgements=[judgement(), exact()]))
    alone = Page(page(full(judgements=[MISSING]))).text
    assert "What was found" not in alone and "Not judged: BN-22 (runs are missing)" in alone


def test_panels_without_a_curve_of_their_own_are_left_out():
    panels = {
        "one": ["base"], "two": ["base", "bn"], "the same": ["bn", "base"],
        "three": ["base", "x30", "later"], "none": ["later"], "both": ["bn", "x30"],
    }  # fmt: skip
    assert list(curves.panels(report(panels=panels))) == ["two", "three"]


def test_a_single_curve_is_left_out_only_where_it_is_flat():
    full = report(panels={"alone": ["base"]})
    assert list(curves.panels(full)) == ["alone"]
    flat = replace(full, curves={"base": FLAT, "bn": FLAT}, panels={"a": ["base"], "b": ["bn"]})
    assert curves.panels(flat) == {} and "Learning curves" not in page(flat)
    two = replace(flat, panels={"both": ["base", "bn"]})
    assert list(curves.panels(two)) == ["both"]


def test_nothing_is_drawn_of_accuracies_that_are_not_finite():
    lost = Curve([1, 2], {0: [math.nan, math.inf]})
    assert curves.panels(report(curves={"base": lost}, panels={"a": ["base"]})) == {}
