"""Sums over parameters of products of gradients, layer by layer, without Jacobians.

For a matrix that is applied at the positions ``p`` of an example the sum is (arXiv:2206.08720, section 3)

    sum_pq <left_p, left'_q> <right_p, right'_q>  =  < sum_p left_p right_p^T , sum_q left'_q right'_q^T >,

and whichever side takes fewer operations is computed: the left one never forms a gradient.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_capture import Call
from widthwise.probe._layer_contraction_shapes import Layout
from widthwise.probe._layer_contraction_uses import Factors, MatrixUse, Use

_PASS = 24  # multiplications that one pass over an entry of a matrix of positions costs as much as
_ENTRIES = 2**22  # of a matrix of positions held at once
_GRADIENTS = 2**26  # numbers in the gradients held at once
_PATCHES = 2**20  # numbers in the patches made at once


@dataclass
class Block:
    """Some examples: their outputs with the graph, and the calls seen.

    Attributes:
        outputs: ``[n, outputs]``.
    """

    outputs: Tensor
    calls: list[Call]

    @property
    def n(self) -> int:
        return len(self.outputs)

    def slopes(self, cotangents: Tensor, calls: list[int], rows: slice = slice(None)) -> dict[int, Tensor]:
        """For each of `calls` ``[heads, *shape of its result]``: gradients of
        ``sum(outputs[rows] @ cotangents[head])``."""
        edges = [self.calls[call].edge for call in calls]
        heads = []
        for cotangent in cotangents:
            seed = torch.zeros_like(self.outputs)
            seed[rows] = cotangent
            heads.append(torch.autograd.grad(self.outputs, edges, seed, retain_graph=True, allow_unused=True))
        return {
            call: torch.stack(
                [part if part is not None else self.outputs.new_zeros(self.calls[call].shape) for part in parts]
            )
            for call, parts in zip(calls, zip(*heads, strict=True), strict=True)
        }


@dataclass(frozen=True)
class Place:
    """A use of a parameter: number of the call, number of the use in it."""

    call: int
    use: int


@dataclass(frozen=True)
class Sums:
    """What a pair of blocks is contracted with.

    Attributes:
        layouts: of the calls.
        full: every pair of heads apart, ``[n1, n2, heads, heads]``; otherwise the sum over equal heads, ``[n1, n2]``.
    """

    layouts: tuple[Layout, ...]
    full: bool


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
        products = pairs * total**2 * self.groups * (data * self.dense + heads * slope + _PASS)
        return products < heads * self.groups * data * slope * (rows * total + pairs)

    # --- the two orders -----------------------------------------------------------------------------------------

    def from_gradients(
        self, block: Block, slopes: dict[int, Tensor], other: Block, others: dict[int, Tensor], sums: Sums
    ) -> Tensor:
        """The sum of products, from the gradients of the examples."""
        if not sums.full and self.single:
            return self._from_factors(block, slopes, other, others, sums)
        mine = self.gradient(block, slopes, sums.layouts).flatten(2)
        theirs = mine if other is block else self.gradient(other, others, sums.layouts).flatten(2)
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

    def _from_factors(
        self, block: Block, slopes: dict[int, Tensor], other: Block, others: dict[int, Tensor], sums: Sums
    ) -> Tensor:
        """Gradients of all heads below one another, in slices of their rows that fit in memory."""
        place = self.places[0]
        use = block.calls[place.call].uses[place.use]
        total = len(slopes[place.call]) * self.slope
        step = max(1, _GRADIENTS // (max(block.n, other.n) * self.groups * self.data))
        kernel = slopes[place.call].new_zeros(block.n, other.n)
        for start in range(0, total, step):
            rows = slice(start, min(start + step, total))
            mine = self._rows(block, slopes[place.call], sums.layouts[place.call], rows)
            if other is block:
                _add_square(kernel, mine)
            else:
                kernel.addmm_(mine, self._rows(other, others[place.call], sums.layouts[place.call], rows).T)
        return kernel * use.source.scale**2

    def _rows(self, block: Block, slopes: Tensor, layout: Layout, rows: slice) -> Tensor:
        """``[n, groups * rows * data]``."""
        place = self.places[0]
        use = block.calls[place.call].uses[place.use]
        assert isinstance(use, MatrixUse)
        result = slopes.new_empty(block.n, self.groups, rows.stop - rows.start, self.data)
        step = max(1, _PATCHES // (self.positions[0] * self.groups * self.data))
        for start in range(0, block.n, step):
            part = slice(start, min(start + step, block.n))
            slope, known = _ordered(use.factors(slopes, block.n, layout, part))
            folded = slope.permute(1, 2, 0, 4, 3).flatten(2, 3)[:, :, rows]
            torch.matmul(folded, known[0], out=result[part])
        return result.flatten(1)

    def from_positions(
        self, block: Block, slopes: dict[int, Tensor], other: Block, others: dict[int, Tensor], sums: Sums
    ) -> Tensor:
        """The sum of products, from products of the activations and of the slopes at all pairs of positions."""
        heads = len(next(iter(slopes.values())))
        shape = (block.n, other.n, heads, heads) if sums.full else (block.n, other.n)
        kernel = next(iter(slopes.values())).new_zeros(shape)
        for place in self.places:
            mine = self._oriented(block, place, slopes, sums.layouts)
            for partner in self.places:
                theirs = (
                    mine
                    if other is block and partner == place
                    else self._oriented(other, partner, others, sums.layouts)
                )
                scale = block.calls[place.call].uses[place.use].source.scale
                scale *= other.calls[partner.call].uses[partner.use].source.scale
                _add_products(kernel, mine, theirs, scale, sums.full, symmetric=mine is theirs)
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
    """``kernel += rows rows^T``, the upper half computed and mirrored."""
    n = len(rows)
    if n < 32:
        kernel.addmm_(rows, rows.T)
        return
    step = n // 4 + (n % 4 > 0)
    for start in range(0, n, step):
        stop = min(start + step, n)
        part = rows[start:stop] @ rows[start:].T
        kernel[start:stop, start:] += part
        kernel[stop:, start:stop] += part[:, stop - start :].T


def _add_products(kernel: Tensor, mine: Factors, theirs: Factors, scale: float, full: bool, *, symmetric: bool) -> None:
    n, other = mine.first.shape[1], theirs.first.shape[1]
    positions, partners = mine.first.shape[3], theirs.first.shape[3]
    heads = max(len(mine.first), len(mine.second)) if full else 1
    step = max(1, _ENTRIES // (positions * partners * other * heads**2))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        columns = slice(start if symmetric else 0, other)
        part = _products(mine, rows, theirs, columns, full)
        if scale != 1.0:
            part = part * scale
        kernel[rows, columns] += part
        if symmetric and rows.stop < n:
            kernel[rows.stop :, rows] += (part.permute(1, 0, 3, 2) if full else part.T)[rows.stop - rows.start :]


def _products(mine: Factors, rows: slice, theirs: Factors, columns: slice, full: bool) -> Tensor:
    left, right = _cut(mine, rows), _cut(theirs, columns)
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


def _cut(factors: Factors, part: slice) -> Factors:
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
