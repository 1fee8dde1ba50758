"""Every example once: sizes around the batch, ties, NaN, and what a mean of means misses."""

import numpy as np
import pytest
import scipy.special

from tests.evaluate.test_rank import place
from vggbn.data import Split
from vggbn.evaluate import evaluate, outputs, predict, single
from vggbn.evaluate.trained import Trained
from vggbn.models import MODELS, Model, Net

# These grey values are logits of the fake net that are not finite.
NOT_FINITE = {255: np.nan, 254: np.inf, 253: -np.inf}


def fake(net):
    """A net whose logits are the pixels, in tenths: the tests write them as images."""
    import jax.numpy as jnp

    def apply(variables, x_NHWC, *, train, key=None, dropout=0.0, decay=0.9):
        assert not train
        values_NK = jnp.round(x_NHWC.reshape(x_NHWC.shape[0], -1) * 255)
        logits_NK = values_NK / 10
        for grey, logit in NOT_FINITE.items():
            logits_NK = jnp.where(values_NK == grey, logit, logits_NK)
        return logits_NK, {}

    return Model(lambda key, initialiser: {}, apply)


@pytest.fixture(autouse=True)
def fake_net(monkeypatch):
    monkeypatch.setitem(MODELS, "fake", fake)


def trained(classes=10, mean=0.0, std=1.0):
    net = Net(image=(1, classes, 1), classes=classes, model="fake")
    return Trained(net, {}, np.float32([mean]), np.float32(std))


def split_of(pixels_NK, labels_N) -> Split:
    pixels_NK = np.asarray(pixels_NK, np.uint8)
    return Split(pixels_NK[:, None, :, None], np.asarray(labels_N, np.int32))


def scores(pixels_NK, labels_N):
    split = split_of(pixels_NK, labels_N)
    return evaluate(trained(split.images_NHWC.shape[2]), split)


def random_split(n, classes=10, seed=0):
    """Distinct grey values in each row, so that nothing is tied."""
    rng = np.random.default_rng([seed, n])
    pixels_NK = np.stack([rng.permutation(200)[:classes] for _ in range(n)])
    return pixels_NK, rng.integers(0, classes, n)


def by_numpy(pixels_NK, labels_N):
    """(top-1 hits, top-5 hits, mean loss) by sorting, in float64."""
    order_NK = np.argsort(-pixels_NK, axis=1)
    top1 = (order_NK[:, 0] == labels_N).sum()
    top5 = (order_NK[:, :5] == labels_N[:, None]).sum()
    log_p_NK = scipy.special.log_softmax(pixels_NK / 10, axis=1)
    return top1, top5, -log_p_NK[np.arange(len(labels_N)), labels_N].mean()


@pytest.mark.parametrize("n", [1, 249, 250, 251, 500])
def test_every_example_counts_once(n):
    assert single.BATCH == 250, "the sizes above surround the batch"
    pixels_NK, labels_N = random_split(n)
    result = scores(pixels_NK, labels_N)
    top1, top5, loss = by_numpy(pixels_NK, labels_N)
    assert result["n"] == n
    assert result["correct"] == top1
    assert result["accuracy"] == top1 / n
    assert result["top5"] == top5 / n
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    if n > 1:
        assert 0 < top1 < top5 < n


def test_it_is_no_mean_of_batch_means():
    # 250 wrong ones, then one right: a mean of two batches' means would be 0.5
    pixels_NK = np.zeros((251, 10))
    pixels_NK[:250, 1] = pixels_NK[250, 0] = 200
    result = scores(pixels_NK, np.zeros(251))
    assert result["accuracy"] == 1 / 251 and result["correct"] == 1
    right, wrong = np.log(1 + 9 * np.exp(-20.0)), 20 + np.log(1 + 9 * np.exp(-20.0))
    assert result["loss"] == pytest.approx((250 * wrong + right) / 251, rel=1e-6)


def test_padding_counts_for_nothing():
    # padded rows have label 0 and black pixels: right, were they looked at with a biased net
    pixels_NK = np.tile([10, 20, 30], (3, 1))
    result = scores(pixels_NK, [2, 2, 0])
    assert (result["correct"], result["n"]) == (2, 3)
    assert result["loss"] == pytest.approx(by_numpy(pixels_NK, np.array([2, 2, 0]))[2], rel=1e-5)


def test_ties_count_as_wrong():
    even = np.full((4, 10), 7)  # a constant net knows nothing
    assert scores(even, [0, 3, 5, 9])["correct"] == 0
    assert scores(even, [0, 3, 5, 9])["top5"] == 0
    shared_best = np.array([[50, 50, 0, 0, 0, 0, 0, 0, 0, 0]] * 2)
    result = scores(shared_best, [0, 2])
    assert result["correct"] == 0
    assert result["top5"] == 0.5  # of two, but not of ten


@pytest.mark.parametrize("grey", NOT_FINITE)
@pytest.mark.parametrize("where", ["all", "own", "another"])
def test_an_image_with_a_logit_that_is_not_finite_is_wrong(where, grey):
    pixels_NK = np.tile(np.arange(100, 0, -10), (3, 1))
    label = 0
    columns = {"all": slice(None), "own": 0, "another": 5}[where]
    pixels_NK[1, columns] = grey
    result = scores(pixels_NK, [label] * 3)
    finite = where == "another" and NOT_FINITE[grey] < 0  # a class that is impossible costs nothing
    right = 2 + finite
    assert (result["correct"], result["accuracy"], result["n"]) == (right, right / 3, 3)
    assert result["top5"] == right / 3
    assert np.isfinite(result["loss"]) == finite


