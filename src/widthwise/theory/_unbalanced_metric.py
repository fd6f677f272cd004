"""Function space of the two-factor linear model: balance, metric, implicit bias (arXiv:2406.06158)."""

from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import integrate, linalg, optimize

from widthwise.core import DataError

Vector = Float[np.ndarray, "d"]
Rates = tuple[float, float]


def balanced_split(
    beta: Any, delta: float | int, rates: Rates = (1.0, 1.0)
) -> tuple[float, Vector]:  # fmt: skip
    """The factors ``a > 0`` and ``w`` with ``a w = beta`` and ``eta_w a^2 - eta_a |w|^2 = delta``.

    ``eta_w a^2 = (delta + sqrt(delta^2 + 4 eta_a eta_w |beta|^2)) / 2``.

    Raises:
        DataError: beta is zero and delta not above zero.

    >>> balanced_split([3.0, 4.0], 0.0)[0] ** 2
    5.000000000000001
    """
    beta = vector("beta", beta)
    check_rates(rates)
    kappa = _kappa(beta, float(delta), rates)
    square = (kappa + delta) / 2
    if delta < 0:  # the same number without cancellation
        square = 2 * rates[0] * rates[1] * float(beta @ beta) / (kappa - delta)
    if square <= 0:
        raise DataError(f"no a > 0 has beta = 0 and delta = {delta}; give another beta, or delta above zero.")
    a = sqrt(square / rates[1])
    return a, beta / a


def function_metric(
    beta: Any, delta: float | int, rates: Rates = (1.0, 1.0)
) -> Float[np.ndarray, "d d"]:  # fmt: skip
    """M in ``beta' = -M gradient``: ``(kappa + delta)/2 + (kappa - delta)/2 beta beta^T / |beta|^2``.

    ``kappa = sqrt(delta^2 + 4 eta_a eta_w |beta|^2)``. The tangent kernel of data X is ``X M X^T``. Large positive
    delta leaves a multiple of the identity (lazy), large negative delta only the direction of beta.

    >>> function_metric([2.0, 0.0], 0.0).tolist()
    [[4.0, 0.0], [0.0, 2.0]]
    """
    beta = vector("beta", beta)
    check_rates(rates)
    kappa, size = _kappa(beta, float(delta), rates), float(beta @ beta)
    along = np.outer(beta, beta) / size if size > 0 else np.zeros((len(beta), len(beta)))
    return (kappa + delta) / 2 * np.eye(len(beta)) + (kappa - delta) / 2 * along


def neuron_flow(
    inputs: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n"],
    a: float | int,
    w: Any,
    times: Any,
    rates: Rates = (1.0, 1.0),
    tolerance: float = 1e-11,
) -> Float[np.ndarray, "t 1+d"]:
    """Gradient flow of ``f(x) = a w.x`` on any data by numerical integration (DOP853): rows ``(a, w)`` at `times`.

    Raises:
        DataError: shapes do not fit, or the integration fails.
    """
    check_rates(rates)
    X, y, start = np.asarray(inputs, dtype=float), np.asarray(targets, dtype=float), vector("w", w)
    if X.shape != (len(y), len(start)):
        raise DataError(f"inputs of shape {X.shape} do not fit {len(y)} targets and {len(start)} weights.")
    t = np.atleast_1d(np.asarray(times, dtype=float))

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        pull = X.T @ (X @ state[1:] * state[0] - y)
        return np.concatenate([[-rates[0] * state[1:] @ pull], -rates[1] * state[0] * pull])

    span = (0.0, float(t.max()))
    found = integrate.solve_ivp(
        slope, span, np.concatenate([[a], start]), "DOP853", t_eval=np.sort(t), rtol=tolerance, atol=tolerance * 1e-2
    )
    if not found.success:
        raise DataError(f"the flow could not be followed to time {span[1]:g}: {found.message}")
    return found.y.T[np.argsort(np.argsort(t))]


