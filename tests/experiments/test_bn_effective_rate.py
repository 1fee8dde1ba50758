"""BN-35: the identity holds as computed, and each half of it is needed."""

import numpy as np
import pytest

from experiments import bn_effective_rate as this
from vggbn.machine.compiling import enable_x64


@pytest.fixture(scope="module")
def net():
    return this.train(start=this.TIMES**-0.5)


def test_the_claim_holds_and_says_by_how_much():
    holds, detail = this.check_effective_rate()
    assert holds and "with eps 0" in detail


def sgd_by_hand(rate, l2, start):
    """Losses of the net with its gradients by finite differences: none of the suite's code but the
    first parameters. Four steps."""
    rng = np.random.default_rng(0)
    x_SND = rng.normal(size=(this.BATCHES, this.BATCH, this.WIDTHS[0]))
    labels_SN = rng.integers(this.WIDTHS[-1], size=(this.BATCHES, this.BATCH))
    with enable_x64():
        params = this._first(rng, start)
    out = params["rest"]["out"]
    leaves = [*map(np.array, params["kernels"]), np.array(out["kernel"]), np.array(out["bias"])]
    leaves += [np.array(norm[name]) for norm in params["rest"]["norms"] for name in norm]
    names = [name for norm in params["rest"]["norms"] for name in norm]

    def loss(leaves, x, labels):
        kernels, (last, bias), norms = leaves[:2], leaves[2:4], leaves[4:]
        for i, kernel in enumerate(kernels):
            norm = dict(zip(names[:2], norms[2 * i : 2 * i + 2], strict=True))
            x = x @ kernel
            x = (x - x.mean(0)) / x.std(0)
            x = np.maximum(norm["scale"] * x + norm["bias"], 0)
        logits = x @ last + bias
        top = logits.max(1, keepdims=True)
        return (
            np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[range(len(x)), labels]
        ).mean()

    velocity = [np.zeros_like(leaf) for leaf in leaves]
    losses = []
    for step in range(4):
        batch = x_SND[step], labels_SN[step]
        losses.append(loss(leaves, *batch))
        gradients = [derivative(lambda: loss(leaves, *batch), leaf) for leaf in leaves]  # noqa: B023
        for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            kernel = i < 2
            velocity[i] = this.MOMENTUM * velocity[i] + gradient
            velocity[i] += this.L2 * (l2 if kernel else 1) * leaf
            leaf -= this.RATE * (rate if kernel else 1) * velocity[i]
    return losses


def derivative(value, leaf, by=1e-6):
    found = np.zeros_like(leaf)
    for at in np.ndindex(leaf.shape):
        before = leaf[at]
        leaf[at] = before + by
        above = value()
        leaf[at] = before - by
        found[at] = (above - value()) / (2 * by)
        leaf[at] = before
    return found


@pytest.mark.parametrize(
    ("rate", "l2", "start"), [(this.TIMES, 1 / this.TIMES, 1.0), (1.0, 1.0, this.TIMES**-0.5)]
)
def test_both_trainings_are_sgd_with_the_printed_settings(rate, l2, start):
    ours = this.train(kernel_rate=rate, kernel_l2=l2, start=start).losses[:4]
    assert ours == pytest.approx(sgd_by_hand(rate, l2, start), rel=1e-6)


@pytest.mark.parametrize(
    "broken", [{"kernel_rate": 4.0, "kernel_l2": 0.2}, {"kernel_rate": 5.0, "kernel_l2": 0.25}]
)
def test_another_pair_is_another_training(net, broken):
    assert this.farthest(net, this.train(**broken), this.TIMES**0.5) > 1e-3


def test_kernels_that_are_not_scaled_alike_are_found(net):
    other = net._replace(kernels=[1.001 * kernel for kernel in net.kernels])
    assert this.farthest(net, other) == pytest.approx(0.001, rel=0.01)
