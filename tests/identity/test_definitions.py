"""What a definition reaches: names resolved as Python does, and nothing that decides no number."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from vggbn.identity.canonical import Use, text_of
from vggbn.identity.definitions import Package
from vggbn.identity.reach import entry_of, reach


def package(**files):
    """A package `p` of these modules; a double underscore stands for a folder."""
    return Package("p", {f"{name.replace('__', '/')}.py": text for name, text in files.items()})


def digest(root="p.a.f", chosen=None, values=None, **files):
    return reach(package(**files), [root], chosen or {}, values).digest


def reached(root="p.a.f", chosen=None, values=None, **files):
    names = reach(package(**files), [root], chosen or {}, values).definitions
    return {name.removeprefix("p.") for name in names} - {root.removeprefix("p.")}


# --- names ---------------------------------------------------------------------------------------

G = "def g(): return 1\n"


@pytest.mark.parametrize(
    "text",
    [
        "from p.b import g\ndef f(): return g()",
        "from p.b import g as h\ndef f(): return h()",
        "from p import b\ndef f(): return b.g()",
        "from . import b\ndef f(): return b.g()",
        "from .b import g\ndef f(): return g()",
        "import p.b\ndef f(): return p.b.g()",
        "import p.b as c\ndef f(): return c.g()",
        "def f():\n    from p.b import g\n    return g()",
        "def f():\n    import p.b as c\n    return c.g()",
        "from p.c import g\ndef f(): return g()",
        "from p import c\ndef f(): return c.b.g()",
    ],
)
def test_however_a_function_is_imported_it_is_the_same(text):
    files = {"b": G, "c": "from p import b\nfrom p.b import g\n"}
    assert reached(a=text, **files) == {"b.g"}
    assert digest(a=text, **files) == digest(a=f"{G}def f(): return g()")


def test_a_package_hands_on_what_its_modules_define():
    files = {"b____init__": "from p.b.c import g\n", "b__c": G}
    files = {"b/__init__.py": "from p.b.c import g\n", "b/c.py": G}
    for text in ("from p.b import g\ndef f(): g()", "from p import b\ndef f(): b.g()"):
        found = reach(Package("p", {"a.py": text, **files}), ["p.a.f"], {})
        assert set(found.definitions) == {"p.a.f", "p.b.c.g"}


@pytest.mark.parametrize(
    "text",
    [
        "import numpy as np\ndef f(x): return np.sum(x) + np.linalg.norm(x)",
        "import numpy\ndef f(x): return numpy.sum(x) + numpy.linalg.norm(x)",
        "from numpy import sum, linalg\ndef f(x): return sum(x) + linalg.norm(x)",
        "from numpy import linalg as la, sum as total\ndef f(x): return total(x) + la.norm(x)",
        "def f(x):\n    import numpy as n\n    return n.sum(x) + n.linalg.norm(x)",
    ],
)
def test_what_is_external_goes_by_its_full_name(text):
    plain = "import numpy as np\ndef f(x): return np.sum(x) + np.linalg.norm(x)"
    assert digest(a=text) == digest(a=plain)
    assert digest(a=text.replace("sum", "max").replace("total", "most")) != digest(a=plain)


SHADOWED = {
    "parameter": "def f(g): return g",
    "keyword parameter": "def f(*, g=1): return g",
    "star": "def f(*g): return g",
    "local": "def f():\n    g = 2\n    return g",
    "local below": "def f():\n    print(g)\n    g = 2",
    "loop": "def f():\n    for g in 'ab': print(g)",
    "with": "def f():\n    with open('x') as g: print(g)",
    "handler": "def f():\n    try: pass\n    except OSError as g: print(g)",
    "comprehension": "def f(): return [g for g in 'ab' if g]",
    "second generator": "def f(): return [x for g in 'ab' for x in g]",
    "lambda": "f = lambda g: g",
    "walrus": "def f(): return (g := 1) + g",
    "walrus in a comprehension": "def f():\n    [g := x for x in 'a']\n    return g",
    "nested": "def f():\n    g = 1\n    def h(): return g\n    return h",
    "nested function": "def f():\n    def g(): return 2\n    return g()",
    "nested class": "def f():\n    class g: pass\n    return g()",
    "import": "def f():\n    import os as g\n    return g",
    "match": "def f(x):\n    match x:\n        case [g, *_]: return g",
    "match rest": "def f(x):\n    match x:\n        case {'a': 1, **g}: return g",
    "nonlocal": "def f():\n  g = 1\n  def h():\n    nonlocal g\n    g = 2\n  return h",
}


@pytest.mark.parametrize("text", SHADOWED.values(), ids=SHADOWED)
def test_a_name_that_is_bound_here_reaches_nothing(text):
    assert reached(a=G + text) == set()


SEEN = {
    "plain": "def f(): return g()",
    "default": "def f(x=g): return x",
    "keyword default": "def f(*, x=g): return x",
    "default that has the parameter's name": "def f(g=g): return g",
    "decorator": "@g\ndef f(): pass",
    "nested": "def f():\n    def h(): return g()\n    return h",
    "nested parameter elsewhere": "def f():\n    h = lambda g: g\n    return g()",
    "nested default": "def f():\n    return lambda g=g: g",
    "lambda": "def f(): return lambda: g()",
    "comprehension": "def f(): return [g() for x in 'ab']",
    "first iterable": "def f(): return [g for g in g()]",
    "comprehension beside": "def f():\n    [g for g in 'ab']\n    return g()",
    "class name in a method": "def f():\n class C:\n  g = 1\n  def h(self): return g()\n return C",
    "class body": "def f():\n    class C:\n        x = g()\n    return C",
    "global": "def f():\n    global g\n    return g()",
    "global in nested": "def f():\n  g = 1\n  def h():\n    global g\n    return g()\n  return h",
    "f-string": "def f(): return f'{g():>{g()}}'",
    "star": "def f(): return [*g()]",
    "subscript": "def f(): return g[0]",
    "match value": "def f(x):\n    match x:\n        case y if g(y): return 1",
    "assigned": "f = g",
    "partial": "from functools import partial\nf = partial(g, 1)",
    "tuple": "f, h = g(), 2",
    "unpacked": "f, h = g()",
    "raised": "def f(): raise g from g",
    "yield": "def f(): yield g",
    "in a branch": "if print('a'):\n    def f(): return g()\nelse:\n    f = None",
    "with": "def f():\n    with g() as x: pass",
    "delete": "def f(): del g.x",
}


@pytest.mark.parametrize("text", SEEN.values(), ids=SEEN)
def test_a_global_name_is_seen_everywhere(text):
    assert reached(a=G + text) == {"a.g"}
    assert digest(a=G + text) != digest(a=G.replace("1", "2") + text)


@pytest.mark.parametrize(
    "text",
    [
        "def f(): return 1\nf.defvjp(g)",
        "def f(): return 1\nf.rule = g",
        "f = {}\nf['x'] = g",
        "f = 1\nf += g",
        "import jax\nclass f: pass\njax.tree_util.register_pytree_node(f, g, None)",
        "K = g\ndef f(): return 1\nprint(K)",
        "def f(): return 1\nfor x in 'ab': g(x)",
        "def f(): return 1\nif 1: g.x = 2",
        "def f(): return 1\nassert g",
    ],
)
def test_a_statement_of_the_module_belongs_to_what_it_is_about(text):
    assert "a.g" in reached(a=G + text)
    assert digest(a=G + text) != digest(a=G.replace("1", "2") + text)


def test_a_statement_about_another_definition_does_not_count():
    for statement in ("h.defvjp(g)", "print(h, g)", "h.x = g"):
        about_h = f"{G}def f(): return 1\ndef h(): return 2\n{statement}"
        assert reached(a=about_h) == set()
        assert digest(a=about_h) == digest(a="def f(): return 1")


def test_a_main_block_and_type_checking_do_not_count():
    plain = "def f(): return 1\n"
    assert digest(a=plain + f"{G}if __name__ == '__main__': g()") == digest(a=plain)
    imports = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import C\n"
    assert digest(a=imports + plain, b="class C: pass") == digest(a=plain)


def test_a_module_that_is_handed_on_counts_whole():
    files = {"b": G + "def h(): return 2"}
    assert reached(a="from p import b\ndef f(name): return getattr(b, name)", **files) == {
        "b.g", "b.h",
    }  # fmt: skip


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="imports \\*"):
        digest(a="from p.b import *\ndef f(): return g()", b=G)
    with pytest.raises(ValueError, match=r"p\.b\.h is imported and defined nowhere"):
        digest(a="from p.b import h\ndef f(): return h()", b=G)
    with pytest.raises(LookupError, match=r"p\.a\.gone is defined nowhere"):
        digest("p.a.gone", a=G)


def test_files_that_are_not_reached_are_not_read():
    found = reach(package(a="def f(): return 1", b="this is no Python"), ["p.a.f"], {})
    assert set(found.definitions) == {"p.a.f"}


# --- what is neutral, and what is not -------------------------------------------------------------

BASE = '''
import numpy as np
RATE = 0.5
def g(x, *, scale=2):
    y = x * scale
    return [z + RATE for z in y]
def f(a):
    """Doc."""
    b, c = a, f
    return g(np.sum(b), scale=3) if a else f(c)
'''
NEUTRAL = {
    "a comment": ("RATE = 0.5", "RATE = 0.5  # half"),
    "a docstring": ('"""Doc."""', '"""Another word."""'),
    "no docstring": ('    """Doc."""\n', ""),
    "a local's name": ("y", "why"),
    "a comprehension's variable": ("z", "each"),
    "a function's name": ("g(", "helper("),
    "a constant's name": ("RATE", "HALF"),
    "layout": ("b, c = a, f", "(b,\n     c) = (a, f)"),
    "an annotation": ("def f(a):", "def f(a: int) -> list[float]:"),
    "an annotated constant": ("RATE = 0.5", "RATE: float = 0.5"),
    "an annotated local": ("    y = x", "    y: list = x"),
    "another number's spelling": ("0.5", "5e-1"),
    "a pass": ("    y = x", "    pass\n    y = x"),
    "a new function": ("RATE = 0.5", "RATE = 0.5\ndef new(): return RATE"),
    "order": ("RATE = 0.5", ""),
}


@pytest.mark.parametrize("edit", NEUTRAL)
def test_what_decides_nothing_changes_nothing(edit):
    old, new = NEUTRAL[edit]
    pattern = rf"\b{old}\b" if old.isidentifier() else re.escape(old)
    text = re.sub(pattern, new.replace("\\", "\\\\"), BASE) + (
        "RATE = 0.5\n" if edit == "order" else ""
    )
    assert text != BASE
    assert digest(a=text) == digest(a=BASE)


EDITS = [
    ("0.5", "0.25"), ("scale=2", "scale=4"), ("scale=3", "scale=5"), ("x * scale", "x + scale"),
    ("np.sum", "np.max"), ("z + RATE", "RATE + z"), ("if a else", "if not a else"),
    ("b, c = a, f", "c, b = a, f"), ("f(c)", "g(c)"), ("2", "2.0"), ("sum(b)", "sum(c)"),
    ("*, scale", "scale"), ("[z + RATE for z in y]", "{z + RATE for z in y}"),
    ("0.5", "'0.5'"), ("y = x", "y = yy = x"), ("scale", "factor"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), EDITS)
def test_what_is_computed_counts(old, new):
    assert digest(a=BASE.replace(old, new)) != digest(a=BASE)


def test_definitions_may_move_to_another_file():
    moved = BASE.replace("RATE = 0.5", "from p.b import RATE")
    assert digest(a=moved, b="RATE = 0.5") == digest(a=BASE)
    g = BASE[BASE.index("def g") : BASE.index("def f")]
    rest = BASE.replace(g, "").replace("RATE = 0.5", "from p.b import g as h").replace("g(", "h(")
    assert digest(a=rest, b=f"RATE = 0.5\n{g}") == digest(a=BASE)


def test_two_that_change_places_are_another_program():
    one = "def g(x): return x + 1\ndef h(x): return x - 1\ndef f(x): return g(x) * h(x) / g(x)"
    other = (
        one.replace("x + 1", "x").replace("x - 1", "x + 1").replace("return x\n", "return x - 1\n")
    )
    assert digest(a=one) != digest(a=other)


def test_circles_are_told_apart():
    ring = "def f(n): return g(n)\ndef g(n): return h(n)\ndef h(n): return f(n)\n"
    assert digest(a=ring) == digest(a=ring.replace("h(", "other("))
    shorter = "def f(n): return g(n)\ndef g(n): return f(n)\n"
    assert digest(a=ring) != digest(a=shorter) != digest(a="def f(n): return f(n)\n")
    marked = ring.replace("g(n): return h(n)", "g(n): return 1 + h(n)")
    last = marked.replace("def h(n): return f(n)", "def h(n): return g(n)")
    assert len({digest(a=text) for text in (ring, marked, last)}) == 3
    deep = ring.replace("def h(n): return f(n)", "def h(n): return f(k(n))\ndef k(n): return 1")
    assert digest(a=deep) != digest(a=deep.replace("return 1", "return 2"))


# --- classes -------------------------------------------------------------------------------------

CLASS = """
from dataclasses import dataclass
@dataclass(frozen=True)
class C:
    x: int
    y: int = 3
    z: int = 4
    def m(self): return self.n() + 1
    def n(self): return 2
    def unused(self): return 5
    def __len__(self): return 6
