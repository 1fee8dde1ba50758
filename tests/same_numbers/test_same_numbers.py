"""Whether two source trees compute the same numbers: `vggbn.same_numbers`."""

import json
import math
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.conftest import ROOT
from tests.support.result_lines import SETTING, line
from vggbn.commands import same_numbers as command
from vggbn.errors import UserError
from vggbn.identity import equalities
from vggbn.same_numbers import compare, published, table, trees
from vggbn.same_numbers.probe import outline, pretend

X = jnp.ones((3, 4))


def digest(function, *args, platform="cpu", known=None):
    """The hash of all that a function computes."""
    graph = outline.graph_of(jax.make_jaxpr(function)(*args), platform, known)
    return outline.outline_of(graph, range(len(graph.outputs))).digest


# --- outlines ------------------------------------------------------------------------------------


def plain(x, y):
    a = jnp.sin(x) * 2
    b = jnp.cos(y) + 1
    return (a - b).sum(0)


def reordered(x, y):
    unused = jnp.exp(x)  # noqa: F841
    cosine = jnp.cos(y)
    plus = cosine + 1
    return (jnp.sin(x) * 2 - plus).sum(axis=0)


def in_programs(x, y):
    inner = jax.jit(lambda v: jnp.sin(v) * 2)
    return jax.jit(lambda x, y: (inner(x) - jax.jit(jnp.cos)(y) - -1 * 0 - 1 * 0, y))(x, y)[0]


@pytest.mark.parametrize(
    "same",
    [
        reordered,
        jax.jit(plain),
        lambda x, y: jax.jit(jax.jit(reordered))(x, y),
        lambda x, y: (jax.jit(jnp.sin)(x) * 2 - jax.jit(lambda v: jnp.cos(v) + 1)(y)).sum(0),
    ],
)
def test_names_order_and_borders_of_programs_leave_no_trace(same):
    assert digest(same, X, X) == digest(plain, X, X)


def test_the_order_of_arguments_and_outputs_leaves_none():
    both = lambda x, y: (jnp.sin(x), plain(x, y))  # noqa: E731
    turned = lambda y, x: (plain(x, y), jnp.sin(x))  # noqa: E731
    assert digest(both, X, X[:1]) == digest(turned, X[:1], X)


@pytest.mark.parametrize(
    "other",
    [
        lambda x, y: (jnp.sin(x) * 3 - (jnp.cos(y) + 1)).sum(0),
        lambda x, y: (jnp.sin(x) * 2 + (jnp.cos(y) + 1)).sum(0),
        lambda x, y: ((jnp.cos(y) + 1) - jnp.sin(x) * 2).sum(0),
        lambda x, y: (jnp.sin(x) * 2 - (jnp.cos(x) + 1)).sum(0),
        lambda x, y: (jnp.sin(x) * 2 - (jnp.cos(y) + 1)).sum(1),
        lambda x, y: (jnp.sin(x) * 2 - (jnp.cos(y) + 1)).max(0),
        lambda x, y: plain(x.astype(jnp.bfloat16), y),
        lambda x, y: plain(x, y).astype(jnp.bfloat16),
    ],
)
def test_a_constant_an_operator_an_axis_or_a_dtype_does(other):
    assert digest(other, X, X) != digest(plain, X, X)


def looped(constant, steps):
    return lambda x: lax.fori_loop(0, steps, lambda _, x: x * constant, x)


def test_what_a_loop_does_and_how_often():
    base = digest(looped(2.0, 3), X)
    assert digest(looped(2.0, 3), X) == base
    assert len({base, digest(looped(3.0, 3), X), digest(looped(2.0, 4), X)}) == 3


def carried(order, scale=2.0):
    """A loop whose state stands in this order, and which takes two arrays from outside."""

    def function(x, y, z):
        def turn(_, state):
            new = {
                "a": state["a"] * scale + z,
                "b": state["b"] - state["a"] * y,
                "c": state["c"] + 1,
            }
            return {name: new[name] for name in order}

        state = {"a": x, "b": x, "c": jnp.int32(0)}
        numbers = {name: i for i, name in enumerate(order)}  # a dict is flattened by its keys
        named = lambda values: {name: values[i] for name, i in numbers.items()}  # noqa: E731
        end = lax.fori_loop(
            0,
            z.shape[0],
            lambda _, values: [turn(_, named(values))[name] for name in order],
            [state[name] for name in order],
        )
        return named(end)

    return lambda x, y, z: [function(x, y, z)[name] for name in "ab"]


