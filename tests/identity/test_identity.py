"""The identity of a result, on copies of the real source: what changes it, and what does not."""

import ast
import json
import re
from dataclasses import replace
from functools import cache

import pytest

from experiments import bn_ablation
from tests.conftest import ROOT
from tests.support.result_lines import SETTING, line
from vggbn.claims import results
from vggbn.commands.experiment import explain_left_out
from vggbn.errors import UserError
from vggbn.experiment import views
from vggbn.experiment.plan import make_plan
from vggbn.experiment.summary import build_report
from vggbn.experiment.views import Look, View, view
from vggbn.identity import equalities, identity
from vggbn.identity.definitions import Folder, Package, key_of
from vggbn.identity.reach import entry_of
from vggbn.machine import provenance
from vggbn.models import MODELS
from vggbn.nn.norms import NORMS
from vggbn.runs import posteriors
from vggbn.runs import run as runs
from vggbn.training.recipe import CHOICES, Recipe

SOURCE = dict(Folder(ROOT / "vggbn"))
VGG = Recipe(model="vgg_a", norm="batch", schedule="exponential")
MLP = Recipe(model="mlp", activation="sigmoid")
WHOLE = Recipe(
    model="vgg_d", fit="whole", image_size=8, source_side=16, scale_min=10, scale_max=14,
    schedule="plateau", watch="weights",
)  # fmt: skip


def where(definition):
    """(file, in which a function or class of the real package is defined; its name)."""
    return _path(definition.__module__), definition.__qualname__


def _path(module):
    path = module.partition(".")[2].replace(".", "/")
    return f"{path}.py" if f"{path}.py" in SOURCE else f"{path}/__init__.py"


def package_of(source):
    """One for all the recipes that are asked about: each definition is read once."""
    return Package("vggbn", source)


TODAY = package_of(SOURCE)


def of(recipe, package=TODAY, root=runs.compute, recipes=None, tables=runs.TABLES):
    return identity.identity(root, recipe, tables, package=package, recipes=recipes)


@cache
def before():
    """{recipe: its identity by the source as it is}."""
    return {recipe: of(recipe) for recipe in (VGG, MLP, WHOLE)}


def edited(module, old, new, source=SOURCE):
    path = _path(module)
    assert source[path].count(old) == 1, f"{old} stands {source[path].count(old)} times in {path}"
    return source | {path: source[path].replace(old, new)}


def changes(module, old, new):
    """Of which recipes an edit changes the identity."""
    package = package_of(edited(module, old, new))
    return [recipe for recipe, known in before().items() if of(recipe, package) != known]


# --- what counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [VGG, MLP, WHOLE], ids=["vgg", "mlp", "whole"])
def test_it_is_twelve_digits_and_that_of_the_code_that_runs(recipe):
    assert re.fullmatch("[0-9a-f]{12}", before()[recipe])
    assert runs.code(recipe).removesuffix(" plain") == before()[recipe]


def test_a_wrong_winograd_matrix_changes_it():
    assert VGG in changes("vggbn.nn.winograd", "[0, 1, -1, -1]]", "[0, 1, -1, 1]]")


