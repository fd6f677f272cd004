"""Position maps: how convolutions, flattening and pooling act on moments."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from widthwise.kernels._contractions import Contraction, Move
from widthwise.kernels._fields import Field, Moved, Sizes

SMALL = 64
"""Up to so many result positions, a position map is applied as a matrix product: faster than shifting short rows."""


def pointwise(positions: Sizes, key: tuple = ("pointwise",)) -> Contraction:
    """A matrix that acts on the width axis alone: positions stay."""
    return Contraction(positions, key, lambda m: m, lambda m: m)


def flattened(positions: Sizes, contracted: tuple[bool, ...], layout: tuple) -> Contraction:
    """A matrix that contracts the width axis together with some position axes: the mean over equal positions.

    Args:
        layout: in which order the contracted axis runs over coordinates and positions.
    """
    kept = tuple(size for size, gone in zip(positions, contracted, strict=True) if not gone)
    gone = [axis for axis, flag in enumerate(contracted) if flag]
    count = len(positions)

    def diagonal(moment: Tensor) -> Tensor:
        return moment.mean([1 + axis for axis in gone])

    def full(moment: Tensor) -> Tensor:
        stay = [axis for axis in range(count) if axis not in gone]
        order = [0, *(1 + a for a in stay), *(1 + count + a for a in stay)]
        order += [*(1 + a for a in gone), *(1 + count + a for a in gone)]
        turned = moment.permute(order)
        sites = prod(positions[axis] for axis in gone)
        turned = turned.reshape(moment.shape[0], *kept, *kept, sites, sites)
        return torch.diagonal(turned, dim1=-2, dim2=-1).mean(-1)

    key = ("flattened", positions, contracted, layout)
    return Contraction(kept, key, diagonal, full, needs_diagonal_only=not kept)


def convolved(
    source: Sizes, image: Sizes, kernel: Sizes, stride: Sizes, padding: list[tuple[int, int]], dilation: Sizes
) -> Contraction:
    """A filter bank shared over positions: the mean over taps of equally shifted pairs, zero outside.

    Args:
        source: position sizes of the field.
        image: sizes of the convolved axes (ones included); ``prod(image) == prod(source)``.
        padding: zeros before and after, for each axis.
    """
    dims = len(image)
    out = tuple(
        (size + before + after - step * (taps - 1) - 1) // jump + 1
        for size, (before, after), taps, step, jump in zip(image, padding, kernel, dilation, stride, strict=True)
    )
    weight = 1.0 / prod(kernel)
    positions = tuple(size for size in out if size > 1)

    def windows(moment: Tensor) -> Tensor:
        value = moment.reshape(-1, *image)
        for axis in range(dims):
            value = _box_sum(value, axis, kernel[axis], dilation[axis], out[axis], stride[axis], padding[axis][0])
        return value * weight

    as_matrix = _matrix_of(windows, prod(image)) if prod(out) <= SMALL else None

    def diagonal(moment: Tensor) -> Tensor:
        if as_matrix is None:
            return windows(moment).reshape(-1, *positions)
        return (moment.reshape(-1, prod(image)) @ as_matrix(moment)).reshape(-1, *positions)

    def full(moment: Tensor) -> Tensor:
        moment = moment.reshape(-1, *image, *image)
        for axis in range(dims):
            moment = _joint_shift(moment, axis, dims, kernel[axis], stride[axis], padding[axis], dilation[axis])
        return moment.reshape(-1, *positions, *positions)

    key = ("convolved", image, kernel, stride, tuple(padding), dilation)
    return Contraction(positions, key, diagonal, full, needs_diagonal_only=prod(out) == 1)


def after(first: Contraction, second: Contraction) -> Contraction:
    """One contraction of positions after another, by the same matrix."""
    return Contraction(
        second.positions,
        (*second.key, first.key),
        lambda moment: second.diagonal(first.diagonal(moment)),
        lambda moment: second.full(first.full(moment)),
        needs_diagonal_only=second.needs_diagonal_only,
    )


def _matrix_of(apply: Callable[[Tensor], Tensor], sites: int) -> Callable[[Tensor], Tensor]:
    """The matrix of a linear map of positions, made when first needed, for each dtype and device."""
    known: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def matrix(like: Tensor) -> Tensor:
        key = (like.dtype, like.device)
        if key not in known:
            known[key] = apply(torch.eye(sites, dtype=like.dtype, device=like.device)).reshape(sites, -1)
        return known[key]

    return matrix


def _box_sum(value: Tensor, axis: int, taps: int, dilation: int, size: int, stride: int, before: int) -> Tensor:
    """Sum of shifted, strided windows along one position axis, zero outside."""
    length = value.shape[1 + axis]
    shape = list(value.shape)
    shape[1 + axis] = size
    total = value.new_zeros(shape)
    for tap in range(taps):
        shift = tap * dilation - before
        first = max(0, -(shift // stride))
        last = min(size, (length - 1 - shift) // stride + 1)
        if last > first:
            source = slice(first * stride + shift, (last - 1) * stride + shift + 1, stride)
            index = (slice(None),) * (1 + axis)
            total[(*index, slice(first, last))] += value[(*index, source)]
    return total


def patches(
    tensor: Tensor, kernel: Sizes, stride: Sizes, padding: list[tuple[int, int]], dilation: Sizes
) -> tuple[Tensor, Sizes]:
    """What each filter position sees of ``[n, C, *image]``: ``[n, positions, C * taps]``, and the result's sizes."""
    dims = len(kernel)
    windows = functional.pad(tensor, [amount for pair in reversed(padding) for amount in pair])
    for axis in range(dims):
        span = dilation[axis] * (kernel[axis] - 1) + 1
        windows = windows.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
    sizes = tuple(windows.shape[2 : 2 + dims])
    order = [0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims)]
    return windows.permute(order).reshape(tensor.shape[0], prod(sizes), -1), sizes


