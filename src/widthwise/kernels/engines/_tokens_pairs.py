"""Which pairs of inputs a block of the token machine takes.

A block is one left input and a window of right inputs, one a lane. Within a tile of twice as many inputs as lanes the
window of input i begins at its neighbour ``i + 1`` and goes round: with the half of the others that follows it every
pair is met once, so that no lanes are lost at the diagonal. (Inputs with themselves are evaluated on their own.)
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEFT, PLACE, START, COUNT = range(4)
BLOCK = 4
OFFSET, SIZE, BASE = range(3)
TABLE = 3


@dataclass(frozen=True)
class Tiles:
    """Inputs in tiles: each has its first ones repeated behind it, so that a window may begin anywhere.

    Attributes:
        table: for each tile where its columns begin (counted in inputs), how many inputs it has, and its first.
        wide: columns of all tiles together.
    """

    table: np.ndarray
    wide: int


@lru_cache(64)
def tiles(count: int, lanes: int) -> Tiles:
    """Tiles of `count` inputs."""
    rows, offset = [], 0
    for base in range(0, count, 2 * lanes):
        size = min(2 * lanes, count - base)
        rows.append((offset, size, base))
        offset += size + lanes
    return Tiles(np.array(rows, np.int64), offset)


@lru_cache(8)
def blocks(n1: int, n2: int, lanes: int, same: bool) -> np.ndarray:
    """``[blocks, BLOCK]``: left input, tile, first right input within it, and how many lanes count.

    Args:
        same: both sides are the same inputs; each pair of different ones is then met once.
    """
    table = tiles(n2, lanes).table.tolist()
    found = []
    for place, (_, size, base) in enumerate(table):
        if not same:
            found.append(_rectangle(np.arange(n1), place, size, lanes))
            continue
        found.append(_around(place, size, base, lanes))
        for other, (_, width, first) in enumerate(table[:place]):
            upright, flat = width * -(-size // lanes), size * -(-width // lanes)
            if upright <= flat:
                found.append(_rectangle(first + np.arange(width), place, size, lanes))
            else:
                found.append(_rectangle(base + np.arange(size), other, width, lanes))
    return np.concatenate(found).astype(np.int32)


def _rectangle(lefts: np.ndarray, place: int, size: int, lanes: int) -> np.ndarray:
    """All of these inputs with all of a tile."""
    starts = np.repeat(np.arange(0, size, lanes), len(lefts))
    counts = np.minimum(lanes, size - starts)
    return np.stack([np.tile(lefts, -(-size // lanes)), np.full(len(starts), place), starts, counts], 1)


def _around(place: int, size: int, base: int, lanes: int) -> np.ndarray:
    """Each input of a tile with the half of the others that follows it; of opposite ones the first with the second."""
    inputs = np.arange(size)
    counts = np.where((size % 2 == 0) & (inputs >= size // 2), size // 2 - 1, size // 2)
    rows = np.stack([base + inputs, np.full(size, place), (inputs + 1) % size, counts], 1)
    return rows[counts > 0]
