"""One eigendecomposition: every ridge at once, leave-one-out errors and evidence in closed form."""

from dataclasses import dataclass
from math import log, pi

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar

from widthwise.core import DataError
from widthwise.kernels.regression._errors import NotPositiveDefinite, jitter_for

_GRID = 61


@dataclass(frozen=True)
class Spectrum:
    """Gram matrix ``K = U diag(s) U'`` with targets in its basis.

    Attributes:
        values: ``[n]`` eigenvalues s, ascending.
        vectors: ``[n, n]`` U.
        projected: ``[n, outputs]`` U' y.
        eps: rounding of the entries of K.
    """

    values: Float[np.ndarray, "n"]
    vectors: Float[np.ndarray, "n n"]
    projected: Float[np.ndarray, "n outputs"]
    eps: float

    @classmethod
    def of(cls, gram: Float[np.ndarray, "n n"], targets: Float[np.ndarray, "n outputs"], eps: float) -> "Spectrum":
        """Decompose; `gram` is overwritten."""
        values, vectors = eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
        return cls(values, vectors, vectors.T @ targets, eps)

    @property
    def floor(self) -> float:
        """The size of eigenvalues that rounding alone makes."""
        return float(len(self.values) ** 0.5 * self.eps * max(self.values[-1], 0.0))

    def check(self, ridge: float) -> None:
        """Refuse a ridge that leaves the matrix singular or indefinite.

        Raises:
            NotPositiveDefinite: with the offending eigenvalue and a ridge that helps.
        """
        smallest, largest = float(self.values[0]) + ridge, float(self.values[-1])
        if smallest <= len(self.values) * np.finfo(np.float64).eps * max(largest, 0.0) or largest <= 0.0:
            jitter = jitter_for(smallest, max(abs(smallest), largest), ridge, self.eps, len(self.values))
            raise NotPositiveDefinite(smallest, largest, ridge, jitter)

    def condition(self, ridge: float) -> float:
        """Largest over smallest eigenvalue of ``K + ridge I``."""
        return float((self.values[-1] + ridge) / (self.values[0] + ridge))

    def coefficients(self, ridge: float) -> Float[np.ndarray, "n outputs"]:
        """``(K + ridge I)^-1 y``."""
        return self.vectors @ (self.projected / (self.values + ridge)[:, None])

    def leave_one_out(self, ridge: float) -> Float[np.ndarray, "n outputs"]:
        """Errors ``y_i - f_without_i(x_i)`` of fits without one example each: ``a_i / [(K + ridge I)^-1]_ii``.

        (Rasmussen & Williams, Gaussian Processes for Machine Learning, equation 5.12.)
        """
        inverse = 1.0 / (self.values + ridge)
        return self.coefficients(ridge) / ((self.vectors**2) @ inverse)[:, None]

    def amplitudes(self, ridge: float) -> Float[np.ndarray, "outputs"]:
        """For each output the s^2 that maximises the evidence of covariance ``s^2 (K + ridge I)``: ``y' A y / n``."""
        return (self.projected**2 / (self.values + ridge)[:, None]).mean(0)

    def log_evidence(self, ridge: float, amplitude: float | str = 1.0) -> float:
        """Log marginal likelihood of the targets, summed over outputs, under covariance ``s^2 (K + ridge I)``.

        With ``amplitude="evidence"`` each output has its own best s^2. (Rasmussen & Williams, equation 2.30.)
        """
        n, outputs = self.projected.shape
        logdet = float(np.log(self.values + ridge).sum())
        found = self.amplitudes(ridge)
        scales = np.maximum(found, np.finfo(float).tiny) if amplitude == "evidence" else np.full(outputs, amplitude)
        fit = float((n * found / scales).sum())
        return -0.5 * (fit + outputs * (logdet + n * log(2 * pi)) + n * float(np.log(scales).sum()))

    def best_ridge(self, rule: str, amplitude: float | str = 1.0) -> float:
        """The ridge that minimises the leave-one-out error or maximises the evidence.

        Both are smooth in log ridge: a grid from the rounding of the largest eigenvalue to a hundred times that
        eigenvalue, then a bounded search around its best point.

        Raises:
            DataError: the rule is not known.
        """
        if rule not in ("loo", "evidence"):
            raise DataError(f"ridge {rule!r} is not known; give a number of at least 0, 'loo' or 'evidence'.")
        largest = max(float(self.values[-1]), np.finfo(float).tiny)
        low = max(10 * self.floor, 2 * max(0.0, -float(self.values[0])), 1e-14 * largest)
        grid = np.linspace(log(low), log(100 * largest), _GRID)

        def cost(log_ridge: float) -> float:
            ridge = float(np.exp(log_ridge))
            if rule == "loo":
                return float((self.leave_one_out(ridge) ** 2).mean())
            return -self.log_evidence(ridge, amplitude)

        costs = [cost(point) for point in grid]
        best = int(np.argmin(costs))
        bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
        found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4})
        return float(np.exp(found.x if found.fun < costs[best] else grid[best]))
