"""How many modes are learned at which effective ridge: measured on blocks, not transferred.

The transfer ``kappa = 1 / Tr (K + d)^-1`` is biased near d = 0, where the sum hangs on the smallest eigenvalues of one
sample (the overfitting coefficient comes out up to 30 % high). The ridgeless ``kappa(n) = 1 / Tr K_n^-1`` of disjoint
blocks has no such bias: it gives ``S1(kappa(n)) = n`` directly, and the transfer only fills in between.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.signal import savgol_filter

from widthwise.theory._knots import Knots
from widthwise.theory._tail import Blocks

_GRID = 601
_WINDOW = 61  # grid points over which the local exponent is smoothed


def correct_knots(knots: Knots, blocks: Blocks) -> Knots:
    """The knots with kappa, S1 and S2 from the block traces; bias and gap follow.

    With ``kappa(s)`` the corrected curve, a knot of sample ridge d learns the s that solves ``P = s + d / kappa(s)``,
    and ``S2 = s (1 - 1 / alpha(s))`` with the local exponent ``alpha = - d log kappa / d log s``.
    """
    samples = knots.errors.shape[1]
    if len(blocks.kappas) < 3:
        return replace(knots, gap=gap_from_bias(knots.kappa, knots.bias))
    x = np.log(knots.s1[::-1])
    transferred = PchipInterpolator(x, np.log(knots.kappa[::-1]))
    u = np.log((blocks.sizes + 1) / samples)
    ratio = np.log([part.mean() for part in blocks.kappas]) - transferred(np.minimum(u + np.log(samples), x[-1]))
    powers = np.arange(1, min(3, len(u) - 1) + 1)
    factors = np.linalg.lstsq(u[:, None] ** powers, ratio, rcond=None)[0]

    def shift(log_share: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        return np.clip(log_share, u[-1], 0.0)[:, None] ** powers @ factors

    grid = np.linspace(x[0], x[-1], _GRID)
    log_kappa = np.minimum.accumulate(transferred(grid) + shift(grid - np.log(samples)))
    slope = savgol_filter(log_kappa, _WINDOW, 2, deriv=1, delta=grid[1] - grid[0])
    alpha = np.maximum(-slope, 1.0 + 1e-6)
    ridges = np.maximum(samples - np.exp(grid), 0.0) * np.exp(log_kappa)  # falls along the grid
    s = np.interp(knots.ridge, ridges[::-1], grid[::-1])
    s = np.where(knots.ridge >= ridges[0], x[0], s)
    kappa = np.where(
        knots.ridge > ridges[0], knots.kappa * np.exp(shift(x[:1])[0]), np.exp(np.interp(s, grid, log_kappa))
    )
    inside = s > u[-1] + np.log(samples)  # below the smallest block the transfer is unbiased
    s1 = np.where(inside, np.exp(s), knots.s1)
    s2 = np.where(inside, s1 * (1 - 1 / np.interp(s, grid, alpha)), knots.s2)
    keep = np.concatenate([[True], np.diff(np.minimum.accumulate(s1)) < 0]) & (
        np.concatenate([[True], np.diff(np.maximum.accumulate(kappa)) > 0])
    )
    bias = (1 - s2 / samples) * knots.errors.mean(1)
    trimmed = {name: getattr(knots, name)[keep] for name in ("ridge", "errors", "predictions", "generalized")}
    gap = gap_from_bias(kappa[keep], bias[keep])
    return replace(knots, kappa=kappa[keep], s1=s1[keep], s2=s2[keep], bias=bias[keep], gap=gap, **trimmed)


def gap_from_bias(kappa: Float[np.ndarray, "knots"], bias: Float[np.ndarray, "knots"]) -> Float[np.ndarray, "knots"]:
    """``G(kappa) = kappa int_kappa^inf B(k) / k^2 dk``, the inverse of ``B = G - kappa dG / dkappa``."""
    bias = np.maximum(bias, 1e-300)
    u = np.linspace(np.log(kappa[0]), np.log(kappa[-1]), 4001)
    height = np.exp(PchipInterpolator(np.log(kappa), np.log(bias))(u) - u)
    pieces = np.diff(u) * (height[1:] + height[:-1]) / 2
    above = np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]]) + bias[-1] / kappa[-1]
    return np.interp(np.log(kappa), u, above) * kappa
