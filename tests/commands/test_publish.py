"""RESULTS.md and docs/results are what the committed results say, down to the last line of them."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from vggbn.commands import publish
from vggbn.data.readers import embedded_names
from vggbn.errors import UserError
from vggbn.experiment import pages, published
from vggbn.experiment.checkout import PUBLISHED, ROOT
from vggbn.experiment.design import Experiment
from vggbn.experiment.ledger import entries, experiments
from vggbn.experiment.plan import make_plan
from vggbn.report import stills

FILES = sorted(PUBLISHED.glob("*/*/results.jsonl"))


@pytest.fixture
def copy(tmp_path):
    """One file of the published results with what lies beside it, to be damaged."""
    return copied(PUBLISHED / "bn_mnist" / "full-mnist", tmp_path / "results")


def copied(folder, results):
    """A copy of a published folder in another `results`; its results.jsonl."""
    shutil.copytree(folder, results / folder.relative_to(PUBLISHED))
    return results / folder.relative_to(PUBLISHED) / "results.jsonl"


def test_results_are_published():
    assert FILES


@pytest.fixture(scope="module")
def made():
    """The pages of today's results."""
    return pages.make_pages(published.published_reports())


def test_the_pages_are_generated_from_the_results(made):
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in made.texts}
    assert texts == made.texts
    digests = {name: stills.digest_in(ROOT / name) for name in made.stills}
    assert digests == {name: still.digest for name, still in made.stills.items()}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / pages.FOLDER).rglob("*.*")}
    assert there == {*made.texts, *made.stills} - {pages.LEDGER}


def section(path) -> str:
    """What the page of its experiment says of one file of results."""
    report = published.published_report(path)
    return pages.page_of(published.find_experiment(path.parents[1].name), [report])[0]


def said(path) -> str:
    """The same without what heads the page."""
    return section(path).partition("\n## ")[2]


@pytest.fixture(params=FILES, ids=lambda path: path.parent.name)
def file(request, tmp_path):
    """A copy of one published file with what lies beside it, to be damaged."""
    return copied(request.param.parent, tmp_path / "results")


def test_a_deleted_line_and_an_edited_accuracy_show(file):
    page = (ROOT / pages.FOLDER / f"{file.parents[1].name}.md").read_text(encoding="utf-8")
    lines = file.read_text().splitlines(keepends=True)
    seeds = published.published_plan(file, json.loads(lines[-1])).seeds  # others may lie there too
    shown = [i for i, line in enumerate(lines) if json.loads(line)["seed"] in seeds]
    assert said(file) in page
    for which in (shown[7], shown[-1]):
        file.write_text("".join(line for line in lines if line is not lines[which]))
        assert said(file) not in page, which
    line = json.loads(lines[shown[0]])
    line["final"]["test_accuracy"] -= 0.05
    lines[shown[0]] = json.dumps(line) + "\n"
    file.write_text("".join(lines))
    assert said(file) not in page


def test_verdicts_of_fewer_than_five_seeds_are_called_provisional(copy):
    assert "**Provisional, n =" not in section(copy)
    # Its seeds begin at 100.
    lines = [line for line in copy.read_text().splitlines() if json.loads(line)["seed"] < 104]
    copy.write_text("".join(f"{line}\n" for line in lines))
    assert "**Provisional, n = 4" in section(copy)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "bn_ablation" / "full-mnist5k" / "results.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match="empty"):
        published.published_report(path)


def test_a_file_of_other_seeds_alone_is_refused_with_the_reason(copy):
    lines = [json.loads(line) | {"seed": 7} for line in copy.read_text().splitlines()]
    copy.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(UserError, match=r"today's plan: its seeds are none of 100 … \d+\. Run the"):
        published.published_report(copy)


@pytest.fixture
def some(made, tmp_path):
    """A page and a figure, written."""
    name = "docs/results/figures/vgg_fusion-full-clothing.svg"
    few = pages.Pages({pages.LEDGER: "new\n"}, {name: made.stills[name]})
    assert publish.write(few, tmp_path) == [pages.LEDGER, name]
    return few, tmp_path, tmp_path / name


def test_what_is_written_is_not_stale_and_stays(some):
    few, root, figure = some
    before = figure.stat().st_mtime_ns
    assert publish.write(few, root) == [] and figure.stat().st_mtime_ns == before


def test_check_fails_where_a_page_is_stale(some, monkeypatch, capsys):
    few, root, figure = some
    monkeypatch.setattr(publish, "published_reports", list)
    monkeypatch.setattr(publish, "make_pages", lambda reports: few)
    monkeypatch.setattr(publish.stale, "__defaults__", (root,))

    def checked():
        with pytest.raises(SystemExit) as exit_:
            publish.main(["--check"])
        return exit_.value.code, capsys.readouterr().err

    assert checked() == (0, "")
    (root / pages.LEDGER).write_text("old")
    code, said = checked()
    assert code == 1 and "RESULTS.md is not" in said and "make report" in said
    publish.write(few, root)
    drawn = figure.read_text()
    figure.write_text(drawn.replace("drawn from ", "drawn from 0"))
    assert "vgg_fusion-full-clothing.svg is not" in checked()[1]
    figure.write_text(drawn.replace("M ", "M  "))  # other bytes, drawn from the same
    assert checked() == (0, "")
    left = root / pages.FOLDER / "bn_gone.md"
    left.write_text("of no results")
    assert "bn_gone.md is not" in checked()[1]
    assert publish.write(few, root) == ["docs/results/bn_gone.md"] and not left.exists()


