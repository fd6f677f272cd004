"""Where a learning-rate sweep is lowest, and how that drifts with the width."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from widthwise.core import Value

Row = Float[np.ndarray, "lrs"]

REACH = 1.25
"""Octaves on either side of the lowest point that the parabola is fitted to: three points of a grid of one octave, five
of one of half an octave."""


@dataclass(frozen=True)
class Optimum(Value):
    """The best learning rate at one width.

    Attributes:
        octaves: its base-2 logarithm: vertex of the least-squares parabola near the lowest point of the mean curve.
        stderr: its standard error, from seeds drawn again with replacement (half a grid step at least where there is
            but one seed).
        loss: the lowest mean loss measured.
        at_edge: whether the lowest point is the first or last that trained, so that the optimum may lie beyond.
    """

    octaves: float
    stderr: float
    loss: float
    at_edge: bool


def vertex(octaves: Row, losses: Row) -> float:
    """Base-2 logarithm of the best learning rate of one curve; runs that diverged are infinite and take no part.

    >>> import numpy as np
    >>> x = np.array([-3.0, -2.0, -1.0, 0.0])
    >>> round(vertex(x, (x + 1.4) ** 2), 6)
    -1.4
    """
    best = int(np.argmin(losses))
    spacing = np.diff(octaves).max()
    reach = max(REACH, spacing)
    near = (np.abs(octaves - octaves[best]) <= reach + 1e-9) & np.isfinite(losses)
    beyond = near & (octaves > octaves[best]), near & (octaves < octaves[best])
    if not all(side.any() for side in beyond):
        return float(octaves[best])
    square, linear, _ = np.polyfit(octaves[near] - octaves[best], losses[near], 2)
    if square <= 0:
        return float(octaves[best])
    return float(octaves[best] + np.clip(-linear / (2 * square), -reach, reach))


def optimum(octaves: Row, losses: Float[np.ndarray, "seeds lrs"], seed: int = 0, resamples: int = 200) -> Optimum:
    """The best learning rate of curves of several seeds; NaN where none was run."""
    run = ~np.isnan(losses.mean(0))
    octaves, losses = octaves[run], losses[:, run]
    mean = losses.mean(0)
    rng = np.random.default_rng(seed)
    draws = [vertex(octaves, losses[rng.integers(len(losses), size=len(losses))].mean(0)) for _ in range(resamples)]
    spacing = float(np.diff(octaves).mean())
    stderr = float(np.std(draws)) if len(losses) > 1 else spacing / 2
    best = int(np.argmin(mean))
    finite = np.flatnonzero(np.isfinite(mean))
    at_edge = best in (finite[0], 0, len(mean) - 1)
    return Optimum(vertex(octaves, mean), max(stderr, spacing / 20), float(mean[best]), bool(at_edge))


@dataclass(frozen=True)
class Drift(Value):
    """How the optimum moves with the width.

    Attributes:
        per_doubling: octaves of learning rate per doubling of the width.
        low, high: its 95 % interval.
        total: octaves from the smallest to the largest width.
        half_width: half of the 95 % interval of `total`.
    """

    per_doubling: float
    low: float
    high: float
    total: float
    half_width: float


def fit_drift(widths: Float[np.ndarray, "w"], optima: list[Optimum]) -> Drift:
    """Weighted line through the optima against the base-2 logarithm of the width."""
    x = np.log2(widths)
    y, sigma = np.array([o.octaves for o in optima]), np.array([o.stderr for o in optima])
    weights = 1 / sigma**2
    centred = x - (weights @ x) / weights.sum()
    spread = weights @ centred**2
    slope = float(weights @ (centred * y) / spread)
    residual = y - (weights @ y) / weights.sum() - slope * centred
    excess = max(1.0, float(weights @ residual**2) / max(1, len(x) - 2))
    half = 1.96 * (excess / spread) ** 0.5
    span = float(x.max() - x.min())
    return Drift(slope, slope - half, slope + half, slope * span, half * span)
