"""How one operation uses one parameter, and the gradients of single examples that follow from it.

With ``h`` what the operation read, ``dg`` the gradient of an output of the network by the operation's result, and
``p`` the positions at which a matrix is applied, the gradient of one example by that matrix is
``sum_p left_p (x) right_p``: ``dg (x) h`` in a linear layer, ``dg (x) patch of h`` in a convolution,
``patch of dg (x) h`` in a transposed one, ``one-hot token (x) dg`` in an embedding. Both factors are
``[heads, n, groups, positions, channels]``; integers ``[1, n, 1, positions]`` stand for one-hot rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_shapes import Layout, patches, positions, split, summed_to

_ALL = slice(None)


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
        total = summed_to(split(dg, n, layout), self.value.shape, self.channel)
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
        return summed_to(split(product, n, layout), self.value.shape, self.channel)


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

    def slopes(self, dg: Tensor, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        """The factor that depends on the output, ``[heads, examples in part, groups, positions, channels]``."""
        raise NotImplementedError

    def known(self, shape: torch.Size, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        """The factor that does not, with 1 head; `shape` is the result's."""
        raise NotImplementedError

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        slopes, known = self.slopes(dg, n, layout), self.known(dg.shape[1:], n, layout)
        product = known.mT @ slopes if self.slope_is_second else slopes.mT @ known
        return self._shaped(product)

    def _shaped(self, product: Tensor) -> Tensor:
        """``[heads, n, *shape of the tensor used]`` from ``[heads, n, groups, a, b]``."""
        return product.reshape(*product.shape[:2], *self.value.shape)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        """Groups, positions of an example, channels of the first and second factor; `shape` is the result's."""
        raise NotImplementedError


class Linear(MatrixUse):
    """``g_p = value h_p`` (`value` ``[out, in]``), or ``h_p value`` with `value` ``[in, out]``."""

    def __init__(self, source: Source, value: Tensor, read: Tensor, *, by_input: bool = False) -> None:
        super().__init__(source, value, read)
        self.slope_is_second = by_input

    def slopes(self, dg: Tensor, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        slopes = split(dg, n, layout)[:, part]
        return slopes.reshape(*slopes.shape[:2], 1, -1, dg.shape[-1])

    def known(self, shape: torch.Size, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        h = layout.split(self.tensor.detach(), n)[part]
        return h.reshape(1, len(h), 1, -1, h.shape[-1])

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

    def slopes(self, dg: Tensor, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        return positions(split(dg, n, layout)[:, part], self.groups)

    def known(self, shape: torch.Size, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        h = layout.split(self.tensor.detach(), n)[part]
        seen = self._patches(h.flatten(0, 1), shape[2:]).unflatten(0, h.shape[:2])
        return seen.transpose(1, 2).flatten(2, 3).unsqueeze(0)

    def _shaped(self, product: Tensor) -> Tensor:
        channels, *kernel = self.value.shape[1:]
        by_place = product.flatten(2, 3).unflatten(-1, (prod(kernel), channels))
        return by_place.mT.reshape(*product.shape[:2], *self.value.shape)

    def _patches(self, h: Tensor, sides: tuple[int, ...]) -> Tensor:
        return patches(h, self.value.shape[2:], sides, self.stride, self.padding, self.dilation, self.groups)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        count = shape[0] // n * prod(shape[2:])
        return self.groups, count, self.value.shape[0] // self.groups, prod(self.value.shape[1:])


class TransposedConvolution(Convolution):
    """The adjoint of a convolution: what it reads and what it gives change places."""

    slope_is_second = True

    def slopes(self, dg: Tensor, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        slopes = split(dg, n, layout)[:, part]
        sides = self.tensor.shape[2:]
        seen = self._patches(slopes.flatten(0, 2), sides).unflatten(0, slopes.shape[:3])
        return seen.transpose(2, 3).flatten(3, 4)

    def known(self, shape: torch.Size, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        return positions(layout.split(self.tensor.detach(), n)[part].unsqueeze(0), self.groups)

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        count = self.tensor.shape[0] // n * prod(self.tensor.shape[2:])
        return self.groups, count, self.value.shape[0] // self.groups, prod(self.value.shape[1:])


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

    def slopes(self, dg: Tensor, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        slopes = split(dg, n, layout)[:, part].reshape(len(dg), -1, 1, self._count(n), dg.shape[-1])
        if self.padding is not None:
            slopes = slopes * (self.rows(n, layout)[part] != self.padding)[:, None, :, None]
        return slopes

    def known(self, shape: torch.Size, n: int, layout: Layout, part: slice = _ALL) -> Tensor:
        return self.rows(n, layout)[part][None, :, None]

    def gradient(self, dg: Tensor, n: int, layout: Layout) -> Tensor:
        slopes, rows = self.slopes(dg, n, layout).squeeze(2), self.rows(n, layout)
        result = slopes.new_zeros(len(dg), n, *self.value.shape)
        return result.scatter_add_(2, rows[None, :, :, None].expand(slopes.shape), slopes)

    def _count(self, n: int) -> int:
        return self.tensor.numel() // n

    def sizes(self, shape: torch.Size, n: int) -> tuple[int, int, int, int]:
        return 1, self._count(n), self.value.shape[0], self.value.shape[1]
