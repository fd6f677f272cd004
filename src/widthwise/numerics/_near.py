"""What the Hermite series cannot reach, put in its place."""

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation
from widthwise.numerics._interpolate import DIRECT_ELEMENTS, DIRECT_ERROR, EXACT, Surface, near_line
from widthwise.numerics._pairs import Pairs, Piece

SAMPLE = 32


class NearLine:
    """Second moments of the pairs whose correlation lies beyond `reach`.

    Few pairs are integrated one by one. For many, one surface per sign of the correlation is fitted once.

    Attributes:
        error: the largest relative error met so far.
    """

    def __init__(self, f: Activation, g: Activation, pairs: Pairs, reach: float, tolerance: float) -> None:
        self.f, self.g, self.pairs, self.reach = f, g, pairs, reach
        self.error, self.surfaces = DIRECT_ERROR, dict[int, Surface]()
        for side in (1, -1):
            count, found = self._sample(side)
            if count > DIRECT_ELEMENTS:
                order = found[2].abs().argsort()
                chosen = order[torch.linspace(0, len(order) - 1, SAMPLE).long().to(order.device)]
                ranges = (*((float(t.min()), float(t.max())) for t in self._spread()), (reach, 1.0))
                self.surfaces[side] = Surface.fit(f, g, found[:, chosen], ranges, tolerance)

    def _spread(self) -> list[Tensor]:
        return [t.detach()[t.detach() > 0] for t in (self.pairs.alpha, self.pairs.beta)]

    def _sample(self, side: int) -> tuple[int, Tensor]:
        """How many pairs there are, and up to 64 of them per block with the most and the least correlated."""
        count, kept = 0, []
        for piece in self.pairs.blocks():
            found = torch.stack([t.detach() for t in self.pairs.beyond(piece, self.reach)[1]])
            found = found[:, (found[2] * side > 0) & (found[2].abs() < EXACT)]
            count += found.shape[1]
            if found.shape[1]:
                order = found[2].abs().argsort()
                kept.append(found[:, order[torch.linspace(0, len(order) - 1, 64).long().to(order.device)]])
        return count, torch.cat(kept, dim=1) if kept else torch.zeros(3, 0)

    def replaced(self, block: list[Tensor], piece: Piece) -> list[Tensor]:
        """The block of values and slopes with those beyond reach put right."""
        mask, lists = self.pairs.beyond(piece, self.reach)
        if not mask.any():
            return block
        found = self._moments(lists)
        return [torch.masked_scatter(whole, mask, part) for whole, part in zip(block, found, strict=True)]

    def _moments(self, lists: list[Tensor]) -> tuple[Tensor, Tensor]:
        fixed = [t.detach() for t in lists]
        value, slope = torch.empty_like(fixed[2]), torch.empty_like(fixed[2])
        for side in (1, -1):
            inner = (fixed[2] * side > 0) & (fixed[2].abs() < EXACT)
            if side in self.surfaces and inner.any():
                value[inner], slope[inner] = self.surfaces[side](*(t[inner] for t in fixed))
                self.error = max(self.error, self.surfaces[side].error)
        rest = fixed[2].abs() >= EXACT
        for side in (1, -1):
            if side not in self.surfaces:
                rest |= fixed[2] * side > 0
        if rest.any():
            value[rest], slope[rest] = near_line(self.f, self.g, *(t[rest] for t in fixed))
        if torch.is_grad_enabled() and any(t.requires_grad for t in lists):
            value = self._with_gradient(value, slope, lists, fixed)
        return value, slope

    def _with_gradient(self, value: Tensor, slope: Tensor, lists: list[Tensor], fixed: list[Tensor]) -> Tensor:
        """Gradients from dE/d log alpha = E u f'(u) g(v), the same for beta, and dE/d rho = alpha beta E f' g'."""
        (alpha, beta, rho), (s, t, r) = lists, fixed
        by_alpha = near_line(_times_slope(self.f), self.g, *fixed)[0] / s
        by_beta = near_line(self.f, _times_slope(self.g), *fixed)[0] / t
        return value + by_alpha * (alpha - s) + by_beta * (beta - t) + s * t * slope * (rho - r)


def _times_slope(f: Activation) -> Activation:
    """u f'(u), whose pairing with g is the derivative of E f g by log sigma at fixed correlation."""
    return Activation(f"{f.name}:log-slope", lambda u: u * f.derivative(u), f.derivative, f.kinks, scale=f.scale)
