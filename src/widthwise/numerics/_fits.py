"""Power laws with uncertainty."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, least_squares

from widthwise.core import Value, WidthwiseError

Vector = Callable[[np.ndarray], np.ndarray]


class FitError(WidthwiseError, ValueError):
    """Points through which no power law can be fitted."""


@dataclass(frozen=True)
class PowerLawFit(Value):
    """y = exp(intercept) x^slope.

    Attributes:
        slope, slope_stderr: exponent and its standard error, robust to unequal scatter (HC3).
        intercept, intercept_stderr: natural logarithm of y at x = 1.
        r_squared: share of the (weighted) variance of log y that the line explains.
        points: how many points were fitted.
    """

    slope: float
    slope_stderr: float
    intercept: float
    intercept_stderr: float
    r_squared: float
    points: int

    def predict(self, x: ArrayLike) -> Float[np.ndarray, "..."]:
        """y at x."""
        return np.asarray(np.exp(self.intercept + self.slope * np.log(np.asarray(x, dtype=np.float64))))


@dataclass(frozen=True)
class OffsetPowerLawFit(Value):
    """y = scale x^-exponent + floor.

    Attributes:
        scale, exponent, floor: the parameters, exponent > 0.
        scale_stderr, exponent_stderr, floor_stderr: from the covariance of the fit; NaN with three points.
        residual_std: root mean square residual per degree of freedom, in units of sigma where it was given.
        points: how many points were fitted.
    """

    scale: float
    exponent: float
    floor: float
    scale_stderr: float
    exponent_stderr: float
    floor_stderr: float
    residual_std: float
    points: int

    def predict(self, x: ArrayLike) -> Float[np.ndarray, "..."]:
        """y at x."""
        return np.asarray(self.scale * np.asarray(x, dtype=np.float64) ** -self.exponent + self.floor)


def _points(x: ArrayLike, y: ArrayLike, least: int, positive_y: bool) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise FitError(f"there are {len(x)} values of x but {len(y)} of y; give as many of each.")
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y)) and np.all(x > 0)):
        raise FitError("some x is not positive or some value is not finite; leave those points out.")
    if positive_y and not np.all(y > 0):
        raise FitError(f"the smallest y is {y.min():g}, but a power law needs y > 0; leave such points out.")
    if len(np.unique(x)) < least:
        raise FitError(f"a fit needs {least} different values of x, got {len(np.unique(x))}; measure more points.")
    return x, y


def fit_power_law(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> PowerLawFit:
    """Straight line through (log x, log y) by (weighted) least squares.

    Args:
        x, y: positive, [n] with at least two different x.
        weights: [n], proportional to 1/variance of log y; equal unless given.

    Returns:
        The fit; with two points the standard errors are NaN.

    Raises:
        FitError: points that do not allow a fit.

    Source of the errors: MacKinnon & White 1985 (HC3).

    >>> fit = fit_power_law([1, 2, 4, 8], [3.0, 1.5, 0.75, 0.375])
    >>> round(fit.slope, 6), round(float(fit.predict(16)), 6)
    (-1.0, 0.1875)
    """
    x, y = _points(x, y, 2, positive_y=True)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if len(w) != len(x) or not np.all(w >= 0) or not w.any():
        raise FitError(f"the {len(w)} weights cannot be used for {len(x)} points; give one weight >= 0 per point.")
    design, target = np.stack([np.ones_like(x), np.log(x)], axis=1), np.log(y)
    root = np.sqrt(w / w.mean())
    scaled, aim = design * root[:, None], target * root
    inverse = np.linalg.pinv(scaled.T @ scaled)
    beta = inverse @ scaled.T @ aim
    residual = aim - scaled @ beta
    leverage = np.einsum("ij,jk,ik->i", scaled, inverse, scaled)
    errors = np.full(2, np.nan)
    if np.count_nonzero(w) > 2:
        spread = residual / np.maximum(1 - leverage, 1e-9)
        errors = np.sqrt(np.diag(inverse @ (scaled.T * spread**2) @ scaled @ inverse))
    total = float(np.sum(w * (target - np.average(target, weights=w)) ** 2)) / w.mean()
    explained = 1 - float(residual @ residual) / total if total > 0 else 1.0
    return PowerLawFit(float(beta[1]), float(errors[1]), float(beta[0]), float(errors[0]), explained, len(x))


def fit_offset_power_law(x: ArrayLike, y: ArrayLike, sigma: ArrayLike | None = None) -> OffsetPowerLawFit:
    """a x^-b + c by non-linear least squares that forgives outliers (soft L1 loss), from many starts.

    Args:
        x, y: [n] with at least three different x > 0.
        sigma: [n] standard deviations of y; without it all points count the same.

    Returns:
        The best of all starts. Standard errors come from the Jacobian and, unless sigma is given, the residuals.

    Raises:
        FitError: points that do not allow a fit.

    >>> import numpy as np
    >>> x = np.array([1.0, 2, 4, 8, 16])
    >>> round(fit_offset_power_law(x, 2 * x**-0.5 + 0.3).exponent, 4)
    0.5
    """
    x, y = _points(x, y, 3, positive_y=False)
    noise = np.ones_like(y) if sigma is None else np.asarray(sigma, dtype=np.float64).ravel()
    if len(noise) != len(y) or not np.all(noise > 0):
        raise FitError("sigma must hold one positive number per point; leave it out if the noise is not known.")
    center = float(np.exp(np.log(x).mean()))

    def residual(p: np.ndarray) -> np.ndarray:
        return (p[0] * (x / center) ** -np.exp(p[1]) + p[2] - y) / noise

    def jacobian(p: np.ndarray) -> np.ndarray:
        power = (x / center) ** -np.exp(p[1])
        return np.stack([power, -p[0] * power * np.log(x / center) * np.exp(p[1]), np.ones_like(x)], 1) / noise[:, None]

    best = min(
        (_descend(residual, jacobian, start, x, y, center) for start in np.geomspace(0.1, 3, 5)),
        key=lambda fit: fit.cost,
    )
    scale, exponent, floor = float(best.x[0]), float(np.exp(best.x[1])), float(best.x[2])
    freedom = len(x) - 3
    chi = 2 * float(best.cost) / freedom if freedom else float("nan")
    spread = np.linalg.pinv(best.jac.T @ best.jac) * (chi if sigma is None else 1.0)
    to_outer = np.array(  # from (scale at the centre, log exponent, floor) to (scale at x = 1, exponent, floor)
        [[1.0, scale * exponent * np.log(center), 0.0], [0.0, exponent, 0.0], [0.0, 0.0, 1.0]]
    )
    to_outer[0] *= center**exponent
    errors = np.sqrt(np.maximum(np.diag(to_outer @ spread @ to_outer.T), 0)) if freedom else np.full(3, np.nan)
    scale_error, exponent_error, floor_error = (float(error) for error in errors)
    outer = scale * center**exponent
    spread_around = float(np.sqrt(chi))
    return OffsetPowerLawFit(outer, exponent, floor, scale_error, exponent_error, floor_error, spread_around, len(x))


def _descend(
    residual: Vector, jacobian: Vector, exponent: float, x: np.ndarray, y: np.ndarray, center: float
) -> OptimizeResult:
    """Least squares from the start with this exponent, whose scale and floor are the linear solution."""
    design = np.stack([(x / center) ** -exponent, np.ones_like(x)], axis=1)
    (scale, floor), *_ = np.linalg.lstsq(design, y, rcond=None)
    limits = ([-np.inf, np.log(1e-3), -np.inf], [np.inf, np.log(20.0), np.inf])
    typical = np.median(np.abs(residual(np.array([scale, np.log(exponent), floor])))) or 1e-12
    start, width = [scale, np.log(exponent), floor], max(3 * typical, 1e-12)
    return least_squares(
        residual, start, jac=jacobian, bounds=limits, loss="soft_l1", f_scale=width,
        x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=300,
    )  # fmt: skip
