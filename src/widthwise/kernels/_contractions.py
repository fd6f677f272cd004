"""How matrices and fixed linear maps act on position axes."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Contraction:
    """How a random matrix acts on position axes.

    Attributes:
        diagonal: maps moments at equal positions ``[N, *P]`` to such moments ``[N, *P']`` of the product.
        full: maps moments at all pairs ``[N, *P, *Q]`` to ``[N, *P', *Q']``.
        positions: P'.
        key: says the same in comparable form: the uses of one matrix have to agree on it.
        needs_diagonal_only: the product has no positions left, so that full moments are never needed.
    """

    positions: Sizes
    key: tuple
    diagonal: Callable[[Tensor], Tensor]
    full: Callable[[Tensor], Tensor]
    needs_diagonal_only: bool = False


@dataclass(frozen=True, eq=False)
class Move:
    """A fixed linear map of position axes, ``apply``: ``[N, *P]`` to ``[N, *P']``.

    Attributes:
        gathers: whether each result position copies one position or zero: then moments at equal positions map to
            moments at equal positions.
    """

    positions: Sizes
    apply: Callable[[Tensor], Tensor]
    gathers: bool


def position_diagonal(moment: Tensor, sizes: Sizes) -> Tensor:
    """``[N, *P, *P]`` to ``[N, *P]``: pairs of equal positions."""
    count = prod(sizes)
    return torch.diagonal(moment.reshape(-1, count, count), dim1=1, dim2=2).reshape(-1, *sizes)
