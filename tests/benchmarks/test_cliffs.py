"""The cliff hunt counts the right work, meets every operation of a net, and asks for reasons."""

import jax.numpy as jnp
import pytest

from benchmarks import cliffs
from benchmarks.cliffs import Measured, Op, Piece
from vggbn.machine import compiling
from vggbn.models import Net
from vggbn.nn import fast


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "side"), [(1, 4), (3, 5), (3, 8), (5, 7), (7, 7)])
def test_work_is_counted_without_the_padding(kernel, side, stride, padding):
    given = (("padding", padding), ("stride", stride))
    op = Op("conv", (2, side, side, 3), (kernel, kernel, 3, 4), given)
    # A convolution of ones sums, at each output, the products that are none with padding.
    products = fast.plain_conv(jnp.ones(op.kernel), jnp.ones(op.x), stride=stride, padding=padding)
    assert cliffs.gflop(op) == pytest.approx(2e-9 * float(products.sum()))


def test_a_net_is_traced_with_every_operation_it_has():
    net = cliffs.traced("net", "vgg_a_lrn", Net((16, 16, 1), 10, width=1 / 8, fc=16), 4)
    assert sum(n for op, (n, _) in net.ops.items() if op.kernel) == 8
    assert sum(n for op, (n, _) in net.ops.items() if op.kind == "max_pool_2x2") == 4
    assert net.ops[Op("local_response_norm", (4, 16, 16, 8))] == (1, 1)
    # The image needs no gradient.
    assert net.ops[Op("conv", (4, 16, 16, 1), (3, 3, 1, 8))] == (1, 0)


def test_the_same_program_is_measured_once(monkeypatch):
    monkeypatch.setattr(compiling, "ENABLED", True)

    def digests(op):
        return {cliffs.lowered(Piece(op, side, "dx"))[2] for side in ("ours", "lax")}

    assert len(digests(Op("conv", (1, 8, 8, 32), (3, 3, 32, 32)))) == 1
    assert len(digests(Op("conv", (1, 2, 2, 8), (3, 3, 8, 8)))) == 2


def test_what_is_slow_and_matters_needs_a_reason(monkeypatch):
    net = cliffs.traced("net", "vgg_a", Net((16, 16, 3), 10, width=1 / 8, fc=16), 32)
    slow = Op("conv", (32, 16, 16, 3), (3, 3, 3, 8))
    found = {
        Piece(op, side, which): Measured(1.0 if (op, which) == (slow, "dw") else 30.0, 40.0)
        for op in net.ops
        for which in op.passes
        for side in net.sides
    }
    monkeypatch.setattr(cliffs, "commit", lambda: "")
    monkeypatch.setattr(cliffs, "copy", lambda size: 10.0)
    monkeypatch.setattr(cliffs, "REASONS", ())
    page, missing = cliffs.table([net], [], found)
    assert missing == 1
    assert "| 3×3 3→8 on 16×16 | dw | " in page
    why = cliffs.Reason("it is known", lambda op, which: (op, which) == (slow, "dw"))
    monkeypatch.setattr(cliffs, "REASONS", (why,))
    page, missing = cliffs.table([net], [], found)
    assert missing == 0
    assert "it is known" in page
