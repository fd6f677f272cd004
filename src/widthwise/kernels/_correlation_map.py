"""The map of correlations from layer to layer, in terms of the gap ``1 - c`` so that nothing cancels near 1."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.kernels._length_map import HIGH, LOW
from widthwise.numerics import Activation, second_moments, solve_monotone

_LEGENDRE = np.polynomial.legendre.leggauss(20)
_REACH = 8.0  # standard deviations that the quadrature covers
_ENTRIES = 1 << 22
_LEAST = 1e-13  # gaps below count as none


@dataclass(frozen=True)
class CorrelationMap:
    """``C(c) = (sw2 E phi(u) phi(v) + sb2) / q`` at a fixed point q of the variance (arXiv:1606.05340, equation 5).

    With ``u, v`` of variance q and correlation c, ``1 - C(c) = sw2 / (2 q) E (phi(u) - phi(v))^2`` and
    ``C'(c) = sw2 E phi'(u) phi'(v)``.

    Attributes:
        weight_variance, q: ``[n]``.
    """

    activation: Activation
    weight_variance: Float[np.ndarray, "n"]
    q: Float[np.ndarray, "n"]

    def gap(self, g: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """``1 - C(1 - g)``."""
        if self._smooth:
            return self._quadrature(g, derivative=False)
        angle = 2 * np.arcsin(np.sqrt(g / 2))  # the slope of kinked activations is smooth in the angle
        nodes = angle[:, None] * (_LEGENDRE[0] + 1) / 2
        slopes = self._derivative(2 * np.sin(nodes / 2) ** 2)
        return angle * ((slopes * np.sin(nodes)) @ (_LEGENDRE[1] / 2))

    def slope(self, g: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """``C'(1 - g)``: for g = 0 this is chi_1."""
        return self._quadrature(g, derivative=True) if self._smooth else self._derivative(g[:, None])[:, 0]

    def fixed_gaps(self) -> Float[np.ndarray, "n"]:
        """The stable gap ``1 - c*``: 0 where correlations converge to 1.

        ``(1 - C(1 - g)) / g`` falls from chi_1 at 0, because C is convex where correlations are not negative, so that
        its crossing of 1 is found by bracketing, however close to criticality.
        """
        ones = np.ones_like(self.q)
        far, near = self.gap(ones), self.gap(_LEAST * ones) / _LEAST
        chaotic = near > 1 + 1e-12
        result = np.where(chaotic & (far >= 1 - 1e-14), 1.0, 0.0)
        chosen = np.flatnonzero(chaotic & (far < 1 - 1e-14))
        if len(chosen):
            part = CorrelationMap(self.activation, self.weight_variance[chosen], self.q[chosen])
            result[chosen] = solve_monotone(lambda g: part.gap(g) / g, _LEAST * ones[chosen], ones[chosen], target=1.0)
        return result

    @property
    def _smooth(self) -> bool:
        return self.activation.closed_form is None and not self.activation.kinks

    def _derivative(self, g: np.ndarray) -> np.ndarray:
        q = torch.as_tensor(np.clip(self.q, LOW, HIGH))[:, None]
        moments = second_moments(self.activation, q, q, q * torch.as_tensor(1 - g), tolerance=1e-9)
        return self.weight_variance[:, None] * moments.derivative.numpy()

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor]:
        """The trapezoidal rule, which converges exponentially for analytic functions; finer where q is large."""
        root = float(np.sqrt(np.clip(self.q, LOW, HIGH).max()))
        step = min(0.25, max(0.33 * self.activation.scale / max(root, 1e-3), 0.02))
        count = int(np.ceil(_REACH / step))
        z = torch.arange(-count, count + 1, dtype=torch.float64) * step
        weights = torch.exp(-z * z / 2)
        return z, weights / weights.sum()

    def _quadrature(self, g: np.ndarray, derivative: bool) -> np.ndarray:
        z, weights = self._nodes
        half, half_weights = z[z >= 0], weights[z >= 0] * torch.where(z[z >= 0] > 0, 2.0, 1.0)
        parts = []
        for rows in _pieces(len(g), len(z) * len(half)):
            root = torch.as_tensor(np.sqrt(np.clip(self.q[rows], LOW, HIGH)))[:, None, None]
            gap = torch.tensor(g[rows])[:, None, None]
            middle, apart = root * (1 - gap / 2).sqrt() * z[:, None], root * (gap / 2).sqrt() * half
            if derivative:
                pair = self.activation.derivative(middle + apart) * self.activation.derivative(middle - apart)
            else:
                difference = self.activation(middle + apart) - self.activation(middle - apart)
                pair = difference.square() / (2 * root * root)
            parts.append(torch.einsum("nij,i,j->n", pair, weights, half_weights).numpy())
        return self.weight_variance * np.concatenate(parts)


def _pieces(rows: int, entries: int) -> Iterator[slice]:
    step = max(1, _ENTRIES // entries)
    return (slice(start, start + step) for start in range(0, rows, step))
