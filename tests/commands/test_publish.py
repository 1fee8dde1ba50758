"""RESULTS.md is what the committed results say, down to the last line of them."""

import json
import shutil

import pytest

from vggbn.commands import publish
from vggbn.errors import UserError
from vggbn.report import results_markdown

FILES = sorted(publish.PUBLISHED.glob("*/*/results.jsonl"))


@pytest.fixture
def copy(tmp_path):
    """The published results, to be damaged."""
    ignore = shutil.ignore_patterns("runs", "cache")
    return shutil.copytree(publish.PUBLISHED, tmp_path / "results", ignore=ignore)


def test_results_are_published():
    assert FILES


def test_the_page_is_generated_from_the_results(copy):
    assert publish.PAGE.read_text() == publish.page() == publish.page(copy)


def section(path) -> str:
    """What the page says of one file of results."""
    return results_markdown(publish.published_report(path))


@pytest.fixture(params=FILES, ids=lambda path: path.parent.name)
def file(request, tmp_path):
    """A copy of one published file with what lies beside it, to be damaged; its section is the
    page's."""
    copied = tmp_path / "results" / request.param.relative_to(publish.PUBLISHED)
    shutil.copytree(request.param.parent, copied.parent)
    assert section(copied) in publish.PAGE.read_text()
    return copied


def test_a_deleted_line_shows(file):
    lines = file.read_text().splitlines(keepends=True)
    for which in (0, 7, -1):
        file.write_text("".join(line for line in lines if line is not lines[which]))
        assert section(file) not in publish.PAGE.read_text(), which


def test_an_edited_accuracy_shows(file):
    first, *others = file.read_text().splitlines()
    line = json.loads(first)
    line["final"]["test_accuracy"] -= 0.05
    file.write_text("\n".join([json.dumps(line), *others]) + "\n")
    assert section(file) not in publish.PAGE.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_a_verdict_with_fewer_than_five_seeds_is_called_provisional(path):
    report = publish.published_report(path)
    assert report.provisional == any(0 < j.n < 5 for j in report.judgements)
    assert report.provisional == ("**Provisional, n =" in results_markdown(report))


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "bn_ablation" / "full-mnist5k" / "results.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match="empty"):
        publish.published_report(path)


def test_check_fails_where_the_page_is_stale(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "RESULTS.md"
    stale.write_text("old")
    monkeypatch.setattr(publish, "PAGE", stale)
    with pytest.raises(SystemExit) as exit_:
        publish.main(["--check"])
    assert exit_.value.code == 1
    assert "make report" in capsys.readouterr().err


def test_our_reading_beside_the_results_is_quoted(copy):
    file = FILES[0].relative_to(publish.PUBLISHED)
    (copy / file).with_name("reading.md").write_text("First <part>.\n\nSecond\nline.\n")
    text = publish.page(copy)
    assert "### Our reading\n\nFirst &lt;part>.\n\nSecond line.\n" in text
    report = publish.published_report(copy / file)
    assert report.reading == ["First <part>.", "Second\nline."]


def test_a_file_that_ends_with_a_view_is_published():
    ends = [json.loads(path.read_text().splitlines()[-1]) for path in FILES]
    assert any("view" in line for line in ends), "no published file ends with a view"


def test_lines_of_other_code_than_today_s_are_said_to_be(copy):
    """They are published while there are none of today's."""
    path = copy / "bn_mnist" / "full-fashion_mnist" / "results.jsonl"
    assert publish.OTHER_CODE not in section(path)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    for line in lines:
        line["setting"]["code"] = "0123456789ab"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert publish.OTHER_CODE in section(path)
    assert (
        publish.published_report(path).finals
        == publish.published_report(
            publish.PUBLISHED / "bn_mnist" / "full-fashion_mnist" / "results.jsonl"
        ).finals
    )