def test_figures_are_small_and_stand_alone(made):
    for name in made.stills:
        text = (ROOT / name).read_text(encoding="utf-8")
        ElementTree.fromstring(text)  # well-formed
        assert len(text.encode()) <= 40_000, name
        assert "var(" not in text and "currentColor" not in text, name


def test_a_figure_s_digest_follows_the_numbers_and_not_their_last_bits(copy):
    def digests(report):
        return [each.digest for each in pages.page_of(experiment, [report])[1].values()]

    experiment, report = published.find_experiment("bn_mnist"), published.published_report(copy)
    (name, curve), *_ = report.curves.items()
    before = digests(report)
    seed = next(iter(curve.values_by_seed))
    for factor, is_other in ((1 + 1e-9, False), (1.01, True)):
        values = {**curve.values_by_seed}
        values[seed] = [value * factor for value in values[seed]]
        other = {**report.curves, name: replace(curve, values_by_seed=values)}
        assert (digests(replace(report, curves=other)) != before) == is_other


# --- the ledger and the questions ----------------------------------------------------------------

LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)]+)\)")


def anchors(text):
    return {pages.markdown.anchor(line.lstrip("# ")) for line in re.findall(r"(?m)^#+ .*", text)}


def test_every_link_of_a_page_leads_somewhere(made):
    for name, text in made.texts.items():
        for link in LINK.findall(text) + re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            path, _, place = link.partition("#")
            target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
            assert target.exists(), f"{name}: {link}"
            assert not place or place in anchors(target.read_text(encoding="utf-8")), link


def test_the_ledger_is_short_and_has_every_claim(made):
    page = made.texts[pages.LEDGER]
    assert len(page.splitlines()) <= 200
    shown = set(re.findall(r"\b(?:BN|V|G|I)-\d+\b", page))
    assert shown == {*entries()}
    order = re.findall(r"(?m)^\| ((?:BN|V)-\d+)", page)
    assert order == sorted(order, key=[*entries()].index)


def test_what_is_not_tested_says_why(made):
    rows = [row for row in made.texts[pages.LEDGER].splitlines() if "| not tested |" in row]
    assert rows and all(re.search(r"\*Why not:\* \w", row) for row in rows)


@pytest.mark.parametrize(
    "asked",
    [
        "Does BN allow higher learning rates?",
        "Which of the changes matters",
        "Is local response normalisation needed",
    ],
)
def test_a_question_is_answered_two_links_from_the_readme(asked, made):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(link.startswith("RESULTS.md") for link in LINK.findall(readme))
    row = next(line for line in made.texts[pages.LEDGER].splitlines() if asked in line)
    links = LINK.findall(row)
    assert links
    for link in links:
        page = made.texts[link.partition("#")[0]]
        assert "```\nmake exp-" in page and re.search(r"!\[[^]]*\]\(figures/.*\.svg\)", page)


def test_the_command_on_a_page_makes_the_results_it_shows(made):
    """The same folder, by the plan of the command's own words."""
    for experiment in experiments():
        page = made.texts[f"{pages.FOLDER}/{experiment.name}.md"]
        for size, data in re.findall(r'ARGS="--size (\S+) --data (\S+?)[ "]', page):
            assert isinstance(experiment, Experiment)
            plan = make_plan(experiment, size, out=PUBLISHED, data=data)
            assert plan.results_path.exists(), page
            is_embedded = data in embedded_names()
            assert is_embedded != (f"--data {data} --data-dir DIR" in page)


# --- lines ---------------------------------------------------------------------------------------


def test_our_reading_beside_the_results_is_quoted(copy):
    copy.with_name("reading.md").write_text("First <part>.\n\nSecond\nline.\n")
    text = section(copy)
    assert "### Our reading\n\nFirst &lt;part>.\n\nSecond line.\n" in text
    report = published.published_report(copy)
    assert report.reading == ["First <part>.", "Second\nline."]


def test_a_file_that_ends_with_a_view_is_published():
    ends = [json.loads(path.read_text().splitlines()[-1]) for path in FILES]
    assert any("view" in line for line in ends), "no published file ends with a view"


def test_lines_of_other_code_than_today_s_are_said_to_be(copy):
    """They are published while there are none of today's."""
    before = published.published_report(copy)
    assert published.OTHER_CODE not in section(copy)
    lines = [json.loads(text) for text in copy.read_text().splitlines()]
    for line in lines:
        line["setting"]["code"] = "0123456789ab"
    copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = published.published_report(copy)
    assert published.OTHER_CODE in section(copy) and after.finals == before.finals