def test_the_evaluation_of_padded_batches_changes_it():
    assert len(changes("vggbn.evaluate.shared", "np.zeros((size", "np.ones((size")) == 3


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("vggbn.nn.moving", "decay * old + (1 - decay)", "decay * new + (1 - decay)", [VGG]),
        ("vggbn.training.optim", "most: int = 3", "most: int = 2", [WHOLE]),
        ("vggbn.training.optim", "factor ** math.floor", "factor ** math.ceil", [VGG]),
        ("vggbn.models.mlp", 'f"fc{i + 1}"', 'f"fc{i + 2}"', [MLP]),
        ("vggbn.models.vgg", 'A = ("3", ', 'A = ("1", ', [VGG]),
        ("vggbn.models.vgg", 'D = ("3 3"', 'D = ("3 1"', [WHOLE]),
        ("vggbn.models.vgg", "WIDTHS = (64", "WIDTHS = (65", [VGG, WHOLE]),
        ("vggbn.nn.layers", "jax.nn.sigmoid,", "jax.nn.silu,", [MLP]),
        ("vggbn.nn.layers", "glorot_uniform()", "glorot_normal()", []),
        ("vggbn.nn.whitening", "ITERATIONS = 5", "ITERATIONS = 6", []),
        ("vggbn.evaluate.watch", "np.linalg.norm(np.asarray(leaf))", "np.max(leaf)", [WHOLE]),
        ("vggbn.evaluate.watch", "JACOBIANS = 50", "JACOBIANS = 51", []),
        ("vggbn.training.step", "loss_sum + loss", "loss_sum - loss", [VGG, MLP, WHOLE]),
        ("vggbn.training.accumulate", "total / parts", "total", [VGG, MLP, WHOLE]),
        ("vggbn.runs.run", "FITTED = 2000", "FITTED = 2001", [VGG, MLP, WHOLE]),
        ("vggbn.machine.compiling", "2**26}", "2**27}", []),
    ],
)  # fmt: skip
def test_whose_results_an_edit_concerns(module, old, new, expected):
    assert changes(module, old, new) == expected


def test_a_new_norm_field_or_choice_concerns_nobody():
    norm = '    "mine": Norm(batch_norm_init, lambda x, *_, **__: x),\n    "batch": '
    source = edited("vggbn.nn.norms", '    "batch": ', norm)
    source = edited(
        "vggbn.training.recipe", "CHOICES = {", 'CHOICES = {\n    "loss": ("a", "b"),', source
    )
    field = '    loss: str = "a"\n    width: float'
    source = edited("vggbn.training.recipe", "    width: float", field, source)
    source = edited(
        "vggbn.models.net", "    width: float", "    extra: int = 0\n    width: float", source
    )
    neutral(source)


def test_how_a_recipe_is_checked_does_not_count():
    assert changes("vggbn.training.recipe", "recipe.pools > 5", "recipe.pools > 6") == []


@pytest.mark.parametrize(
    "module", ["vggbn.runs.keeper", "vggbn.runs.saved_steps", "vggbn.runs.record"]
)
def test_what_saves_and_tells_does_not_count(module):
    names = {name.rpartition(".")[0] for name in runs.reach_of(VGG).definitions}
    assert not any(name == module or name.startswith(f"{module}.") for name in names)


def test_the_values_of_fields_that_are_read_count():
    assert of(replace(VGG, lr=0.5)) != before()[VGG]
    child = Recipe(parent=VGG)
    assert of(child) != of(Recipe()) and of(child) != of(Recipe(parent=MLP))
    reached = edited("vggbn.nn.batch_norm", "jnp.maximum(m_G - 1, 1)", "m_G")
    not_reached = edited("vggbn.nn.whitening", "ITERATIONS = 5", "ITERATIONS = 6")
    assert of(child, package_of(reached)) != of(child) == of(child, package_of(not_reached))


def test_the_tables_of_a_recipe_are_literals():
    """Else a net's results would know of every other net."""
    tables = identity.tables_of(TODAY, key_of(Recipe))
    assert set(tables.values()) == {name for name, c in CHOICES.items() if isinstance(c, dict)}
    assert {"model", "norm", "activation", "init", "schedule", "watch"} <= set(tables.values())
    for table, field in tables.items():
        assert set(TODAY.entries(table)) == set(CHOICES[field])
        assert entry_of(CHOICES[field], getattr(VGG, field)) == getattr(VGG, field)


@pytest.mark.parametrize(("field", "names"), [("model", MODELS), ("norm", NORMS)])
def test_every_choice_has_an_identity_of_its_own(field, names):
    assert len({of(replace(VGG, **{field: name})) for name in names}) == len(names)


# --- what is neutral -----------------------------------------------------------------------------


def neutral(source, root=runs.compute, recipes=None, tables=runs.TABLES):
    package = package_of(source)
    for recipe, known in before().items():
        assert of(recipe, package, root, recipes, tables) == known


