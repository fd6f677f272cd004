"""Sums over parameters of products of gradients, layer by layer, without Jacobians.

For a matrix that is applied at the positions ``p`` of an example the sum is (arXiv:2206.08720, section 3)

    sum_pq <left_p, left'_q> <right_p, right'_q>  =  < sum_p left_p right_p^T , sum_q left'_q right'_q^T >,

and whichever side takes fewer operations is computed: the left one never forms a gradient.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_capture import Call
from widthwise.probe._layer_contraction_products import Side, Sums, add_products
from widthwise.probe._layer_contraction_shapes import Layout
from widthwise.probe._layer_contraction_uses import MatrixUse, Use

_PASS = 24  # multiplications that one pass over an entry of a matrix of positions costs as much as
_HALF = 0.6  # of the products of positions that are computed where they are symmetric
_LONG = 2  # multiplications in products of few long gradients cost as much as this many in others
_GRADIENTS = 2**24  # numbers in the gradients held at once
_PATCHES = 2**20  # numbers in the patches made at once
_KEPT = 2**24  # numbers in the patches and slopes of a layer that are kept where they are needed again


@dataclass(frozen=True)
class Place:
    """A use of a parameter: number of the call, number of the use in it."""

    call: int
    use: int


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

    def by_positions(self, heads: int, sums: Sums) -> bool:
        """Whether products of positions take fewer operations than gradients.

        Those of what no output changes count once if they can be kept.
        """
        if not self.matrix:
            return False
        n, other = (part.stop - part.start for part in (sums.rows, sums.columns))
        total = sum(self.positions)
        data, slope = self.data, self.slope
        if len(self.positions) > 1:  # uses may stand crosswise
            data, slope = min(data, slope), max(data, slope)
        pairs, rows = n * other, n if sums.same else n + other
        entries = (_HALF if sums.same else 1) * pairs * total**2 * self.groups
        kept = sums.kept.fits(self._key(0, 0), int(entries) * self.parameter.element_size())
        known = data * self.dense / (sums.kept.passes if kept else 1)
        gradients = heads * self.groups * data * slope * (rows * total + _LONG * pairs)
        return entries * (known + heads * slope + _PASS) < gradients

    def _key(self, use: int, other: int) -> tuple[str, int, int]:
        return self.name, use, other

    def sum(self, block: Block, slopes: dict[int, Tensor], sums: Sums) -> Tensor:
        """Sum of products over this parameter, in the cheaper order."""
        heads = len(next(iter(slopes.values())))
        if self.by_positions(heads, sums):
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
        call, slope = block.calls[place.call], slopes[place.call]
        use = call.uses[place.use]
        assert isinstance(use, MatrixUse)
        step = max(1, _GRADIENTS // (block.n * self.groups * self.data * len(slope)))
        again = step < self.slope
        numbers = block.n * self.positions[0] * self.groups * (self.data + len(slope) * self.slope)
        made = self._factors(use, call, slope, block.n, sums.layouts[place.call])
        parts: Iterable[tuple[slice, Tensor, Tensor]] = list(made) if again and numbers <= _KEPT else made
        kernel = sums.empty(slope, 1)
        for start in range(0, self.slope, step):
            channels = slice(start, min(start + step, self.slope))
            if start and not isinstance(parts, list):
                parts = self._factors(use, call, slope, block.n, sums.layouts[place.call])
            rows = self._rows(parts, slope, block.n, channels)
            if sums.same:
                _add_square(kernel, rows)
            else:
                kernel.addmm_(rows[sums.rows], rows[sums.columns].T)
        return kernel * use.source.scale**2

    def _factors(
        self, use: MatrixUse, call: Call, slope: Tensor, n: int, layout: Layout
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of a few examples at a time: which, the factor that depends on the output, and the other."""
        step = max(1, _PATCHES // (self.positions[0] * self.groups * self.data))
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            yield part, use.slopes(slope, n, layout, part), use.known(call.shape, n, layout, part)

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
        sides = [self._side(block, place, slopes, sums.layouts) for place in self.places]
        for i, mine in enumerate(sides):
            for j, theirs in enumerate(sides):
                add_products(kernel, mine, theirs, sums, self._key(i, j))
        return kernel

    def _side(self, block: Block, place: Place, slopes: dict[int, Tensor], layouts: tuple[Layout, ...]) -> Side:
        call = block.calls[place.call]
        use = call.uses[place.use]
        assert isinstance(use, MatrixUse)
        return Side(use, call, slopes[place.call], block.n, layouts[place.call])


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
