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
    """One file of the published results with what lies beside it, to be damaged."""
    return copied(publish.PUBLISHED / "bn_mnist" / "full-fashion_mnist", tmp_path / "results")


def copied(folder, results):
    """A copy of a published folder in another `results`; its results.jsonl."""
    shutil.copytree(folder, results / folder.relative_to(publish.PUBLISHED))
    return results / folder.relative_to(publish.PUBLISHED) / "results.jsonl"


def test_results_are_published():
    assert FILES


def test_the_page_is_generated_from_the_results():
    assert publish.PAGE.read_text() == publish.page()


def section(path) -> str:
    """What the page says of one file of results."""
    return results_markdown(publish.published_report(path))


@pytest.fixture(params=FILES, ids=lambda path: path.parent.name)
def file(request, tmp_path):
    """A copy of one published file with what lies beside it, to be damaged."""
    return copied(request.param.parent, tmp_path / "results")


def test_a_deleted_line_and_an_edited_accuracy_show(file):
    page, lines = publish.PAGE.read_text(), file.read_text().splitlines(keepends=True)
    assert section(file) in page
    for which in (7, -1):
        file.write_text("".join(line for line in lines if line is not lines[which]))
        assert section(file) not in page, which
    line = json.loads(lines[0])
    line["final"]["test_accuracy"] -= 0.05
    file.write_text("".join([json.dumps(line) + "\n", *lines[1:]]))
    assert section(file) not in page


def test_verdicts_of_fewer_than_five_seeds_are_called_provisional(copy):
    assert "**Provisional, n =" not in section(copy)
    lines = [line for line in copy.read_text().splitlines() if json.loads(line)["seed"] < 4]
    copy.write_text("".join(f"{line}\n" for line in lines))
    assert "**Provisional, n = 4" in section(copy)


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
    monkeypatch.setattr(publish, "page", lambda: "new")
    with pytest.raises(SystemExit) as exit_:
        publish.main(["--check"])
    assert exit_.value.code == 1
    assert "make report" in capsys.readouterr().err


def test_our_reading_beside_the_results_is_quoted(copy):
    copy.with_name("reading.md").write_text("First <part>.\n\nSecond\nline.\n")
    text = publish.page(copy.parents[2])
    assert "### Our reading\n\nFirst &lt;part>.\n\nSecond line.\n" in text
    report = publish.published_report(copy)
    assert report.reading == ["First <part>.", "Second\nline."]


def test_a_file_that_ends_with_a_view_is_published():
    ends = [json.loads(path.read_text().splitlines()[-1]) for path in FILES]
    assert any("view" in line for line in ends), "no published file ends with a view"


def test_lines_of_other_code_than_today_s_are_said_to_be(copy):
    """They are published while there are none of today's."""
    before = publish.published_report(copy)
    assert publish.OTHER_CODE not in results_markdown(before)
    lines = [json.loads(text) for text in copy.read_text().splitlines()]
    for line in lines:
        line["setting"]["code"] = "0123456789ab"
    copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = publish.published_report(copy)
    assert publish.OTHER_CODE in results_markdown(after) and after.finals == before.finals
