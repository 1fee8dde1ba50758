"""Where the papers contradict themselves: the figures are those of docs/papers.md, and a paper that
printed the consistent one would be cleared."""

import re

import pytest

from experiments import paper_contradictions as this
from vggbn.experiment.ledger import CLAIMS

PAGE = CLAIMS.read_text(encoding="utf-8")


def lines(heading, until="\n## "):
    """The cells of the tables below a heading, a list a line."""
    text = PAGE.split(f"\n{heading}\n")[1].split(until)[0]
    return [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


def modules(rows):
    """{name: (side, channels, 1×1, reduce, 3×3, reduce, wide, pool, stride)} of 3a to 5b."""
    found = {}
    for name, stride, output, *cells in rows:
        if re.fullmatch(r"\d[a-e]", name):
            side, _, depth = output.split("×")
            numbers = [int(cell) for cell in cells[:5]]
            pool = re.search(r"\d+$", cells[5])
            pool = int(pool[0]) if pool else 0
            found[name] = (int(side), int(depth), *numbers, pool, int(stride or 1))
    return found


def test_the_modules_are_those_of_the_tables():
    figure_5 = modules(lines("### The BN-Inception table (Figure 5)"))
    assert {k: tuple(m) for k, m in this.BN_FIGURE_5.items()} == figure_5
    table_1 = modules(lines("## 3 GoogLeNet"))
    assert {k: tuple(m) for k, m in this.GOOGLENET_TABLE_1.items()} == table_1


def test_parameters_are_printed_and_counted_as_in_the_table():
    rows = {row[0]: row for row in lines("## 3 GoogLeNet") if len(row) == 12 and row[-1] != ""}
    rows = {name: row for name, row in rows.items() if re.fullmatch(r"[\d,]+", row[-1])}
    ours = dict(zip(this.GOOGLENET_PARAMETERS, rows, strict=True))
    assert all(name in row for name, row in ours.items() if name != "linear") and len(ours) == 12
    for name, row in ours.items():
        assert f"{this.GOOGLENET_PARAMETERS[name]:g}K" == rows[row][9]
        assert f"{this.googlenet_weights()[name]:,}" == rows[row][11]


def test_other_figures_are_those_of_the_page():
    errors = re.findall(r"\| (D|E) \| (256|384) \| \2 \| ([\d.]+) /", PAGE)
    assert {(int(s), net): float(e) for net, s, e in errors} == {
        (s, net): e for s, nets in this.VGG_TABLE_3.items() for net, e in nets.items()
    }
    table_3 = re.findall(r"\| ([\d.]+) % \| (–|−[\d.]+ %) \|", PAGE.split("## 3 GoogLeNet")[1])
    assert [
        (float(e), -float(d[1:-2]) if d != "–" else 0.0) for e, d in table_3
    ] == [*this.GOOGLENET_TABLE_3]  # fmt: skip
    for figure in (*this.GOOGLENET_ONE_NET.values(), *this.MSRA_TOP_5.values()):
        assert f"{figure:g} %" in PAGE


@pytest.mark.parametrize("claim", this.CLAIMS, ids=lambda claim: claim.id)
def test_every_contradiction_is_there_and_says_what_it_is(claim):
    holds, detail = claim.check()
    assert holds and re.search(r"\d", detail)


MENDED = {
    "I-1": (
        "BN_FIGURE_5",
        lambda m: m | {k: m[k]._replace(three=m[k].three - 32) for k in ("4c", "4d")},
    ),
    "I-2": (
        "BN_FIGURE_5",
        lambda m: m | {"3c": m["3c"]._replace(size=14), "4e": m["4e"]._replace(size=7)},
    ),
    "I-3": ("BN_PARAMETERS", lambda _: 11.2e6),
    "I-5": ("TAKEN_FROM_A", lambda _: 1),
    "I-7": ("VGG_TABLE_3", lambda t: {s: {"D": 27.0, "E": 26.9} for s in t}),
    "I-8": ("FEWER", lambda _: 8.6),
    "I-9": (
        "GOOGLENET_PARAMETERS",
        lambda p: p | {"conv 7×7": 9.19, "4c": 497, "5a": 1018},
    ),
    "I-10": ("GOOGLENET_TABLE_3", lambda t: (*t[:-1], (6.67, -3.40))),
    "I-11": ("GOOGLENET_ONE_NET", lambda t: dict.fromkeys(t, 38.02)),
    "I-12": ("MSRA_TOP_5", lambda t: dict.fromkeys(t, 7.35)),
}


@pytest.mark.parametrize("claim", this.CLAIMS, ids=lambda claim: claim.id)
def test_a_paper_without_the_contradiction_is_cleared(claim, monkeypatch):
    name, mend = MENDED[claim.id]
    monkeypatch.setattr(this, name, mend(getattr(this, name)))
    assert not claim.check()[0]


def test_two_3x3_count_as_a_stack():
    module = this.Module(28, 0, one=1, three_reduce=0, three=0, wide_reduce=2, wide=5, pool=0)
    assert this.weights(module, 10, wide_side=3) == 10 * 3 + 9 * 2 * 5 + 9 * 5 * 5
    assert this.weights(module, 10, wide_side=5) == 10 * 3 + 25 * 2 * 5
