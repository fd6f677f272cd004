"""Axes that hold coordinates and positions together: what a matrix makes for a later view that takes them apart."""

import torch

from widthwise.kernels._checks import COORDINATES, coordinates
from widthwise.kernels._fields import Field, Sizes
from widthwise.kernels._fields_stacked import stack
from widthwise.kernels._pieces import Pieces
from widthwise.kernels._positions import reshaped
from widthwise.program import Axis, AxisKind


def coordinates_only(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes without the positions that stand beside coordinates in one axis."""
    return tuple(
        tuple(factor for factor in axis if factor.kind in COORDINATES) if coordinates([axis]) else axis for axis in axes
    )


def parted(field: Field, axes: tuple[Axis, ...], pieces: Pieces) -> Field:
    """A field over the positions of all axes, where it has only those outside the axis of its coordinates.

    Other rows of a random matrix are independent copies, so that positions inside that axis (the sub-pixels of a pixel
    shuffle, say) are different random vectors of the same law. Positions that a later view takes apart are viewed so
    from the start. Any other field is given back as it is.

    Raises:
        NoPiece: its coordinates are not many of one law.
    """
    whole = [torch.Size(_sizes([axis])).numel() for axis in axes]
    if field.positions != _sizes(axes) and field.positions == tuple(size for size in whole if size > 1):
        return reshaped(field, _sizes(axes))
    place = next((i for i, axis in enumerate(axes) if coordinates([axis]) and _sizes([axis])), None)
    if place is None or field.positions != (*_sizes(axes[:place]), *_sizes(axes[place + 1 :])):
        return field
    axis = axes[place]
    rows = torch.arange(torch.Size([factor.size for factor in axis]).numel()).reshape([f.size for f in axis])
    first = [i for i, factor in enumerate(axis) if factor.kind is AxisKind.POSITION]
    index = rows.movedim(first, list(range(len(first)))).reshape(whole[place], -1)
    parts = [pieces.cut(field, chosen.contiguous()) for chosen in index]
    return reshaped(stack(parts, len(_sizes(axes[:place]))), _sizes(axes))


def _sizes(axes: list[Axis] | tuple[Axis, ...]) -> Sizes:
    return tuple(factor.size for axis in axes for factor in axis if factor.kind is AxisKind.POSITION)
