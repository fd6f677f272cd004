"""Accuracy of the arg max, from leave-one-out predictions at matched effective ridge."""

import numpy as np
from jaxtyping import Float, Int

from widthwise.theory._knots import Knots

DRAWS = 16  # normal vectors per sample; each is used with both signs


def predicted_accuracy(
    knots: Knots,
    labels: Int[np.ndarray, "samples"],
    frequencies: Float[np.ndarray, "outputs"],
    gamma: float,
    test: float,
    seed: int = 0,
) -> tuple[float, float]:
    """Accuracy where the effective ridge is `gamma` and the test error is `test`, and its standard error.

    Predictors of equal effective ridge have the same mean; they differ in variance. A leave-one-out prediction
    at P samples carries the variance that belongs to its own error, so the difference of the two errors is added as
    Gaussian noise with the covariance of the leave-one-out residuals across outputs.
    """
    predictions, residuals_squared, covariance = _at(knots, gamma, frequencies)
    extra = max(test / residuals_squared - 1, 0.0)
    samples, outputs = predictions.shape
    noise = np.random.default_rng(seed).standard_normal((DRAWS, samples, outputs))
    values, vectors = np.linalg.eigh(covariance)
    noise = noise @ (vectors * np.sqrt(np.maximum(values, 0.0) * extra)).T
    rows = np.arange(samples)
    if outputs == 1:
        return float("nan"), float("nan")
    hits = np.zeros(samples)
    for sign in (1.0, -1.0):
        scores = predictions[None] + sign * noise
        hits += (scores.argmax(2) == labels[rows]).mean(0) / 2
    return float(hits.mean()), float(hits.std() / np.sqrt(samples))


def _at(knots: Knots, gamma: float, frequencies: Float[np.ndarray, "outputs"]) -> tuple[np.ndarray, float, np.ndarray]:
    """Leave-one-out scores, mean squared error and residual covariance, interpolated in log gamma."""
    x = np.log(knots.kappa)
    place = np.clip(np.interp(np.log(gamma), x, np.arange(len(x))), 0, len(x) - 1.000001)
    low = int(place)
    share = place - low
    predictions = (1 - share) * knots.predictions[low] + share * knots.predictions[low + 1]
    targets = knots.targets
    residuals = targets - predictions
    covariance = residuals.T @ residuals / len(residuals)
    return predictions + frequencies, float(np.trace(covariance)), covariance


def extrapolated_error_rate(
    log_errors: Float[np.ndarray, "points"], log_rates: Float[np.ndarray, "points"], log_target: float
) -> tuple[float, float]:
    """Log error rate where the log squared error is `log_target`, by the local straight line, and its spread.

    The spread is half the distance to the line of slope 1 through the last point.
    """
    slope = float(np.polyfit(log_errors, log_rates, 1)[0])
    step = log_target - log_errors[-1]
    return float(log_rates[-1] + slope * step), float(0.5 * abs((slope - 1) * step))
