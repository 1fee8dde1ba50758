"""A rehearsal: every judge, table and chart on made-up results, before anything is trained.

A judge that returns nothing, or has a typo, is found in a second, and not after hours of runs.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vggbn.claims.results import Line, MissingRuns, Results
from vggbn.claims.stats import VERDICTS, Interval
from vggbn.errors import UserError
from vggbn.evaluate.landscape import LENGTHS
from vggbn.evaluate.watch import EDGES, PERCENTILES
from vggbn.experiment.design import Claim, Verdict
from vggbn.experiment.plan import Plan
from vggbn.training.recipe import Recipe

SEEDS = 3
EVALUATIONS = 5
IMAGES = 40  # of the made-up test split
SECONDS = "all compile data evaluation final load python step total".split()
SETTING = {"code": "made up", "jaxlib": "0", "device": "none", "threads": 1}


def refuse_mistakes(plan: Plan) -> None:
    """UserError, one sentence, for a claim, a table or a chart that cannot be made of any results.

    An arm that the plan lacks is no mistake (MissingRuns), nor is what the numbers may be to blame
    for: they are made up.
    """
    experiment, results = plan.experiment, make_up(plan)
    ids = Counter(claim.id for claim in (*experiment.claims, *experiment.exact))
    twice = [name for name, count in ids.items() if count > 1]
    if twice:
        raise UserError(f"{experiment.name} has two claims {twice[0]}: give one another id.")
    for claim in experiment.claims:
        where = f"the judge of claim {claim.id} of {experiment.name}"
        if bool(claim.judge) == bool(claim.not_tested):
            raise UserError(f"{where}: name either a judge, or in not_tested why there is none.")
        if claim.judge is None:
            continue
        tried = _try(where, lambda judge=claim.judge: judge(results.for_verdict()))
        if tried and (fault := _fault(tried[0])):
            raise UserError(f"{where} {fault}.")
    _try(f"tables of {experiment.name}", lambda: experiment.tables(results))
    _try(f"charts of {experiment.name}", lambda: experiment.charts(results))


def can_judge(claim: Claim, results: Results) -> bool:
    """Whether its judge finds what it asks for in these results, whatever it says of them."""
    assert claim.judge is not None
    judge = claim.judge

    def try_it() -> bool:
        try:
            judge(results)
        except MissingRuns:
            return False
        return True

    found = _try(f"the judge of claim {claim.id}", try_it)
    return found is None or found[0]


def _try(where: str, make: Callable[[], Any]) -> tuple[Any] | None:
    """What it makes; None if it lacks runs, or if the numbers do not suit it."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return (make(),)
    except (MissingRuns, ArithmeticError, ValueError):
        return None
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise UserError(
            f"{where}: {type(error).__name__}: {error} ({place}), on made-up results; nothing was "
            "trained."
        ) from error


def _fault(found: Any) -> str | None:
    """What is wrong with what a judge says, as the end of a sentence."""
    if not isinstance(found, Verdict):
        return f"returns {found!r:.60}, not a Verdict(verdict, interval, unit, detail)"
    if found.verdict not in VERDICTS:
        return f"says {found.verdict!r}, which is none of {', '.join(VERDICTS)}"
    if not isinstance(found.interval, Interval):
        return f"says {found.interval!r:.60} for an Interval, such as paired_interval gives"
    return None


# --- made-up results ------------------------------------------------------------------------------


def make_up(plan: Plan) -> Results:
    """Results of all its arms and views, the same at every call: nets that learn, each a little
    better or worse."""
    rng, ids = np.random.default_rng(0), plan.ids()
    lines = [
        {"variant": name, "id": ids[name], "seed": seed} | make(rng, seed)
        for seed in range(SEEDS)
        for name, make in {
            **{n: lambda rng, seed, r=r: _trained(r, rng, seed) for n, r in plan.variants.items()},
            **{n: lambda rng, seed: _view(plan.base, rng, seed) for n in plan.views},
        }.items()
    ]
    return Results(lines, ids, SETTING, target=plan.size.target)


def _trained(recipe: Recipe, rng: np.random.Generator, seed: int) -> Line:
    """A run's line, as `runs` and the runner write it."""
    end = rng.uniform(0.6, 0.9)
    return {
        "recipe": asdict(recipe),
        "status": "ok",
        "diverged_at": None,
        "end_lr": recipe.lr,
        "final": {
            "train_accuracy": min(1.0, end + rng.uniform(0, 0.1)),
            "val_accuracy": end,
            "test_accuracy_population": end,
            **_scores(end),
            "test_loss": 1 - end,
        },
        "history": _history(recipe, rng, end),
        "parameters": 1000,
        **_facts(recipe, seed),
        "seconds": dict.fromkeys(SECONDS, 1.0),
    }