def _joint_shift(
    moment: Tensor, axis: int, dims: int, taps: int, stride: int, padding: tuple[int, int], dilation: int
) -> Tensor:
    """Mean over taps of the pair of positions along one axis, both shifted together."""
    p, q = 1 + axis, 1 + dims + axis
    moved = moment.movedim((p, q), (-2, -1))
    plane = functional.pad(moved.reshape(-1, 1, *moved.shape[-2:]), (*padding, *padding))
    sizes = [(plane.shape[-1] - dilation * (taps - 1) - 1) // stride + 1] * 2
    total = plane.new_zeros(plane.shape[0], 1, *sizes)
    span = (sizes[0] - 1) * stride + 1
    for tap in range(taps):
        window = slice(tap * dilation, tap * dilation + span, stride)
        total += plane[:, :, window, window]
    total = (total / taps).reshape(*moved.shape[:-2], *sizes)
    return total.movedim((-2, -1), (p, q))


def moved(source: Field, positions: Sizes, apply: Callable[[Tensor], Tensor], *, gathers: bool) -> Field:
    """A fixed linear map of positions; ``apply`` maps ``[N, *P]`` to ``[N, *P']``."""
    return Moved(source, Move(positions, apply, gathers))


def reordered(source: Field, order: tuple[int, ...]) -> Field:
    """Permute position axes."""
    if order == tuple(range(len(order))):
        return source
    positions = tuple(source.positions[axis] for axis in order)
    return moved(source, positions, lambda m: m.permute(0, *(1 + axis for axis in order)), gathers=True)


def reshaped(source: Field, positions: Sizes) -> Field:
    """View the same positions, in the same order, with other axis sizes."""
    if positions == source.positions:
        return source
    return moved(source, positions, lambda m: m.reshape(-1, *positions), gathers=True)


def broadcast(source: Field, positions: Sizes, present: tuple[bool, ...]) -> Field:
    """Repeat along the position axes that the field lacks."""
    if positions == source.positions:
        return source
    shape = tuple(size if here else 1 for size, here in zip(positions, present, strict=True))
    return moved(source, positions, lambda m: m.reshape(-1, *shape).expand(m.shape[0], *positions), gathers=True)
