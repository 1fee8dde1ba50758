"""The published result lines, and the runs and views that are asked about to judge them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggbn.claims import results
from vggbn.errors import UserError

Line = dict[str, Any]
FILES = ("results.jsonl", "reference.jsonl")  # of verdicts, and of what `verify` compares with


@dataclass
class Case:
    """All published lines of one recipe, or view, that one commit made on one platform.

    nets: of a view the recipes of its nets, as they stand in the lines of their training.
    """

    code: str
    commit: str
    platform: str
    id: str
    lines: list[Line] = field(default_factory=list)
    nets: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: bool = True

    @property
    def is_view(self) -> bool:
        """Whether trained nets were only looked at."""
        return "view" in self.lines[0]

    @property
    def key(self) -> str:
        """What it is told under: the code, and of a view the protocols' code too."""
        return " ".join(self.codes)

    @property
    def codes(self) -> tuple[str, ...]:
        """The code that made its lines; of a view that of the nets and that of the protocols."""
        return (self.code, self.lines[0]["evaluation"]) if self.is_view else (self.code,)

    @property
    def data(self) -> str:
        """The name of its data set."""
        recipe = next(iter(self.nets.values())) if self.is_view else self.lines[0]["recipe"]
        return recipe["data"]

    @property
    def name(self) -> str:
        """What tells its question from others."""
        return f"{self.id} {self._line['seed']} {self._diverged_at}"

    @property
    def _line(self) -> Line:
        """That of the largest seed: of seed 0 less would be seen."""
        return max(self.lines, key=lambda line: line["seed"])

    @property
    def _diverged_at(self) -> int | None:
        steps = (line.get("diverged_at") for line in self.lines)
        return next((step for step in steps if step is not None), None)

    def question(self) -> dict[str, Any]:
        """What a probe is asked."""
        asked = {"seed": self._line["seed"]}
        if self.is_view:
            return asked | {"view": self._line["view"], "recipes": self.nets}
        return asked | {"recipe": self._line["recipe"], "diverged_at": self._diverged_at}


def platform_of(line: Line) -> str:
    """What the line's programs were lowered for, as jax names it. UserError: an unknown device."""
    device = line["setting"]["device"]
    if device.startswith("cpu"):
        return "cpu"
    if "nvidia" in device.lower():
        return "cuda"
    raise UserError(f"a result line was made on {device!r}, whose platform is not known here.")


def read_lines(root: Path) -> list[list[Line]]:
    """The lines of each of FILES below `root`."""
    return [results.read(path) for name in FILES for path in sorted(root.rglob(name))]


def cases_of(files: Iterable[list[Line]], keep=lambda line: True) -> list[Case]:
    """The cases of the lines for which keep(line), in the lines' order."""
    found: dict[tuple, Case] = {}
    for lines in files:
        for line in filter(keep, lines):
            commit, code = line["commit"].rstrip("+"), line["setting"]["code"]
            where = (code, line.get("evaluation"), commit, platform_of(line), line["id"])
            case = found.setdefault(where, Case(code, commit, platform_of(line), line["id"]))
            case.lines.append(line)
            if "view" in line and not case.nets:
                case.nets = _nets(line, lines)
    return list(found.values())


def _nets(view: Line, lines: list[Line]) -> dict[str, dict[str, Any]]:
    """{name: recipe} of the nets of a view's line: those that the same code trained."""
    names = {look["net"] for look in view["view"]["looks"]}
    return {
        line["variant"]: line["recipe"]
        for line in lines
        if line["variant"] in names
        and "recipe" in line
        and line["seed"] == view["seed"]
        and line["setting"]["code"] == view["setting"]["code"]
    }
