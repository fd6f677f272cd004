"""Fields without moments in closed form: only samples of one coordinate tell what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from widthwise.kernels._fields import Field, Sizes


@dataclass(frozen=True, eq=False)
class Joint(Field):
    """A function of one coordinate over all its positions (max pooling, sorting), or over the batch as well.

    Attributes:
        function: ``[N, *P]`` of each source to ``[N, *positions]``; over the batch ``[M, batch, *P]`` to
            ``[M, batch, *positions]``, where M numbers coordinates. It has to be differentiable.
        over_batch: whether it joins the examples of a batch (batch norm in training mode).
    """

    function: Callable[..., Tensor]
    sources: tuple[Field, ...]
    positions: Sizes
    name: str
    over_batch: bool = False


@dataclass(frozen=True, eq=False)
class Averaged(Field):
    """The mean of a field over its coordinates, times a number: no random vector, but one number for each input.

    Attributes:
        width: how many coordinates the traced network averages over: its tangent kernel falls like 1 / width.
    """

    source: Field
    width: int
    scale: float = 1.0

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions
