"""Fields without moments in closed form: only samples of one coordinate tell what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._fields import Field, Moved, Sizes, Sum
from widthwise.kernels._walks import below


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


def is_average(output: Field) -> bool:
    """Whether an output consists of averages over coordinates, up to factors and positions.

    Raises:
        UnsupportedOperation: it holds an average, and other things too.
    """
    if _averages(output):
        return True
    if any(isinstance(field, Averaged) for field in below(output)):
        raise UnsupportedOperation("mean", "", "an average over coordinates is used inside the network")
    return False


def _averages(output: Field) -> bool:
    if isinstance(output, Sum):
        return all(_averages(term) for _, term in output.terms)
    return _averages(output.source) if isinstance(output, Moved) else isinstance(output, Averaged)
