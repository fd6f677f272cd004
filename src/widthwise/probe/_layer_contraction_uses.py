"""How one operation uses one parameter, and the gradients of single examples that follow from it.

With ``h`` what the operation read, ``dg`` the gradient of an output of the network by the operation's result, and
``p`` the positions at which a matrix is applied, the gradient of one example by that matrix is
``sum_p left_p (x) right_p``: ``dg (x) h`` in a linear layer, ``dg (x) patch of h`` in a convolution,
``patch of dg (x) h`` in a transposed one, ``one-hot token (x) dg`` in an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Source:
    """The tensor that an operation uses: a parameter, or something computed from parameters alone.

    Attributes:
        names: the parameters it depends on.
        simple: it is the one parameter, transposed or not, times `scale`.
    """

    names: tuple[str, ...]
    simple: bool = True
    transposed: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Factors:
    """Gradients ``sum_p first[., p, a] second[., p, b]``, by group.

    Attributes:
        first, second: ``[heads, n, groups, positions, channels]``; 1 head where it does not depend on the output of
            the network. Integers ``[1, n, 1, positions]`` stand for one-hot rows.
        slope_is_second: which of the two depends on the output.
    """

    first: Tensor
    second: Tensor
    slope_is_second: bool = False

    def transposed(self) -> "Factors":
        return Factors(self.second, self.first, not self.slope_is_second)

    def gradient(self) -> Tensor:
        """``[heads, n, groups, a, b]``."""
        return self.first.mT @ self.second


class Use:
    """One operation's use of `source`, of shape `shape`. Subclasses say how the gradient follows from ``dg``."""

    def __init__(self, source: Source, value: Tensor) -> None:
        self.source = source
        self.value = value

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        """``[heads, n, *shape of the tensor used]`` from ``dg [heads, *shape of the result]``."""
        raise NotImplementedError

    def read(self) -> list[Tensor]:
        """What the operation read and the gradient needs."""
        return []


class Added(Use):
    """``result = other +- value``, broadcast."""

    def __init__(self, source: Source, value: Tensor, sign: float = 1.0, channel: int | None = None) -> None:
        super().__init__(source, value)
        self.sign = sign
        self.channel = channel

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        total = _summed_to(_split(dg, n, layout), self.value.shape, self.channel)
        return total if self.sign == 1.0 else total * self.sign


class Multiplied(Use):
    """``result = other * value``, broadcast; `other` is made when needed (a normalised activation, for example)."""

    def __init__(
        self,
        source: Source,
        value: Tensor,
        read: Tensor,
        other: Callable[[Tensor], Tensor],
        channel: int | None = None,
    ) -> None:
        super().__init__(source, value)
        self.tensor = read
        self.other = other
        self.channel = channel

    def read(self) -> list[Tensor]:
        return [self.tensor]

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        other = self.other(self.tensor.detach())
        product = dg * other.expand(dg.shape[1:])
        return _summed_to(_split(product, n, layout), self.value.shape, self.channel)


class MatrixUse(Use):
    """A use whose gradient is a sum of outer products.

    Attributes:
        slope_is_second: the factor that depends on the output stands second.
        dense: neither factor is one-hot.
    """

    slope_is_second = False
    dense = True

    def __init__(self, source: Source, value: Tensor, read: Tensor) -> None:
        super().__init__(source, value)
        self.tensor = read

    def read(self) -> list[Tensor]:
        return [self.tensor]

    def factors(self, dg: Tensor, n: int, layout: Layout, part: slice) -> Factors:
        """Of the examples in `part`."""
        raise NotImplementedError

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        return self.factors(dg, n, layout, slice(None)).gradient().reshape(len(dg), n, *self.value.shape)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        """Groups, positions of an example, channels of the first and second factor; `shape` is the result's."""
        raise NotImplementedError


class Linear(MatrixUse):
    """``g_p = value h_p`` (`value` ``[out, in]``), or ``h_p value`` with `value` ``[in, out]``."""

    def __init__(self, source: Source, value: Tensor, read: Tensor, *, by_input: bool = False) -> None:
        super().__init__(source, value, read)
        self.slope_is_second = by_input

    def factors(self, dg: Tensor, n: int, layout: Layout, part: slice) -> Factors:
        left = _split(dg, n, layout)[:, part]
        left = left.reshape(*left.shape[:2], 1, -1, dg.shape[-1])
        right = layout.split(self.tensor.detach(), n)[part]
        right = right.reshape(1, len(right), 1, -1, right.shape[-1])
        made = Factors(left, right)
        return made.transposed() if self.slope_is_second else made

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        a, b = self.value.shape
        return 1, prod(shape[:-1]) // n, a, b


