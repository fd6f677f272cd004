"""Ordered, critical or chaotic: phase diagrams of initialisation for an activation of the table."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from widthwise.core import Axis, DataError, Figure, Heatmap, Line, Value
from widthwise.kernels._correlation_map import CorrelationMap
from widthwise.kernels._length_map import LengthMap, slopes, square
from widthwise.numerics import ACTIVATIONS, Activation

CRITICAL = 1e-9  # |chi_1 - 1| up to which a point counts as critical
TRAINABLE = 6.0  # depth scales over which a signal can still be trained through (arXiv:1611.01232, figure 5)
Quantity = Literal["q", "chi_1", "c", "xi_c", "xi_q"]


@dataclass(frozen=True)
class PhaseDiagram(Value):
    """Signal propagation in deep, wide networks at pairs of weight and bias variance; all arrays have one shape.

    Attributes:
        activation: its name.
        weight_variance, bias_variance: sigma_w^2 (entries have variance sigma_w^2 / fan-in) and sigma_b^2.
        q: variance of preactivations at depth; 0 where it collapses, infinity where it diverges.
        chi_1: mean squared singular value of a layer's Jacobian: growth of squared gradients per layer.
        chi_q: slope of the variance map at q (called chi-parallel as well).
        c: correlation of two inputs at depth. Where q is 0 or infinite correlations freeze; c is 1 by convention.
        chi_c: slope of the correlation map at c (chi_1 divided by the growth of q where that has no fixed point).
        xi_c, xi_q: depth scales ``-1 / ln |slope|`` of correlation and variance; infinite at criticality.
        marginal: True where every variance is kept (ReLU at sigma_w^2 = 2, sigma_b^2 = 0); q is then the start.
    """

    activation: str
    weight_variance: Float[np.ndarray, "*grid"]
    bias_variance: Float[np.ndarray, "*grid"]
    q: Float[np.ndarray, "*grid"]
    chi_1: Float[np.ndarray, "*grid"]
    chi_q: Float[np.ndarray, "*grid"]
    c: Float[np.ndarray, "*grid"]
    chi_c: Float[np.ndarray, "*grid"]
    xi_c: Float[np.ndarray, "*grid"]
    xi_q: Float[np.ndarray, "*grid"]
    marginal: Bool[np.ndarray, "*grid"]

    @property
    def phase(self) -> np.ndarray:
        """``"ordered"`` (chi_1 < 1: gradients vanish), ``"critical"`` or ``"chaotic"`` (they explode), by point."""
        names = np.where(self.chi_1 < 1, "ordered", "chaotic")
        return np.where(np.abs(self.chi_1 - 1) <= CRITICAL, "critical", names)

    @property
    def trainable_depth(self) -> Float[np.ndarray, "*grid"]:
        """About six depth scales of the correlation, an empirical rule (arXiv:1611.01232, section 5)."""
        return np.asarray(TRAINABLE * self.xi_c)

    def gradient_ratio(self, depth: int) -> Float[np.ndarray, "*grid"]:
        """Expected squared gradient norm in the first of `depth` layers over that in the last."""
        return np.asarray(self.chi_1 ** (depth - 1))

    def plot(self, quantity: Quantity = "chi_1") -> Figure:
        """A heat map over the grid.

        Raises:
            DataError: the points are no grid.
        """
        if self.q.ndim != 2:
            raise DataError(f"points of shape {list(self.q.shape)} are no grid; give `phase_diagram` two axes.")
        values = np.asarray(getattr(self, quantity))
        shown = np.where(np.isfinite(values), values, np.nan)
        weights = tuple(f"{value:.3g}" for value in self.weight_variance[:, 0])
        biases = tuple(f"{value:.3g}" for value in self.bias_variance[0])
        cells = tuple(tuple(float(cell) for cell in row) for row in shown.T)
        return Figure(
            f"{quantity} of {self.activation} networks",
            Axis("weight variance", "category", weights),
            Axis("bias variance", "category", biases),
            (Heatmap(cells, quantity, log=quantity in ("q", "xi_c", "xi_q")),),
            "Values at depth in an infinitely wide network; chi_1 = 1 separates vanishing from exploding gradients.",
        )


@dataclass(frozen=True)
class CriticalLine(Value):
    """Where chi_1 = 1, parametrised by the variance q at depth; all arrays are ``[points]``.

    Attributes:
        weight_variance, bias_variance: NaN where the point would need a negative bias variance.
        curvature: ``C''(1) = sw2 q E phi''^2`` where phi is twice differentiable (NaN elsewhere): correlations
            approach 1 like ``1 - c = 2 / (curvature l)`` in depth l.
    """

    activation: str
    q: Float[np.ndarray, "points"]
    weight_variance: Float[np.ndarray, "points"]
    bias_variance: Float[np.ndarray, "points"]
    chi_q: Float[np.ndarray, "points"]
    curvature: Float[np.ndarray, "points"]

    def plot(self) -> Figure:
        """The line in the plane of variances."""
        known = np.isfinite(self.weight_variance)
        weight, bias = (tuple(part[known].tolist()) for part in (self.weight_variance, self.bias_variance))
        line = Line(self.activation, weight, bias, markers=len(weight) < 20)
        caption = "On the line gradients keep their size through depth; to its right they explode, to its left vanish."
        return Figure("Edge of chaos", Axis("weight variance"), Axis("bias variance"), (line,), caption)


def phase_diagram(
    activation: Activation | str,
    weight_variance: ArrayLike,
    bias_variance: ArrayLike = 0.0,
    *,
    start: float | int = 1.0,
) -> PhaseDiagram:
    """Fixed points and depth scales of signal propagation (arXiv:1606.05340; arXiv:1611.01232; arXiv:2309.01592).

    Args:
        activation: one of `widthwise.numerics`, or a name in its table.
        weight_variance, bias_variance: sigma_w^2 and sigma_b^2. Two vectors give every pair, ``[weights, biases]``;
            other shapes broadcast.
        start: variance of the first preactivations; it decides where several fixed points exist.

    Raises:
        DataError: a variance is negative or not finite, or the name is not in the table.
        ActivationError: the activation jumps.

    >>> point = phase_diagram("tanh", 2.5, 0.05)
    >>> print(point.phase, float(point.c.round(4)), float(point.xi_c.round(2)))
    chaotic 0.4468 11.8
    >>> phase_diagram("relu", [1.0, 2.0], [0.0, 0.1]).q  # at (2, 0) every variance is kept
    array([[0. , 0.2],
           [1. , inf]])
    """
    phi = named(activation)
    weight, bias = _grid(weight_variance, bias_variance)
    _check(weight, "weight variance")
    _check(bias, "bias variance")
    if not 0 < start < inf:
        raise DataError(f"start={start} is no variance to start from; give a positive number.")
    flat_weight, flat_bias = weight.ravel(), bias.ravel()
    q, marginal = LengthMap(phi, flat_weight, flat_bias).fixed_points(start)
    slope, change = slopes(phi, q)
    chi_1, chi_q = flat_weight * slope, np.where(marginal, 1.0, flat_weight * change)
    gap, chi_c = _correlations(phi, flat_weight, q, chi_1, chi_q)
    parts = (q, chi_1, chi_q, 1 - gap, chi_c, depth_scale(chi_c), depth_scale(chi_q), marginal)
    return PhaseDiagram(phi.name, weight, bias, *(part.reshape(weight.shape) for part in parts))


def critical_line(activation: Activation | str, q: ArrayLike) -> CriticalLine:
    """The pairs of variances with chi_1 = 1: ``sw2 = 1 / E phi'^2``, ``sb2 = q - sw2 E phi^2``.

    Args:
        q: variances at depth, positive.

    >>> line = critical_line("tanh", [0.5, 1.0])
    >>> line.weight_variance.round(6), line.bias_variance.round(6)
    (array([1.687975, 2.153303]), array([0.038041, 0.150965]))
    """
    phi, q = named(activation), np.atleast_1d(np.asarray(q, dtype=float)).ravel()
    if not (np.isfinite(q).all() and (q > 0).all()):
        raise DataError(f"a variance at depth is {q.min():g}; give finite positive ones.")
    slope, change = slopes(phi, q)
    weight = 1 / slope
    bias = q - weight * square(phi, q)
    bias = np.where(np.abs(bias) <= 1e-12 * q, 0.0, bias)
    possible = bias >= 0
    weight, bias = np.where(possible, weight, np.nan), np.where(possible, bias, np.nan)
    return CriticalLine(phi.name, q, weight, bias, weight * change, weight * q * _bend(phi, q))


def depth_scale(slope: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """``-1 / ln |slope|``: layers over which a deviation shrinks by e; infinite where it does not shrink."""
    with np.errstate(divide="ignore"):
        rate = -np.log(np.abs(slope))
    return np.where(rate > CRITICAL, 1 / np.where(rate > CRITICAL, rate, 1.0), inf)


def named(activation: Activation | str) -> Activation:
    """An activation of the table by name, with its default arguments.

    Raises:
        DataError: no such name.
    """
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        raise DataError(f"activation {activation!r} is not in the table; give one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[activation]()


def _bend(phi: Activation, q: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """``E phi''^2``, NaN for activations with kinks."""
    if phi.kinks:
        return np.full_like(q, np.nan)
    nodes = torch.arange(-200, 201, dtype=torch.float64) * 0.04
    weights = torch.exp(-nodes * nodes / 2)
    at = torch.tensor(q).sqrt()[:, None] * nodes
    _, pull, *_ = torch.func.vjp(phi.derivative, at)
    bend = pull(torch.ones_like(at))[0]
    return (bend.square() @ (weights / weights.sum())).numpy()


def _correlations(
    phi: Activation, weight: np.ndarray, q: np.ndarray, chi_1: np.ndarray, chi_q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``1 - c*`` and the slope of the correlation map there."""
    finite = np.flatnonzero(np.isfinite(q) & (q > 0))
    gap = np.zeros_like(q)
    slope = chi_1 / np.where(chi_q > 0, chi_q, 1.0)
    slope[finite] = chi_1[finite]
    chaotic = finite[chi_1[finite] > 1 + 1e-12]
    if len(chaotic):
        map_of = CorrelationMap(phi, weight[chaotic], q[chaotic])
        gap[chaotic] = map_of.fixed_gaps()
        slope[chaotic] = map_of.slope(gap[chaotic])
    return gap, slope


def _grid(weight: ArrayLike, bias: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    weight, bias = np.asarray(weight, dtype=float), np.asarray(bias, dtype=float)
    if weight.ndim == bias.ndim == 1:
        weight, bias = weight[:, None], bias[None, :]
    weight, bias = np.broadcast_arrays(weight, bias)
    return weight.copy(), bias.copy()


def _check(values: np.ndarray, what: str) -> None:
    if not values.size or not (np.isfinite(values).all() and (values >= 0).all()):
        worst = float(values.ravel()[np.argmin(values)]) if values.size else float("nan")
        raise DataError(f"a {what} is {worst:g}; give finite values of 0 or more.")
