"""Print the ledger: every claim of the three papers, and what this project knows of it.

    python -m vggbn claims

A claim of docs/papers.md is *exact* (a named test, or a computation), *measured* (a simulation, the
clock), judged from paired seeds, *planned*, or *not attempted*. Where the papers contradict
themselves is a row too. What is computed is kept in out/cache until something changes that decides
it. The exit status is 1 if a claim says more than its results do.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from vggbn.claims import looks
from vggbn.claims.stats import PUBLISHED_SEEDS, Judgement, holm, p_value
from vggbn.commands.publish import stale
from vggbn.errors import Parser, exit_with
from vggbn.experiment import kept, verified
from vggbn.experiment.checkout import ROOT, require_checkout
from vggbn.experiment.exact import ExactClaim
from vggbn.experiment.ledger import (
    CLAIMS,
    CONTRADICTIONS,
    LATER,
    Found,
    Row,
    base_id,
    entries,
    judged,
    ledger,
)
from vggbn.experiment.published import published_reports
from vggbn.report import terminal
from vggbn.report.sentences import short_reason
from vggbn.report.tables import effect_text, number
from vggbn.report.words import counted

CACHE = ROOT / "out" / "cache" / "claims"  # beside the programs that experiments keep
NARROWEST = 60  # columns


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Print the ledger and exit: 0, or 1 where a claim says more than its results."""
    parser = Parser(prog="python -m vggbn claims", description=__doc__)
    exit_with(lambda: run(parser.parse_args(argv)))


def run(args: argparse.Namespace) -> int:
    """What `main` does, as a function."""
    require_checkout("claims")
    _say("reading the published results ...")
    reports = published_reports()
    found = judged(reports)
    checks = verified.tallies(verified.read(verified.PATH))
    rows = ledger(found, lambda claim, experiment: compute(claim, experiment.name), checks)
    print(text(rows, terminal.width()))
    faults = find_faults(rows, found, stale(reports))
    for fault in faults:
        print(f"fault: {fault}")
    return 1 if faults else 0


def compute(claim: ExactClaim, experiment: str, folder: Path = CACHE) -> Judgement:
    """The row of a claim that needs no run: as it was found before, or computed and kept."""
    found = kept.find(claim, folder)
    if found is None:
        _say(f"computing {claim.id} ({experiment}), which is kept for the next time ...")
        found = claim.judged()
        kept.keep(claim, found, folder)
    return found


def _say(text: str) -> None:
    """What takes a while, beside the table."""
    print(text, file=sys.stderr, flush=True)


# --- the page ------------------------------------------------------------------------------------


def text(rows: Sequence[Row], width: int) -> str:
    """The table, in `width` columns, the count of each state, and what chance alone would give."""
    adjusted = adjusted_p(rows)
    cells = [("claim", "", "state", "verified")]
    cells += [(r.id, "P" if r.is_primary else "", r.state, r.verified) for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    words = [["in words"], *(_words(row, adjusted.get(row.id, math.nan)) for row in rows)]
    room = max(width, NARROWEST)
    table = [_block(c, widths, w, room) for c, w in zip(cells, words, strict=True)]
    summary = [textwrap.fill(line, room) for line in _summary(rows)]
    return "\n".join([*table, "", *summary])


def _words(row: Row, p: float) -> list[str]:
    """What the claim says, what was found, and where it comes from or why it is not tested."""
    found, judgement = "", row.judgement
    if judgement and judgement.n:
        chance = "" if math.isnan(p) else f", p {number(p, '.2g')}"
        found = f"{effect_text(judgement)}, n = {judgement.n}{chance}, on {row.data}"
    why = short_reason(row.why)
    return [line for line in (row.sentence, found, why and f"why: {why}", row.where) if line]


def _block(cells: Sequence[str], widths: Sequence[int], words: Sequence[str], width: int) -> str:
    """One row: its cells, and beside them its words, each in lines of its own."""
    start = "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + "  "
    room = width - len(start)
    lines = [line for each in words for line in _wrapped(each, room)]
    return f"\n{' ' * len(start)}".join(lines).join((start, "")).rstrip()


def _wrapped(words: str, room: int) -> list[str]:
    return textwrap.wrap(words, room, subsequent_indent="  ", break_on_hyphens=False)


def _summary(rows: Sequence[Row]) -> list[str]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    judged = [row for row in rows if row.judgement and row.judgement.n]
    primary = sum(row.is_primary for row in rows)
    known = entries()
    under = Counter(known[claim].paper for claim in {base_id(row.id) for row in rows})
    contradictions, later = under.pop(CONTRADICTIONS, 0), under.pop(LATER, 0)
    return [
        f"{counted(under.total(), 'claim')} and {counted(contradictions, 'contradiction')} in the "
        f"papers, {counted(later, 'later question')}, {len(rows)} rows: "
        + ", ".join(f"{n} {s}" for s, n in counts.items()),
        f"{len(judged)} rows have an interval, each at {100 * looks.LEVEL:.1f} % for one of three "
        f"looks (n = {', '.join(map(str, looks.LOOKS))}): of the secondary ones some are wrong by "
        f"chance. p, of the {primary} primary claims (P): of no effect at all, adjusted for the "
        "looks and by Holm's method for all primary claims.",
        "verified: how many checks with new seeds (`make verify CLAIM=BN-16`) lay inside their "
        "prediction interval; they enter no verdict.",
    ]


def adjusted_p(rows: Iterable[Row]) -> dict[str, float]:
    """{claim: p} of the primary claims that were judged (what is not tested has none): adjusted
    for the looks, and by Holm's method for the number of all primary ones."""
    judged = [row for row in rows if row.is_primary and row.judgement and row.state != "not tested"]
    found = {row.id: p_value(row.judgement) for row in judged if row.judgement}
    p = {claim: looks.adjusted(value) for claim, value in found.items() if math.isfinite(value)}
    return holm(p, sum(row.is_primary for row in rows))


# --- does a claim say more than its results? -----------------------------------------------------


def find_faults(
    rows: Sequence[Row], judged: Mapping[str, Sequence[Found]], stale: Sequence[str] = ()
) -> list[str]:
    """What is wrong with the ledger, a sentence each; stale: pages that say something else."""
    faults = [f"{row.id} is computed and does not hold" for row in rows if _fails(row)]
    faults += [f"{row.id}: there is no {row.where}" for row in rows if _lost(row)]
    for row in rows:
        j = row.judgement
        undecided = ("inconclusive", "not tested")
        if j and not j.exact and j.n < PUBLISHED_SEEDS and j.verdict not in undecided:
            faults.append(f"{row.id} is called {j.verdict} on {j.n} seeds")
    known = entries()
    faults += [
        f"{claim} is no claim of {CLAIMS.name}" for claim in judged if _unknown(claim, known)
    ]
    return faults + [f"{page} is not what results/ says: run `make report`" for page in stale]


def _fails(row: Row) -> bool:
    return bool(row.judgement and row.judgement.exact and row.judgement.verdict != "reproduced")


def _lost(row: Row) -> bool:
    """Whether the row names a test that is not there."""
    if row.state != "exact" or "::" not in row.where:
        return False
    file, name = row.where.split("::")
    path = ROOT / file
    return not path.exists() or f"def {name}(" not in path.read_text(encoding="utf-8")


def _unknown(claim: str, known: Iterable[str]) -> bool:
    """Whether a claim that is named like a paper's is none of them."""
    return bool(re.match(r"(BN|V|G)-\d", claim)) and base_id(claim) not in known
