"""The report renders what an experiment left, whole or in pieces, as safe, repeatable text."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.support.markdown import markdown_of
from vggbn.claims.stats import VERDICTS, Judgement
from vggbn.report import (
    Chart,
    Curve,
    Picture,
    Report,
    Table,
    figures,
    verdict_table,
    write_html,
)
from vggbn.report.heat import HELD, heat_map, levels
from vggbn.report.tables import power_text

NASTY = '<script src="https://example.org/x.js">alert(1)</script> & | $x_1$ "quoted"'
VOID = {"meta", "br", "use"}


def judgement(claim="BN-15", verdict="reproduced", **edits):
    row = {
        "sentence": "BN alone more than halves the steps",
        "criterion": "ratio at least 2",
        "paper": "31.0→13.3 million steps",
        "n": 3, "effect": 2.5, "low": 2.1, "high": 3.0, "unit": "ratio",
    }  # fmt: skip
    return Judgement(claim=claim, verdict=verdict, **(row | edits))


def report(**edits):
    """Three variants, three seeds; `x30` diverges in all of them, `bn` misses the target once."""
    steps = [0, 10, 100, 1000]
    learns, dies = [0.1, 0.3, 0.8, 0.95], [0.1, 0.2, math.nan, math.nan]
    seeds = (0, 1, 2)
    fields = {
        "title": "BN ablation",
        "question": "Does BN help?",
        "baseline_name": "base",
        "baseline": {"lr": 0.01, "norm": "none"},
        "variants": {"base": {}, "bn": {"norm": ("none", "bn")}, "x30": {"lr": (0.01, 0.3)}},
        "judgements": [judgement()],
        "notes": ["MNIST-5k at 16×16."],
        "curves": {
            "base": Curve(steps, {s: [v - 0.01 * s for v in learns] for s in seeds}),
            "bn": Curve(steps, dict.fromkeys(seeds, learns)),
            "x30": Curve(steps, dict.fromkeys(seeds, dies)),
        },
        "panels": {"all arms": ["base", "bn", "x30"]},
        "finals": {
            "base": {0: 0.94, 1: 0.95, 2: 0.96},
            "bn": {0: 0.96, 1: 0.97, 2: 0.98},
            "x30": dict.fromkeys(seeds, math.nan),
        },
        "statuses": {
            "base": dict.fromkeys(seeds, "ok"),
            "x30": dict.fromkeys(seeds, "diverged at step 40"),
        },
        "end_lr": {"base": 0.001, "bn": 0.001},
        "to_target": {
            "base": dict.fromkeys(seeds, (800.0, True)),
            "bn": {0: (200.0, True), 1: (400.0, True), 2: (1000.0, False)},
        },
        "targets": {0: 0.945, 1: 0.94, 2: 0.935},
        "sweep": {"no BN": {0.01: [0.95, 0.94], 0.1: [0.8, math.nan]}, "BN": {0.1: [0.97]}},
        "facts": {"wall time": "4 min", "commit": "0123abc"},
    }
    return Report(**(fields | edits))


class Page(HTMLParser):
    """Checks that tags close in order, and keeps the tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def html(tmp_path, wanted):
    path = tmp_path / "out" / "report.html"
    write_html(path, wanted)
    return path.read_text(encoding="utf-8")


def test_the_page_holds_every_variant_claim_figure_and_fact(tmp_path):
    page = Page(html(tmp_path, report()))
    wanted = ["base", "bn", "x30", "BN-15", "31.0→13.3 million steps", "2.5× [2.1, 3]", "0123abc"]
    wanted += ["Provisional, n = 3", "diverged at step 40", "norm none → bn", "94.50 % (seed 0)"]
    missing = [words for words in wanted if words not in page.text]
    assert not missing
    assert page.tags.count("figure") == 3


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path):
    text = html(tmp_path, report())
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"https?:|//|@import|javascript:", text)
    targets = [value for name, value in page.attributes if name.endswith(("href", "src"))]
    assert all(target.startswith("#") for target in targets)


def test_references_inside_the_page_are_unique_and_exist(tmp_path):
    two = {"one": ["base"], "two": ["base", "bn"]}
    text = html(tmp_path, report(panels=two))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    used = {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)}
    assert used <= set(ids)


def test_the_same_report_gives_the_same_bytes(tmp_path):
    assert html(tmp_path / "a", report()) == html(tmp_path / "b", report())
    assert markdown_of(report()) == markdown_of(report())


