"""Where examples, positions and channels stand in the tensors of a layer."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the examples of a batch stand in a tensor, and the tensor's shape for one example.

    Attributes:
        axis: the axis that grows with the batch.
        minor: the examples run fastest in that axis (positions by examples), not slowest.
    """

    axis: int
    inner: int
    minor: bool = False

    def split(self, tensor: Tensor, n: int) -> Tensor:
        """``[n, *shape for one example]``."""
        if self.minor:
            return tensor.unflatten(self.axis, (self.inner, n)).movedim(self.axis + 1, 0)
        return tensor.unflatten(self.axis, (n, self.inner)).movedim(self.axis, 0)


def split(dg: Tensor, n: int, layout: Layout) -> Tensor:
    """``[heads, n, *shape for one example]``."""
    moved = Layout(layout.axis + 1, layout.inner, layout.minor)
    return moved.split(dg, n).transpose(0, 1)


def positions(images: Tensor, groups: int) -> Tensor:
    """``[heads, n, groups, positions, channels]`` from ``[heads, n, inner, channels, *sides]``."""
    parts = images.flatten(4).unflatten(3, (groups, -1))  # heads n inner groups channels sides
    return parts.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)


def patches(
    h: Tensor,
    kernel: tuple[int, ...],
    sides: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """``[n, groups, positions, kernel * channels]``: what each position of the result sees of ``h [n, c, *sides]``.

    Channels run fastest, so that rows of a window are copied whole.
    """
    n, channels, *inner = h.shape
    before = [left for left, _ in padding]
    outer = [left + side + right for side, (left, right) in zip(inner, padding, strict=True)]
    image = h.new_zeros(n, groups, *outer, channels // groups)
    inside = image
    for axis, (left, side) in enumerate(zip(before, inner, strict=True)):
        inside = inside.narrow(2 + axis, left, side)
    inside.copy_(h.unflatten(1, (groups, -1)).movedim(2, -1))
    steps = image.stride()[2:-1]
    strides = (
        *image.stride()[:2],
        *(step * jump for step, jump in zip(steps, stride, strict=True)),
        *(step * jump for step, jump in zip(steps, dilation, strict=True)),
        1,
    )
    windows = image.as_strided((n, groups, *sides, *kernel, channels // groups), strides)
    return windows.reshape(n, groups, prod(sides), -1)


def summed_to(tensor: Tensor, shape: torch.Size, channel: int | None) -> Tensor:
    """``[heads, n, *shape]`` from ``[heads, n, *shape for one example]``: the adjoint of broadcasting `shape` to it.

    With `channel` the shape is one axis that stands there in the example.
    """
    if channel is not None:
        axes = [axis for axis in range(2, tensor.ndim) if axis != channel + 2]
        return tensor.sum(axes) if axes else tensor
    lead = tensor.ndim - 2 - len(shape)
    axes = [2 + lead + i for i, size in enumerate(shape) if size == 1 and tensor.shape[2 + lead + i] != 1]
    if axes:
        tensor = tensor.sum(axes, keepdim=True)
    if lead:
        tensor = tensor.sum(list(range(2, 2 + lead)))
    return tensor.reshape(*tensor.shape[:2], *shape)
