"""Sums over parameters of products of gradients, layer by layer, without Jacobians.

For a matrix that is applied at the positions ``p`` of an example the sum is (arXiv:2206.08720, section 3)

    sum_pq <left_p, left'_q> <right_p, right'_q>  =  < sum_p left_p right_p^T , sum_q left'_q right'_q^T >,

and whichever side takes fewer operations is computed: the left one never forms a gradient.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_shapes import Layout
from widthwise.probe._layer_contraction_uses import Factors, MatrixUse, Use

_PASS = 24  # multiplications that one pass over an entry of a matrix of positions costs as much as
_HALF = 0.6  # of the products of positions that are computed where they are symmetric
_LONG = 2  # multiplications in products of few long gradients cost as much as this many in others
_ENTRIES = 2**22  # of a matrix of positions held at once
_GRADIENTS = 2**24  # numbers in the gradients held at once
_PATCHES = 2**20  # numbers in the patches made at once
_KEPT = 2**24  # numbers in the patches and slopes of a layer that are kept where they are needed again


@dataclass(frozen=True)
class Place:
    """A use of a parameter: number of the call, number of the use in it."""

    call: int
    use: int


@dataclass(frozen=True)
class Sums:
    """Which pairs of a block's examples are wanted, and how.

    Attributes:
        layouts: of the calls.
        rows, columns: the examples that are paired: all with all, or some with the others.
        full: every pair of heads apart, ``[n1, n2, heads, heads]``; otherwise the sum over equal heads, ``[n1, n2]``.
    """

    layouts: tuple[Layout, ...]
    rows: slice
    columns: slice
    full: bool

    @property
    def same(self) -> bool:
        return self.rows == self.columns

    def empty(self, like: Tensor, heads: int) -> Tensor:
        """``[rows, columns]``, or ``[rows, columns, heads, heads]``, of zeros."""
        shape = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
        return like.new_zeros((*shape, heads, heads) if self.full else shape)


class Weight:
    """One parameter and all its uses.

    Args:
        name, parameter, places: the parameter and where it is used.
        block: two examples, to read sizes from.
    """

    def __init__(self, name: str, parameter: Tensor, places: list[Place], block: Block) -> None:
        self.name = name
        self.parameter = parameter
        self.places = places
        found = [(block.calls[place.call], block.calls[place.call].uses[place.use]) for place in places]
        uses = [use for _, use in found if isinstance(use, MatrixUse) and use.source.simple]
        self.matrix = bool(uses) and len(uses) == len(found)
        sizes = [use.sizes(call.shape, block.n) for call, use in found if isinstance(use, MatrixUse)]
        self.matrix &= len({(groups, a, b) for groups, _, a, b in sizes}) == 1 or self._turned(sizes)
        self.single = self.matrix and len(uses) == 1 and uses[0].dense
        self.dense = all(use.dense for use in uses)
        self.simple = all(use.source.simple for _, use in found)
        if self.matrix:
            self.positions = [positions for _, positions, *_ in sizes]
            self.groups, _, a, b = sizes[0]
            self.data, self.slope = (a, b) if uses[0].slope_is_second else (b, a)

    @staticmethod
    def _turned(sizes: list[tuple[int, int, int, int]]) -> bool:
        return bool(sizes) and len({(groups, min(a, b), max(a, b)) for groups, _, a, b in sizes}) == 1

    @property
    def calls(self) -> set[int]:
        return {place.call for place in self.places}

    def by_positions(self, n: int, other: int, heads: int, *, same: bool) -> bool:
        """Whether products of positions take fewer operations than gradients for blocks of `n` and `other` examples."""
        if not self.matrix:
            return False
        total = sum(self.positions)
        data, slope = self.data, self.slope
        if len(self.positions) > 1:  # uses may stand crosswise
            data, slope = min(data, slope), max(data, slope)
        pairs, rows = n * other, n if same else n + other
        products = (_HALF if same else 1) * pairs * total**2 * self.groups * (data * self.dense + heads * slope + _PASS)
        return products < heads * self.groups * data * slope * (rows * total + _LONG * pairs)

    def sum(self, block: Block, slopes: dict[int, Tensor], sums: Sums) -> Tensor:
        """Sum of products over this parameter, in the cheaper order."""
        heads = len(next(iter(slopes.values())))
        n, other = (part.stop - part.start for part in (sums.rows, sums.columns))
        if self.by_positions(n, other, heads, same=sums.same):
            return self._from_positions(block, slopes, sums)
        if not sums.full and self.single:
            return self._from_factors(block, slopes, sums)
        gradient = self.gradient(block, slopes, sums.layouts).flatten(2)
        mine, theirs = gradient[:, sums.rows], gradient[:, sums.columns]
        if sums.full:
            return torch.einsum("aip,bjp->ijab", mine, theirs)
        return mine.transpose(0, 1).flatten(1) @ theirs.transpose(0, 1).flatten(1).T

    def gradient(self, block: Block, slopes: dict[int, Tensor], layouts: tuple[Layout, ...]) -> Tensor:
        """``[heads, n, *shape of the parameter]``, summed over the uses."""
        total: Tensor | None = None
        for place in self.places:
            use = block.calls[place.call].uses[place.use]
            part = use.gradient(slopes[place.call], block.n, layouts[place.call])
            part = self._pulled(use, part)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _pulled(self, use: Use, part: Tensor) -> Tensor:
        """From the gradient by the tensor that was used to the gradient by the parameter."""
        if use.source.simple:
            part = part.mT if use.source.transposed else part
            return part if use.source.scale == 1.0 else part * use.source.scale
        (pulled,) = torch.autograd.grad(
            use.value, self.parameter, part.flatten(0, 1), is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        if pulled is None:
            return part.new_zeros(*part.shape[:2], *self.parameter.shape)
        return pulled.unflatten(0, part.shape[:2])

    def _from_factors(self, block: Block, slopes: dict[int, Tensor], sums: Sums) -> Tensor:
        """Gradients of all heads below one another, in slices of their channels that fit in memory."""
        place = self.places[0]
        use, slope = block.calls[place.call].uses[place.use], slopes[place.call]
        assert isinstance(use, MatrixUse)
        step = max(1, _GRADIENTS // (block.n * self.groups * self.data * len(slope)))
        again = step < self.slope
        numbers = block.n * self.positions[0] * self.groups * (self.data + len(slope) * self.slope)
        made = self._factors(use, slope, block.n, sums.layouts[place.call])
        parts: Iterable[tuple[slice, Tensor, Tensor]] = list(made) if again and numbers <= _KEPT else made
        kernel = sums.empty(slope, 1)
        for start in range(0, self.slope, step):
            channels = slice(start, min(start + step, self.slope))
            if start and not isinstance(parts, list):
                parts = self._factors(use, slope, block.n, sums.layouts[place.call])
            rows = self._rows(parts, slope, block.n, channels)
            if sums.same:
                _add_square(kernel, rows)
            else:
                kernel.addmm_(rows[sums.rows], rows[sums.columns].T)
        return kernel * use.source.scale**2

    def _factors(self, use: MatrixUse, slope: Tensor, n: int, layout: Layout) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of a few examples at a time: which, the factor that depends on the output, and the other."""
        step = max(1, _PATCHES // (self.positions[0] * self.groups * self.data))
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            yield part, *_ordered(use.factors(slope, n, layout, part))

    def _rows(self, parts: Iterable[tuple[slice, Tensor, Tensor]], slope: Tensor, n: int, channels: slice) -> Tensor:
        """``[n, groups * heads * channels * data]``."""
        rows = len(slope) * (channels.stop - channels.start)
        result = slope.new_empty(n, self.groups, rows, self.data)
        for part, slopes, known in parts:
            folded = slopes[..., channels].permute(1, 2, 0, 4, 3).flatten(2, 3)
            torch.matmul(folded, known[0], out=result[part])
        return result.flatten(1)

    def _from_positions(self, block: Block, slopes: dict[int, Tensor], sums: Sums) -> Tensor:
        """From products of the activations and of the slopes at all pairs of positions."""
        kernel = sums.empty(next(iter(slopes.values())), len(next(iter(slopes.values()))))
        factors = [self._oriented(block, place, slopes, sums.layouts) for place in self.places]
        scales = [block.calls[place.call].uses[place.use].source.scale for place in self.places]
        for mine, scale in zip(factors, scales, strict=True):
            for theirs, other in zip(factors, scales, strict=True):
                _add_products(kernel, mine, theirs, scale * other, sums)
        return kernel

    def _oriented(self, block: Block, place: Place, slopes: dict[int, Tensor], layouts: tuple[Layout, ...]) -> Factors:
        use = block.calls[place.call].uses[place.use]
        assert isinstance(use, MatrixUse)
        factors = use.factors(slopes[place.call], block.n, layouts[place.call], slice(None))
        return factors.transposed() if use.source.transposed else factors


def _ordered(factors: Factors) -> tuple[Tensor, Tensor]:
    """The factor that depends on the output, and the one that does not."""
    return (factors.second, factors.first) if factors.slope_is_second else (factors.first, factors.second)


def _add_square(kernel: Tensor, rows: Tensor) -> None:
    """``kernel += rows rows^T``; where there are many rows the upper half computed and mirrored."""
    n = len(rows)
    if n < 128:
        kernel.addmm_(rows, rows.T)
        return
    step = n // 4 + (n % 4 > 0)
    for start in range(0, n, step):
        stop = min(start + step, n)
        part = rows[start:stop] @ rows[start:].T
        kernel[start:stop, start:] += part
        kernel[stop:, start:stop] += part[:, stop - start :].T


def _add_products(kernel: Tensor, mine: Factors, theirs: Factors, scale: float, sums: Sums) -> None:
    (n, other), full = kernel.shape[:2], sums.full
    positions, partners = mine.first.shape[3], theirs.first.shape[3]
    heads = max(len(mine.first), len(mine.second)) if full else 1
    symmetric = mine is theirs and sums.same
    step = max(1, _ENTRIES // (positions * partners * other * heads**2))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        columns = slice(start if symmetric else 0, other)
        part = _products(_cut(mine, rows, sums.rows), _cut(theirs, columns, sums.columns), full)
        if scale != 1.0:
            part = part * scale
        kernel[rows, columns] += part
        if symmetric and rows.stop < n:
            kernel[rows.stop :, rows] += (part.permute(1, 0, 3, 2) if full else part.T)[rows.stop - rows.start :]


def _products(left: Factors, right: Factors, full: bool) -> Tensor:
    if full:
        first = _inner(left.first, right.first)
        second = _inner(left.second, right.second)
        return (first * second).sum((4, 5, 6)).permute(2, 3, 0, 1)
    if left.slope_is_second == right.slope_is_second:
        slope, known = _ordered(left)
        slopes, knowns = _ordered(right)
        products = _inner(known, knowns) * _inner(_side_by_side(slope), _side_by_side(slopes))
        return products.sum((4, 5, 6))[0, 0]
    total: Tensor | None = None
    for head in range(max(len(left.first), len(left.second))):
        first = _inner(_head(left.first, head), _head(right.first, head))
        product = (first * _inner(_head(left.second, head), _head(right.second, head))).sum((4, 5, 6))[0, 0]
        total = product if total is None else total + product
    assert total is not None
    return total


def _head(factor: Tensor, head: int) -> Tensor:
    return factor if len(factor) == 1 else factor[head : head + 1]


def _cut(factors: Factors, part: slice, among: slice) -> Factors:
    """Of the examples `part` among some of the block."""
    part = slice(among.start + part.start, among.start + part.stop)
    return replace(factors, first=factors.first[:, part], second=factors.second[:, part])


def _side_by_side(factor: Tensor) -> Tensor:
    """Heads as further channels: the product then sums over them."""
    return factor if len(factor) == 1 else factor.permute(1, 2, 3, 0, 4).flatten(3).unsqueeze(0)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """``[heads, heads', n, n', positions, positions', groups]``: products over the channels."""
    one_hot_x, one_hot_y = not x.is_floating_point(), not y.is_floating_point()
    if one_hot_x and one_hot_y:
        same = x[0, :, 0, :, None, None] == y[0, :, 0]
        return same.permute(0, 2, 1, 3)[None, None, ..., None]
    if one_hot_x:
        return _inner(y, x).permute(1, 0, 3, 2, 5, 4, 6)
    if one_hot_y:
        picked = x[:, :, 0][..., y[0, :, 0]]  # heads n positions n' positions'
        return picked.permute(0, 1, 3, 2, 4)[:, None, ..., None]
    h, n, groups, p, _ = x.shape
    k, m, _, q, _ = y.shape
    left = x.permute(2, 0, 1, 3, 4).reshape(groups, h * n * p, -1)
    right = y.permute(2, 0, 1, 3, 4).reshape(groups, k * m * q, -1)
    return (left @ right.mT).reshape(groups, h, n, p, k, m, q).permute(1, 4, 2, 5, 3, 6, 0)
