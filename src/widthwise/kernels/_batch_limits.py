"""Which batches the integrals of batch norm fit, and samples for the others."""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.core import DataError
from widthwise.kernels._batch import Batch
from widthwise.kernels._batch_norm import FEWEST
from widthwise.kernels._fields import Field
from widthwise.kernels._fields_batch import BatchNormed
from widthwise.kernels._walks import below

if TYPE_CHECKING:
    from widthwise.kernels._evaluation import Limit

MOST_WITHIN, MOST_ACROSS = 1536, 1 << 17
"""Numbers standardised together (half a minute for each norm on one core), and products of two such."""


def batch_norms(output: Field) -> list[BatchNormed]:
    """The norms in training mode whose kernels are integrals."""
    return [field for field in below(output) if isinstance(field, BatchNormed)]


class SamplesInstead:
    """The same limit by samples of one coordinate, made when a batch needs it.

    Attributes:
        make: makes it; None where only integrals are wanted.
        used: whether the last batches needed it.
    """

    def __init__(self) -> None:
        self.make: Callable[[], Limit] | None = None
        self.used = False
        self._limit: Limit | None = None

    def limit(self) -> "Limit":
        assert self.make is not None
        if self._limit is None:
            self._limit = self.make()
        return self._limit

    def needed(self, norms: list[BatchNormed], sides: tuple[Tensor | Batch, Tensor | Batch | None]) -> bool:
        """Whether the integrals do not fit these batches.

        Raises:
            DataError: they do not, and samples are not wanted.
        """
        reason = next((found for norm in norms if (found := _obstacle(norm, sides)) is not None), None)
        self.used = reason is not None
        if reason is not None and self.make is None:
            raise DataError(reason)
        return self.used


def _obstacle(norm: BatchNormed, sides: tuple[Tensor | Batch, Tensor | Batch | None]) -> str | None:
    sites = prod(norm.positions)
    counts = [side.shape[0] * sites for side in sides if side is not None]
    if min(counts) < FEWEST:
        return f"a batch of {min(counts)} examples is too small for batch norm; give {FEWEST} or more."
    if max(counts) > MOST_WITHIN or (len(counts) == 2 and counts[0] * counts[1] > MOST_ACROSS):
        size = " and ".join(str(count) for count in counts)
        return (
            f"batch norm joins {size} numbers, too many for its integrals; take smaller batches, or method='sampled'."
        )
    if torch.is_grad_enabled() and any(isinstance(side, Tensor) and side.requires_grad for side in sides):
        return "the integrals of batch norm in training mode have no gradients; take method='sampled'."
    return None
