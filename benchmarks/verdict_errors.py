"""How often the rules of judging err, by simulation: `python -m benchmarks.verdict_errors`.

Made-up seeds without the effect that is claimed go through the judges' own functions, with the same
random numbers at every call. Each rule stands beside the habit that it replaces. --write puts the
table into docs/evidence.md; a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggbn.claims.images import paired_images
from vggbn.claims.looks import ALPHA, LEVEL, LOOKS, adjusted
from vggbn.claims.parts import part_level, whole
from vggbn.claims.prediction import prediction_counts, prediction_interval
from vggbn.claims.stats import fisher, holm, not_worse, paired_interval, verdict
from vggbn.errors import Parser

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
BEGIN, END = "<!-- python -m benchmarks.verdict_errors --write -->\n", "<!-- end -->"
SETS = 8_000  # made-up sets of seeds behind each row
CLAIMS = 12  # primary ones
DECIDED = ("reproduced", "contradicted")


class Case(NamedTuple):
    """One row: what counts as an error, how often it may happen, and whether it does once."""

    rule: str
    error: str
    nominal: str
    errs: Callable[[np.random.Generator], bool]


def decides(differences_N, level: float) -> bool:
    """Whether one interval takes a side."""
    return verdict(paired_interval(differences_N, level), margin=None) in DECIDED


def at_some_look(level: float, errs: Callable[..., bool], mean: float = 0.0):
    """Whether a set of seeds errs at one of the looks."""

    def once(rng: np.random.Generator) -> bool:
        seeds_N = rng.normal(mean, 1.0, LOOKS[-1])
        return any(errs(seeds_N[:n], level) for n in LOOKS)

    return once


def whole_of(parts: int, side: str, n: int):
    """Whether a claim of several parts without effect gets this verdict."""

    def once(rng: np.random.Generator) -> bool:
        level = part_level(LEVEL, parts)
        parts_KN = rng.normal(size=(parts, n))
        found = [verdict(paired_interval(one_N, level), margin=None) for one_N in parts_KN]
        return whole(found) == side

    return once


def minimum_of(parts: int, n: int):
    """The former habit: the least of the parts, seed by seed, as one number."""

    def once(rng: np.random.Generator) -> bool:
        interval = paired_interval(rng.normal(size=(parts, n)).min(0))
        return verdict(interval, margin=None) == "contradicted"

    return once


def failures(rate: float, n: int):
    """Whether Fisher's test finds one of two rates at which one arm fails more often."""

    def once(rng: np.random.Generator) -> bool:
        lost = rng.binomial(n, rate, (2, 2))
        return min(fisher(more, fewer, n) for more, fewer in lost) * 2 < 1 - LEVEL

    return once


def images(spread: float, nets: int, by_net: bool):
    """Nets that two ways of training make equally good on average, and that differ by `spread`
    from seed to seed, tested on 1,000 images each."""

    def once(rng: np.random.Generator) -> bool:
        rates_AN = 0.7 + rng.normal(0, spread, (2, nets)) / 2**0.5
        right_ANI = rng.random((2, nets, 1_000)) < rates_AN[..., None]
        if by_net:
            return decides(right_ANI[0].mean(1) - right_ANI[1].mean(1), LEVEL)
        return paired_images(right_ANI[0].ravel(), right_ANI[1].ravel())[1] < ALPHA

    return once


def any_of_twelve(correct: bool):
    """Whether one of the primary claims, none of which is true, has a p below ALPHA."""

    def once(rng: np.random.Generator) -> bool:
        p = {str(i): float(rng.random()) for i in range(CLAIMS)}
        if correct:
            p = holm({name: adjusted(value) for name, value in p.items()}, CLAIMS)
        return min(p.values()) < ALPHA

    return once


def equal(differences_N, level: float) -> bool:
    interval = paired_interval(differences_N, level)
    return verdict(interval, margin=3.0, equivalence=True) == "reproduced"


def no_worse(differences_N, level: float) -> bool:
    return not_worse(paired_interval(differences_N, level), 1.0) == "reproduced"


