"""Whether the published lines that older code made have the numbers of today's code.

    python -m vggbn same-numbers [COMMIT] [--write]

Both source trees make up the same runs, of programs that are traced and not computed; what is equal
is entered in results/same_numbers.json, and its lines count.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from vggbn.data.readers import path_of
from vggbn.errors import Parser, exit_with
from vggbn.identity.equalities import Table, read
from vggbn.same_numbers import canonical, compare, published, table, trees
from vggbn.same_numbers.identities import codes_of
from vggbn.same_numbers.published import Case

TABLE = trees.ROOT / "results" / "same_numbers.json"
AT_ONCE = 4  # trees that are asked, each by a process that may hold 3 GB
BRIEF = 3  # steps, after which most that differs does
TODAY = "today"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 every line has today's numbers, 1 not, 2 a mistake."""
    exit_with(lambda: run(argv))


def run(argv: Sequence[str] | None) -> int:
    """Compare, and print one line for each code; 0 if every line has today's numbers, else 1."""
    args = _parser().parse_args(argv)
    commit = args.commit and trees.full_name(args.commit)
    of_commit = (lambda c: trees.full_name(c) == commit) if commit else lambda c: True
    files = published.read_lines(args.results)
    cases = published.cases_of(files, lambda line: of_commit(line["commit"].rstrip("+")))
    if commit:
        cases += canonical.cases(commit)
    with tempfile.TemporaryDirectory(prefix="same-numbers-") as folder:
        reasons = judge(cases, Path(folder), args.data_dir and args.data_dir.resolve())
    for text in told(cases, reasons):
        print(text)
    if args.write:
        table.write(args.table, updated(read(args.table), cases, reasons))
        print(f"{args.table} is written.")
    return int(any(reasons))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m vggbn same-numbers",
        description="Whether the published lines that older code made have the numbers of today's.",
    )
    parser.add_argument("commit", nargs="?", help="judge this commit's lines; default: all lines")
    parser.add_argument("--write", action="store_true", help="enter what is equal in the table")
    parser.add_argument("--table", type=Path, default=TABLE, help=f"default: {TABLE.name}")
    parser.add_argument("--results", type=Path, default=TABLE.parent, help="default: results/")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("VGGBN_DATA_DIR") and Path(os.environ["VGGBN_DATA_DIR"]),
        help="holds tfds/ and the folders of folder:NAME; default: $VGGBN_DATA_DIR",
    )
    return parser


def judge(cases: list[Case], folder: Path, data_dir: Path | None) -> list[str]:
    """Of each case why its numbers are not today's; empty where they are.

    First by a few steps, then whole runs of those that are equal so far.
    """
    reasons = [unfounded(case, folder) for case in cases]
    for steps in (BRIEF, None):
        open_ = [i for i, reason in enumerate(reasons) if not reason]
        asked = [i for i in open_ if steps is None or not cases[i].is_view]
        for i, reason in zip(
            asked, _judge([cases[i] for i in asked], folder, data_dir, steps), strict=True
        ):
            reasons[i] = reason
    return reasons


def unfounded(case: Case, folder: Path) -> str:
    """Why the source of the case's commit is not what made its lines; empty where it may be.

    The old digests depend on the Python: of a line of another one that is not at hand, which code
    made it is believed.
    """
    if not case.published:
        return ""
    code, evaluation = case.lines[0]["setting"]["code"], case.lines[0].get("evaluation")
    minor = case.lines[0]["versions"]["python"].rpartition(".")[0]
    found = trees.digests(_extract(case.commit, folder), minor)
    if found is None or (found[0] == code and evaluation in (None, found[1])):
        return ""
    return f"the code of {case.commit} is {found[0]}: other code made them"


def _extract(commit: str, folder: Path) -> Path:
    tree = folder / "trees" / commit
    return tree if tree.exists() else trees.extract(commit, tree)