def scanned(turned, scale=2.0):
    def function(x, y):
        def turn(state, row):
            a, b = state[::-1] if turned else state
            a, b = a * scale + row[0], b - a * row[1]
            return ((b, a) if turned else (a, b)), a - b

        start = (x[1], x[0]) if turned else (x[0], x[1])
        end, rows = lax.scan(turn, start, (x, y))
        return (end[::-1] if turned else end), rows

    return function


def test_the_order_in_which_a_loop_carries_its_state_leaves_no_trace():
    args = X, X, X
    base = digest(carried("abc"), *args)
    assert all(digest(carried(order), *args) == base for order in ("acb", "bca", "cba"))
    assert digest(carried("abc", 3.0), *args) != base
    assert digest(lambda x, y, z: carried("abc")(x, z, y), *args) == base  # inputs have no names
    assert digest(lambda x, y, z: carried("abc")(x, y, y), *args) != base
    assert digest(lambda x, y, z: carried("abc")(x, y, z)[::-1], *args) == base
    assert digest(lambda x, y, z: carried("abc")(x, y, z)[:1] * 2, *args) != base
    assert digest(scanned(True), X, X) == digest(scanned(False), X, X)
    assert digest(scanned(True, 3.0), X, X) != digest(scanned(True), X, X)


def test_what_a_loop_does_is_told_before_the_loop():
    graph = outline.graph_of(jax.make_jaxpr(looped(2.0, 3))(X), "cpu")
    told = [text.split()[0] for _, text in outline.operations(graph)]
    assert told.index("mul") < max(told.index(name) for name in ("while", "scan") if name in told)


def test_an_array_that_a_function_holds_counts_by_its_values():
    held = lambda array: lambda x: x + array  # noqa: E731
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert digest(held(base), X) == digest(held(base.copy()), X)
    assert digest(held(base), X) != digest(held(base[::-1]), X)


def chosen(on_cpu, elsewhere=jnp.cos):
    one = lambda x: lax.platform_dependent(x, cpu=on_cpu, default=elsewhere)  # noqa: E731
    return jax.grad(lambda x: jax.checkpoint(lambda x: one(one(x)))(x).sum())


def test_a_form_for_a_cpu_is_no_part_of_what_a_gpu_computes():
    forms = [chosen(jnp.sin), chosen(jnp.tan)]
    assert digest(forms[0], X) != digest(forms[1], X)
    assert digest(forms[0], X, platform="cuda") == digest(forms[1], X, platform="cuda")
    assert digest(chosen(jnp.sin, jnp.sin), X) != digest(forms[0], X, platform="cuda")
    assert digest(
        jax.grad(lambda x: jax.checkpoint(lambda x: jnp.cos(jnp.cos(x)))(x).sum()), X
    ) == (digest(forms[0], X, platform="cuda"))


def test_a_product_with_a_known_1_is_the_other_factor():
    scaled = lambda x, scale: jnp.sin(x) * scale  # noqa: E731
    alone = digest(lambda x, scale: jnp.sin(x), X, 1.0)
    assert digest(scaled, X, 1.0, known={1: 1.0}) == alone
    assert digest(scaled, X, 1.0, known={1: 2.0}) != alone
    assert digest(scaled, X, 1.0) != alone
    spread = digest(lambda x: x * 1.0, jnp.ones(()))
    assert digest(lambda x: jnp.ones(()) * x, X) != spread


# --- programs that are not run -------------------------------------------------------------------


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(jax, "jit", jax.jit)
    monkeypatch.setattr(jax, "default_backend", jax.default_backend)
    stage = pretend.Stage("cpu", {})
    stage.enter()
    return stage


