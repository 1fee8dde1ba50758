"""Answer a request (a JSON file) about a source tree: `python -m probe REQUEST ANSWER`.

request: {"platform", "folder", "steps" (null: whole runs), "runs": {key: {"recipe", "seed",
"data_dir", "diverged_at" (null, or where the run is to diverge when it is done once more)}},
"views": {key: {"view", "recipes", "seed", "data_dir"}}}.
answer: {"runs": {key: found}, "views": {key: found}, "graphs": {program: [[hash, operation], …]}}.
found: {"record", "programs", "told"}; {"absent": why} where the tree lacks something; {"missing":
what} where data are not at hand.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import pretend, suite


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What this tree makes of the runs and views that are asked about."""
    stage = pretend.Stage(request["platform"], suite.clocks())
    stage.enter()

    def store(asked: dict, folder: str = "runs") -> Any:
        return suite.store(Path(request["folder"]) / folder, asked["data_dir"])

    def run(asked: dict) -> dict:
        recipe, seed = suite.recipe_of(asked["recipe"]), asked["seed"]
        record = suite.train(recipe, seed, store(asked))
        if asked.get("diverged_at") is not None:
            stage.clocks = suite.clocks(asked["diverged_at"])
            record["diverged"] = suite.train(recipe, seed, store(asked, "diverged"))
            stage.clocks = suite.clocks()
        return record

    def view(asked: dict) -> dict:
        recipes = {net: suite.recipe_of(saved) for net, saved in asked["recipes"].items()}
        for recipe in recipes.values():
            suite.train(recipe, asked["seed"], store(asked))
        return suite.view(asked["view"], recipes, asked["seed"], store(asked))

    if request["views"]:
        suite.shorten_tests()
    found = {
        kind: {
            key: _found(stage, asked, make, request["steps"])
            for key, asked in request[kind].items()
        }
        for kind, make in (("runs", run), ("views", view))
    }
    return found | {"graphs": stage.graphs}


def _found(stage: pretend.Stage, asked: dict, make: Callable, steps: int | None) -> dict:
    stage.begin(steps)
    began = time.perf_counter()
    try:
        record = make(asked)
    except pretend.Enough:
        record = {"state": stage.state}
    except suite.Lacking as error:
        return {"absent": str(error)}
    except Exception as error:
        if suite.is_mistake(error):
            return {"missing": str(error)}
        raise
    return {
        "record": record,
        "programs": {name: list(digests) for name, digests in stage.programs.items()},
        "told": {path: [told.all, told.calls, told.changes] for path, told in stage.told.items()},
        "seconds": round(time.perf_counter() - began, 2),
    }


if __name__ == "__main__":
    request, reply = map(Path, sys.argv[1:])
    reply.write_text(json.dumps(answer(json.loads(request.read_text()))))
