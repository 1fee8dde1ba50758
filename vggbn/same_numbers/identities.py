"""What today's code calls the numbers of a published run or view: the values of the table."""

from __future__ import annotations

from vggbn.experiment.views import Look, View, evaluation_code, nets_code
from vggbn.runs.run import code
from vggbn.same_numbers.published import Case
from vggbn.training.recipe import Recipe


def codes_of(case: Case) -> dict[str, str]:
    """{code of the case's lines: the identity of today's}; of a view also of its evaluation."""
    if not case.is_view:
        return dict(zip(case.codes, [code(Recipe.from_dict(case.lines[0]["recipe"]))], strict=True))
    saved = case.lines[0]["view"]
    looks = [
        Look(look["net"], tuple(look["sides"]), tuple(look["protocols"])) for look in saved["looks"]
    ]
    view = View(tuple(looks), saved["mirrored"])
    nets = {name: Recipe.from_dict(recipe) for name, recipe in case.nets.items()}
    today = [nets_code(view, nets), evaluation_code(view, nets)]
    return dict(zip(case.codes, today, strict=True))