def test_a_made_up_answer_follows_from_the_arithmetic_and_the_arguments(stage):
    args = np.float32([1, 2, 4]), np.float32([3])
    first = jax.jit(lambda x, y: {"a": x * y, "b": x + y})(*args)
    again = jax.jit(lambda y, x: (jax.jit(jnp.add)(x, y), x * y))(*args[::-1])
    assert np.array_equal(first["a"], again[1])
    assert np.array_equal(first["b"], again[0])
    assert not np.array_equal(first["a"], first["b"])
    other = jax.jit(lambda x, y: x * y)(args[0] + 1, args[1])
    assert not np.array_equal(first["a"], other)


def test_how_an_array_is_held_does_not_matter(stage):
    program = jax.jit(lambda x: x * 2)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    answers = [program(held) for held in (x, np.asfortranarray(x), jax.device_put(x), x[::1])]
    assert all(np.array_equal(answers[0], answer) for answer in answers)
    constant = np.full((3, 4), 7, np.float32)
    spread = np.broadcast_to(np.float32(7), (3, 4))
    assert np.array_equal(program(constant), program(spread))


def run_of_steps(lrs, scale=2.0):
    """The last state of a training that is pretended."""
    step = jax.jit(
        lambda state, lr: {"w": state["w"] * scale - lr, "v": state["v"] + state["w"]},
        donate_argnums=0,
    )
    state = {"w": np.ones(4, np.float32), "v": np.zeros(4, np.float32)}
    for lr in lrs:
        state = step(state, np.float32(lr))
    return float(state["w"][0])


def test_a_state_holds_all_that_led_to_it(stage):
    base = run_of_steps([0.1, 0.2, 0.3])
    assert run_of_steps([0.1, 0.2, 0.3]) == base
    others = [run_of_steps([0.1, 0.3, 0.2]), run_of_steps([0.1, 0.2]), run_of_steps([0.1] * 3, 3.0)]
    assert len({base, *others}) == 4


def test_enough_steps_are_enough(stage):
    stage.begin(steps=2)
    with pytest.raises(pretend.Enough):
        run_of_steps([0.1, 0.2, 0.3])
    assert list(stage.programs["<lambda>"].values()) == [2]


# --- two trees -----------------------------------------------------------------------------------

SMALL = {"data": "digits", "image_size": 8, "fc": 8, "steps": 20, "batch": 8, "norm": "none"}
RECIPES = {
    "narrow": SMALL | {"model": "vgg_a", "width": 0.05},
    "with LRN": SMALL | {"model": "vgg_a_lrn", "width": 0.05},
    "wide": SMALL | {"model": "vgg_a", "width": 1.0},
    "mlp": SMALL | {"model": "mlp", "schedule": "exponential", "lr_every": 7.0},
}


def asked(tree, folder, names, steps):
    """What a probe says of these RECIPES in this tree."""
    runs = {name: {"recipe": RECIPES[name], "seed": 1, "data_dir": None} for name in names}
    return trees.ask(tree, folder, {"platform": "cpu", "views": {}, "steps": steps, "runs": runs})


def answer_of(tree, folder):
    """Of all RECIPES: whole runs of the small ones, a step of "wide"."""
    small = asked(tree, folder, [name for name in RECIPES if name != "wide"], None)
    wide = asked(tree, folder, ["wide"], 1)
    return {name: small[name] | wide[name] for name in ("runs", "graphs")}


def edit(tree, name, old, new):
    """Replace a text that stands once in the only file of this name."""
    (path,) = tree.rglob(name)
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    return answer_of(ROOT, tmp_path_factory.mktemp("today"))


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """Another alpha, another Winograd matrix, another rate at the drops; and a docstring."""
    tree = tmp_path_factory.mktemp("edited") / "tree"
    shutil.copytree(ROOT / "vggbn", tree / "vggbn", ignore=shutil.ignore_patterns("__pycache__"))
    edit(tree, "nn/layers.py", "n=5, alpha=1e-4", "n=5, alpha=2e-4")
    edit(
        tree,
        "nn/winograd.py",
        "G = np.array([[1, 0, 0], [0.5, 0.5, 0.5]",
        "G = np.array([[1, 0, 0], [0.5, 0.5, 0.25]",
    )
    edit(tree, "optim.py", "math.floor(step / every)", "math.ceil(step / every)")
    edit(
        tree,
        "machine/compiling.py",
        '"""x, an array that is computed once',
        '"""An array that is computed once',
    )
    return answer_of(tree, tree.parent / "kept")