def test_nothing_half_written_remains(tmp_path):
    html(tmp_path, report())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_text_is_escaped_everywhere(tmp_path):
    full = report()
    nasty = replace(
        full,
        title=NASTY, question=NASTY, baseline_name=NASTY, notes=[NASTY], facts={NASTY: NASTY},
        baseline={NASTY: NASTY}, variants={NASTY: {NASTY: (NASTY, NASTY)}},
        curves={NASTY: full.curves["base"]}, panels={NASTY: [NASTY]},
        finals={NASTY: full.finals["base"]}, statuses={NASTY: {0: NASTY}}, end_lr={NASTY: 0.1},
        to_target={NASTY: full.to_target["bn"]}, sweep={NASTY: {0.1: [0.5]}},
        judgements=[judgement(NASTY, sentence=NASTY, criterion=NASTY, paper=NASTY, detail=NASTY)],
        tables=[Table([NASTY], [[NASTY]], NASTY, NASTY)],
        charts={NASTY: Chart(NASTY, NASTY, {NASTY: {1: [2.0]}})},
    )  # fmt: skip
    page = Page(html(tmp_path, nasty))
    assert not {"script", "b"} & set(page.tags)
    assert page.text.count(NASTY) >= 12
    markdown = markdown_of(nasty)
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\|", re.sub(r"^\| | \|$| \| ", "", markdown, flags=re.MULTILINE))


def test_names_in_any_script_draw_without_a_warning(tmp_path):
    name = "正規化 🙂 _under"
    full = report(variants={name: {}}, finals={name: {0: 0.9}}, curves={}, to_target={})
    assert name in Page(html(tmp_path, full)).text


PIECES = {
    "nothing but a title": {
        "baseline": {}, "variants": {}, "judgements": [], "notes": [], "curves": {}, "panels": {},
        "finals": {}, "statuses": {}, "end_lr": {}, "to_target": {}, "targets": {}, "sweep": {},
        "facts": {},
    },
    "a single seed": {
        "finals": {"base": {0: 0.9}, "bn": {0: 0.95}},
        "curves": {"base": Curve([10, 20], {0: [0.5, 0.9]})},
        "to_target": {"base": {0: (20.0, True)}, "bn": {0: (10.0, True)}},
        "judgements": [judgement(n=1, low=-math.inf, high=math.inf)],
    },
    "seeds missing here and there": {
        "finals": {"base": {0: 0.9, 2: 0.91}, "bn": {1: 0.95}},
        "to_target": {"base": {0: (20.0, True)}, "bn": {1: (10.0, True)}},
    },
    "curves of different lengths": {
        "curves": {"base": Curve([10, 20, 30], {0: [0.5], 1: [0.5, 0.9, 0.91], 2: []})},
    },
    "a gap in a curve": {
        "curves": {"base": Curve([10, 20, 30], {0: [0.5, math.nan, 0.6], 1: [0.5, 0.9, 0.91]})},
    },
    "curves without any value": {
        "curves": {"base": Curve([], {0: []}), "bn": Curve([1], {0: [math.nan]}),
                   "x30": Curve([1], {})},
    },
    "everything diverged": {
        "finals": {"base": {0: math.nan}}, "statuses": {"base": {0: "diverged at step 1"}},
        "sweep": {"BN": {0.1: [math.nan], 1.0: []}},
    },
    "a variant in a panel that never ran": {"panels": {"all": ["base", "later"]}},
    "a run that never wrote a final accuracy": {"finals": {}},
    "a claim without data": {
        "judgements": [
            judgement(verdict="inconclusive", n=0, effect=math.nan, low=math.nan, high=math.nan)
        ]
    },
    "infinite accuracies": {"curves": {"base": Curve([1, 2], {0: [0.1, math.inf]})}},
    "thirty variants": {
        "variants": {f"v{i}": {} for i in range(30)},
        "curves": {f"v{i}": Curve([1, 2], {0: [0.1, 0.2]}) for i in range(30)},
        "panels": {"all": [f"v{i}" for i in range(30)]},
        "finals": {f"v{i}": {0: 0.5, 1: 0.6} for i in range(30)},
    },
}  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_a_report_in_pieces_still_renders(tmp_path, piece):
    wanted = report(**PIECES[piece])
    assert Page(html(tmp_path, wanted)).text
    assert markdown_of(wanted).startswith("## full, digits\n")
    assert bool(verdict_table(wanted.judgements)) == bool(wanted.judgements)
    assert " nan" not in markdown_of(wanted)


def test_n_is_that_of_the_weakest_verdict_and_five_are_enough():
    weak = report(judgements=[judgement(n=5), judgement(n=4), judgement(n=0)])
    assert (weak.n, weak.provisional) == (4, True)
    strong = report(judgements=[judgement(n=5), judgement(n=7)])
    assert (strong.n, strong.provisional) == (5, False)
    assert "rovisional" not in markdown_of(strong)