def test_every_comment_docstring_and_annotation_may_go():
    class Bare(ast.NodeTransformer):
        def visit_Expr(self, node):
            return None if isinstance(node.value, ast.Constant) else node

        def visit_FunctionDef(self, node):
            self.generic_visit(node)
            node.body = node.body or [ast.Pass()]
            return node

        visit_ClassDef = visit_FunctionDef

    def bare(text):
        return ast.unparse(ast.fix_missing_locations(Bare().visit(ast.parse(text))))

    neutral({path: bare(text) for path, text in SOURCE.items()})


def test_definitions_may_stand_in_any_order():
    def turned(text):
        body = ast.parse(text).body
        named = (ast.FunctionDef, ast.ClassDef)
        places = [i for i, node in enumerate(body) if isinstance(node, named)]
        nodes = [body[i] for i in reversed(places)]
        for place, node in zip(places, nodes, strict=True):
            body[place] = node
        return "\n".join(map(ast.unparse, body))

    neutral({path: turned(text) for path, text in SOURCE.items()})


def test_a_file_may_get_another_name():
    source = {}
    for path, text in SOURCE.items():
        text = re.sub(r"\bvggbn\.training\.optim\b", "vggbn.rates.descent", text)
        was, becomes = (
            "from vggbn.training import optim",
            "from vggbn.rates import descent as optim",
        )
        text = text.replace(was, becomes)
        moved = path == _path("vggbn.training.optim")
        source["rates/descent.py" if moved else path] = text
    neutral(source)


def test_all_files_may_move_into_one_folder():
    """A package within the package: every full name changes."""
    source = {f"inner/{path}": re.sub(r"\bvggbn\b(?=[.\s])", "vggbn.inner", text)
              for path, text in SOURCE.items()}  # fmt: skip
    tables = {"vggbn.inner.data.readers.READERS": lambda recipe: recipe.data}
    root, recipes = "vggbn.inner.runs.run.compute", "vggbn.inner.training.recipe.Recipe"
    neutral(source, root, recipes, tables)


def test_a_function_may_move_to_another_file():
    path = _path("vggbn.nn.moving")
    text = SOURCE[path]
    start, end = text.index("def warm_decay"), text.index("def cut_into_groups")
    moved = "import jax.numpy as xp\n\n\n" + text[start:end].replace("jnp.", "xp.")
    source = SOURCE | {path: text[:start] + text[end:], "decay.py": moved}
    source = edited("vggbn.training.step", "from vggbn.nn.moving import warm_decay",
                    "from vggbn.decay import warm_decay", source)  # fmt: skip
    neutral(source)


@pytest.mark.parametrize(
    "name",
    [
        "_channels",
        "plateau_drops",
        "TrainState",
        "refuse_or_tell",
        "B_T",
        "_stat_dtype",
        "one_size",
    ],
)
def test_definitions_may_get_another_name(name):
    neutral({p: re.sub(rf"\b{name}\b", f"{name}_renamed", text) for p, text in SOURCE.items()})


# --- views ---------------------------------------------------------------------------------------

NETS = {"a": VGG, "b": replace(VGG, model="vgg_d")}


def test_a_views_identity_knows_its_protocols_and_its_nets():
    seen = {
        "dense": view("a", 8),
        "crops": view("a", 8, by=("multi_crop",)),
        "both": view("a", 8, by=("dense", "multi_crop")),
        "other net": view("b", 8),
        "nets": View((Look("a", (8,)), Look("b", (8,)))),
    }
    codes = {name: views.evaluation_code(v, NETS) for name, v in seen.items()}
    assert len(set(codes.values())) == len(codes)
    assert views.nets_code(seen["dense"], NETS) == runs.code(VGG)
    assert len({views.nets_code(seen[name], NETS) for name in ("dense", "other net", "nets")}) == 3


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("vggbn.evaluate.dense", "map_NhwK.mean((1, 2))", "map_NhwK.max((1, 2))", {"dense"}),
        ("vggbn.evaluate.multi_crop", "grid=1)", "grid=2)", {"centre"}),
        ("vggbn.evaluate.by_batch", "_KEY = 7", "_KEY = 8", {"by_batch"}),
        ("vggbn.evaluate.shared", "CROPS = 250", "CROPS = 251", {"dense", "multi_crop", "centre"}),
        ("vggbn.models.vgg", 'A = ("3"', 'A = ("1"', set(posteriors.PROTOCOLS)),
        ("vggbn.models.vgg", 'E = ("3 3"', 'E = ("3 1"', set()),
    ],
)
def test_whose_posteriors_an_edit_concerns(module, old, new, expected):
    def code(package, protocol):
        table = {f"{posteriors.__name__}.PROTOCOLS": protocol}
        return of(VGG, package, posteriors.compute, tables=table)

    package = package_of(edited(module, old, new))
    assert {p for p in posteriors.PROTOCOLS if code(package, p) != code(TODAY, p)} == expected
    assert posteriors.code(VGG, "dense") == code(TODAY, "dense")