def leaves_its_interval(rng: np.random.Generator) -> bool:
    """Whether the mean of three new seeds lies outside what ten of the same kind let one expect."""
    reference_N, new_M = np.split(rng.normal(size=13), [10])
    interval = prediction_interval(reference_N, len(new_M))
    return not interval.low <= new_M.mean() <= interval.high


def leaves_its_counts(rate: float):
    """The same of the number of seeds that show something, where `rate` of all seeds do."""

    def once(rng: np.random.Generator) -> bool:
        reference, new = rng.binomial(10, rate), rng.binomial(3, rate)
        return new not in prediction_counts(reference, 10, 3)

    return once


SIDE, PART = 100 * (1 - LEVEL) / 2, 100 * (1 - LEVEL)
CASES = (
    Case("R11: looks at 5, 10, 20, each at 98.2 %", "takes a side", "5",
         at_some_look(LEVEL, decides)),
    Case("in its place: the same looks at 95 %", "takes a side", "5",
         at_some_look(0.95, decides)),
    Case("R3: two parts, n = 5", "contradicted", f"at most {SIDE:.1f}",
         whole_of(2, "contradicted", 5)),
    Case("R3: two parts, n = 5", "partly", f"at most {SIDE:.1f}", whole_of(2, "partly", 5)),
    Case("R3: four parts, n = 20", "partly", f"at most {SIDE:.1f}", whole_of(4, "partly", 20)),
    Case("in its place: the least of two parts, n = 5", "contradicted", "2.5", minimum_of(2, 5)),
    Case("in its place: the least of two parts, n = 20", "contradicted", "2.5", minimum_of(2, 20)),
    Case("R4: not worse, all looks; the truth lies on the margin", "reproduced", "2.5",
         at_some_look(LEVEL, no_worse, -1.0)),
    Case("R16: no difference, all looks; the truth lies on the margin", "reproduced", "2.5",
         at_some_look(LEVEL, equal, 3.0)),
    Case("R14: Fisher, two rates, n = 5; half of the nets of each arm fail", "reproduced",
         f"at most {PART:.1f}", failures(0.5, 5)),
    Case("R14: Fisher, two rates, n = 20; half of the nets of each arm fail", "reproduced",
         f"at most {PART:.1f}", failures(0.5, 20)),
    Case("R1: five nets, which differ by 3 points, by net", "takes a side", f"{PART:.1f}",
         images(0.03, 5, True)),
    Case("in its place: the images of five such nets, pooled (McNemar)", "takes a side", "5",
         images(0.03, 5, False)),
    Case("R12: Holm over 12 claims", "one of them below 0.05", "at most 5", any_of_twelve(True)),
    Case("in its place: 12 claims at 0.05 each", "one of them below 0.05", "5",
         any_of_twelve(False)),
    Case("verify: three new seeds of a reference of ten", "outside", "5", leaves_its_interval),
    Case("verify: the same, counted; three of four seeds show it", "outside", "at most 5",
         leaves_its_counts(0.75)),
)  # fmt: skip


def share(case: Case, number: int) -> float:
    """How often the case errs."""
    rng = np.random.default_rng(number)
    return float(np.mean([case.errs(rng) for _ in range(SETS)]))


def table() -> str:
    """Each rule, what it may err in and what it does, in Markdown."""
    lines = ["| rule | error | nominal, % | simulated, % |", "|---|---|---|---|"]
    for number, case in enumerate(CASES):
        found = f"{100 * share(case, number):.1f}"
        lines.append(f"| {case.rule} | {case.error} | {case.nominal} | {found} |")
    return "\n".join(lines) + "\n"


def put(text: str) -> None:
    """Put the table into the page, between its marks."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> None:
    """Simulate, print the table, and write it where asked to."""
    parser = Parser(prog="python -m benchmarks.verdict_errors", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    text = table()
    print(text, end="")
    if args.write:
        put(text)


if __name__ == "__main__":
    main()
