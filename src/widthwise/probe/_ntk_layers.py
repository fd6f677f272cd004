"""Tiles of the empirical NTK, contracted layer by layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from widthwise.probe._layer_contraction import Block, Sums
from widthwise.probe._layer_contraction_plan import Plan
from widthwise.probe._modules import rows_that_fit
from widthwise.probe._ntk_jacobian import Tile, pieces, transposed

_HEADS = 2**28  # bytes of slopes held at once


class LayerTiles:
    """Blocks of rows and columns are run through the module once for each tile.

    Args:
        plan: what is contracted.
        parameters: by name.
        cotangents: ``[heads, outputs]``, the combinations of outputs to differentiate.
        chunk: examples in a block; None: what fits in a quarter of the free memory, at most 2 GiB.
        full: pairs of heads apart, not the sum over equal heads.
    """

    def __init__(
        self, plan: Plan, parameters: dict[str, Tensor], cotangents: Tensor, chunk: int | None, *, full: bool
    ) -> None:
        self.plan = plan
        self.parameters = parameters
        self.cotangents = cotangents
        self.sums = Sums(plan.layouts, full)
        self.chunk = chunk or self._rows()

    def __call__(self, x1: Tensor, x2: Tensor | None) -> Iterator[Tile]:
        """Tiles that cover all pairs; with `x2` None those on and above the diagonal."""
        for rows in pieces(0, len(x1), self.chunk):
            block = self.plan.block(self.parameters, x1[rows])
            if x2 is None:
                tile = self.tile(block, block)
                yield rows, rows, (tile + transposed(tile)) / 2
            others = x1 if x2 is None else x2
            for columns in pieces(rows.stop if x2 is None else 0, len(others), self.chunk):
                yield rows, columns, self.tile(block, self.plan.block(self.parameters, others[columns]))

    def tile(self, block: Block, other: Block) -> Tensor:
        """All pairs of two blocks, summed over the parameters of the plan."""
        heads = len(self.cotangents)
        same = block is other
        by_positions = {
            weight.name
            for weight in self.plan.weights
            if weight.places and weight.by_positions(block.n, other.n, heads, same=same)
        }
        later = [weight for weight in self.plan.weights if weight.name in by_positions]
        now = [weight for weight in self.plan.weights if weight.places and weight.name not in by_positions]
        kept = sorted({call for weight in later for call in weight.calls})
        needed = sorted({call for weight in now for call in weight.calls} | set(kept))
        mine: dict[int, list[Tensor]] = {call: [] for call in kept}
        theirs: dict[int, list[Tensor]] = {call: [] for call in kept}
        shape = (block.n, other.n, heads, heads) if self.sums.full else (block.n, other.n)
        kernel = self.cotangents.new_zeros(shape)
        for part in self._parts(max(block.n, other.n)):
            slopes = block.slopes(self.cotangents[part], needed)
            others = slopes if same else other.slopes(self.cotangents[part], needed)
            for weight in now:
                kernel += weight.from_gradients(block, slopes, other, others, self.sums)
            for call in kept:
                mine[call].append(slopes[call])
                theirs[call].append(others[call])
        left = {call: torch.cat(parts) for call, parts in mine.items()}
        right = left if same else {call: torch.cat(parts) for call, parts in theirs.items()}
        for weight in later:
            kernel += weight.from_positions(block, left, other, right, self.sums)
        return kernel

    def _parts(self, n: int) -> Iterator[slice]:
        """Heads whose slopes are held at once; all of them where every pair is wanted."""
        heads = len(self.cotangents)
        numbers = max(1, n * self.plan.slope_numbers * self.cotangents.element_size())
        return pieces(0, heads, heads if self.sums.full else max(1, _HEADS // numbers))

    def _rows(self) -> int:
        size = self.cotangents.element_size()
        heads = len(self.cotangents)
        held = heads if self.sums.full else 1
        gradients = max(weight.parameter.numel() for weight in self.plan.weights) * heads if self.sums.full else 0
        stash = sum(
            self.plan.call_numbers[call]
            for call in {
                call
                for weight in self.plan.weights
                if weight.places and weight.by_positions(64, 64, heads, same=True)
                for call in weight.calls
            }
        )
        numbers = self.plan.slope_numbers * held + stash * heads + gradients
        first = next(iter(self.parameters.values()))
        return rows_that_fit(2 * (self.plan.saved_bytes + 2 * numbers * size), first.device, "the layers' gradients")
