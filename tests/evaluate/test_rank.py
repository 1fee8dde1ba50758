"""One rule for all that is scored: a tie is wrong, and so is an image with a score that is not
finite; in the jitted sums, in NumPy, on the command line, in a view."""

import csv
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggbn.commands import evaluate as command
from vggbn.data import Split
from vggbn.evaluate import choice_N, rank_N, scores
from vggbn.evaluate.rank import finite_rank_N
from vggbn.experiment import views
from vggbn.models import MODELS, Model
from vggbn.runs import posteriors
from vggbn.runs import run as runs
from vggbn.training.recipe import Recipe

NOT_RANKED = 99  # behind any k


def place(row, label):
    """The label's place, 0 the best, in an order that puts it last among its equals."""
    if any(math.isnan(s) or s == math.inf for s in row) or row[label] == -math.inf:
        return NOT_RANKED  # its softmax is not finite
    order = sorted(range(len(row)), key=lambda k: (-row[k], k == label))
    return order.index(label)


# Few values, so that ties are common.
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0, 1e-30, 3e38, math.nan, math.inf, -math.inf])


@st.composite
def scored(draw):
    """(scores [N, K], labels [N])"""
    n, K = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    finite = draw(st.booleans())
    values = SCORES.filter(math.isfinite) if finite else SCORES
    rows = [draw(st.lists(values, min_size=K, max_size=K)) for _ in range(n)]
    labels = [draw(st.integers(0, K - 1)) for _ in range(n)]
    return np.float32(rows), np.int32(labels)


@given(scored())
def test_ranks_are_those_of_an_order_by_hand(drawn):
    scores_NK, labels_N = drawn
    rows = zip(scores_NK.tolist(), labels_N.tolist(), strict=True)
    expected = [place(row, label) for row, label in rows]
    found = rank_N(scores_NK, labels_N)
    assert isinstance(found, np.ndarray)
    for k in (1, 5):
        assert (found < k).tolist() == [p < k for p in expected]
    ranked = [(r, p) for r, p in zip(found.tolist(), expected, strict=True) if p != NOT_RANKED]
    assert all(r == p for r, p in ranked)
    if np.isfinite(scores_NK).all():
        np.testing.assert_array_equal(finite_rank_N(jnp.array(scores_NK), labels_N), found)
    result = scores(scores_NK, labels_N, scores_NK.shape[1])
    assert result["correct"].tolist() == [p < 1 for p in expected]
    assert result["top5"] == np.mean([p < 5 for p in expected])
    choices = [
        next((k for k in range(len(row)) if place(row, k) == 0), -1) for row in scores_NK.tolist()
    ]
    assert choice_N(scores_NK).tolist() == choices


def test_ranks_are_the_same_inside_a_jitted_function():
    rng = np.random.default_rng(0)
    scores_NK = rng.integers(0, 4, (3000, 6)).astype(np.float32)
    labels_N = rng.integers(0, 6, 3000)
    found = jax.jit(finite_rank_N)(scores_NK, labels_N)
    np.testing.assert_array_equal(found, rank_N(scores_NK, labels_N))
    assert len(np.unique(found)) == 6


