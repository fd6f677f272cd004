"""Fields that multiply each coordinate by random numbers of its own: depthwise filters, dropout masks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from widthwise.kernels._contractions import Contraction
from widthwise.kernels._fields import Field, Sizes
from widthwise.program import Weight


@dataclass(frozen=True, eq=False)
class Filtered(Field):
    """A depthwise convolution: every coordinate has its own random taps, so that the sum over taps is not Gaussian.

    Its second moments are those of a `Product`; functions of it are sampled, from `taps` and `shifts`.

    Attributes:
        weight: the taps, ``[coordinates, 1, *kernel]``.
        variance: variance of a tap times their number.
        contracted: their number.
        taps: each tap as a random vector (the same at all positions).
        shifts: what each tap multiplies: the source at a shifted position, zero outside.
    """

    weight: Weight
    variance: float | Tensor
    contracted: int
    source: Field
    contraction: Contraction
    taps: tuple[Field, ...]
    shifts: tuple[Field, ...]

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.contraction.positions

    @property
    def sources(self) -> tuple[Field, ...]:
        """What its value is a `function` of, as for `Local`."""
        return (*self.taps, *self.shifts)

    def function(self, *values: Tensor) -> Tensor:
        """Sum of taps times shifted sources."""
        half = len(self.taps)
        return torch.stack([tap * shift for tap, shift in zip(values[:half], values[half:], strict=True)]).sum(0)


@dataclass(frozen=True, eq=False)
class Tap(Field):
    """One tap of a depthwise filter: a random number per coordinate, the same for all inputs and positions.

    Attributes:
        weight, contracted: as in `Filtered`.
        variance: of the tap.
        index: which one it is.
    """

    weight: Weight
    variance: float | Tensor
    contracted: int
    index: int
    positions: Sizes
    gaussian: bool = True


@dataclass(frozen=True, eq=False)
class Dropped(Field):
    """Dropout in training mode: each coordinate is kept with probability `keep`, and divided by it.

    Masks are drawn anew for each input, and for each position unless `everywhere` (dropout of whole channels).
    Only a field and itself, at one input (and position), share a mask.

    Attributes:
        mask: tells masks apart: fields with the same one are dropped together.
    """

    source: Field
    keep: float
    everywhere: bool
    mask: str

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions
