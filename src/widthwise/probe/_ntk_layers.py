"""Tiles of the empirical NTK, contracted layer by layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from widthwise.probe._layer_contraction import Weight
from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_plan import Plan
from widthwise.probe._layer_contraction_products import Kept, Sums
from widthwise.probe._modules import free_bytes, rows_that_fit
from widthwise.probe._ntk_jacobian import Tile, pieces, transposed

_HEADS = 2**24  # bytes of the largest slopes of a call held at once
_KEPT = 2**28  # bytes kept at most from one part of the heads to the next


class LayerTiles:
    """The examples of a tile are run through the module together, and each layer is contracted when the backward pass
    comes to it.

    Args:
        plan: what is contracted.
        parameters: by name.
        cotangents: ``[heads, outputs]``, the combinations of outputs to differentiate.
        chunk: examples in a block of rows or columns; None: what fits in a quarter of the free memory, at most 2 GiB.
        full: pairs of heads apart, not the sum over equal heads.
    """

    def __init__(
        self, plan: Plan, parameters: dict[str, Tensor], cotangents: Tensor, chunk: int | None, *, full: bool
    ) -> None:
        self.plan = plan
        self.parameters = parameters
        self.cotangents = cotangents
        self.full = full
        self.chunk = chunk or self._rows()

    def __call__(self, x1: Tensor, x2: Tensor | None) -> Iterator[Tile]:
        """Tiles that cover all pairs; with `x2` None those on and above the diagonal."""
        for rows in pieces(0, len(x1), self.chunk):
            if x2 is None:
                tile = self.tile(x1[rows], None)
                yield rows, rows, (tile + transposed(tile)) / 2
            others = x1 if x2 is None else x2
            for columns in pieces(rows.stop if x2 is None else 0, len(others), self.chunk):
                yield rows, columns, self.tile(x1[rows], others[columns])

    def tile(self, x1: Tensor, x2: Tensor | None) -> Tensor:
        """All pairs of two sets of examples, or of one with itself, summed over the parameters of the plan."""
        block = self.plan.block(self.parameters, x1 if x2 is None else torch.cat([x1, x2]))
        rows = slice(0, len(x1))
        parts = list(self._parts(block.n))
        kept = Kept(len(parts), min(_KEPT, free_bytes(x1.device) // 8))
        sums = Sums(self.plan.layouts, rows, rows if x2 is None else slice(len(x1), block.n), self.full, kept)
        kernel = sums.empty(self.cotangents, len(self.cotangents))
        for part in parts:
            gathering = _Gathering(self.plan.weights, block, sums, kernel)
            retain = part is not parts[-1] or any(not weight.simple for weight in self.plan.weights)
            block.stream(self.cotangents[part], gathering.receive, batched=self.plan.batched, retain=retain)
            gathering.finish()
        return kernel

    def _parts(self, n: int) -> Iterator[slice]:
        """Heads whose slopes are held at once, in parts of about equal size; all where every pair is wanted."""
        heads = len(self.cotangents)
        if self.full:
            return pieces(0, heads, heads)
        numbers = max(1, n * max(self.plan.call_numbers, default=1) * self.cotangents.element_size())
        most = max(1, _HEADS // numbers) if self.plan.batched else 1
        return pieces(0, heads, -(-heads // -(-heads // most)))

    def _rows(self) -> int:
        size, heads = self.cotangents.element_size(), len(self.cotangents)
        gradients = max(weight.parameter.numel() for weight in self.plan.weights) * heads if self.full else 0
        numbers = self.plan.held_numbers * (heads if self.full else 1) + gradients
        first = next(iter(self.parameters.values()))
        return rows_that_fit(2 * (self.plan.saved_bytes + 2 * numbers * size), first.device, "the layers' gradients")


class _Gathering:
    """Slopes of one backward pass, kept until every parameter of their call is contracted.

    Args:
        kernel: what the sums are added to.
    """

    def __init__(self, weights: list[Weight], block: Block, sums: Sums, kernel: Tensor) -> None:
        self.block, self.sums, self.kernel = block, sums, kernel
        self.weights = {weight.name: weight for weight in weights if weight.places}
        self.waiting = {name: set(weight.calls) for name, weight in self.weights.items()}
        self.slopes: dict[int, Tensor] = {}

    def receive(self, call: int, slope: Tensor) -> None:
        """The slopes ``[heads, *shape of the result]`` of one call."""
        self.slopes[call] = slope
        for name in [name for name, weight in self.weights.items() if call in weight.calls]:
            self.waiting[name].discard(call)
            if not self.waiting[name] and self.weights[name].simple:
                self._add(name)
        self._forget()

    def finish(self) -> None:
        """The parameters that need the whole graph, and those of which the outputs do not depend on every use."""
        for name in list(self.weights):
            seen = self.weights[name].calls & set(self.slopes)
            if seen:
                like = self.slopes[min(seen)]
                for call in self.weights[name].calls - seen:
                    self.slopes[call] = like.new_zeros(len(like), *self.block.calls[call].shape)
                self._add(name)

    def _add(self, name: str) -> None:
        self.kernel += self.weights.pop(name).sum(self.block, self.slopes, self.sums)

    def _forget(self) -> None:
        needed = {call for weight in self.weights.values() for call in weight.calls}
        for call in list(self.slopes):
            if call not in needed:
                del self.slopes[call]