def implicit_bias(
    inputs: Float[np.ndarray, "n d"], targets: Float[np.ndarray, "n"], delta: float | int, beta: Any
) -> Vector:
    """The interpolating solution that gradient flow (unit rates, a > 0) reaches from `beta` at balance `delta`.

    It minimises ``Psi(beta) - psi.beta`` over ``X beta = y``, with
    ``Psi = (sqrt(delta^2 + 4 |beta|^2) - 2 delta) sqrt(sqrt(delta^2 + 4 |beta|^2) + delta) / 3`` and psi its gradient
    at the start (arXiv:2406.06158, theorem on the implicit bias). Large delta: the solution nearest to the start;
    large negative delta: the one best aligned with it.

    Raises:
        DataError: the start is zero, or no solution interpolates.
    """
    X, y, start = np.asarray(inputs, dtype=float), np.asarray(targets, dtype=float), vector("beta", beta)
    if not start.any():
        raise DataError("beta is zero at the start, where its direction is not defined; give another start.")
    particular = np.linalg.lstsq(X, y, rcond=None)[0]
    if np.linalg.norm(X @ particular - y) > 1e-8 * max(1.0, float(np.linalg.norm(y))):
        raise DataError("no beta interpolates these targets; give fewer, or consistent, examples.")
    free = linalg.null_space(X)
    if free.shape[1] == 0:
        return particular
    d, psi = float(delta), bias_gradient(start, float(delta))

    def value(z: np.ndarray) -> float:
        point = particular + free @ z
        kappa = _kappa(point, d)
        return (kappa - 2 * d) * sqrt(max(kappa + d, 0.0)) / 3 - float(psi @ point)

    def slope(z: np.ndarray) -> np.ndarray:
        return free.T @ (bias_gradient(particular + free @ z, d) - psi)

    def bend(z: np.ndarray) -> np.ndarray:
        return free.T @ _bias_hessian(particular + free @ z, d) @ free

    first = free.T @ (start - particular)
    found = optimize.minimize(value, first, jac=slope, hess=bend, method="trust-exact", options={"gtol": 1e-11})
    polished = optimize.root(slope, found.x, jac=bend, tol=1e-13)
    return particular + free @ (polished.x if polished.success else found.x)


def bias_gradient(beta: Any, delta: float | int) -> Vector:
    """Gradient of Psi, ``sqrt(kappa - delta) beta / |beta|``.

    >>> bias_gradient([0.0, 2.0], 3.0).tolist()
    [0.0, 1.4142135623730951]
    """
    beta = vector("beta", beta)
    kappa, d, size = _kappa(beta, float(delta)), float(delta), sqrt(float(beta @ beta))
    below = kappa - d if d <= 0 else 4 * size**2 / (kappa + d)
    return beta * (sqrt(below) / size if size > 0 else 0.0)


def _bias_hessian(beta: Vector, delta: float) -> np.ndarray:
    kappa, size = _kappa(beta, delta), float(np.linalg.norm(beta))
    unit = beta / size
    along, across = sqrt(max(kappa + delta, 0.0)) / kappa, float(np.linalg.norm(bias_gradient(beta, delta))) / size
    return across * np.eye(len(beta)) + (along - across) * np.outer(unit, unit)


def _kappa(beta: Vector, delta: float, rates: Rates = (1.0, 1.0)) -> float:
    return sqrt(delta**2 + 4 * rates[0] * rates[1] * float(beta @ beta))


def check_rates(rates: Rates) -> None:
    """Refuse rates that are not above zero.

    Raises:
        DataError: one is not.
    """
    if not all(0 < rate < float("inf") for rate in rates):
        raise DataError(f"rates are {tuple(rates)}; give two finite numbers above zero, for a and for w.")


def vector(name: str, values: Any) -> Vector:
    """A finite vector of doubles.

    Raises:
        DataError: it is none.
    """
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise DataError(f"{name} of shape {found.shape} is no finite vector; give one row of numbers.")
    return found