def differences(old, new):
    graphs = old["graphs"], new["graphs"]
    return {
        name: compare.difference(old["runs"][name], found, graphs)
        for name, found in new["runs"].items()
    }


def test_a_tree_has_its_own_numbers(today, tmp_path):
    """That whole runs have them too shows where an edit does not reach, below."""
    again = asked(ROOT, tmp_path, ["wide"], 1)
    assert differences(today, again) == {"wide": ""}


def test_a_change_is_found_where_a_net_reaches_it(today, edited):
    found = differences(today, edited)
    assert found["narrow"] == ""
    assert found["with LRN"].startswith("program step: ")
    assert found["wide"].startswith("program step: ")
    assert found["mlp"].startswith("what is told to steps")
    assert "call" in found["mlp"]


def test_a_run_that_diverges_ends_where_it_did_and_is_compared_too(tmp_path):
    asked = {"recipe": RECIPES["mlp"], "seed": 1, "data_dir": None, "diverged_at": 12}
    request = {"platform": "cpu", "steps": None, "views": {}, "runs": {"mlp": asked}}
    record = trees.ask(ROOT, tmp_path, request)["runs"]["mlp"]["record"]
    assert (record["status"], record["diverged_at"]) == ("ok", None)
    assert record["diverged"]["status"] == "diverged at step 12"
    assert record["diverged"]["history"] == record["history"][: len(record["diverged"]["history"])]
    assert len(record["diverged"]["history"]) < len(record["history"])
    old, new = found_of(diverged=record["diverged"]), found_of(diverged=dict(record["diverged"]))
    assert compare.difference(old, new, ({}, {})) == ""
    new["record"]["diverged"]["final"] = {}
    assert compare.difference(old, new, ({}, {})).startswith("final")


def test_a_state_of_other_names_is_no_silent_answer(stage):
    stage.clocks = {".step": lambda before, args: before}
    with pytest.raises(pretend.UnknownState):
        run_of_steps([0.1])


def test_what_a_tree_lacks_is_said(tmp_path):
    asked = {
        "field": {"recipe": SMALL | {"colour": 1}, "seed": 0, "data_dir": None},
        "data": {"recipe": SMALL | {"data": "folder:none"}, "seed": 0, "data_dir": str(tmp_path)},
    }
    request = {"platform": "cuda", "steps": 1, "views": {}, "runs": asked}
    found = trees.ask(ROOT, tmp_path, request)["runs"]
    assert "colour" in found["field"]["absent"]
    assert "none" in found["data"]["missing"]


# --- records -------------------------------------------------------------------------------------


def found_of(**record):
    return {"record": record, "programs": {}, "told": {}}


def test_a_record_may_tell_more_than_it_did_and_nothing_else():
    old = found_of(final={"a": 1.0, "b": math.nan}, history=[{"x": 1}, {"x": 2}], seconds=3)
    new = found_of(
        final={"a": 1.0, "b": math.nan, "c": 4}, history=[{"x": 1, "y": 2}, {"x": 2}], seconds=4
    )
    assert compare.difference(old, new, ({}, {})) == ""
    assert compare.difference(new, old, ({}, {})) == "history[0].y of the record"
    new["record"]["history"].pop()
    assert compare.difference(old, new, ({}, {})) == "history of the record"


# --- published lines -----------------------------------------------------------------------------


def lines_of(commit="aaa", code="0123456789ab", **edits):
    setting = SETTING | {"code": code}
    return [line(seed=s, commit=commit, setting=setting, id="r", **edits) for s in (0, 3)]


def test_the_lines_of_references_are_asked_about_too(tmp_path):
    for name, commit in (("results", "aaa"), ("reference", "bbb"), ("verified", "ccc")):
        lines = "".join(json.dumps(made) + "\n" for made in lines_of(commit))
        (tmp_path / f"{name}.jsonl").write_text(lines)
    found = published.read_lines(tmp_path)
    assert [[made["commit"] for made in lines] for lines in found] == [["aaa"] * 2, ["bbb"] * 2]


