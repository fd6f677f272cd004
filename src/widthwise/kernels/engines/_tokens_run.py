"""Runs token plans: tiles of a matrix, each from what its two sides bring along."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widthwise.core import progress
from widthwise.kernels.engines._tokens_plan import TokenPlan
from widthwise.kernels.engines._tokens_sides import Side, pairs_of, side_of

if TYPE_CHECKING:
    from widthwise.kernels._limit import Limit

KEPT_BYTES = 1 << 28
LEAST_SIDE, MOST_SIDE = 64, 4096

started: set[torch.dtype] = set()
"""Precisions in which the machine has run in this process."""


class Runner:
    """One evaluation of a plan."""

    def __init__(self, limit: "Limit", plan: TokenPlan, dtype: torch.dtype) -> None:
        self.limit, self.plan, self.dtype = limit, plan, dtype
        self.real = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
        self.known: dict[tuple[int, int], Side] = {}

    def grams(self, x1: Tensor, x2: Tensor | None, show: bool) -> Tensor | None:
        """``[outputs, 2, n1, n2]``; None where an input does not fit."""
        sides = (x1, x1 if x2 is None else x2)
        n1, n2 = (x.shape[0] for x in sides)
        side = min(max(KEPT_BYTES // (16 * self.plan.places), LEAST_SIDE), MOST_SIDE)
        tiles = [(i, j) for i in range(0, n1, side) for j in range(0, n2, side) if x2 is not None or j >= i]
        result = torch.empty(self.plan.outputs, 2, n1, n2, dtype=self.dtype) if len(tiles) > 1 else None
        with progress("kernel tiles", len(tiles), show=show and len(tiles) > 1) as advance:
            for i, j in tiles:
                rows, columns = slice(i, min(i + side, n1)), slice(j, min(j + side, n2))
                same = x2 is None and i == j
                left = self._side(sides, 0, rows, x2 is None)
                right = left if same else self._side(sides, 0 if x2 is None else 1, columns, x2 is None)
                if left is None or right is None:
                    return None
                tile = torch.from_numpy(pairs_of(self.plan, left, right, self.real, same=same))
                if result is not None:
                    result[:, :, rows, columns] = tile
                if result is not None and x2 is None and not same:
                    result[:, :, columns, rows] = tile.transpose(2, 3)
                advance(1)
        started.add(self.dtype)
        return tile if result is None else result

    def _side(self, sides: tuple[Tensor, Tensor], which: int, rows: slice, diagonal: bool) -> Side | None:
        """What some of the inputs bring along; that of two tiles is kept."""
        key = (which, rows.start)
        if key not in self.known:
            run = self.limit.evaluator(sides[which][rows], None, torch.float64)
            found = side_of(self.plan, run, self.real, diagonal=diagonal)
            if found is None:
                return None
            while len(self.known) > 1:
                del self.known[next(iter(self.known))]
            self.known[key] = found
        return self.known[key]
