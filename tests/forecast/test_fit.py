"""The search for the largest batch that fits."""

import pytest

from vggbn.forecast.fit import Bounds, Need, largest

CAPACITY = 1000


def line(n: int) -> int:
    """100 bytes of weights, two an example."""
    return 100 + 2 * n


def squeezed(n: int) -> int:
    """What a compiler does that computes again what it cannot hold, within limits."""
    return line(n) if line(n) < 900 else 900 + (line(n) - 900) // 4


def stepped(n: int) -> int:
    """What comes in tiles."""
    return 100 + 256 * -(-n // 128)


def search(size, refused: int, capacity: int = CAPACITY) -> tuple[Bounds, list[int]]:
    asked = []

    def need(n: int) -> Need:
        assert 0 < n < refused and n not in asked, "known already"
        asked.append(n)
        return Need(size(n), size(n) <= capacity)

    return largest(need, refused, size(refused), capacity), asked


@pytest.mark.parametrize("size", [line, squeezed, stepped])
@pytest.mark.parametrize("refused", [512, 640, 1000, 1023, 5000])
def test_it_is_exact_to_a_sixteenth(size, refused):
    if size(refused) <= CAPACITY:
        refused = 5000
    found, asked = search(size, refused)
    grid = max(1, 2 ** (refused.bit_length() - 1) // 16)
    fitting = [n for n in range(grid, refused, grid) if size(n) <= CAPACITY]
    if fitting:
        assert found.fits == max(fitting)
        assert found.fails == min(found.fits + grid, refused)
    assert size(found.fits) <= CAPACITY < size(found.fails)
    assert len(asked) <= 7


def test_on_a_line_two_or_three_compilations_are_enough():
    found, asked = search(line, 512)
    assert found == Bounds(448, 480) and len(asked) <= 3


def test_a_few_parts_are_tried_one_by_one():
    assert search(lambda n: 300 * n, 8) == (Bounds(3, 4), [3, 4])


def test_less_than_a_step_of_the_grid():
    found, _ = search(lambda n: 400 * n, 512)
    assert found == Bounds(2, 4)


@pytest.mark.parametrize("refused", [1, 2, 64])
def test_nothing_fits(refused):
    found, _ = search(lambda n: 2000, refused)
    assert found == Bounds(0, 1)