def _judge(cases: list[Case], folder: Path, data_dir, steps) -> list[str]:
    """The same, by runs of so many steps (None: whole ones)."""
    by_tree: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        by_tree[case.commit, case.platform].append(case)
        by_tree[TODAY, case.platform].append(case)
    questions = [_question(*where, own, folder, data_dir, steps) for where, own in by_tree.items()]
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as threads:
        found = threads.map(lambda question: trees.ask(*question), questions)
        answers = dict(zip(by_tree, found, strict=True))
    reasons = []
    for case in cases:
        old, new = answers[case.commit, case.platform], answers[TODAY, case.platform]
        was, is_ = (answer[_kind(case)][case.name] for answer in (old, new))
        reasons.append(compare.difference(was, is_, (old["graphs"], new["graphs"])))
    return reasons


def _kind(case: Case) -> str:
    return "views" if case.is_view else "runs"


def _question(
    commit: str, platform: str, cases: list[Case], folder, data_dir, steps
) -> tuple[Path, Path, dict[str, Any]]:
    """(a tree, the folder of what it keeps, what it is asked about its cases)."""
    tree = trees.ROOT if commit == TODAY else _extract(commit, folder)
    kept = folder / "kept" / f"{commit}-{platform}"
    _share_cache(kept, commit, folder)
    request: dict[str, Any] = {"platform": platform, "steps": steps}
    questions: dict[str, dict] = {"runs": {}, "views": {}}
    for case in cases:
        where = {"data_dir": _data_dir(case, data_dir)}
        questions[_kind(case)][case.name] = case.question() | where
    return tree, kept, request | questions


def _data_dir(case: Case, base: Path | None) -> str | None:
    """Where the case's data lie, as a run is told."""
    if base is None:
        return None
    return str(base / "tfds" if path_of(case.data) is None else base)


def _share_cache(kept: Path, commit: str, folder: Path) -> None:
    """Decoded images are shared by the trees that decode them by the same code."""
    kept.mkdir(parents=True, exist_ok=True)
    version = TODAY if commit == TODAY else trees.data_version(commit)
    shared = folder / "decoded" / version
    shared.mkdir(parents=True, exist_ok=True)
    if not (kept / "cache").exists():
        (kept / "cache").symlink_to(shared, target_is_directory=True)


def told(cases: list[Case], reasons: list[str]) -> Iterable[str]:
    """For each code how many recipes and lines have today's numbers, and why others have not."""
    for key in dict.fromkeys(case.key for case in cases):
        own = [(c, r) for c, r in zip(cases, reasons, strict=True) if c.key == key]
        what = "views" if own[0][0].is_view else "recipes"
        same = [case for case, reason in own if not reason]
        yield (
            f"{key}: {len(_ids(same))} of {len(_ids(c for c, _ in own))} {what} are the same, "
            f"{_count(same)} of {_count(c for c, _ in own)} lines"
        )
        why = Counter()
        for case, reason in own:
            if reason:
                why[reason] += len(case.lines)
        for reason, lines in why.most_common():
            ids = {case.id for case, found in own if found == reason}
            yield f"    {len(ids)} {what}, {lines} lines: {reason}"


def _ids(cases: Iterable[Case]) -> set[str]:
    return {case.id for case in cases}


def _count(cases: Iterable[Case]) -> int:
    return sum(len(case.lines) for case in cases)


def updated(old: Table, cases: list[Case], reasons: list[str]) -> Table:
    """The table with these cases judged anew: a case of several commits must be equal in all."""
    new = {key: dict(rows) for key, rows in old.items()}
    published_ = [(c, r) for c, r in zip(cases, reasons, strict=True) if c.published]
    for case, reason in published_:
        if not reason:
            for code, identity in codes_of(case).items():
                new.setdefault(code, {})[case.id] = identity
    for case, reason in published_:
        for code in case.codes if reason else ():
            new.get(code, {}).pop(case.id, None)
    return new
