"""Batch norm in training mode and the activation behind it, as fields whose moments are integrals."""

from dataclasses import dataclass

import torch

from widthwise.kernels._fields import Field, Gained, Offset, Shared, Sizes, Sum
from widthwise.kernels._two_lines import Slopes
from widthwise.numerics import Activation

BATCH_NORM_RULE = "exact (batch-norm integral)"


@dataclass(frozen=True, eq=False)
class BatchNormed(Field):
    """A Gaussian field of which each coordinate is standardised over the batch and all positions."""

    source: Field
    eps: float

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions


@dataclass(frozen=True, eq=False)
class BatchImage(Field):
    """An activation of two straight lines through zero, of a batch-normed field with gain and bias.

    Attributes:
        slopes: of the activation.
        source: its argument, ``scale * core`` with the gains and zero biases that this takes.
    """

    slopes: Slopes
    source: Field
    core: BatchNormed
    scale: float

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions


def batch_image(phi: Activation, source: Field) -> BatchImage | None:
    """The activation of a batch-normed field, None where no integral has its moments."""
    scale, core = _multiple(source)
    slopes = two_lines(phi)
    if not isinstance(core, BatchNormed) or slopes is None or scale == 0.0:
        return None
    return BatchImage(slopes, source, core, scale)


def two_lines(phi: Activation) -> Slopes | None:
    """The slopes of an activation made of two straight lines through zero, None for any other."""
    at = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    above, below = phi.function(at) / at, phi.function(-at) / -at
    if not (torch.allclose(above, above[1], 1e-9, 1e-12) and torch.allclose(below, below[1], 1e-9, 1e-12)):
        return None
    return Slopes(float(above[1] - below[1]) / 2, float(above[1] + below[1]) / 2)


def in_units(field: BatchNormed | BatchImage) -> Slopes:
    """The slopes of the field as a function of its standardised core."""
    if isinstance(field, BatchNormed):
        return Slopes(0.0, 1.0)
    return Slopes(field.slopes.even * abs(field.scale), field.slopes.odd * field.scale)


def of_shift(field: BatchNormed | BatchImage) -> Slopes:
    """The slopes by which a bias behind the norm passes, ``even sign(core) + odd``."""
    if isinstance(field, BatchNormed):
        return Slopes(0.0, 1.0)
    return Slopes(field.slopes.even * (1 if field.scale > 0 else -1), field.slopes.odd)


def _multiple(field: Field) -> tuple[float, Field]:
    """Scale and core of a field that is a multiple of another, up to parameters that are zero."""
    if isinstance(field, Gained):
        scale, core = _multiple(field.source)
        return field.value * scale, core
    if isinstance(field, Sum):
        rest = [(scale, term) for scale, term in field.terms if not _is_zero(term)]
        if len(rest) == 1:
            scale, core = _multiple(rest[0][1])
            return rest[0][0] * scale, core
    return 1.0, field


def _is_zero(field: Field) -> bool:
    return (isinstance(field, Offset) and field.value == 0.0) or (
        isinstance(field, Shared) and isinstance(field.variance, float) and field.variance == 0.0
    )


def biases(field: Field) -> list[tuple[float, Field]]:
    """The parameters that are zero in what an activation of a batch-normed field takes."""
    if isinstance(field, Gained):
        return [(field.value * scale, one) for scale, one in biases(field.source)]
    if isinstance(field, Sum):
        return [(scale * inner, one) for scale, term in field.terms for inner, one in biases(term)]
    return [(1.0, field)] if _is_zero(field) else []


def slope_of_gain(field: BatchImage, inner: Field) -> BatchImage | None:
    """``phi'(source) * inner`` for a multiple of the core, None for anything else."""
    factor, core = _multiple(inner)
    if core is not field.core:
        return None
    by = of_shift(field)
    return BatchImage(Slopes(factor * by.even, factor * by.odd), field.core, field.core, 1.0)