class Convolution(MatrixUse):
    """Convolution over any number of axes; `dilation` and `stride` by axis, the input padded beforehand."""

    def __init__(
        self,
        source: Source,
        value: Tensor,
        read: Tensor,
        stride: tuple[int, ...],
        padding: tuple[tuple[int, int], ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> None:
        super().__init__(source, value, read)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def factors(self, dg: Tensor, n: int, layout: Layout, part: slice) -> Factors:
        left = _positions(_split(dg, n, layout)[:, part], self.groups)
        h = layout.split(self.tensor.detach(), n)[part]
        right = self._patches(h.flatten(0, 1), dg.shape[3:]).unflatten(0, h.shape[:2])
        return Factors(left, right.transpose(1, 2).flatten(2, 3).unsqueeze(0))

    def _patches(self, h: Tensor, sides: tuple[int, ...]) -> Tensor:
        return _patches(h, self.value.shape[2:], sides, self.stride, self.padding, self.dilation, self.groups)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        positions = shape[0] // n * prod(shape[2:])
        return self.groups, positions, self.value.shape[0] // self.groups, prod(self.value.shape[1:])


class TransposedConvolution(Convolution):
    """The adjoint of a convolution: what it reads and what it gives change places."""

    slope_is_second = True

    def factors(self, dg: Tensor, n: int, layout: Layout, part: slice) -> Factors:
        h = layout.split(self.tensor.detach(), n)[part]
        left = _positions(h.unsqueeze(0), self.groups)
        slopes = _split(dg, n, layout)[:, part]
        right = self._patches(slopes.flatten(0, 2), h.shape[3:]).unflatten(0, slopes.shape[:3])
        return Factors(left, right.transpose(2, 3).flatten(3, 4), True)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        positions = self.tensor.shape[0] // n * prod(self.tensor.shape[2:])
        return self.groups, positions, self.value.shape[0] // self.groups, prod(self.value.shape[1:])


class Embedding(MatrixUse):
    """Rows of `value` looked up by number; a padding row has no gradient."""

    slope_is_second = True
    dense = False

    def __init__(self, source: Source, value: Tensor, read: Tensor, padding: int | None) -> None:
        super().__init__(source, value, read)
        self.padding = padding

    def rows(self, n: int, layout: Layout) -> Tensor:
        """``[n, positions]``, the numbers looked up."""
        return layout.split(self.tensor, n).reshape(n, -1)

    def slopes(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        """``[heads, n, positions, channels]``."""
        slopes = _split(dg, n, layout).reshape(len(dg), n, -1, dg.shape[-1])
        if self.padding is not None:
            slopes = slopes * (self.rows(n, layout) != self.padding).unsqueeze(-1)
        return slopes

    def factors(self, dg: Tensor, n: int, layout: Layout, part: slice) -> Factors:
        rows, slopes = self.rows(n, layout)[part], self.slopes(dg, n, layout)[:, part]
        return Factors(rows[None, :, None], slopes.unsqueeze(2), True)

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        slopes, rows = self.slopes(dg, n, layout), self.rows(n, layout)
        result = slopes.new_zeros(len(dg), n, *self.value.shape)
        return result.scatter_add_(2, rows[None, :, :, None].expand(slopes.shape), slopes)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        return 1, self.tensor.numel() // n, self.value.shape[0], self.value.shape[1]


def _split(dg: Tensor, n: int, layout: Layout) -> Tensor:
    """``[heads, n, *shape for one example]``."""
    moved = Layout(layout.axis + 1, layout.inner, layout.minor)
    return moved.split(dg, n).transpose(0, 1)


def _positions(images: Tensor, groups: int) -> Tensor:
    """``[heads, n, groups, positions, channels]`` from ``[heads, n, inner, channels, *sides]``."""
    parts = images.flatten(4).unflatten(3, (groups, -1))  # heads n inner groups channels sides
    return parts.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)


def _patches(
    h: Tensor,
    kernel: tuple[int, ...],
    sides: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """``[n, groups, positions, channels * kernel]``: what each position of the result sees of ``h [n, c, *sides]``."""
    flat = [amount for pair in reversed(padding) for amount in pair]
    h = F.pad(h, flat) if any(flat) else h
    axes = len(kernel)
    steps = h.stride()[2:]
    shape = (*h.shape[:2], *sides, *kernel)
    strides = (
        *h.stride()[:2],
        *(step * jump for step, jump in zip(steps, stride, strict=True)),
        *(step * jump for step, jump in zip(steps, dilation, strict=True)),
    )
    windows = h.as_strided(shape, strides).unflatten(1, (groups, -1))
    order = (*range(3), *range(3 + axes, 3 + 2 * axes), *range(3, 3 + axes))
    return windows.permute(order).flatten(3 + axes).flatten(2, 2 + axes).mT  # rows of the image are copied whole


def _summed_to(tensor: Tensor, shape: torch.Size, channel: int | None) -> Tensor:
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
