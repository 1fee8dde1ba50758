"""What exact claims found is kept as long as nothing that decides it changes."""

import json
from dataclasses import replace

import pytest

from vggbn.commands import claims
from vggbn.experiment import kept
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.find import find_experiment
from vggbn.identity.definitions import Package
from vggbn.identity.identity import packages


@pytest.fixture
def claim():
    """BN-8: three identities of the scale of the weights."""
    found, _ = find_experiment("bn_scale").exact
    return found


def path(folder):
    (found,) = folder.iterdir()
    return found


def test_a_claim_is_computed_once(claim, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cache"
    first = claims.compute(claim, "bn_scale", folder)
    assert "computing BN-8 (bn_scale)" in capsys.readouterr().err
    monkeypatch.setattr(ExactClaim, "judged", lambda self: pytest.fail("computed again"))
    again = claims.compute(claim, "bn_scale", folder)
    assert repr(again) == repr(first) and again.verdict == "reproduced"  # NaN is not equal
    assert not capsys.readouterr().err


def test_one_that_does_not_hold_is_kept_as_such(claim, tmp_path):
    kept.keep(claim, claim.row(False, "off by 1"), tmp_path)
    found = kept.find(claim, tmp_path)
    assert found is not None and (found.verdict, found.detail) == ("contradicted", "off by 1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ('{"identity": "', "cut short"),
        ("[]", "no record"),
        ('{"identity": "0123456789ab", "holds": true, "detail": ""}', "of other code"),
        ('{"holds": true, "detail": ""}', "without identity"),
        ('{"identity": null, "holds": true, "detail": ""}', "without identity"),
        ("\xff", "no text"),
    ],
)
def test_damaged_and_foreign_files_are_ignored(text, why, claim, tmp_path):
    kept.keep(claim, claim.row(True, "fine"), tmp_path)
    path(tmp_path).write_bytes(text.encode("latin-1"))
    assert kept.find(claim, tmp_path) is None, why


def test_a_file_whose_fields_are_of_another_type_is_ignored(claim, tmp_path):
    kept.keep(claim, claim.row(True, "fine"), tmp_path)
    record = json.loads(path(tmp_path).read_text(encoding="utf-8"))
    for wrong in ({"holds": "yes"}, {"detail": 3}):
        path(tmp_path).write_text(json.dumps(record | wrong))
        assert kept.find(claim, tmp_path) is None


def changed(file, old, new):
    """Both packages with one place of one file edited."""
    texts = dict(packages("experiments", "vggbn").files)
    assert old in texts[file]
    return Package("", texts | {file: texts[file].replace(old, new, 1)})


@pytest.mark.parametrize(
    ("file", "old", "new", "is_other"),
    [
        ("experiments/bn_scale.py", "def check_identities", "# a remark\ndef check_identities", 0),
        ("experiments/bn_scale.py", "worst < 1e-6", "worst < 1e-5", 1),
        ("vggbn/nn/batch_norm.py", "1 / ", "2 / ", 1),
        ("vggbn/nn/whitening.py", "import", "A = 3\nimport", 0),
    ],
)
def test_the_identity_follows_what_the_check_reaches(file, old, new, is_other, claim, monkeypatch):
    before = kept.identity_of(claim)
    other = changed(file, old, new)
    monkeypatch.setattr(kept, "packages", lambda *names: other)
    assert (kept.identity_of(claim) != before) == bool(is_other)


def test_another_machine_or_library_computes_anew(claim, monkeypatch):
    before = kept.identity_of(claim)
    monkeypatch.setattr(kept, "versions", lambda: {"jax": "0.0.1"})
    other = kept.identity_of(claim)
    monkeypatch.setattr(kept, "setting", lambda: {"device": "another"})
    assert len({before, other, kept.identity_of(claim)}) == 3


def test_a_check_without_a_source_is_not_kept(claim, tmp_path):
    local = replace(claim, check=lambda: (True, ""))
    kept.keep(local, local.row(True, ""), tmp_path)
    assert not any(tmp_path.iterdir()) and kept.find(local, tmp_path) is None
