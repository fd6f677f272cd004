"""Sums over positions of products of factors: ``sum_pq <left_p, left'_q> <right_p, right'_q>``.

The products of the factors that no output changes are the same for every part of the outputs, and are kept from one to
the next.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_capture import Call
from widthwise.probe._layer_contraction_shapes import Layout
from widthwise.probe._layer_contraction_uses import MatrixUse

_ENTRIES = 2**20  # of a matrix of positions held at once: few enough to stay in the cache


@dataclass
class Kept:
    """What is computed for the first part of the outputs and needed again for the others.

    Attributes:
        passes: parts of the outputs.
        room: bytes that may still be kept.
    """

    passes: int = 1
    room: int = 0
    held: dict[Hashable, list[Tensor]] = field(default_factory=dict)

    def fits(self, key: Hashable, size: int) -> bool:
        """Whether `size` bytes are kept under `key`, or may be."""
        return self.passes > 1 and (key in self.held or size <= self.room)

    def reserve(self, key: Hashable, size: int) -> list[Tensor] | None:
        """Where to find or to put the tensors of `key`, in order; None if there is no room."""
        if not self.fits(key, size):
            return None
        if key not in self.held:
            self.room -= size
            self.held[key] = []
        return self.held[key]


@dataclass(frozen=True)
class Sums:
    """Which pairs of a block's examples are wanted, and how.

    Attributes:
        layouts: of the calls.
        rows, columns: the examples that are paired: all with all, or some with the others.
        full: every pair of heads apart, ``[n1, n2, heads, heads]``; otherwise the sum over equal heads, ``[n1, n2]``.
        kept: from one part of the heads to the next.
    """

    layouts: tuple[Layout, ...]
    rows: slice
    columns: slice
    full: bool
    kept: Kept = field(default_factory=Kept)

    @property
    def same(self) -> bool:
        return self.rows == self.columns

    def empty(self, like: Tensor, heads: int) -> Tensor:
        """``[rows, columns]``, or ``[rows, columns, heads, heads]``, of zeros."""
        shape = (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start)
        return like.new_zeros((*shape, heads, heads) if self.full else shape)


class Side:
    """The factors of one use for all examples of a block; that which no output changes is made when it is asked for."""

    def __init__(self, use: MatrixUse, call: Call, slope: Tensor, n: int, layout: Layout) -> None:
        self.slopes = use.slopes(slope, n, layout)
        self.scale = use.source.scale
        self.crosswise = use.slope_is_second != use.source.transposed
        self._make = lambda: use.known(call.shape, n, layout)
        self._known: Tensor | None = None

    @property
    def known(self) -> Tensor:
        if self._known is None:
            self._known = self._make()
        return self._known

    @property
    def positions(self) -> int:
        return self.slopes.shape[3]


def steps(n: int, other: int, positions: int, *, symmetric: bool) -> list[tuple[slice, slice]]:
    """Rows and columns of the pairs of examples that are computed at once; if symmetric, the upper half."""
    step = max(1, _ENTRIES // max(1, positions * other))
    rows = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    return [(part, slice(part.start if symmetric else 0, other)) for part in rows]


def add_products(kernel: Tensor, mine: Side, theirs: Side, sums: Sums, key: Hashable) -> None:
    """Add the products of two uses to ``kernel [n1, n2]`` or ``[n1, n2, heads, heads]``."""
    symmetric = mine is theirs and sums.same
    pairs = heads_of(mine) ** 2 if sums.full else 1
    positions = mine.positions * theirs.positions
    parts = steps(len(kernel), kernel.shape[1], positions * pairs, symmetric=symmetric)
    crosswise = mine.crosswise != theirs.crosswise
    size = sum((a.stop - a.start) * (b.stop - b.start) for a, b in parts) * positions * kernel.element_size()
    kept = None if crosswise else sums.kept.reserve(key, size)
    for number, (rows, columns) in enumerate(parts):
        left, right = _among(sums.rows, rows), _among(sums.columns, columns)
        if crosswise:
            part = _crosswise(mine, theirs, left, right, full=sums.full)
        else:
            make = lambda a=left, b=right: _inner(mine.known[:, a], theirs.known[:, b])  # noqa: E731
            known = _found(kept, number, make)
            slopes = [side.slopes[:, cut] for side, cut in ((mine, left), (theirs, right))]
            if not sums.full:
                slopes = [_side_by_side(slope) for slope in slopes]
            part = _summed(_inner(*slopes).mul_(known), full=sums.full)
        if mine.scale * theirs.scale != 1.0:
            part = part * (mine.scale * theirs.scale)
        kernel[rows, columns] += part
        if symmetric and rows.stop < kernel.shape[0]:
            turned = part.permute(1, 0, 3, 2) if sums.full else part.T
            kernel[rows.stop :, rows] += turned[rows.stop - rows.start :]


def heads_of(side: Side) -> int:
    """How many heads the slopes have."""
    return len(side.slopes)


def _found(kept: list[Tensor] | None, number: int, make: Callable[[], Tensor]) -> Tensor:
    if kept is None:
        return make()
    if number == len(kept):
        kept.append(make())
    return kept[number]


def _among(examples: slice, part: slice) -> slice:
    return slice(examples.start + part.start, examples.start + part.stop)


def _summed(products: Tensor, *, full: bool) -> Tensor:
    """Over positions and groups, one after the other, which is faster than all at once."""
    total = products.sum(4).sum(4).sum(4)
    return total.permute(2, 3, 0, 1) if full else total[0, 0]


def _crosswise(mine: Side, theirs: Side, left: slice, right: slice, *, full: bool) -> Tensor:
    """Where a matrix is used once as it is and once transposed, slopes meet what is known."""
    slopes, known = mine.slopes[:, left], mine.known[:, left]
    others, seen = theirs.slopes[:, right], theirs.known[:, right]
    if full:
        return _summed(_inner(slopes, seen) * _inner(known, others), full=True)
    heads = [_inner(a[None], seen) * _inner(known, b[None]) for a, b in zip(slopes, others, strict=True)]
    return torch.stack([_summed(head, full=False) for head in heads]).sum(0)


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
