"""The command line of the queue of evidence."""

import pytest

from tests.support.result_lines import line
from vggbn.claims import results
from vggbn.commands import evidence
from vggbn.errors import UserError


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--hours", "0"], "--hours must be above 0"),
        (["--hours", "nan"], "--hours must be above 0"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--only", "bn_effective_rate"], "has no claim that needs runs"),
        (["--only", "bn_mnis"], "Did you mean 'bn_mnist'"),
        (["--mps", "--list"], "leave it out"),
        (["--from", "nowhere"], "--from is for the code of a bundle"),
        (["--merge", "nowhere"], "has no result lines"),
        (["--hours", "soon"], "invalid float"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(flags, words, tmp_path):
    with pytest.raises(UserError, match=words):
        evidence._run([*flags, "--results", str(tmp_path)])


def test_a_list_says_what_is_missing_and_trains_nothing(tmp_path, capsys):
    flags = ["--only", "bn_ablation", "--results", str(tmp_path), "--data-dir", str(tmp_path)]
    assert evidence._run([*flags, "--list"]) == 0
    said = capsys.readouterr().out
    assert "left out, bn_ablation: cifar10 is not prepared in" in said
    assert "BN-15 of bn_ablation on mnist5k" in said
    assert "0 of 5 seeds, next look at 5: not timed here yet" in said
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_names_its_parts_and_how_to_use_them(tmp_path, capsys):
    flags = ["--only", "bn_ablation", "--results", str(tmp_path), "--data-dir", str(tmp_path)]
    assert evidence._run([*flags, "--bundle", str(tmp_path / "parts")]) == 0
    said = capsys.readouterr().out
    assert "parts/code.tar.gz" in said and "evidence --from" in said and "--merge" in said


def test_merging_says_how_many_lines_came(tmp_path, capsys):
    results.append(tmp_path / "there" / "bn_x" / "full-mnist" / "results.jsonl", line())
    flags = ["--merge", str(tmp_path / "there"), "--results", str(tmp_path / "here")]
    assert evidence._run(flags) == 0
    assert capsys.readouterr().out == "bn_x/full-mnist: 1 line added\n"