def test_the_verdict_table_is_aligned_and_as_wide_as_asked():
    claims = [judgement(f"BN-{i}", verdict) for i, verdict in enumerate(VERDICTS)]
    lines = verdict_table(claims, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    starts = {line.index("2.5×") for line in lines if "2.5×" in line}
    assert len(starts) == 1
    assert all(any(verdict in line for line in lines) for verdict in VERDICTS)
    assert lines[-1] == "* provisional: fewer than 5 paired seeds"


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({"effect": 2.5, "low": 2.1, "high": 3.0, "unit": "ratio"}, "2.5× [2.1, 3]"),
        ({"effect": 2.5, "low": 2.1, "high": math.inf, "unit": "ratio"}, "≥ 2.5× [2.1, ∞]"),
        ({"effect": 0.5, "low": 0.0, "high": 0.7, "unit": "ratio"}, "≤ 0.5× [0, 0.7]"),
        ({"effect": 1.0, "low": 0.0, "high": math.inf, "unit": "ratio"}, "not known [0, ∞]"),
        ({"effect": -0.5, "low": -1, "high": 0, "unit": "points"}, "−0.50 [−1.00, +0.00] points"),
        ({"effect": 0.9, "low": 0.4, "high": 1.0, "unit": ""}, "0.9 [0.4, 1]"),
        ({"n": 1, "low": -math.inf, "high": math.inf, "unit": ""}, "2.5 [−∞, ∞]"),
    ],
)
def test_effects_are_shown_in_their_unit_and_bounds_as_bounds(edits, expected):
    assert expected in verdict_table([judgement(**edits)])


def test_the_table_of_steps_marks_what_was_not_reached():
    markdown = markdown_of(report())
    row = next(line for line in markdown.splitlines() if line.startswith("| bn | 200"))
    # geometric mean of 4, 2 and at most 0.8
    assert "| bn | 200; 400; > 1,000 | ≤ 1.86× [0, " in row


def test_the_table_of_accuracies_leaves_out_and_names_diverged_runs():
    some = report(
        finals={"base": {0: 0.94, 1: 0.1, 2: 0.96}},
        statuses={"base": {0: "ok", 1: "diverged at step 7", 2: "ok"}},
    )
    row = next(line for line in markdown_of(some).splitlines() if "| base | 95.00" in line)
    assert "| 94.00 to 96.00 | 2 | 0.001 | seed 1 diverged at step 7 |" in row


def test_a_table_of_the_papers_stands_in_both_pages_before_the_variants(tmp_path):
    own = Table(("net", "error, %"), [("D", "24.8")], "Table 4: several scales", "Dense.")
    for text in (markdown_of(report(tables=[own])), html(tmp_path, report(tables=[own]))):
        places = [text.index(w) for w in ("Verdicts", own.title, "24.8", own.note, "edits of the")]
        assert places == sorted(places)


def test_a_chart_shows_means_and_intervals_over_seeds(tmp_path):
    lines = {"one": {1: [20.0, 22.0], 2: [18.0, 18.5]}, "two": {1: [30.0], 2: []}}
    chart = Chart("scale Q", "error, %", lines)
    page = Page(html(tmp_path, report(charts={"Q": chart})))
    assert page.tags.count("figure") == 4
    assert all(words in page.text for words in ("scale Q", "error, %", "one", "two", "Q"))
    drawn = figures.chart(chart)
    # two lines with a marker a point, and a bar where there are two seeds
    assert drawn != figures.chart(replace(chart, series={"one": lines["one"]}))
    assert drawn != figures.chart(replace(chart, series=lines | {"two": {1: [31.0]}}))
    wider = lines | {"one": {1: [19.0, 23.0], 2: [18.0, 18.5]}}
    assert drawn != figures.chart(replace(chart, series=wider))  # the same mean, another interval


def test_how_many_claims_have_an_interval_and_at_which_levels_is_said():
    many = [judgement(f"BN-{i}", level=0.982) for i in range(9)] + [judgement(n=0)]
    text = markdown_of(report(judgements=[*many, judgement(level=0.991)]))
    assert "10 claims have an interval, the one that judged (98.2, 99.1 %: higher than 95" in text
    assert "Of those that are not primary some may be wrong by chance" in text


def test_a_withdrawn_claim_is_not_tested_and_lacks_no_data(tmp_path):
    withdrawn = judgement(verdict="not tested", detail="no arm of it trains.", **NONE)
    wanted = report(judgements=[withdrawn])
    page, markdown = Page(html(tmp_path, wanted)).text, markdown_of(wanted)
    assert "Not judged: BN-15 (this protocol cannot test it)" in page
    assert "not tested" in markdown and "No claim has an interval." in markdown
    for text in (page, markdown):
        assert "no arm of it trains." in text and "no data" not in text