"""


def test_methods_count_where_their_name_is_read():
    text = CLASS + "def f(c: C): return c.m()"
    assert reached(a=text) == {"a.C", "a.C.m", "a.C.n", "a.C.__len__"}
    changed = lambda old, new: digest(a=text.replace(old, new)) != digest(a=text)  # noqa: E731
    assert changed("return 2", "return 3") and changed("return 6", "return 7")
    assert changed("frozen=True", "frozen=False")
    assert not changed("return 5", "return 6") and not changed("n(", "another(")


@pytest.mark.parametrize("hint", ["C", "'C'", "list[C]", "C | None", "'list[C] | None'", "D"])
def test_an_annotation_reaches_the_class_and_is_no_part_of_the_text(hint):
    text = CLASS + f"D = C | None\ndef f(c: {hint}): return c.m()"
    assert "a.C.m" in reached(a=text) and "a.D" not in reached(a=text)
    assert digest(a=text) == digest(a=CLASS + "def f(c: C): return c.m()")


def test_without_any_sign_of_the_class_an_attribute_is_a_name():
    assert reached(a=CLASS + "def f(c): return c.m()") == set()
    assert digest(a="def f(c): return c.m()") != digest(a="def f(c): return c.n()")


@pytest.mark.parametrize("text", ["getattr(c, 'm')", "getattr(c, 'm', None)", "hasattr(c, 'm')"])
def test_names_as_strings_are_read(text):
    assert "a.C.m" in reached(a=CLASS + f"def f(c: C): return {text}")


@pytest.mark.parametrize(
    "text",
    ["for n in ('m', 'k'): getattr(c, n)", "attrgetter('m')(c)", "methodcaller('m')(c)"],
)
def test_of_names_that_are_computed_any_string_may_be_one(text):
    imports = "from operator import attrgetter, methodcaller\n"
    assert "a.C.m" in reached(a=f"{imports}{CLASS}def f(c: C):\n    {text}")


def test_a_field_counts_where_it_is_read_or_passed():
    text = CLASS + "def f(): return C(x=1).z"
    fields = {name for name in reached(a=text) if name in ("a.C.x", "a.C.y", "a.C.z")}
    assert fields == {"a.C.x", "a.C.z"}
    assert digest(a=text) == digest(a=text.replace("y: int = 3", "y: int = 5"))
    assert digest(a=text) == digest(a=text.replace("y: int = 3", "w: int = 0\n    y: int = 3"))
    assert digest(a=text) != digest(a=text.replace("z: int = 4", "z: int = 5"))


@pytest.mark.parametrize("made", ["C(1)", "C(*a)", "map(C, a)", "partial(C, x=1)", "fields(C)"])
def test_of_what_is_made_by_position_the_fields_before_count_too(made):
    text = f"from functools import partial\nfrom dataclasses import fields\n{CLASS}"
    text += f"def f(a): return {made}.z"
    assert digest(a=text) != digest(a=text.replace("y: int = 3", "y: int = 5"))
    swapped = text.replace("    x: int\n    y: int = 3\n", "    y: int = 3\n    x: int\n")
    assert digest(a=text) != digest(a=swapped)
    more = text.replace("    z: int = 4\n", "    z: int = 4\n    w: int = 5\n")
    assert digest(a=text) == digest(a=more)


def test_of_what_is_made_by_keywords_the_order_does_not_count():
    text = CLASS + "def f(a): return C(**a).z"
    assert digest(a=text) == digest(a=text.replace("y: int = 3", "y: int = 5"))
    assert digest(a=text) != digest(a=text.replace("z: int = 4", "z: int = 5"))


def test_methods_that_code_outside_may_call_count():
    text = "from collections.abc import Iterator\nclass C(Iterator):\n"
    text += "    def close(self): return 1\ndef f(): return C()"
    assert digest(a=text) != digest(a=text.replace("return 1", "return 2"))
    for base, where in (("NamedTuple", "typing"), ("Exception", "builtins")):
        other = text.replace("collections.abc", where).replace("Iterator", base)
        assert digest(a=other) == digest(a=other.replace("return 1", "return 2"))


def test_a_class_that_is_asked_for_is_not_made():
    text = CLASS + "def f(a): return isinstance(a, (C, int)) and a.x"
    assert digest(a=text) == digest(a=text.replace("y: int = 3", "y: int = 5"))


def test_of_a_named_tuple_all_fields_count():
    text = "from typing import NamedTuple\nclass C(NamedTuple):\n    x: int\n    y: int = 3\n"
    text += "def f(): return C(x=1).x"
    assert digest(a=text) != digest(a=text.replace("y: int = 3", "y: int = 5"))


def test_bases_and_class_attributes_count():
    text = "class B:\n    k = 1\n    def m(self): return self.k\nclass C(B): pass\n"
    text += "def f(): return C().m()"
    assert reached(a=text) == {"a.B", "a.B.k", "a.B.m", "a.C"}
    assert digest(a=text) != digest(a=text.replace("k = 1", "k = 2"))


def test_a_class_attribute_may_use_another():
    text = "class C:\n    a = 1\n    b = a + 1\n    def m(self, x=a): return x\n"
    text += "def f(): return C().m()"
    assert digest(a=text) != digest(a=text.replace("a + 1", "a + 2"))


def test_of_values_from_outside_the_fields_do_not_count():
    text = CLASS + "def f(c: C): return c.x + c.m()"
    values = {"values": "p.a.C"}
    for old, new in (
        ("y: int = 3", "y: int = 4"),
        ("x: int\n", "w: int\n    x: int\n"),
        ("def __len__(self): return 6", "def __post_init__(self): return 7"),
    ):
        assert digest(a=text, **values) == digest(a=text.replace(old, new), **values)
    assert digest(a=text, **values) != digest(a=text.replace("return 2", "return 3"), **values)
    assert {"x", "m", "n"} <= reach(package(a=text), ["p.a.f"], {}, "p.a.C").attributes


# --- tables --------------------------------------------------------------------------------------

TABLE = """
def one(): return 1
def two(): return 2
TABLE = {"one": one, "two": two, "three": lambda: 3}
"""
USE = TABLE + "def f(name): return TABLE[name]()"


def test_of_a_table_only_the_entry_that_is_chosen_counts():
    one = {"chosen": {"p.a.TABLE": "one"}}
    assert reached(a=USE, **one) == {"a.one", "a.TABLE[one]"}
    for old, new in (("return 2", "return 4"), ("lambda: 3", "lambda: 4"),
                     ('"three": lambda: 3', '"four": two, "three": one')):  # fmt: skip
        assert digest(a=USE, **one) == digest(a=USE.replace(old, new), **one)
        assert digest(a=USE) != digest(a=USE.replace(old, new))
    assert digest(a=USE, **one) != digest(a=USE.replace("return 1", "return 4"), **one)
    assert digest(a=USE, **one) != digest(a=USE, chosen={"p.a.TABLE": "two"})


def test_an_entry_that_is_asked_for_by_a_literal_counts_too():
    text = USE + " or TABLE['two']()"
    one = {"chosen": {"p.a.TABLE": "one"}}
    assert "a.two" in reached(a=text, **one)
    assert digest(a=text, **one) != digest(a=text.replace("return 2", "return 4"), **one)


def test_a_table_that_is_used_as_a_whole_counts_whole():
    one = {"chosen": {"p.a.TABLE": "one"}}
    for text in (USE + " or list(TABLE)", USE + " or TABLE.get(name)"):
        assert digest(a=text, **one) != digest(a=text.replace("return 2", "return 4"), **one)


def test_what_is_no_literal_dict_counts_whole():
    text = USE.replace('TABLE = {"one"', 'TABLE = {**{}, "one"')
    one = {"chosen": {"p.a.TABLE": "one"}}
    assert digest(a=text, **one) != digest(a=text.replace("return 2", "return 4"), **one)


@pytest.mark.parametrize(
    ("value", "entry"),
    [("canvas", "canvas"), ("folder:a:b", "folder:"), ("cifar10", "*"), ("a:b", "*"), ("", "*")],
)
def test_an_entry_by_kind(value, entry):
    assert entry_of(["*", "folder:", "canvas"], value) == entry
    assert entry_of(["canvas"], "cifar10") is None


# --- the text is the same on every Python ---------------------------------------------------------


class Plain:
    """Names of a module that defines and imports nothing."""

    def resolve(self, name):
        return None

    def member(self, target, name):
        return None

    def imported(self, node):
        return {}

    def followed(self, target):
        return target


GOLDEN = {
    "f'a{{{x!r:>{w}.2f}}}' 'b' f''": "(Expr value=(JoinedStr values=[(str 'a{')(FormattedValue"
    " value=<builtins.x> conversion=<114> format_spec=(JoinedStr values=[(str '>')(FormattedValue"
    " value=<builtins.w> conversion=<-1>)(str '.2f')]))(str '}b')]))",
    "f(f'a' 'b', f'')": "(Expr value=(Call func=<builtins.f> args=[(str 'ab')(str '')]"
    " keywords=[]))",
    "f'{x:}{x=}'": "(Expr value=(JoinedStr values=[(FormattedValue value=<builtins.x>"
    " conversion=<-1>)(str 'x=')(FormattedValue value=<builtins.x> conversion=<114>)]))",
    "f(*a, k=-1.5e3, **{**b, 'é\\u200b\\U0001fae8': ...})": "(Expr value=(Call func=<builtins.f>"
    " args=[(Starred value=<builtins.a>)] keywords=[(keyword arg=<'k'> value=(UnaryOp op=(USub)"
    " operand=(float 1500.0)))(keyword value=(Dict keys=[<None>(str '\\xe9\\u200b\\U0001fae8')]"
    " values=[<builtins.b>(ellipsis Ellipsis)]))]))",
    "lambda x, /, y=1, *z, k, l=None, **m: (x, q)": "(Expr value=(Lambda [['x'], ['y'], ['z'],"
    " ['k', 'l'], ['m']] [(int 1)<'/'><None>(NoneType None)](Tuple elts=[<parameter x>"
    "<builtins.q>])))",
    "def f[T](x: T = 0) -> T: return T": None,  # a syntax of 3.12
    "def f(x):\n  'doc'\n  y: int = x\n  z: int\n  return [y for y in x[1:, ::2]]": "(FunctionDef"
    " [][[], ['x'], [], [], []] [<'/'>][(Assign targets=[<local 0>] value=<parameter x>)"
    "(Return value=(ListComp (Subscript value=<parameter x> slice=(Tuple elts=[(Slice lower="
    "(int 1))(Slice step=(int 2))]))(for 0 <local 1>[])<local 1>))])",
    "try: x()\nexcept* (A, B) as e: raise e": "(TryStar body=[(Expr value=(Call func=<builtins.x>"
    " args=[] keywords=[]))] handlers=[(ExceptHandler type=(Tuple elts=[<builtins.A><builtins.B>])"
    "<builtins.e>[(Raise exc=<builtins.e>)])])",
    "match x:\n  case {'a': [b, *_], **c} | P(k=1) as d if d: pass\n  case _: pass": "(Match"
    " subject=<builtins.x> cases=[(match_case pattern=(MatchAs<builtins.d>(MatchOr patterns="
    "[(MatchMapping keys=[(str 'a')] patterns=[(MatchSequence patterns=[(MatchAs<builtins.b><None>)"
    "(MatchStar<None>)])])<builtins.c>(MatchClass cls=<builtins.P> kwd_attrs=[<'k'>] kwd_patterns="
    "[(MatchValue value=(int 1))])])) guard=<builtins.d> body=[])(match_case pattern="
    "(MatchAs<None>) body=[])])",
    "async def f():\n  async with a as b: return [x async for x in await b]": "(AsyncFunctionDef"
    " [][[], [], [], [], []] [<'/'>][(AsyncWith items=[(withitem context_expr=<builtins.a>"
    " optional_vars=<local 0>)] body=[(Return value=(ListComp (Await value=<local 0>)(for 1"
    " <local 1>[])<local 1>))])])",
    "x.a.b = 1_0, 0xff, 1j, b'\\xff', 1e-400, True": "(Assign targets=[(Attribute value=(Attribute"
    " value=<builtins.x>@a)@b)] value=(Tuple elts=[(int 10)(int 255)(complex 1j)(bytes b'\\xff')"
    "(float 0.0)(bool True)]))",
}


def canonical(text):
    parts = text_of(Plain(), *ast.parse(text).body).parts
    return "".join(f"@{part.name}" if isinstance(part, Use) else part for part in parts)


@pytest.mark.parametrize("text", [text for text, golden in GOLDEN.items() if golden])
def test_golden_texts(text):
    assert canonical(text) == GOLDEN[text]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a syntax of Python 3.12")
def test_type_parameters_do_not_count():
    assert canonical("def f[T](x: T = 0) -> T: return x") == canonical("def f(x=0): return x")


def pythons():
    """Other Pythons of this machine that can read the package's source."""
    found = {}
    folders = [*os.environ.get("PATH", "").split(os.pathsep), sys.base_prefix]
    versions = Path(sys.base_prefix).parent.glob("*/bin")
    for folder in (*map(Path, folders), *versions):
        for minor in range(11, 16):
            path = folder / f"python3.{minor}"
            if minor != sys.version_info.minor and path.exists() and minor not in found:
                run = subprocess.run([path, "-c", ""], capture_output=True, check=False)
                if run.returncode == 0:
                    found[minor] = path
    return found


