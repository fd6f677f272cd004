"""Tiles of the empirical NTK from Jacobians of single examples."""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from widthwise.probe._examples import ExampleGradients
from widthwise.probe._modules import rows_that_fit

_COLUMNS = 32  # examples whose Jacobians are made in one vectorised call

Tile = tuple[slice, slice, Tensor]
"""Rows, columns, ``[rows, columns]`` or ``[rows, columns, heads, heads]``."""


class JacobianTiles:
    """The Jacobians of a chunk of rows are kept while those of the columns stream past.

    Args:
        gradients: of the heads.
        heads: how many.
        chunk: rows at once; None: what fits in a quarter of the free memory, at most 2 GiB.
        full: pairs of heads apart, not the sum over equal heads.
    """

    def __init__(self, gradients: ExampleGradients, heads: int, chunk: int | None, *, full: bool) -> None:
        self.gradients = gradients
        self.heads = heads
        self.rows = chunk or _rows(gradients.parameters, heads)
        self.columns = max(1, min(_COLUMNS, self.rows // 4))
        self.full = full

    def __call__(self, x1: Tensor, x2: Tensor | None) -> Iterator[Tile]:
        """Tiles that cover all pairs; with `x2` None those on and above the diagonal."""
        for rows in pieces(0, len(x1), self.rows):
            jacobian = self._jacobian(x1[rows])
            if x2 is None:
                tile = self._tile(jacobian, jacobian)
                yield rows, rows, (tile + transposed(tile)) / 2
            others = x1 if x2 is None else x2
            for columns in pieces(rows.stop if x2 is None else 0, len(others), self.columns):
                yield rows, columns, self._tile(jacobian, self._jacobian(others[columns]))

    def _jacobian(self, x: Tensor) -> Tensor:
        """``[n, heads, parameters]``."""
        parameters = self.gradients.parameters
        total = sum(tensor.numel() for tensor in parameters.values())
        first = next(iter(parameters.values()))
        result = torch.empty((len(x), self.heads, total), dtype=first.dtype, device=first.device)
        for rows in pieces(0, len(x), self.columns):
            part = self.gradients(x[rows])
            torch.cat([part[name].flatten(2) for name in parameters], dim=2, out=result[rows])
        return result

    def _tile(self, left: Tensor, right: Tensor) -> Tensor:
        if self.full:
            return torch.einsum("iap,jbp->ijab", left, right)
        return left.flatten(1) @ right.flatten(1).T


def _rows(parameters: dict[str, Tensor], heads: int) -> int:
    first = next(iter(parameters.values()))
    numbers = heads * sum(prod(tensor.shape) for tensor in parameters.values())
    return rows_that_fit(numbers * first.element_size(), first.device, "the Jacobian")


def transposed(tile: Tensor) -> Tensor:
    """The tile of the pairs the other way round."""
    return tile.transpose(0, 1) if tile.ndim == 2 else tile.permute(1, 0, 3, 2)


def pieces(start: int, stop: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover ``start:stop``."""
    return (slice(left, min(left + size, stop)) for left in range(start, stop, size))
