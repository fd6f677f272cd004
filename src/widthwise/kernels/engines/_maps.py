"""Position maps as one small matrix per axis, and which displacements they join."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch

from widthwise.kernels._fields import Move, Sizes

Grid = tuple[int, int]
Shift = tuple[int, int]
MOST_POSITIONS = 4096


class Unfit(Exception):
    """The field graph is outside what the fused engine evaluates."""


def grid_of(positions: Sizes) -> Grid:
    """Height and width; a row of positions has height 1.

    Raises:
        Unfit: more than two position axes.
    """
    if len(positions) > 2:
        raise Unfit("more than two position axes")
    height, width = (1,) * (2 - len(positions)) + tuple(positions)
    return height, width


@dataclass(frozen=True)
class AxisMap:
    """A linear map of the positions of one axis, ``matrix[target, source]``."""

    matrix: np.ndarray

    @cached_property
    def targets(self) -> list[np.ndarray]:
        """Targets that read each source position."""
        return [np.flatnonzero(column) for column in self.matrix.T]

    def joined(self, shifts: set[int]) -> dict[int, set[int]]:
        """For each wanted displacement between targets, the displacements between sources that it needs."""
        sources = [np.flatnonzero(row) for row in self.matrix]
        found: dict[int, set[int]] = {}
        for shift in shifts:
            pairs = [(p, p + shift) for p in range(len(sources)) if 0 <= p + shift < len(sources)]
            found[shift] = {int(b - a) for p, q in pairs for a in sources[p] for b in sources[q]}
        return found


@dataclass(frozen=True)
class PositionMap:
    """A map of positions that acts on rows and columns apart."""

    rows: AxisMap
    columns: AxisMap
    source: Grid
    target: Grid

    @property
    def reduces(self) -> float | None:
        """The weight of each position where the map is their plain sum times it, None elsewhere."""
        if self.target != (1, 1):
            return None
        weights = np.outer(self.rows.matrix[0], self.columns.matrix[0])
        return float(weights[0, 0]) if np.allclose(weights, weights[0, 0], rtol=1e-12, atol=0) else None

    def needed(self, shifts: set[Shift]) -> set[Shift]:
        """Displacements between sources that the wanted displacements between targets need."""
        by_row = self.rows.joined({shift[0] for shift in shifts})
        by_column = self.columns.joined({shift[1] for shift in shifts})
        return {pair for dy, dx in shifts for pair in product(by_row[dy], by_column[dx])}


def position_map(move: Move, positions: Sizes) -> PositionMap | None:
    """The map read off its action on unit vectors; None where it leaves everything in place.

    Raises:
        Unfit: it does not act on rows and columns apart, or there are too many positions.
    """
    source, target = grid_of(positions), grid_of(move.positions)
    sites = source[0] * source[1]
    if sites * max(sites, target[0] * target[1]) > MOST_POSITIONS**2 // 8:
        raise Unfit("too many positions")
    units = torch.eye(sites, dtype=torch.float64).reshape(-1, *positions)
    matrix = move.apply(units).reshape(sites, -1).T.numpy()
    if source == target and np.array_equal(matrix, np.eye(sites)):
        return None
    cube = matrix.reshape(*target, *source)
    place = np.unravel_index(np.abs(cube).argmax(), cube.shape)
    columns = cube[place[0], :, place[2], :]
    rows = cube[:, place[1], :, place[3]] / cube[place]
    if not np.allclose(np.einsum("ab,cd->acbd", rows, columns), cube, rtol=1e-12, atol=1e-15):
        raise Unfit("a position map that does not act on rows and columns apart")
    return PositionMap(AxisMap(rows), AxisMap(columns), source, target)


def all_shifts(grid: Grid) -> set[Shift]:
    """Every displacement between two positions of a grid."""
    return set(product(range(1 - grid[0], grid[0]), range(1 - grid[1], grid[1])))
