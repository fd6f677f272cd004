"""The smallest model with a feature-learning strength: one path of L equal weights (arXiv:2410.04642, section 4)."""

from collections.abc import Sequence
from math import e, inf
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import integrate

from widthwise.core import DataError

ToyLoss = Literal["mse", "cross-entropy"]
TARGET = e / (1 + e)  # the soft label whose cross-entropy is lowest at f = 1
_BLOWN = 1e12


def toy_critical_rate(gamma: float | int, depth: int, loss: ToyLoss = "mse") -> float:
    """Largest stable learning rate of the toy model: ``2 gamma^2 / (c L^2 (1 + gamma)^(2 - 2/L))``.

    The toy model is ``f = (w^L - 1) / gamma`` from w = 1 with target 1; c is the curvature of the loss at the target,
    1 for half the squared error and 0.19661 for cross-entropy: ``gamma^2`` below and ``gamma^(2/L)`` above 1.

    Raises:
        DataError: gamma or depth is out of range, or the loss is unknown.

    >>> round(toy_critical_rate(1.0, 2), 6), round(toy_critical_rate(1e4, 2) / toy_critical_rate(1e2, 2), 1)
    (0.25, 101.0)
    """
    _check(gamma, depth, loss)
    bend = 1.0 if loss == "mse" else TARGET * (1 - TARGET)
    return 2 * gamma**2 / (bend * depth**2 * (1 + gamma) ** (2 - 2 / depth))


def toy_flow_time(fraction: float, gamma: float | int, depth: int, start: float = 1.0) -> float:
    """Time that gradient flow on half the squared error takes from ``w = start`` to ``f = fraction``.

    ``t = integral gamma dw / (L w^(L-1) (1 - f(w)))`` over w; about ``gamma^2 / L^2 log 1/(1-f)`` for small gamma, and
    ``gamma / (L (L - 2))`` for large gamma and L > 2, nearly all of it the plateau at the start.

    Raises:
        DataError: the fraction is not between zero and one, or gamma or depth is out of range.

    >>> round(toy_flow_time(0.5, 1e-3, 3) / 1e-6 * 9, 3)
    0.693
    """
    _check(gamma, depth, "mse")
    if not 0 < fraction < 1:
        raise DataError(f"fraction is {fraction}; give a number between 0 and 1.")
    scale = float(gamma)
    end = (1 + scale * fraction) ** (1 / depth)
    if depth == 1:
        return scale**2 * -float(np.log1p(-fraction))

    def slowness(log_w: float) -> float:
        w = np.exp(log_w)
        return scale * w ** (2 - depth) / (depth * (1 - np.expm1(depth * log_w) / scale))

    return float(integrate.quad(slowness, np.log(start), np.log(end), limit=400, epsrel=1e-10)[0])


def mode_time(strength: float | int, initial: float | int, depth: int, fraction: float = 0.5) -> float:
    """Time at which a mode of a balanced deep linear network has grown to a fraction of its strength s.

    The product u of L equal factors obeys ``u' = L u^(2 - 2/L) (s - u)``; for two layers the time is
    ``log(u (s - u_0) / (u_0 (s - u))) / (2 s)``. From a small start these are the times of the steps of a loss
    staircase (arXiv:1312.6120).

    Raises:
        DataError: the start is not between zero and the fraction of the strength.

    >>> import math
    >>> round(mode_time(2.0, 0.001, 2), 6) == round(math.log((2 - 0.001) / 0.001) / 4, 6)
    True
    """
    _check(strength, depth, "mse")
    s = float(strength)
    if not 0 < initial < fraction * s < s:
        raise DataError(f"a mode of strength {s:g} cannot grow from {initial} to {fraction} of it; start lower.")

    def slowness(log_u: float) -> float:
        u = np.exp(log_u)
        return u ** (2 / depth - 1) / (depth * (s - u))

    return float(integrate.quad(slowness, np.log(initial), np.log(fraction * s), limit=400, epsrel=1e-10)[0])


def toy_descent(
    gammas: Sequence[float] | np.ndarray,
    rates: Sequence[float] | np.ndarray,
    depth: int,
    steps: int,
    loss: ToyLoss = "mse",
) -> Float[np.ndarray, "gammas rates"]:
    """Distance ``|f - 1|`` after gradient descent of the toy model; infinite where it diverged.

    Raises:
        DataError: a gamma or rate is not above zero.

    >>> bool(toy_descent([1.0], [0.24, 0.26], 2, 4000)[0, 0] < 1e-6)
    True
    """
    g, rate = np.asarray(gammas, dtype=float)[:, None], np.asarray(rates, dtype=float)[None, :]
    _check(float(g.min()), depth, loss)
    w = np.ones(np.broadcast(g, rate).shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            f = (w**depth - 1) / g
            error = f - 1 if loss == "mse" else 1 / (1 + np.exp(-f)) - TARGET
            w = w - rate * error * depth * w ** (depth - 1) / g
        gap = np.abs((w**depth - 1) / g - 1)
    return np.where(np.isfinite(gap) & (gap < _BLOWN), gap, inf)


def _check(gamma: float | int, depth: int, loss: str) -> None:
    if not 0 < gamma < inf:
        raise DataError(f"gamma or strength is {gamma}; give a finite number above zero.")
    if depth < 1:
        raise DataError(f"depth={depth} is no number of layers; give at least 1.")
    if loss not in ("mse", "cross-entropy"):
        raise DataError(f"loss {loss!r} is not known; give 'mse' or 'cross-entropy'.")
