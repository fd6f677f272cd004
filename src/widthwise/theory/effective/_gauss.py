"""Gaussian expectations of one preactivation that the effective theory needs, to rounding.

Second derivatives never appear: Stein's lemma turns each into a first derivative, and where the activation has a kink
this gives the limit of smooth activations (the second derivative there is a delta function).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from widthwise.core import WidthwiseError
from widthwise.numerics import ACTIVATIONS, Activation

Elementwise = Callable[[Tensor], Tensor]

REACH = 13.0  # standard deviations: exp(-84) times a polynomial is nothing
NODES = 20
LEVELS = 6
AGREED = 1e-13  # relative change between two levels at which the quadrature stops


class EffectiveTheoryError(WidthwiseError, ValueError):
    """A network or an activation that the effective theory of finite width cannot describe."""


def as_activation(activation: Activation | Elementwise | str) -> Activation:
    """The activation itself, the one of this name in the table, or one built from an elementwise function.

    Raises:
        EffectiveTheoryError: no activation has this name.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        name = "silu" if activation == "swish" else activation
        if name not in ACTIVATIONS:
            raise EffectiveTheoryError(
                f"no activation is called {activation!r}; give an elementwise function of torch or one of "
                f"{', '.join(sorted(ACTIVATIONS))}."
            )
        return ACTIVATIONS[name]()
    return Activation.of(activation, getattr(activation, "__name__", "function"))


@dataclass(frozen=True)
class GaussianMoments:
    """Expectations over z ~ N(0, K) of an activation s and its derivative s', with x = z / sqrt(K).

    Attributes:
        s2, s4: <s^2>, <s^4>.
        d2, d4: <s'^2>, <s'^4>.
        s2d2: <s^2 s'^2>.
        slope: d<s^2>/dK = <z s s'> / K.
        bend: d^2<s^2>/dK^2 = <s^2 (z^4 - 6 K z^2 + 3 K^2)> / (4 K^4).
        d2_slope: d<s'^2>/dK = <s'^2 (z^2 - K)> / (2 K^2), which is <z s' s''> / K.
        s_curve: <s s''> = <z s s'> / K - <s'^2>.
        s_curve_d2: <s s'' s'^2> = <z s s'^3> / (3 K) - <s'^4> / 3.
    """

    s2: float
    s4: float
    d2: float
    d4: float
    s2d2: float
    slope: float
    bend: float
    d2_slope: float
    s_curve: float
    s_curve_d2: float


def gaussian_moments(activation: Activation, K: float) -> GaussianMoments:
    """All expectations at one variance, by Gauss-Legendre panels that are split at the kinks and halved until settled.

    Raises:
        EffectiveTheoryError: the variance is not positive and finite, or the activation is not finite.

    >>> from widthwise.numerics import relu
    >>> round(gaussian_moments(relu(), 2.0).s4, 12)
    6.0
    """
    if not 0 < K < float("inf"):
        raise EffectiveTheoryError(f"the kernel is {K:g}; the effective theory needs a positive, finite variance.")
    before = _level(activation, K, 0)
    for level in range(1, LEVELS):
        after = _level(activation, K, level)
        if not np.isfinite(after).all():
            break
        if (np.abs(after - before) <= AGREED * np.maximum(np.abs(after), np.abs(after[0]) + np.abs(after[1]))).all():
            return _combine(after, K)
        before = after
    if not np.isfinite(before).all():
        raise EffectiveTheoryError(
            f"{activation.name} has no finite moments at a variance of {K:g}; lower C_W or choose another activation."
        )
    return _combine(before, K)


def _combine(raw: np.ndarray, K: float) -> GaussianMoments:
    s2, s4, d2, d4, s2d2, xsd, he4, d2he2, xsd3 = (float(value) for value in raw)
    slope = xsd / sqrt(K)
    return GaussianMoments(
        s2, s4, d2, d4, s2d2, slope, he4 / (4 * K * K), d2he2 / (2 * K), slope - d2, xsd3 / (3 * sqrt(K)) - d4 / 3
    )


def _level(activation: Activation, K: float, level: int) -> np.ndarray:
    x, w = line(activation, K, level)
    z = sqrt(K) * x
    s, d = activation.function(z), activation.derivative(z)
    square, slope = s * s, d * d
    he2 = x * x - 1
    he4 = x**4 - 6 * x * x + 3
    rows = (square, square**2, slope, slope**2, square * slope, x * s * d, square * he4, slope * he2, x * s * d * slope)
    parts = torch.stack(rows) * w
    cut = parts[:, x.abs() > REACH - 1].abs().sum(1)
    if bool((cut > 1e-12 * parts.abs().sum(1)).any()):  # the moments grow beyond the range of the quadrature
        return np.full(len(rows), np.inf)
    return parts.sum(1).numpy()


def line(activation: Activation, K: float, level: int) -> tuple[Tensor, Tensor]:
    """Nodes x and weights for E g(x), x ~ N(0, 1), where g bends as the activation does at z = sqrt(K) x."""
    root = sqrt(K)
    marks = [kink / root for kink in activation.kinks]
    fine = activation.scale / root
    marks += [side * fine * 2.0**j / 4**level for j in range(60) for side in (-1, 1)]
    uniform = np.linspace(-REACH, REACH, 26 * 2**level + 1)
    edges = np.unique(np.concatenate([uniform, [mark for mark in marks if abs(mark) < REACH]]))
    unit, weight = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + half * (unit + 1)).ravel()
    w = (half * weight).ravel() * np.exp(-x * x / 2) / sqrt(2 * pi)
    return torch.from_numpy(x), torch.from_numpy(w)
