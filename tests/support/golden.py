"""Golden texts: files of tests/golden/ that a text must equal, or be renewed by intent."""

import os

from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "golden"


def assert_golden(name: str, text: str, test: str) -> None:
    """The file of that name holds this text; with RENEW_GOLDEN=1 it is written first.

    test: what pytest is to be given to renew it.
    """
    path = FOLDER / f"{name}.txt"
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    renew = f"RENEW_GOLDEN=1 python -m pytest {test}"
    assert path.exists(), f"there is no {path.name}: {renew}"
    assert text == path.read_text(encoding="utf-8"), (
        f"{path.name} holds another text. If you mean it, renew it and read the diff:\n{renew}"
    )