def _history(recipe: Recipe, rng: np.random.Generator, end: float) -> list[dict[str, Any]]:
    """From chance at step 1 to `end` at the last one."""
    steps = np.unique(np.linspace(1, recipe.steps, EVALUATIONS).astype(int))
    records = []
    for step, part in zip(steps, np.linspace(0.1, 1, len(steps)), strict=True):
        accuracy = float(end * part)
        record = {"step": int(step), "lr": recipe.lr, "train_accuracy": accuracy}
        record |= {"train_loss": 1.5 - accuracy, "val_accuracy": accuracy, "val_loss": 1.0}
        if recipe.watch in WATCHED:
            record[recipe.watch] = WATCHED[recipe.watch](rng)
        records.append(record)
    return records


def _view(base: Recipe, rng: np.random.Generator, seed: int) -> Line:
    """A view's line, as `views.record` makes it."""
    right = rng.random(IMAGES) < rng.uniform(0.6, 0.9)
    return {
        "view": {"looks": [], "mirrored": True},
        "status": "ok",
        "final": _scores(float(right.mean())),
        "correct": np.packbits(right).tobytes().hex(),
        "evaluation": "made up",
        **_facts(base, seed),
        "seconds": {"all": 1.0, "average": 0.1},
    }


def _scores(accuracy: float) -> dict[str, float]:
    return {
        "test_accuracy": accuracy,
        "test_balanced": accuracy,
        "test_top5": (1 + accuracy) / 2,
        "test_n": IMAGES,
    }


def _facts(recipe: Recipe, seed: int) -> Line:
    fold = seed if recipe.split == "folds" else 0
    sizes = {"train": 1000, "validation": 100, "test": IMAGES}
    data = {"name": recipe.data, "note": "made up", "digest": f"fold {fold}", **sizes}
    return {
        "data": data | {"classes": 10, "majority": 0.1},
        "setting": SETTING,
        "versions": {"jax": "0"},
        "commit": None,
        "finished": "",
    }


class _Layers(dict):
    """What is watched in each layer, also in one that is first asked for by name."""

    def __init__(self, make: Callable[[], Any]):
        self.make = make
        super().__init__((f"fc{i}", make()) for i in (1, 2, 3))

    def __missing__(self, layer: str) -> Any:
        return self.make()


def _inputs(rng: np.random.Generator) -> list[list[float]]:
    return np.sort(rng.normal(size=(len(PERCENTILES), 4)), axis=0).tolist()


def _weights(rng: np.random.Generator) -> _Layers:
    return _Layers(lambda: {"kernel": rng.uniform(1, 2), "bias": rng.uniform(0.1, 1)})


def _jacobians(rng: np.random.Generator) -> _Layers:
    return _Layers(lambda: dict(zip(("low", "median", "high"), _rising(rng), strict=True)))


def _rising(rng: np.random.Generator) -> list[float]:
    return np.sort(rng.uniform(0.1, 2, 3)).tolist()


def _gradients(rng: np.random.Generator) -> _Layers:
    return _Layers(lambda: rng.uniform(0.1, 2))


def _gaussianity(rng: np.random.Generator) -> _Layers:
    names = ("skewness", "kurtosis", "zeros", "negentropy")

    def shape() -> dict[str, Any]:
        numbers = dict(zip(names, rng.uniform(size=len(names)).tolist(), strict=True))
        return numbers | {"density": rng.uniform(size=len(EDGES) - 1).tolist()}

    return _Layers(lambda: {"u": shape(), "sum": shape()})


def _landscape(rng: np.random.Generator) -> dict[str, Any]:
    found = {name: rng.uniform(0.1, 2) for name in ("loss", "gradient", "predicted")}
    along = {name: rng.uniform(0.1, 2, len(LENGTHS)) for name in ("departures", "distances")}
    along["changes"] = along["departures"] - found["predicted"] * np.array(LENGTHS)
    names = ("gradient", "distance", "turn")
    shift = _Layers(lambda: dict(zip(names, rng.uniform(0.1, 1, 3).tolist(), strict=True)))
    return {**found, **{name: values.tolist() for name, values in along.items()}, "shift": shift}


# As evaluate/watch.py makes them.
WATCHED: dict[str, Callable[[np.random.Generator], Any]] = {
    "inputs": _inputs,
    "some_inputs": _inputs,
    "weights": _weights,
    "jacobians": _jacobians,
    "gradients": _gradients,
    "gaussianity": _gaussianity,
    "landscape": _landscape,
}
