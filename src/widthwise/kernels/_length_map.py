"""Fixed points of the variance of preactivations through depth: ``q -> sw2 E phi(sqrt(q) z)^2 + sb2``."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from widthwise.numerics import Activation, ActivationError, diagonal_moments, solve_monotone

LOW, HIGH = 1e-14, 1e8
"""Variances outside count as 0 and infinity."""
_POINTS = 221
_FREE = 1e-12  # relative change per layer below which a variance counts as kept


@dataclass(frozen=True)
class LengthMap:
    """The variance map of one activation at many pairs of weight and bias variance (arXiv:1606.05340, equation 3).

    Attributes:
        activation: the nonlinearity.
        weight_variance, bias_variance: ``[n]``, sigma_w^2 and sigma_b^2.
    """

    activation: Activation
    weight_variance: Float[np.ndarray, "n"]
    bias_variance: Float[np.ndarray, "n"]

    def fixed_points(self, start: float | int) -> tuple[Float[np.ndarray, "n"], np.ndarray]:
        """Where the variance settles from `start`, and whether it is marginal (kept whatever it is).

        0 and infinity stand for collapse and divergence. Between two roots the map moves the variance one way, so that
        the root it reaches is the next one in the direction of the first step.
        """
        grid = np.geomspace(LOW, HIGH, _POINTS)
        value = square(self.activation, grid)
        drift = self.weight_variance[:, None] * value + self.bias_variance[:, None] - grid
        marginal = (np.abs(drift) <= _FREE * grid).all(1)
        first = self(np.full(len(self.weight_variance), float(start))) - start
        q = np.full(len(first), float(start))
        for up in (True, False):
            chosen = np.flatnonzero(~marginal & ((first > 0) if up else (first < 0)))
            q[chosen] = self._towards(chosen, drift[chosen], grid, float(start), up)
        return q, marginal

    def __call__(self, q: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """One layer."""
        return self.weight_variance * square(self.activation, q) + self.bias_variance

    def _towards(
        self, chosen: np.ndarray, drift: np.ndarray, grid: np.ndarray, start: float, up: bool
    ) -> Float[np.ndarray, "_"]:
        ahead = grid > start if up else grid < start
        turned = (drift <= 0 if up else drift >= 0) & ahead
        found = turned.any(1)
        place = turned.argmax(1) if up else len(grid) - 1 - turned[:, ::-1].argmax(1)
        q = np.full(len(chosen), np.inf if up else 0.0)
        if not found.any():
            return q
        edge, rows = grid[place[found]], chosen[found]
        other = np.maximum(grid[place[found] - 1], start) if up else np.minimum(grid[place[found] + 1], start)
        weight, bias = self.weight_variance[rows], self.bias_variance[rows]

        def residual(at: np.ndarray) -> np.ndarray:
            return (weight * square(self.activation, at) + bias) / at - 1

        ends = np.stack([edge, other])
        signs = np.stack([residual(edge), residual(other)])
        at_end = signs.prod(0) >= 0  # a root within rounding of an end
        solution = np.where(at_end, ends[np.abs(signs).argmin(0), np.arange(len(edge))], edge)
        weight, bias, ends = weight[~at_end], bias[~at_end], ends[:, ~at_end]
        if len(weight):
            solution[~at_end] = solve_monotone(residual, ends.min(0), ends.max(0))
        q[found] = solution
        return q


def square(phi: Activation, q: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """``E phi(u)^2`` for ``u ~ N(0, q)``."""
    return diagonal_moments(phi, torch.tensor(q)).value.numpy()


def slopes(phi: Activation, q: Float[np.ndarray, "n"]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """``E phi'(u)^2`` and ``d E phi(u)^2 / dq``, at variances held between the smallest and the largest that count.

    Raises:
        ActivationError: the activation jumps, so that the first is infinite.
    """
    if not phi.continuous:
        raise ActivationError(
            f"activation {phi.name} jumps, so that small differences grow without bound; "
            "give a continuous one, for example erf for sign."
        )
    at = torch.as_tensor(np.clip(q, LOW, HIGH)).requires_grad_()
    moments = diagonal_moments(phi, at)
    (slope,) = torch.autograd.grad(moments.value.sum(), at)
    return moments.derivative.detach().numpy(), slope.numpy()
