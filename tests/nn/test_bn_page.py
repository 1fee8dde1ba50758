"""docs/bn_in_one_screen.md: its lines are those of the code, and its program runs."""

import re
import subprocess
import sys

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "bn_in_one_screen.md").read_text(encoding="utf-8")
SOURCE = "\n".join(
    (ROOT / "vggbn" / "nn" / name).read_text(encoding="utf-8")
    for name in ("batch_norm.py", "moving.py")
)


def quoted() -> list[str]:
    """The code in the last column of every table row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    cells = [row.strip("| ").rsplit(" | ", 1)[1].strip() for row in rows]
    return [
        cell.strip("`")
        for cell in cells
        if (cell.endswith("`") and " = " in cell) or "return" in cell
    ]


def test_every_quoted_line_stands_in_the_code():
    lines = {re.sub(r"\s+#.*", "", line).strip() for line in SOURCE.splitlines()}
    found = quoted()
    assert len(found) == 15
    missing = [line for line in found if line not in lines]
    assert not missing, missing


def test_the_program_of_the_page_runs():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert program.count("assert_allclose") == 1 and program.count("(ours") >= 3
