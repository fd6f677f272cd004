"""Which pairs of inputs the token machine's blocks take, and its threads."""

from collections import Counter
from functools import partial
from threading import Barrier

import pytest

from widthwise.kernels.engines._tokens_pairs import blocks, tiles
from widthwise.kernels.engines._tokens_threads import together


def taken(n1: int, n2: int, lanes: int, same: bool) -> Counter:
    """How often each pair is evaluated; windows stay within the columns of their tile."""
    layout = tiles(n2, lanes)
    found: Counter = Counter()
    for left, place, start, count in blocks(n1, n2, lanes, same).tolist():
        _, size, base = layout.table[place].tolist()
        assert 0 <= start < size and 0 < count <= lanes
        found.update((left, base + (start + lane) % size) for lane in range(count))
    return found


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 17, 33, 64, 65, 80, 127, 150])
def test_each_pair_once(n: int, lanes: int) -> None:
    """Different inputs in one order or the other, never with themselves."""
    found = taken(n, n, lanes, True)
    unordered = Counter(tuple(sorted(pair)) for pair in found.elements())
    assert unordered == Counter((i, j) for j in range(n) for i in range(j))


@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (3, 70), (20, 16), (65, 5)])
def test_rectangles(n1: int, n2: int) -> None:
    assert taken(n1, n2, 8, False) == Counter((i, j) for j in range(n2) for i in range(n1))


def test_no_lanes_are_lost_at_the_diagonal() -> None:
    """64 inputs have 2016 pairs: 126 registers of 16."""
    assert len(blocks(64, 64, 16, True)) == 128
    assert len(blocks(256, 256, 16, True)) == 2048


def waits(barrier: Barrier) -> None:
    barrier.wait()


def test_threads_work_together() -> None:
    """Three at once or the barrier breaks; afterwards the same threads serve again, and errors come through."""
    for _ in range(3):
        barrier = Barrier(3, timeout=60)
        together(partial(waits, barrier), 3)

    def fails() -> None:
        raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        together(fails, 2)