def test_what_its_seeds_can_see_stands_beside_a_claim():
    """t(0.975; 4) = 2.776: a half-width of 2.776 is a spread of √5. By Cohen's tables five see
    1.68 spreads (power 0.8); an effect of half a spread takes 34."""
    j = judgement(n=5, unit="points", effect=0.5 * 5**0.5, low=0.5 * 5**0.5 - 2.776445, high=9.0)
    assert power_text(j) == (
        "seeds differ by 2.2 points, 5 see 3.8 points, 34 would see what was found"
    )
    assert power_text(j) in markdown_of(report(judgements=[j]))
    ratio = replace(j, unit="ratio", **{k: math.exp(getattr(j, k)) for k in ("effect", "low")})
    words = r"seeds differ ×9\.36, 5 see ×([\d.]+), 34 would see what was found"
    (seen,) = re.fullmatch(words, power_text(ratio)).groups()
    assert math.log(float(seen)) == pytest.approx(1.68 * 5**0.5, rel=0.005)
    assert power_text(replace(j, effect=0.0, low=-2.776445)).endswith("∞ would see what was found")
    for silent in ({"n": 0}, {"unit": "share of seeds"}, {"low": -math.inf, "high": math.inf}):
        assert power_text(replace(j, **silent)) == ""


def test_primary_claims_are_marked():
    text = markdown_of(report(judgements=[judgement(is_primary=True), judgement("BN-16")]))
    assert "| BN-15 (primary) |" in text and "| BN-16 |" in text


# --- what is computed, not trained ---------------------------------------------------------------

NONE = {"n": 0, "effect": math.nan, "low": math.nan, "high": math.nan}


def exact(claim="V-1", verdict="reproduced", **edits):
    return judgement(claim, verdict, exact=True, **(NONE | edits))


def exact_report(**edits):
    return Report("Exact", "Is it so?", "", {}, {}, **({"judgements": [exact()]} | edits))


@pytest.mark.parametrize("verdict", ["reproduced", "contradicted"])
def test_an_exact_claim_reads_exact_and_has_no_seeds(verdict, tmp_path):
    row = verdict_table([exact(verdict=verdict)]).splitlines()[1]
    assert row.split()[:4] == ["V-1", verdict, "exact", "–"]
    wanted = exact_report(judgements=[exact(verdict=verdict)])
    for text in (html(tmp_path, wanted), markdown_of(wanted)):
        assert "exact" in text
        assert not re.search("no data|rovisional|ha(s|ve) an interval", text)
    assert f"| V-1 | {verdict} | exact | – |" in markdown_of(wanted)


def test_seeds_beside_an_exact_claim_count_as_ever():
    mixed = exact_report(judgements=[exact(), judgement(n=3)])
    assert (mixed.exact, mixed.n, mixed.provisional) == (False, 3, True)
    assert "1 claim has an interval" in markdown_of(mixed)
    lost = judgement(verdict="inconclusive", **NONE)
    assert "| inconclusive (no data) |" in markdown_of(report(judgements=[lost]))


def test_a_report_without_any_claim_is_not_exact():
    empty = exact_report(judgements=[])
    assert (empty.exact, empty.provisional) == (False, True)


def bump(n=20):
    x = np.linspace(-2, 2, n)
    return np.exp(-(x[:, None] ** 2) - x[None] ** 2)


def test_pictures_are_drawn_in_the_pages_colours_and_fetch_nothing(tmp_path):
    def picture(name):
        return Picture(name, heat_map(bump(), 4, {1: 60, 2: 40}, name), NASTY, {NASTY: 1})

    text = html(tmp_path, exact_report(pictures=[picture("one"), picture("two")]))
    page = Page(text)
    assert page.tags.count("figure") == 2 and page.text.count(NASTY) == 4
    assert not {"script", "img", "image"} & set(page.tags)
    assert all(f"var(--s{i})" in text for i in range(3))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "Variants" not in page.text


@pytest.mark.parametrize("map_HW", [bump(), np.ones((4, 4)), np.eye(4)], ids=["bump", "1", "eye"])
def test_each_shade_of_a_heat_map_holds_its_share(map_HW):
    found = levels(map_HW)
    assert (np.diff(found) > 0).all()
    for held, level in zip(HELD, found, strict=True):
        wanted = held * map_HW.sum() * (1 - 1e-12)
        assert map_HW[map_HW >= level * (1 - 1e-12)].sum() >= wanted
        assert map_HW[map_HW > level * (1 + 1e-12)].sum() < wanted
    assert heat_map(map_HW, 1, {0: 2}, "x").startswith("<svg")