# --- naming changes, and equal numbers -----------------------------------------------------------


def test_what_has_changed_is_named():
    source = edited("vggbn.nn.moving", "decay * old + (1 - decay) * new", "new")
    source = {path: re.sub(r"\b_channels\b", "_wide", text) for path, text in source.items()}
    assert identity.changed(runs.reach_of(VGG, source), runs.reach_of(VGG)) == [
        "vggbn.nn.moving.step_average"
    ]
    assert identity.changed(runs.reach_of(MLP, source), runs.reach_of(MLP)) == []


def test_equal_numbers_are_equal_in_any_direction(tmp_path, monkeypatch):
    path = tmp_path / "same_numbers.json"
    path.write_text(json.dumps({"old": {"r": "new"}, "new": {"r": "newest"}, "older": {"r": "new"},
                                "newest": {"r": "old"}, "x": {"other": "new"}}))  # fmt: skip
    monkeypatch.setattr(equalities, "PATH", path)
    names = ("old", "older", "new", "newest")
    assert all(equalities.same_numbers(a, b, "r") for a in names for b in names)
    assert not equalities.same_numbers("x", "new", "r") and equalities.same_numbers("x", "x", "r")
    assert not equalities.same_numbers("old", "new", "other")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"b": 1}}'])
def test_a_damaged_table_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setattr(equalities, "PATH", tmp_path / "same_numbers.json")
    assert not equalities.same_numbers("a", "b", "c")  # there is none
    monkeypatch.setattr(equalities, "PATH", tmp_path / "damaged.json")
    equalities.PATH.write_text(text)
    with pytest.raises(UserError, match="damaged"):
        equalities.same_numbers("a", "b", "c")


def test_the_command_says_why_lines_do_not_count_and_names_what_has_changed(tmp_path, monkeypatch):
    plan = make_plan(bn_ablation.EXPERIMENT, "smoke", out=tmp_path, only=["bn"])
    recipe = plan.variants["bn"]
    lines = [
        line("bn", 0, id=recipe.id, setting=SETTING | {"code": runs.code(recipe)}),
        line("bn", 1, id=recipe.id, setting=SETTING | {"code": "of another day"}),
        line("bn", 2, id="another"),
    ]
    for each in lines:
        results.append(plan.results_path, each)
    found = plan.found(SETTING)
    assert list(found.runs["bn"]) == [0] and found.of_other_code == [lines[1]]
    said = f"{plan.results_path}: 2 lines were left out: 1 of other code, 1 of other recipes."
    sources = {
        "abc": edited("vggbn.nn.moving", "decay * old + (1 - decay) * new", "new"),
        "unknown": None,
        "before": {"__init__.py": ""},
    }
    monkeypatch.setattr(provenance, "source_at", sources.get)
    named = f"{said} Changed since commit abc: vggbn.nn.moving.step_average."
    assert explain_left_out(plan, found) == named
    for commit in ("unknown", "before", ""):
        found.of_other_code[0]["commit"] = commit
        assert explain_left_out(plan, found) == said
    assert found.why_left_out() in build_report(plan, found).notes
    assert found.missing([0, 1]) == [("bn", 1)]
