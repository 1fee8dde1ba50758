"""Views: how trained nets are tested, as arms of an experiment beside the trained ones.

A view's posterior is an average of softmax posteriors, in this order: over the image and its mirror
image, over scales Q, over protocols (dense, multi-crop), over nets (VGG 3.2, 4.2 to 4.4). Inside a
protocol `vggbn.evaluate` averages: the class-score map over space for dense evaluation, posteriors
over crops.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vggbn.evaluate import mean_posterior, scores
from vggbn.identity.equalities import same_numbers
from vggbn.identity.identity import identity, short
from vggbn.machine import provenance
from vggbn.runs import posteriors
from vggbn.runs import run as runs
from vggbn.runs.posteriors import Posterior, find_posterior
from vggbn.runs.run import Store
from vggbn.training.recipe import NUMERICS, Recipe


class Look(NamedTuple):
    """One net, by the name of its arm, tested at the smallest sides `sides` by each protocol.

    For the protocol by_batch a side is the number of images that are normalised together.
    """

    net: str
    sides: tuple[int, ...]
    protocols: tuple[str, ...] = ("dense",)


@dataclass(frozen=True)
class View:
    """One look, or those of several nets whose posteriors are averaged.

    mirrored: average over mirror images too, where the data set's labels allow mirroring.
    """

    looks: tuple[Look, ...]
    mirrored: bool = True

    def id(self, recipes: Mapping[str, Recipe]) -> str:
        """Hash of the nets' recipes and of how they are looked at."""
        looks = [[recipes[look.net].id, look.sides, look.protocols] for look in self.looks]
        text = json.dumps([NUMERICS, "view", looks, self.mirrored])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def parts(self) -> list[tuple[str, str, int]]:
        """(net, protocol, side) of every posterior that it averages."""
        return [(k.net, p, side) for k in self.looks for p in k.protocols for side in k.sides]


def view(net: str, *sides: int, by: tuple[str, ...] = ("dense",), mirrored: bool = True) -> View:
    """The view of one net."""
    return View((Look(net, sides, by),), mirrored)


def record(view: View, recipes: Mapping[str, Recipe], seed: int, store: Store) -> dict[str, Any]:
    """The result line of a view and a seed, from posteriors that lie beside the trained nets.

    `correct` tells the test images apart, in order, as hexadecimal digits of packed bits: for tests
    that pair two views image by image.
    """
    began = time.perf_counter()
    found = {
        part: _found(recipes[part[0]], seed, store, *part[1:])
        for part in dict.fromkeys(view.parts())
    }
    first = next(iter(found.values()))
    result = compute(view, found)
    return {
        "id": view.id(recipes),
        "seed": seed,
        "view": {"looks": [look._asdict() for look in view.looks], "mirrored": view.mirrored},
        "status": "ok",
        "final": {f"test_{k}": result[k] for k in ("accuracy", "top5", "balanced", "n")},
        "correct": np.packbits(result["correct"]).tobytes().hex(),
        "data": first.data,
        "setting": first.setting | {"code": nets_code(view, recipes)},
        "evaluation": evaluation_code(view, recipes),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {
            "all": round(sum(p.seconds for p in found.values()), 3),
            "average": round(time.perf_counter() - began, 3),
        },
    }


def correct(line: Mapping[str, Any]) -> np.ndarray:
    """bool [n] of a view's line: which test images it got right."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(line["correct"]), np.uint8))
    return bits[: line["final"]["test_n"]].astype(bool)


def compute(view: View, found: Mapping[tuple[str, str, int], Posterior]) -> dict[str, Any]:
    """The view's scores from the posteriors of its parts."""
    first = next(iter(found.values()))
    return scores(_average(view, found), first.labels_N, first.classes)


def nets_code(view: View, recipes: Mapping[str, Recipe]) -> str:
    """The identity of the net that is looked at; of several nets the hash of theirs."""
    codes = [runs.code(recipe) for recipe in _nets(view, recipes)]
    return codes[0] if len(codes) == 1 else short(codes)


def evaluation_code(view: View, recipes: Mapping[str, Recipe]) -> str:
    """The identity of what today's code makes of the trained nets."""
    parts = dict.fromkeys((net, protocol) for net, protocol, _ in view.parts())
    codes = [posteriors.code(recipes[net], protocol) for net, protocol in parts]
    return short([*codes, identity(compute, _nets(view, recipes)[0])])


def is_of_today(view: View, recipes: Mapping[str, Recipe], line: Mapping[str, Any]) -> bool:
    """Whether today's code, or code that makes the same numbers, made this line of the view."""
    id, code = view.id(recipes), line["setting"]["code"]
    nets = same_numbers(code, nets_code(view, recipes), id) or all(
        same_numbers(code, runs.code(recipe), recipe.id) for recipe in _nets(view, recipes)
    )
    return nets and same_numbers(line["evaluation"], evaluation_code(view, recipes), id)


def _nets(view: View, recipes: Mapping[str, Recipe]) -> list[Recipe]:
    return [recipes[name] for name in dict.fromkeys(look.net for look in view.looks)]


def _average(view: View, found: Mapping[tuple[str, str, int], Posterior]) -> np.ndarray:
    views = slice(None) if view.mirrored else slice(1)
    nets = []
    for look in view.looks:
        protocols = [
            mean_posterior([found[look.net, p, side].p_VNK[views] for side in look.sides])
            for p in look.protocols
        ]
        nets.append(mean_posterior(protocols))
    return mean_posterior(nets)


def _found(recipe: Recipe, seed: int, store: Store, protocol: str, side: int) -> Posterior:
    posterior = find_posterior(recipe, seed, store, protocol, side)
    assert posterior is not None, f"{protocol} at {side} of {recipe.id} seed {seed} is not computed"
    return posterior