def test_cases_are_the_recipes_of_a_commit():
    (case,) = published.cases_of([lines_of("aaa+"), lines_of("aaa")])
    assert (case.commit, case.platform, len(case.lines), case.question()["seed"]) == (
        "aaa", "cpu", 4, 3,
    )  # fmt: skip
    assert len(published.cases_of([lines_of("aaa"), lines_of("bbb")])) == 2


def test_a_view_brings_the_recipes_of_its_nets():
    views = [
        made | {"id": "v", "view": {"looks": [{"net": "base"}]}, "evaluation": "e"}
        for made in lines_of()
    ]
    for view in views:
        del view["recipe"]
    case = published.cases_of([[*lines_of(), *views]])[1]
    assert case.key == "0123456789ab e"
    assert case.question()["recipes"] == {"base": line()["recipe"]}


def test_a_gpu_is_told_by_its_name():
    made = lambda device: {"setting": {"device": device}}  # noqa: E731
    assert published.platform_of(made("NVIDIA H100 80GB HBM3")) == "cuda"
    with pytest.raises(UserError, match="'abacus'"):
        published.platform_of(made("abacus"))


@pytest.mark.parametrize(
    ("commit", "code"), [("7eddf1385089", "a5e1a35393b0"), ("7b0fc9184a5e", "fb8ca0ac73b0")]
)
def test_an_old_digest_is_derived_again(tmp_path, commit, code):
    try:
        tree = trees.extract(commit, tmp_path)
    except UserError:
        pytest.skip("the history is not here")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert trees.digests(tree, here)[0] == code or here != "3.11"
    assert trees.digests(tree, "1.5") is None


# --- the table and the command -------------------------------------------------------------------


def test_only_what_is_equal_at_every_commit_is_entered(monkeypatch):
    monkeypatch.setattr(command, "codes_of", lambda case: dict.fromkeys(case.codes, "now"))
    cases = published.cases_of([lines_of("aaa"), lines_of("bbb"), lines_of(code="other")])
    old = {"0123456789ab": {"r": "before", "kept": "x"}}
    assert command.updated(old, cases, ["", "", ""]) == {
        "0123456789ab": {"r": "now", "kept": "x"},
        "other": {"r": "now"},
    }
    assert command.updated(old, cases, ["", "it differs", ""])["0123456789ab"] == {"kept": "x"}
    assert old["0123456789ab"]["r"] == "before"


def test_the_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "same.json"
    assert equalities.read(path) == {}
    table.write(path, {"b": {"y": "1", "x": "2"}, "a": {}})
    first = path.read_text()
    assert equalities.read(path) == {"b": {"x": "2", "y": "1"}}
    assert first.index('"x"') < first.index('"y"')
    with pytest.raises(TypeError):
        table.write(path, {"b": {"y": object()}})
    assert path.read_text() == first
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        equalities.read(path)


def test_the_command_counts_lines_and_says_why(tmp_path, monkeypatch, capsys):
    results = tmp_path / "results" / "one"
    results.mkdir(parents=True)
    lines = [*lines_of(), *lines_of(code="other")]
    (results / "results.jsonl").write_text("".join(json.dumps(made) + "\n" for made in lines))
    monkeypatch.setattr(command, "judge", lambda cases, folder, data_dir: ["", "the step differs"])
    monkeypatch.setattr(command, "codes_of", lambda case: dict.fromkeys(case.codes, "now"))
    path = tmp_path / "same.json"
    arguments = ["--results", str(tmp_path / "results"), "--table", str(path)]
    assert command.run(arguments) == 1
    assert not path.exists()
    assert command.run([*arguments, "--write"]) == 1
    told = capsys.readouterr().out
    assert "0123456789ab: 1 of 1 recipes are the same, 2 of 2 lines" in told
    assert "1 recipes, 2 lines: the step differs" in told
    assert equalities.read(path) == {"0123456789ab": {"r": "now"}}


def test_a_commit_that_is_not_there_is_a_mistake():
    with pytest.raises(UserError, match="no commit 'nonsense'"):
        command.run(["nonsense"])
