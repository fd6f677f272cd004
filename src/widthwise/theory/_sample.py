"""The four sums read off one Gram matrix, without ever estimating a population eigenvalue.

With ridge d on all P samples, deterministic equivalence gives, at ``kappa = 1 / Tr (K + d)^-1``:

    S1 = Tr K (K + d)^-1,      S2 = P - (Tr (K + d)^-1)^2 / Tr (K + d)^-2,
    G + noise = kappa y' (K + d)^-1 y,      B + noise = (1 - S2 / P) * (out-of-sample error at P samples and ridge d).

The out-of-sample error is the leave-one-out one, which a solve gives in closed form. Raising d from zero walks kappa
upwards from the ridgeless ``kappa(P)``; since the ridgeless kappa of n < P samples lies above it, every prediction
for n <= P, at any ridge and width, is read from measured sums.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from widthwise.core import DataError
from widthwise.theory._spectrum import Moments

KNOTS = 72
JITTER = 1e-12  # of the mean eigenvalue: smaller ones are not resolved in float64

Matrix = Float[np.ndarray, "samples samples"]
Targets = Float[np.ndarray, "samples outputs"]
Points = Float[np.ndarray, "points"]


@dataclass(frozen=True, eq=False)
class Knots:
    """Measured sums at a grid of effective ridges, in increasing order.

    Attributes:
        ridge, kappa: the sample ridges, and the effective ridges that they stand for.
        s1, s2, bias, gap: the sums (bias and gap include the noise of the targets).
        errors: ``[knots, samples]`` leave-one-out squared errors, summed over outputs.
        predictions: ``[knots, samples, outputs]`` leave-one-out predictions.
        generalized: out-of-sample error by generalised cross-validation, a second opinion.
        jitter: ridge that was added to every eigenvalue for stability.
    """

    ridge: Float[np.ndarray, "knots"]
    kappa: Float[np.ndarray, "knots"]
    s1: Float[np.ndarray, "knots"]
    s2: Float[np.ndarray, "knots"]
    bias: Float[np.ndarray, "knots"]
    gap: Float[np.ndarray, "knots"]
    errors: Float[np.ndarray, "knots samples"]
    predictions: Float[np.ndarray, "knots samples outputs"]
    generalized: Float[np.ndarray, "knots"]
    jitter: float


def measure_knots(gram: Matrix, targets: Targets, count: int = KNOTS) -> tuple[Knots, Float[np.ndarray, "samples"]]:
    """One eigendecomposition, then every sum at `count` ridges; also the eigenvalues, largest first.

    Raises:
        DataError: the Gram matrix is not positive semi-definite, or holds nothing.
    """
    samples = len(gram)
    values, vectors = np.linalg.eigh(gram)
    mean = values.mean()
    if not mean > 0 or values[0] < -1e-3 * values[-1]:
        raise DataError(
            f"the Gram matrix has eigenvalues from {values[0]:.3g} to {values[-1]:.3g}; give the positive "
            "semi-definite kernel matrix of the samples."
        )
    # Rounding leaves negative eigenvalues of this size: what lies below is not known.
    jitter = max(JITTER * mean, 4 * max(-values[0], 0.0))
    values = np.maximum(values, 0.0) + jitter
    rotated = vectors.T @ targets
    squares = vectors**2
    start = samples / np.sum(1 / values)
    ridges = np.concatenate([[0.0], np.geomspace(0.02 * start, 1e4 * values[-1], count - 1)])
    inverse = 1 / (values + ridges[:, None])  # [knots, samples]
    t1, t2 = inverse.sum(1), (inverse**2).sum(1)
    kappa = 1 / t1
    s1 = samples - ridges * t1 if samples < 3 else (values * inverse).sum(1)
    s2 = samples * ((inverse - t1[:, None] / samples) ** 2).sum(1) / t2
    gap = kappa * (inverse @ (rotated**2).sum(1))
    generalized = samples * kappa**2 * (inverse**2 @ (rotated**2).sum(1))
    diagonal = inverse @ squares.T  # [knots, samples]
    errors = np.empty((count, samples))
    predictions = np.empty((count, samples, targets.shape[1]))
    for knot in range(count):
        residual = (vectors @ (rotated * inverse[knot][:, None])) / diagonal[knot][:, None]
        errors[knot] = (residual**2).sum(1)
        predictions[knot] = targets - residual
    bias = (1 - s2 / samples) * errors.mean(1)
    knots = Knots(ridges, kappa, s1, s2, bias, gap, errors, predictions, generalized, float(jitter))
    return knots, values[::-1].copy()


@dataclass(frozen=True, eq=False)
class SampleSpectrum:
    """A task measured on a sample: the sums between knots, and a power law below the smallest effective ridge."""

    knots: Knots
    slope: float  # -d log S1 / d log kappa below the range: 1 / alpha
    rise: float  # d log (bias - floor) / d log kappa below the range: (beta - 1) / alpha
    floor: float = 0.0  # noise floor of the bias below the range

    def __post_init__(self) -> None:
        x = np.log(self.knots.kappa)
        table = np.log(np.stack([self.knots.s1, self.knots.s2, self.knots.bias, self.knots.gap], 1))
        object.__setattr__(self, "_table", PchipInterpolator(x, table))

    @property
    def capacity(self) -> float:
        """Infinite: the tail holds modes without end."""
        return float("inf")

    @property
    def log_range(self) -> tuple[float, float]:
        """Logarithms of effective ridges between which the sums are defined."""
        return float(np.log(self.knots.kappa[0]) - 60 / self.slope), float(np.log(self.knots.kappa[-1]) + 30)

    @property
    def start(self) -> float:
        """Smallest effective ridge that was measured."""
        return float(self.knots.kappa[0])

    def degrees(self, gamma: Points) -> Points:
        """``sum L_i``."""
        return self.moments(gamma).s1

    def moments(self, gamma: Points) -> Moments:
        """All four sums."""
        knots = self.knots
        with np.errstate(divide="ignore"):
            u = np.log(gamma)
        low, high = np.log(knots.kappa[0]), np.log(knots.kappa[-1])
        s1, s2, bias, gap = np.exp(self._table(np.clip(u, low, high))).T
        above = np.exp(-np.maximum(u - high, 0.0))
        s1, s2 = s1 * above, s2 * above**2
        depth = np.maximum(low - u, 0.0)  # how far below the range
        s1 = s1 * np.exp(self.slope * np.minimum(depth, 700 / max(self.slope, 1)))
        s2 = np.where(depth > 0, s1 * (1 - self.slope + (knots.s2[0] / knots.s1[0] - 1 + self.slope)), s2)
        shrink = np.exp(-self.rise * depth)
        bias = np.where(depth > 0, self.floor + (bias - self.floor) * shrink, bias)
        gap = np.where(depth > 0, self.floor + (gap - self.floor) * shrink, gap)
        return Moments(s1, s2, bias, gap)
