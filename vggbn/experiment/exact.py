"""Claims that need no run: they are computed, and hold or do not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggbn import files
from vggbn.claims.stats import Judgement
from vggbn.machine.environment import FLOAT32
from vggbn.machine.provenance import commit, device, versions
from vggbn.report import Picture


@dataclass(frozen=True, kw_only=True)
class ExactClaim:
    """A sentence of a paper and the computation that decides it: check() -> (it holds, detail).

    measured: by simulation or by the clock, not by a computation that always gives the same.
    """

    id: str
    sentence: str
    criterion: str
    check: Callable[[], tuple[bool, str]]
    paper: str = ""
    measured: bool = False

    def judged(self) -> Judgement:
        """The claim's row in the verdict table, computed now, on a GPU or TPU too in float32."""
        import jax

        with jax.default_matmul_precision(FLOAT32["JAX_DEFAULT_MATMUL_PRECISION"]):
            return self.row(*self.check())

    def row(self, holds: bool, detail: str) -> Judgement:
        """The claim's row in the verdict table, from what `check` said."""
        return Judgement(
            claim=self.id,
            sentence=self.sentence,
            criterion=self.criterion,
            paper=self.paper,
            verdict="reproduced" if holds else "contradicted",
            n=0,
            effect=math.nan,
            low=math.nan,
            high=math.nan,
            detail=detail,
            exact=True,
            measured=self.measured,
        )


def write_computed(path: Path, judgements: Sequence[Judgement]) -> None:
    """Keep what was computed: a published page quotes it, and measures nothing anew."""
    found = {j.claim: {"holds": j.verdict == "reproduced", "detail": j.detail} for j in judgements}
    record = {"claims": found, "hardware": device(), "versions": versions(), "commit": commit()}
    files.write(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_computed(path: Path, claims: Sequence[ExactClaim]) -> list[Judgement]:
    """The rows of the claims that `write_computed` kept; none if there is no file."""
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return [claim.row(**kept[claim.id]) for claim in claims if claim.id in kept]


@dataclass(frozen=True)
class ExactExperiment:
    """What one file of `experiments/` hands to its command line.

    pictures(draws) -> the report's pictures, each of a mean over so many random draws.
    """

    name: str
    title: str
    question: str
    claims: tuple[ExactClaim, ...]
    pictures: Callable[[int], Sequence[Picture]] = lambda draws: ()
    notes: tuple[str, ...] = ()
