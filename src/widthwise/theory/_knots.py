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

from widthwise.core import DataError

KNOTS = 72
JITTER = 1e-12  # of the mean eigenvalue: smaller ones are not resolved in float64

Matrix = Float[np.ndarray, "samples samples"]
Targets = Float[np.ndarray, "samples outputs"]
Eigen = Float[np.ndarray, "samples"]
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
        targets: ``[samples, outputs]``.
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
    targets: Float[np.ndarray, "samples outputs"]
    jitter: float


def measure_knots(gram: Matrix, targets: Targets, count: int = KNOTS) -> tuple[Knots, Eigen, Eigen]:
    """One eigendecomposition, then every sum at `count` ridges; also eigenvalues and target power, largest first.

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
    s1 = (values * inverse).sum(1)
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
    knots = Knots(ridges, kappa, s1, s2, bias, gap, errors, predictions, generalized, targets, float(jitter))
    return knots, values[::-1].copy(), (rotated**2).sum(1)[::-1].copy()
