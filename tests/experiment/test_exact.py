"""The command line of claims that are computed: verdicts, exit status, report, mistakes."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vggbn.commands.exact import main
from vggbn.experiment.exact import ExactClaim, ExactExperiment
from vggbn.report import Picture


def experiment(*holds, asked=None):
    """One claim for each of `holds`; its pictures note their draws in `asked`."""

    def pictures(draws):
        if asked is not None:
            asked.append(draws)
        return [Picture("a dot", "<svg></svg>", "it is round")]

    claims = [
        ExactClaim(
            id=f"X-{i}",
            sentence="It is so.",
            criterion="It must be.",
            paper="so",
            check=lambda hold=hold: (hold, "as found"),
        )
        for i, hold in enumerate(holds)
    ]
    return ExactExperiment("made_up", "Made up", "Is it so?", tuple(claims), pictures, ("A note.",))


def status(made, argv):
    with pytest.raises(SystemExit) as end:
        main(made, [str(word) for word in argv])
    return end.value.code


def test_all_that_hold_give_status_0_a_table_and_a_page(tmp_path, capsys):
    asked = []
    assert status(experiment(True, True, asked=asked), ["--out", tmp_path, "--draws", 3]) == 0
    out = capsys.readouterr().out
    assert out.count("reproduced  exact") == 2 and "contradicted" not in out
    assert all(words in out for words in ("X-1: as found", "a dot: it is round", "report.html"))
    page = (tmp_path / "made_up" / "report.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("Is it so?", "A note.", "a dot", "as found", "jax"))
    assert asked == [3]


@pytest.mark.parametrize("holds", [(False,), (True, False), (False, True)])
def test_one_that_fails_gives_status_1_and_still_a_page(holds, tmp_path, capsys):
    assert status(experiment(*holds), ["--out", tmp_path]) == 1
    assert "contradicted  exact" in capsys.readouterr().out
    assert (tmp_path / "made_up" / "report.html").exists()


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--size", "full"], ["--size", "--help"]),
        (["--draw", "3"], ["--draw", "--help"]),
        (["--draws", "0"], ["--draws must be 1 or more", "0"]),
        (["--draws", "few"], ["--draws", "'few'"]),
        (["--out", "{file}"], ["--out", "another folder"]),
        (["--out", "{file}/below"], ["--out", "another folder"]),
    ],
)
def test_a_mistake_gets_one_sentence_and_status_2(argv, wanted, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    asked = []
    argv = [word.format(file=file) for word in argv]
    assert status(experiment(True, asked=asked), argv) == 2
    out, err = capsys.readouterr()
    assert not out and not asked
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(words in err for words in wanted)


def test_a_full_disk_is_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    def full(path, report):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr("vggbn.commands.exact.write_html", full)
    assert status(experiment(True), ["--out", tmp_path]) == 2
    assert capsys.readouterr().err == "error: No space left on device (report.html).\n"


def test_the_real_one_refuses_a_flag_at_once():
    command = [sys.executable, "-m", "experiments.vgg_receptive_field", "--size", "full"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1 and "--size" in run.stderr


def test_what_is_computed_is_computed_in_float32_on_every_machine():
    import jax

    with jax.default_matmul_precision("tensorfloat32"):
        check = lambda: (True, str(jax.config.jax_default_matmul_precision))  # noqa: E731
        assert (
            ExactClaim(id="X-1", sentence="", criterion="", paper="", check=check).judged().detail
            == "highest"
        )
