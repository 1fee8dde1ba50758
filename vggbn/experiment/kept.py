"""What exact claims found, kept for the next process, as long as nothing that decides it changes.

One small file a claim, in the folder where compiled programs are kept too. It holds the identity of
what the check reaches, in the experiment's file and in this package, and of the machine and its
libraries, which round and are timed. A file of another identity, or a damaged one, is as good as
none.
"""

from __future__ import annotations

import json
from pathlib import Path

from vggbn import files
from vggbn.claims.stats import Judgement
from vggbn.experiment.exact import ExactClaim
from vggbn.identity.definitions import key_of
from vggbn.identity.identity import packages, short
from vggbn.identity.reach import reach
from vggbn.machine import compiling
from vggbn.machine.provenance import setting, versions

LIBRARY = __name__.partition(".")[0]


def find(claim: ExactClaim, folder: Path) -> Judgement | None:
    """The claim's row as `keep` left it in the folder; None where it is to be computed."""
    try:
        kept = json.loads(_path(claim, folder).read_text(encoding="utf-8"))
        identity, holds, detail = kept["identity"], kept["holds"], kept["detail"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = isinstance(holds, bool) and isinstance(detail, str)
    if not whole or identity is None or identity != identity_of(claim):
        return None
    return claim.row(holds, detail)


def keep(claim: ExactClaim, found: Judgement, folder: Path) -> None:
    """Let `find` find this row from now on; not of a check whose source cannot be read."""
    identity = identity_of(claim)
    if identity is None:
        return
    holds = found.verdict == "reproduced"
    record = {"identity": identity, "holds": holds, "detail": found.detail}
    folder.mkdir(parents=True, exist_ok=True)
    files.write(_path(claim, folder), json.dumps(record, ensure_ascii=False) + "\n")


def identity_of(claim: ExactClaim) -> str | None:
    """Of all that decides what the check says; None if it is no function of a package's module."""
    package, _, module = claim.check.__module__.partition(".")
    if not module or "<" in claim.check.__qualname__:
        return None
    roots = [key_of(claim.check), f"{key_of(ExactClaim)}.judged"]
    found = reach(packages(*sorted({package, LIBRARY})), roots, {})
    return short([found.digest, compiling.ENABLED, setting(), versions()])


def _path(claim: ExactClaim, folder: Path) -> Path:
    return folder / f"{key_of(claim.check)}.json"