DIGESTS = """
from vggbn.identity.definitions import Folder, Package
from vggbn.identity.reach import reach

def digests(folder):
    package = Package("vggbn", Folder(folder))
    named = {name: package.all_of(name) for name in sorted(package.paths)}
    return {name: reach(package, all, {}).digest for name, all in named.items()}
"""


@cache
def digests() -> dict[str, str]:
    """{module: the digest of what all of it reaches}, on this Python."""
    names: dict[str, Any] = {}
    exec(DIGESTS, names)
    return names["digests"](ROOT / "vggbn")


def test_the_digest_is_the_same_on_every_python(tmp_path):
    """Only the modules that take it go along: they need nothing else."""
    others = pythons()
    if not others:
        pytest.skip("no other Python on this machine")
    (tmp_path / "vggbn").mkdir()
    shutil.copy(ROOT / "vggbn" / "__init__.py", tmp_path / "vggbn")
    shutil.copytree(ROOT / "vggbn" / "identity", tmp_path / "vggbn" / "identity")
    code = (
        f"import json, sys\nfrom pathlib import Path\nsys.path.insert(0, {str(tmp_path)!r})\n"
        f"{DIGESTS}\nprint(json.dumps(digests(Path(sys.argv[1]))))"
    )
    for python in {others[min(others)], others[max(others)]}:
        run = subprocess.run(
            [python, "-I", "-c", code, str(ROOT / "vggbn")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, f"{python}: {run.stderr}"
        assert json.loads(run.stdout) == digests(), python


def test_every_definition_of_the_package_can_be_read():
    assert len(digests()) > 50


def test_a_package_may_import_its_own_submodule():
    """As vggbn/__init__.py does for type checkers: the name is the submodule, not a circle."""
    files = {
        "__init__.py": "from made_up import inner\n",
        "inner.py": "from made_up import inner\n\ndef f(x):\n    return x + 1\n",
        "user.py": "import made_up\n\ndef g(x):\n    return made_up.inner.f(x)\n",
    }
    found = reach(Package("made_up", files), ["made_up.user.g"], {})
    assert set(found.definitions) >= {"made_up.user.g", "made_up.inner.f"}