def test_saturated_posteriors():
    logits_NK = np.float32([[900, 500, 400, 300, 200, 100, 0], [0, 0, 900, 0, 0, 0, 0]])
    p_NK = np.asarray(jax.nn.softmax(logits_NK))
    assert p_NK[0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert rank_N(p_NK, np.array([0, 2])).tolist() == [0, 0]  # a clear decision is no tie
    # behind it posteriors cannot tell what logits can
    assert rank_N(p_NK, np.array([1, 2])).tolist() == [6, 0]
    assert rank_N(logits_NK, np.array([1, 2])).tolist() == [1, 0]


# --- the command line ----------------------------------------------------------------------------


def matrix(text):
    """The header of a printed confusion matrix of ants and bees, and {class: its counts}."""
    header = re.search(r"^true \\ predicted (.*)$", text, re.M).group(1).split()
    rows = re.findall(r"^(ant|bee) ([\d ]+)$", text, re.M)
    return header, {name: list(map(int, counts.split())) for name, counts in rows}


def percent(text, name):
    return float(re.search(rf"^{name} +([\d.]+) %", text, re.M).group(1))


def split_of(labels):
    return Split(np.zeros((len(labels), 1, 1, 1), np.uint8), np.int32(labels))


def test_of_six_classes_top_5_is_told():
    text = command.report(np.float32([range(6), range(6)]), split_of([0, 1]), tuple("abcdef"))
    assert percent(text, "top-5") == 50 and percent(text, "top-1") == 0


def test_the_matrix_has_a_column_for_no_prediction_where_there_are_such():
    split = split_of([0, 0, 1, 1])
    rows = [[2, 1], [1, 1], [0, 3], [np.nan, 1]]
    text = command.report(np.float32(rows), split, ("ant", "bee"))
    header, counts = matrix(text)
    assert header == ["ant", "bee", "(none)"]
    assert counts == {"ant": [1, 0, 1], "bee": [0, 1, 1]}
    assert percent(text, "top-1") == percent(text, "balanced accuracy") == 50
    assert "top-5" not in text  # of two classes every one is among the first five
    assert text.splitlines()[-1].startswith("(none): no prediction")
    plain = command.report(np.float32(rows[::2]), split.take(np.array([0, 2])), ("ant", "bee"))
    header, counts = matrix(plain)
    assert header == ["ant", "bee"] and counts == {"ant": [1, 0], "bee": [0, 1]}
    assert "none" not in plain


def test_the_matrix_s_diagonal_is_what_is_right():
    rng = np.random.default_rng(2)
    logits_NK = rng.integers(0, 5, (400, 6)).astype(np.float32)
    logits_NK[rng.integers(0, 400, 30), rng.integers(0, 6, 30)] = np.inf
    split = split_of(rng.integers(0, 6, 400))
    counts = command.confusion(logits_NK, split)
    assert counts.shape == (6, 7) and counts.sum() == 400
    assert counts.trace() == scores(logits_NK, split.labels_N, 6)["correct"].sum() > 20
    for k in range(6):
        assert counts[k].sum() == (split.labels_N == k).sum()


def test_the_csv_leaves_the_prediction_empty_where_there_is_none(tmp_path):
    logits_NK = np.float32([[0, 2], [1, 1], [np.nan, 1]])
    p_NK = np.float32([[0.1, 0.9], [0.5, 0.5], [np.nan, np.nan]])
    path = tmp_path / "p.csv"
    command.write_predictions(path, logits_NK, p_NK, split_of([0, 1, 1]), ("ant", "bee"))
    found = list(csv.reader(path.read_text().splitlines()))
    assert found == [
        ["index", "true", "predicted", "ant", "bee"],
        ["0", "ant", "bee", "0.1", "0.9"],
        ["1", "bee", "", "0.5", "0.5"],
        ["2", "bee", "", "nan", "nan"],
    ]


# --- one net, scored everywhere ------------------------------------------------------------------


def two_classes(folder):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(
                folder / name / f"{i}.png"
            )
    return folder


def constant(net):
    """Both classes get the same logit, whatever the image and the weights."""

    def init(key, initialiser, scale=1.0):
        return {"params": {"fc4": {"kernel": jnp.ones(())}}, "batch_stats": {}}

    def apply(variables, x_NHWC, *, train, **_):
        kernel = variables["params"]["fc4"]["kernel"]
        logits_NK = jnp.zeros((len(x_NHWC), net.classes)) * kernel
        return logits_NK + 0 * x_NHWC.sum((1, 2, 3))[:, None], {}

    return Model(init, apply)


def test_a_constant_net_is_right_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "mlp", constant)
    data = f"folder:{two_classes(tmp_path / 'images')}"
    recipe = Recipe(
        data=data, split="fixed", image_size=8, model="mlp", fc=3, steps=3, evaluations=1,
        population_batches=1, batch=8,
    )  # fmt: skip
    store = runs.Store(tmp_path / "out" / "runs")
    record = runs.get_run(recipe, 0, store).record
    final = record["final"]
    assert (final["test_accuracy"], final["val_accuracy"], final["train_accuracy"]) == (0, 0, 0)
    with pytest.raises(SystemExit) as done:
        csv_path = tmp_path / "p.csv"
        command.main([str(store.folder(recipe, 0)), data, "--csv", str(csv_path)])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert percent(text, "top-1") == percent(text, "balanced accuracy") == 0
    assert final["test_top5"] == 1 and "top-5" not in text  # of two classes all are
    header, counts = matrix(text)
    n = final["test_n"]
    assert header == ["ant", "bee", "(none)"]
    assert counts == {"ant": [0, 0, n // 2], "bee": [0, 0, n // 2]}
    assert [row[2] for row in csv.reader(csv_path.read_text().splitlines())] == [
        "predicted",
        *n * [""],
    ]
    posteriors.compute_posterior(recipe, 0, store, "by_batch", n)
    view = views.view("net", n, by=("by_batch",))
    line = views.record(view, {"net": recipe}, 0, store)
    assert (line["final"]["test_accuracy"], line["final"]["test_balanced"]) == (0, 0)
    assert not views.correct(line).any()