def test_the_jitted_sums_score_as_the_rule_says():
    rng = np.random.default_rng(4)
    values = [0, 30, 60, 90, 120, *NOT_FINITE]  # few, so that ties are common
    often = [*5 * [30], *3 * [1]]
    pixels_NK = rng.choice(values, (600, 7), p=np.divide(often, sum(often)))
    labels_N = rng.integers(0, 7, 600)
    logits_NK = [[NOT_FINITE.get(grey, grey / 10) for grey in row] for row in pixels_NK.tolist()]
    found = scores(pixels_NK, labels_N)
    places = [place(row, label) for row, label in zip(logits_NK, labels_N, strict=True)]
    assert found["correct"] == sum(p < 1 for p in places) > 20
    assert found["top5"] == np.mean([p < 5 for p in places])


def test_top5_of_fewer_classes_is_always_right():
    pixels_NK, labels_N = random_split(20, classes=3)
    assert scores(pixels_NK, labels_N)["top5"] == 1
    assert scores(pixels_NK, labels_N)["accuracy"] < 1


def test_the_total_is_asserted(monkeypatch):
    whole = single.padded_batches
    pixels_NK, labels_N = random_split(251)

    def without_the_tail(split):
        yield next(whole(split))

    def twice(split):
        yield from whole(split)
        yield from whole(split)

    for broken, count in ((without_the_tail, 250), (twice, 502)):
        monkeypatch.setattr(single, "padded_batches", broken)
        with pytest.raises(AssertionError, match=f"evaluated {count} of 251"):
            scores(pixels_NK, labels_N)


def test_pixels_are_standardised_by_the_training_sets_moments():
    # (x/255 - mean)/std is 10 times the pixel for mean = 0, std = 0.1: the fake net rounds it
    pixels_NK, labels_N = random_split(5)
    split = split_of(pixels_NK // 10, labels_N)
    stretched = predict(trained(std=0.1), split)
    expected = scipy.special.softmax(pixels_NK // 10 * 10 / 10, axis=1)
    np.testing.assert_allclose(stretched, expected, rtol=1e-4)
    shifted = predict(trained(mean=1 / 255, std=0.1), split)
    np.testing.assert_allclose(shifted, expected, rtol=1e-4)  # softmax ignores a shift


# --- predict -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 250, 251])
def test_predictions_keep_the_order_and_sum_to_one(n):
    pixels_NK, labels_N = random_split(n)
    split = split_of(pixels_NK, labels_N)
    probabilities = predict(trained(), split)
    assert probabilities.shape == (n, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    expected = scipy.special.softmax(pixels_NK / 10, axis=1)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    assert (probabilities.argmax(1) == labels_N).sum() == scores(pixels_NK, labels_N)["correct"]


def test_outputs_are_the_logits_and_their_softmax():
    pixels_NK, labels_N = random_split(251)
    split = split_of(pixels_NK, labels_N)
    found = outputs(trained(), split)
    np.testing.assert_allclose(found.logits_NK, pixels_NK / 10, rtol=1e-6)
    np.testing.assert_allclose(
        found.p_NK, scipy.special.softmax(found.logits_NK, axis=1), rtol=1e-5
    )


# --- a real net ----------------------------------------------------------------------------------


def test_a_real_net_is_evaluated_with_its_stored_statistics():
    net = Net((1, 4, 1), 3, "mlp", fc=5, norm="batch", activation="tanh")
    rng = np.random.default_rng(0)
    layer = lambda i, o: {"kernel": rng.normal(size=(i, o)).astype(np.float32)}  # noqa: E731
    params = {"fc1": layer(4, 5), "fc2": layer(5, 5), "fc3": layer(5, 5), "fc4": layer(5, 3)}
    params["fc4"]["bias"] = np.float32([0.1, 0.2, -0.3])
    stats = {}
    for i in (1, 2, 3):
        draw = lambda: rng.uniform(0.5, 1.5, 5).astype(np.float32)  # noqa: E731
        params[f"norm_fc{i}"] = {"scale": draw(), "bias": draw()}
        stats[f"norm_fc{i}"] = {"mean": draw(), "var": draw()}
    split = split_of(rng.integers(0, 256, (7, 4)), rng.integers(0, 3, 7))
    variables = {"params": params, "batch_stats": stats}
    trained_net = Trained(net, variables, np.float32([0.4]), np.float32(0.3))
    ours = predict(trained_net, split)
    x = (split.images_NHWC.reshape(7, 4) / 255 - 0.4) / 0.3
    for i in (1, 2, 3):
        own, moments = params[f"norm_fc{i}"], stats[f"norm_fc{i}"]
        x = x @ params[f"fc{i}"]["kernel"].astype(np.float64)
        x = (x - moments["mean"]) / np.sqrt(moments["var"] + 1e-5) * own["scale"] + own["bias"]
        x = np.tanh(x)
    logits = x @ params["fc4"]["kernel"] + params["fc4"]["bias"]
    np.testing.assert_allclose(ours, scipy.special.softmax(logits, axis=1), rtol=1e-4)
    # one example alone has the same probabilities as among others
    alone = predict(trained_net, split.take(np.array([3])))
    np.testing.assert_allclose(alone[0], ours[3], rtol=1e-6)
