"""Write RESULTS.md and docs/results anew from the committed results; --check compares them.

python -m vggbn publish            write the pages anew
python -m vggbn publish --check    fail if they are not what the results say
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vggbn import files
from vggbn.errors import Parser, exit_with
from vggbn.experiment.checkout import ROOT, require_checkout
from vggbn.experiment.pages import FOLDER, Pages, make_pages
from vggbn.experiment.published import published_reports
from vggbn.report import Report
from vggbn.report.stills import digest_in


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the check failed, 2 the results are not usable."""
    parser = Parser(prog="python -m vggbn publish", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    exit_with(lambda: _run(parser.parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    require_checkout("publish")
    reports = published_reports()
    if not args.check:
        for path in write(make_pages(reports), ROOT):
            print(path)
        return 0
    for page in (wrong := stale(reports)):
        print(f"{page} is not what results/ says: run `make report`.", file=sys.stderr)
    return 1 if wrong else 0


def stale(reports: Sequence[Report], root: Path = ROOT) -> list[str]:
    """The pages and figures that are not what the results say, or are of no results any more."""
    pages = make_pages(reports)
    return [*_changed(pages, root), *_left_over(pages, root)]


def write(pages: Pages, root: Path) -> list[str]:
    """Write what is not there yet as it should be, and remove what belongs to no page; what was."""
    changed, left_over = _changed(pages, root), _left_over(pages, root)
    for name in changed:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, pages.texts.get(name) or pages.stills[name].text())
    for name in left_over:
        (root / name).unlink()
    return [*changed, *left_over]


def _changed(pages: Pages, root: Path) -> list[str]:
    """Texts are compared to the letter; figures by what they were drawn from, since another
    matplotlib draws the same in other bytes."""
    texts = [name for name, text in pages.texts.items() if _read(root / name) != text]
    drawn = pages.stills.items()
    return texts + [name for name, still in drawn if digest_in(root / name) != still.digest]


def _left_over(pages: Pages, root: Path) -> list[str]:
    there = (path for path in sorted((root / FOLDER).rglob("*")) if path.is_file())
    names = [path.relative_to(root).as_posix() for path in there]
    return [name for name in names if name not in {*pages.texts, *pages.stills}]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
