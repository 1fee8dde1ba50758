"""The model of a step on several chips: closed forms, a ring all-reduce in NumPy, Google's sums."""

import math

import numpy as np
import pytest

from vggbn.forecast.machines import (
    H100_NODE,
    ICI,
    TPU_V5E,
    UTILISATION,
    Machine,
    all_reduce_seconds,
    modelled,
)

STEP = {"flops": 4e12, "touched": 3e9, "reduced": 5e8}


def machine(links: float, bandwidth: float = 1e12) -> Machine:
    return Machine(
        "toy", "chip", {"float32": 1e13}, 1e10, bandwidth, dict.fromkeys((1, 8), links), ()
    )


def times(chips: int, links: float, bandwidth: float = 1e12):
    return modelled(machine(links, bandwidth), chips, "float32", **STEP)


def test_one_chip_and_free_links_lose_nothing():
    assert times(1, 1e9).efficiency == (1, 1)
    assert times(8, math.inf).efficiency == (1, 1)


def test_half_the_bandwidth_is_twice_the_time():
    fast, slow = times(8, 2e9), times(8, 1e9)
    assert slow.all_reduce == pytest.approx(2 * fast.all_reduce) and fast.all_reduce > 0
    assert slow.compute == fast.compute and slow.memory == fast.memory


def test_efficiency_without_overlap_and_with_all_of_it():
    found = times(8, 1e9)
    compute, sums = 4e12 / (UTILISATION * 1e13), 2 * 7 / 8 * 5e8 / 1e9
    assert (found.compute, found.all_reduce) == pytest.approx((compute, sums))
    assert found.efficiency == pytest.approx((compute / (compute + sums), 1))
    hidden = times(8, 0.5e9)  # the all-reduce takes longer than all the rest
    assert hidden.efficiency == pytest.approx((compute / (compute + 2 * sums), compute / 2 / sums))


def test_the_slower_of_arithmetic_and_memory_counts():
    found = times(8, 1e9, bandwidth=1e9)
    assert found.alone == found.memory == pytest.approx(3)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_ring_sends_as_much_as_the_formula_says(n):
    """Reduce-scatter, then all-gather, of n chunks: the bytes each chip sends, counted."""
    held = np.random.default_rng(0).normal(size=(n, n, 4))  # chip, chunk, values
    wanted, sent = held.sum(0), np.zeros(n)
    for phase, t in [(phase, t) for phase in ("add", "copy") for t in range(n - 1)]:
        before = held.copy()
        for chip in range(n):
            chunk = (chip - t + (phase == "copy")) % n
            to = held[(chip + 1) % n]
            to[chunk] = before[chip, chunk] + (before[(chip + 1) % n, chunk] * (phase == "add"))
            sent[chip] += held[chip, chunk].nbytes
    np.testing.assert_allclose(held, np.broadcast_to(wanted, held.shape))
    assert all_reduce_seconds(n, held[0].nbytes, bandwidth=1) == pytest.approx(sent.max())


def test_the_pod_is_google_s():
    """All-reduce bandwidth per pod: 51.2 TB/s. Bisection: 1.6 TB/s, of 16 rings cut twice."""
    assert 256 * TPU_V5E.links[256] == pytest.approx(51.2e12)
    bisection = 2 * 16 * ICI
    assert bisection == pytest.approx(1.6e12)
    assert list(TPU_V5E.links) == [4, 8, 16, 32, 64, 128, 256]
    assert pytest.approx(4 * 2 * ICI) == 400e9


@pytest.mark.parametrize("each", [TPU_V5E, H100_NODE])
def test_every_figure_has_its_source(each):
    text = " ".join(each.sources)
    for figure in ("HIGHEST" if each is TPU_V5E else "float32", f"{each.memory / 1e9:.0f} GB"):
        assert figure in text
    assert each.peak.keys() == {"float32", "bfloat16"}
