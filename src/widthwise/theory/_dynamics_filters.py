"""What an optimiser has left of each eigenmode of the tangent kernel after some training."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
from jaxtyping import Float

from widthwise.core import DataError

Factors = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Flow:
    """Gradient flow ``df/dt = -rate T (f - y)``, closed form at any time.

    Attributes:
        rate: learning rate per unit of time, loss convention folded in.
    """

    rate: float

    def left(self, values: Float[np.ndarray, "modes"], times: Float[np.ndarray, "times"]) -> np.ndarray:
        """``exp(-rate lambda t)``, ``[times, modes]``; eigenvalue 0 stays at 1 for ever."""
        with np.errstate(invalid="ignore"):
            exponent = self.rate * np.outer(times, values)
        return np.where(values > 0, np.exp(-exponent), 1.0)

    def learned(self, values: Float[np.ndarray, "modes"], times: Float[np.ndarray, "times"]) -> np.ndarray:
        """``(1 - exp(-rate lambda t)) / lambda`` without cancellation; at infinity ``1 / lambda``, and 0 for 0."""
        with np.errstate(invalid="ignore"):
            share = -np.expm1(-self.rate * np.outer(times, values))
        positive = values > 0
        still = np.where(np.isfinite(times), self.rate * times, 0.0)[:, None]
        return np.where(positive, share / np.where(positive, values, 1.0), still)


@dataclass(frozen=True)
class Descent:
    """Full-batch gradient descent with heavy-ball momentum: ``z_{k+1} = (1 + m - eta lambda) z_k - m z_{k-1}``.

    The velocity starts at zero, so that the first step is plain gradient descent. Powers of the recurrence's matrix
    are taken by squaring, which is exact where its two roots coincide.

    Attributes:
        rate: learning rate per step, loss convention folded in.
        momentum: m, from 0 to below 1.
    """

    rate: float
    momentum: float = 0.0

    def left(self, values: Float[np.ndarray, "modes"], times: Float[np.ndarray, "times"]) -> np.ndarray:
        """``z_k`` after k = `times` steps: ``(1 - eta lambda)^k`` without momentum, ``[times, modes]``."""
        m, still = self.momentum, 1 + self.momentum - self.rate * values
        matrix = _stack([[still, -m], [1.0, 0.0]], len(values))
        return self._each(times, lambda k: np.linalg.matrix_power(matrix, k).sum(2)[:, 0], self._left_forever(values))

    def learned(self, values: Float[np.ndarray, "modes"], times: Float[np.ndarray, "times"]) -> np.ndarray:
        """``(1 - z_k) / lambda``, from a recurrence of its own that holds for lambda = 0 as well."""
        m, eta, still = self.momentum, self.rate, 1 + self.momentum - self.rate * values
        matrix = _stack([[still, -m, eta], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], len(values))
        positive = values > 0
        forever = np.where(positive, (1 - self._left_forever(values)) / np.where(positive, values, 1.0), 0.0)
        return self._each(times, lambda k: np.linalg.matrix_power(matrix, k)[:, 0, 2], forever)

    def _left_forever(self, values: np.ndarray) -> np.ndarray:
        stable = self.rate * values < 2 * (1 + self.momentum)
        return np.where(values > 0, np.where(stable, 0.0, np.nan), 1.0)

    @staticmethod
    def _each(times: np.ndarray, at: Factors, forever: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array([at(int(k)) if np.isfinite(k) else forever for k in times]).reshape(len(times), -1)


def _stack(rows: list[list], modes: int) -> np.ndarray:
    """Matrices ``[modes, k, k]`` from rows whose entries are numbers or ``[modes]``."""
    return np.stack([np.stack([np.broadcast_to(cell, modes) for cell in row], 1) for row in rows], 1).astype(float)


def convergence(values: Float[np.ndarray, "modes"], rate: float, momentum: float = 0.0) -> Float[np.ndarray, "modes"]:
    """Factor by which gradient descent shrinks each mode per step in the long run; 1 or more: it does not converge.

    >>> convergence(np.array([1.0, 0.1]), 1.0, 0.0)
    array([0. , 0.9])
    """
    middle = (1 + momentum - rate * values) / 2
    spread = middle * middle - momentum
    real = np.abs(middle) + np.sqrt(np.maximum(spread, 0.0))
    return np.where(spread > 0, real, np.sqrt(momentum))


Filter = Flow | Descent


def check_rate(rate: float, momentum: float = 0.0) -> None:
    """Refuse rates and momenta that make no sense.

    Raises:
        DataError: the rate is not positive and finite, or the momentum not in [0, 1).
    """
    if not 0 < rate < inf:
        raise DataError(f"rate={rate} is no learning rate; give a positive number.")
    if not 0 <= momentum < 1:
        raise DataError(f"momentum={momentum} does not converge; give 0 or more and less than 1.")
