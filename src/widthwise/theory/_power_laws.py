"""Closed forms for power-law tasks: ``lambda_i = i^-alpha``, ``v_i^2 = i^-beta``, many samples (2311.14646)."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gamma as gamma_function

from widthwise.core import DataError
from widthwise.theory._spectrum import Numbers

Real = float | int | np.number
Result = np.ndarray | np.floating  # shaped as the arguments broadcast


def power_law_risk_ratio(fitting_ratio: Numbers, alpha: Real, beta: Real, relative_noise: Numbers = 0.0) -> Result:
    """Test error at a given train / test error ratio, over the test error at zero ridge.

    Args:
        fitting_ratio: train error over test error, in [0, 1).
        alpha: exponent of the eigenvalues, above 1.
        beta: exponent of the target power, in (1, 2 alpha + 1).
        relative_noise: noise variance over the noiseless ridgeless test error at the same n.

    >>> float(power_law_risk_ratio(0.1, 1.5, 2.5).round(4))
    1.5271
    """
    _check(alpha, beta)
    root = np.sqrt(np.asarray(fitting_ratio, dtype=float))
    noise = alpha * np.asarray(relative_noise, dtype=float)
    return ((1 - root) ** (1 - beta) + noise) / ((1 + (alpha - 1) * root) * (1 + noise))


def optimal_fitting_ratio(alpha: Real, beta: Real, relative_noise: Real = 0.0) -> float:
    """The train / test error ratio of least test error; 0 means that interpolation is obligatory.

    It is 0 if and only if ``relative_noise <= (beta - alpha) / (alpha (alpha - 1))``.

    >>> optimal_fitting_ratio(1.5, 1.8)
    0.0
    """
    _check(alpha, beta)
    if relative_noise <= (beta - alpha) / (alpha * (alpha - 1)):
        return 0.0

    def score(root: float) -> float:
        return float(power_law_risk_ratio(root**2, alpha, beta, relative_noise))

    grid = np.linspace(0, 0.9999, 400)
    best = int(np.argmin([score(root) for root in grid]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return float(minimize_scalar(score, bounds=ends, method="bounded", options={"xatol": 1e-10}).x ** 2)


def power_law_kappa(n: Numbers, alpha: Real, fitting_ratio: Numbers = 0.0) -> Result:
    """Effective ridge: ``[(pi / alpha) / sin(pi / alpha) / (n (1 - sqrt R))]^alpha``."""
    _check(alpha, 2.0)
    unfit = np.asarray(n, dtype=float) * (1 - np.sqrt(np.asarray(fitting_ratio, dtype=float)))
    return (_constant(alpha) / unfit) ** alpha


def power_law_risk(n: Numbers, alpha: Real, beta: Real) -> Result:
    """Noiseless ridgeless test error: ``Gamma(2-x) Gamma(x) [(pi / alpha) / (n sin(pi / alpha))]^(beta - 1)``,
    with ``x = (beta - 1) / alpha``."""
    _check(alpha, beta)
    x = (beta - 1) / alpha
    scale = gamma_function(2 - x) * gamma_function(x)
    return scale * (_constant(alpha) / np.asarray(n, dtype=float)) ** (beta - 1)


def _constant(alpha: Real) -> float:
    return (math.pi / alpha) / math.sin(math.pi / alpha)


def _check(alpha: Real, beta: Real) -> None:
    if not (alpha > 1 and 1 < beta < 2 * alpha + 1):
        raise DataError(
            f"alpha={alpha:g}, beta={beta:g} lie outside the power-law theorem; it needs alpha > 1 and "
            "1 < beta < 2 alpha + 1."
        )
