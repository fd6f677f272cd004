"""The loss that a size and a budget of tokens reach at best: L = e^E + e^A / N^alpha + e^B / D^beta."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import gaussian_kde

from widthwise.core import DataError, Value

NAMES = ("E", "A", "B", "alpha", "beta")
LEAST_POINTS = 6
STARTS = 12


@dataclass(frozen=True)
class LossLaw(Value):
    """A fitted loss law (arXiv:2203.15556, eq. 10; Huber loss of log residuals).

    Attributes:
        coefficients: E, A, B, alpha, beta.
        low, high: 95 % intervals from refits with reweighted points.
        mode: of those refits, by kernel density, one coefficient at a time.
        cloud: the refits.
        residual: root mean square of the log residuals.
    """

    coefficients: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mode: tuple[float, ...]
    cloud: Float[np.ndarray, "resamples 5"] = field(metadata={"plain": False}, repr=False)
    residual: float

    @property
    def irreducible(self) -> float:
        """e^E, the loss of infinitely many params and tokens."""
        return float(np.exp(self.coefficients[0]))

    def predict(self, params: float, tokens: float) -> float:
        """The loss at a size and a budget.

        >>> cloud = np.zeros((1, 5))
        >>> round(LossLaw((0.5, 6.0, 6.0, 0.34, 0.28), (), (), (), cloud, 0.0).predict(1e9, 1e11), 4)
        2.3357
        """
        return float(np.exp(_log_loss(np.array(self.coefficients), np.log([params]), np.log([tokens]))[0]))

    def interval(self, params: float, tokens: float) -> tuple[float, float]:
        """95 % interval of the fitted curve there."""
        logs = [_log_loss(row, np.log([params]), np.log([tokens]))[0] for row in self.cloud]
        low, high = np.exp(np.percentile(logs, [2.5, 97.5]))
        return float(low), float(high)


def _terms(
    theta: Float[np.ndarray, "5"], n: Float[np.ndarray, "k"], d: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "3 k"]:
    e, a, b, alpha, beta = theta
    return np.stack([np.full_like(n, e), a - alpha * n, b - beta * d])


def _log_loss(
    theta: Float[np.ndarray, "5"], n: Float[np.ndarray, "k"], d: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "k"]:
    return logsumexp(_terms(theta, n, d), axis=0)


def huber_objective(
    theta: Float[np.ndarray, "5"],
    n: Float[np.ndarray, "k"],
    d: Float[np.ndarray, "k"],
    logs: Float[np.ndarray, "k"],
    weights: Float[np.ndarray, "k"],
    delta: float,
) -> tuple[float, Float[np.ndarray, "5"]]:
    """Weighted Huber loss of log residuals in units of delta^2, and its gradient."""
    terms = _terms(theta, n, d)
    whole = logsumexp(terms, axis=0)
    error = (whole - logs) / delta
    size = np.abs(error)
    value = float(weights @ np.where(size <= 1, error**2 / 2, size - 0.5))
    slope = weights * np.clip(error, -1, 1) / delta
    share = np.exp(terms - whole)
    gradient = np.array(
        [slope @ share[0], slope @ share[1], slope @ share[2], -slope @ (share[1] * n), -slope @ (share[2] * d)]
    )
    return value, gradient


def fit_loss_law(
    params: Float[np.ndarray, "k"],
    tokens: Float[np.ndarray, "k"],
    losses: Float[np.ndarray, "k"],
    *,
    delta: float = 1e-3,
    resamples: int = 200,
    seed: int = 0,
) -> LossLaw:
    """Fit the loss law to the best loss of each cell, from the best of a grid of starts.

    Raises:
        DataError: fewer than six cells, fewer than three sizes or budgets, or losses that are not positive.

    >>> n, d = (v.ravel() for v in np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
    >>> law = fit_loss_law(n, d, 1.5 + 400 / n**0.34 + 410 / d**0.28, resamples=20)
    >>> [round(law.coefficients[i], 2) for i in (3, 4)], round(law.irreducible, 2)
    ([0.34, 0.28], 1.5)
    """
    n, d, losses = np.log(params), np.log(tokens), np.asarray(losses, dtype=float)
    if len(losses) < LEAST_POINTS or len(set(n)) < 3 or len(set(d)) < 3:
        raise DataError(
            f"a loss law has five coefficients; {len(losses)} cells of {len(set(n))} sizes and {len(set(d))} budgets "
            f"do not determine it: give at least {LEAST_POINTS}, of three sizes and three budgets."
        )
    if not (np.isfinite(losses) & (losses > 0)).all():
        raise DataError("the losses must be positive numbers; leave out cells in which every run diverged.")
    middle = np.array([n.mean(), d.mean()])
    n, d, logs = n - middle[0], d - middle[1], np.log(losses)
    starts = _starts(n, d, logs)
    equal = np.ones((len(starts), len(n)))
    found = _descend(starts, n, d, logs, equal, delta)
    best = found[np.argmin(_expansion(found, n, d, logs, equal, delta)[0])]
    best = minimize(huber_objective, best, (n, d, logs, equal[0], delta), method="BFGS", jac=True).x
    weights = np.random.default_rng(seed).exponential(size=(resamples, len(n)))
    draws = _descend(np.repeat(best[None], resamples, axis=0), n, d, logs, weights, delta)
    cloud = _raw(np.concatenate([best[None], draws]), middle)
    ends = np.percentile(cloud[1:], [2.5, 97.5], axis=0)
    error = _log_loss(best, n, d) - logs
    return LossLaw(
        tuple(map(float, cloud[0])),
        tuple(map(float, ends[0])),
        tuple(map(float, ends[1])),
        tuple(_mode(column) for column in cloud[1:].T),
        cloud[1:],
        float(np.sqrt(np.mean(error**2))),
    )


def _starts(
    n: Float[np.ndarray, "k"], d: Float[np.ndarray, "k"], logs: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "starts 5"]:
    """The best of a grid, in centred logarithms."""
    floor = logs.min() - np.array([0.05, 0.2, 0.5, 1.0])
    sizes, powers = logs.mean() - np.array([0.7, 1.5, 2.5, 4.0]), (0.1, 0.2, 0.3, 0.45, 0.7)
    grid = np.array(list(itertools.product(floor, sizes, sizes, powers, powers)))
    terms = np.stack(
        [
            np.repeat(grid[:, :1], len(n), axis=1),
            grid[:, 1:2] - grid[:, 3:4] * n,
            grid[:, 2:3] - grid[:, 4:5] * d,
        ]
    )
    score = np.abs(logsumexp(terms, axis=0) - logs).sum(1)
    return grid[np.argsort(score)[:STARTS]]


def _descend(
    thetas: Float[np.ndarray, "many 5"],
    n: Float[np.ndarray, "k"],
    d: Float[np.ndarray, "k"],
    logs: Float[np.ndarray, "k"],
    weights: Float[np.ndarray, "many k"],
    delta: float,
    steps: int = 200,
) -> Float[np.ndarray, "many 5"]:
    """Reweighted Levenberg-Marquardt steps on many problems at once; each keeps a step only where it falls."""
    damping, thetas = np.full(len(thetas), 1e-3), thetas.copy()
    for width in (30 * delta, delta):  # nearly quadratic first: far away, the narrow Huber loss is a wall of kinks
        value, gradient, curvature = _expansion(thetas, n, d, logs, weights, width)
        for _ in range(steps):
            scale = np.einsum("mii->mi", curvature) + 1e-9
            damped = curvature + (damping[:, None] * scale)[:, :, None] * np.eye(5)
            trial = thetas - np.linalg.solve(damped, gradient[..., None])[..., 0]
            tried, slope, bend = _expansion(trial, n, d, logs, weights, width)
            better = tried < value
            gain = np.where(better, value - tried, 0.0)
            thetas[better], gradient[better], curvature[better] = trial[better], slope[better], bend[better]
            small = gain <= 1e-8 * value
            value = np.where(better, tried, value)
            damping = np.clip(np.where(better, damping / 4, damping * 8), 1e-12, 1e12)
            if small.all():
                break
    return thetas


def _expansion(
    thetas: Float[np.ndarray, "many 5"],
    n: Float[np.ndarray, "k"],
    d: Float[np.ndarray, "k"],
    logs: Float[np.ndarray, "k"],
    weights: Float[np.ndarray, "many k"],
    delta: float,
) -> tuple[Float[np.ndarray, "many"], Float[np.ndarray, "many 5"], Float[np.ndarray, "many 5 5"]]:
    """Huber loss of many problems, its gradient, and the curvature of its reweighted squares."""
    e, a, b, alpha, beta = (column[:, None] for column in thetas.T)
    terms = np.stack([e + 0 * n, a - alpha * n, b - beta * d])
    top = terms.max(0)
    whole = top + np.log(np.exp(terms - top).sum(0))
    share = np.exp(terms - whole)
    jacobian = np.stack([*share, -share[1] * n, -share[2] * d], axis=-1)
    error = (whole - logs) / delta
    size = np.abs(error)
    value = (weights * np.where(size <= 1, error**2 / 2, size - 0.5)).sum(1)
    heavy = weights / np.maximum(size, 1.0) / delta
    gradient = ((heavy * error)[:, None, :] @ jacobian)[:, 0]
    curvature = np.swapaxes(jacobian * (heavy / delta)[..., None], 1, 2) @ jacobian
    return value, gradient, curvature


def _raw(centred: Float[np.ndarray, "rows 5"], middle: Float[np.ndarray, "2"]) -> Float[np.ndarray, "rows 5"]:
    out = centred.copy()
    out[:, 1] += centred[:, 3] * middle[0]
    out[:, 2] += centred[:, 4] * middle[1]
    return out


def _mode(column: Float[np.ndarray, "resamples"]) -> float:
    if np.ptp(column) < 1e-9 * max(1.0, float(np.abs(column).max())):
        return float(column[0])
    grid = np.linspace(column.min(), column.max(), 400)
    return float(grid[np.argmax(gaussian_kde(column)(grid))])
