"""One linear neuron with two trained factors, solved exactly: how the balance of layers decides lazy or rich."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.core import Axis, DataError, Figure, Line, Value
from widthwise.theory._unbalanced_metric import balanced_split, check_rates, vector

Vector = Float[np.ndarray, "d"]
Rates = tuple[float, float]


@dataclass(frozen=True)
class NeuronPath(Value):
    """Where the neuron is at given times.

    Attributes:
        times: in units of the gradient flow.
        a: ``[times]`` readout; w: ``[times, d]`` first layer; beta: their product, the function.
    """

    times: Float[np.ndarray, "t"]
    a: Float[np.ndarray, "t"]
    w: Float[np.ndarray, "t d"]
    beta: Float[np.ndarray, "t d"]


@dataclass(frozen=True, eq=False)
class LinearNeuron(Value):
    """Gradient flow of ``f(x) = a w.x`` on ``1/2 |X a w - y|^2`` with ``X^T X = 1``, in closed form.

    ``a' = -eta_a w.(beta - beta*)``, ``w' = -eta_w a (beta - beta*)`` conserve ``delta = eta_w a^2 - eta_a |w|^2``.
    Positive (upstream: the first layer learns faster) makes the flow lazy as it grows, zero is rich, negative
    (downstream) first stretches beta along its direction and then turns it. The solution used holds for every delta,
    sign of a, dimension and pair of rates; it equals the one of arXiv:2406.06158, section 3 (an own derivation: the
    ratio ``w.beta* / a`` obeys a Riccati equation, after which ``1/a^2`` is linear).

    Attributes:
        a, w: at time zero; see `from_balance` for one with a given delta.
        target: beta*, the solution ``X^T y``.
        rates: ``(eta_a, eta_w)``.

    >>> neuron = LinearNeuron.from_balance(0.0, beta=[-1.0, 0.0], target=[0.0, 1.0])
    >>> neuron.at([1.0]).beta.round(5).tolist()
    [[-0.40464, 0.47554]]
    >>> round(neuron.kernel_distance(0.0, 20.0), 5)
    0.2
    """

    a: float
    w: Any  # numbers, kept as a vector of doubles
    target: Any
    rates: Rates = (1.0, 1.0)
    delta: float = field(init=False)

    def __post_init__(self) -> None:
        w, target = vector("w", self.w), vector("target", self.target)
        check_rates(self.rates)
        if len(w) != len(target):
            raise DataError(f"w has {len(w)} entries but the target {len(target)}; give as many of each.")
        if not np.isfinite(self.a):
            raise DataError(f"a is {self.a}; give a finite number.")
        eta_a, eta_w = self.rates
        object.__setattr__(self, "w", w)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "delta", float(eta_w * self.a**2 - eta_a * w @ w))

    @classmethod
    def from_balance(
        cls, delta: float | int, beta: Any, target: Any, rates: Rates = (1.0, 1.0)
    ) -> "LinearNeuron":  # fmt: skip
        """The neuron with a > 0 that computes `beta` at time zero and conserves `delta`.

        Raises:
            DataError: beta is zero and delta is not above zero, so that no such a > 0 exists.
        """
        a, w = balanced_split(beta, delta, rates)
        return cls(a, w, vector("target", target), rates)

    @property
    def geometry(self) -> str:
        """The surface that ``delta = const`` is in ``(a, w)``, on which the flow stays."""
        if self.delta == 0:
            return "double cone"
        return "hyperboloid of two sheets" if self.delta > 0 else "hyperboloid of one sheet"

    @property
    def final_sign(self) -> int:
        """Sign that a ends with: that of ``w.beta* + a (delta + sqrt(delta^2 + 4 |beta*|^2)) / 2`` (unit rates).

        Zero on the surface between the two basins, from where the flow goes to the saddle.
        """
        return int(np.sign(self._modes()[2]))

    def at(self, times: Sequence[float] | float | int | np.ndarray) -> NeuronPath:
        """The flow at `times` (zero and above).

        Raises:
            DataError: a time is negative or not finite.
        """
        t = np.atleast_1d(np.asarray(times, dtype=float))
        if not np.isfinite(t).all() or (t < 0).any():
            raise DataError(f"times hold {t.min() if (t < 0).any() else t.max()}; give finite times from zero.")
        aim, c, p, q = self._modes()
        size = float(aim @ aim)
        b = self.delta + c
        fade, decay = np.exp(-c * t), np.exp(-b * t)
        inside = p**2 * _between(0.0, b, t) + q**2 * _between(2 * c, b, t) + 2 * p * q * _between(c, b, t)
        root = np.sqrt(decay + 2 * inside)
        start = sqrt(self.rates[0]) * self.w
        along = np.zeros_like(t)
        if size > 0:
            start = start - (start @ aim) / size * aim
            along = (-self.delta * (p + q * fade) + c * (p - q * fade)) / (2 * size * root)
        a = (p + q * fade) / root / sqrt(self.rates[1])
        w = (along[:, None] * aim + (np.sqrt(decay) / root)[:, None] * start) / sqrt(self.rates[0])
        return NeuronPath(t, a, w, a[:, None] * w)

    def kernel(self, time: float | int = 0.0) -> Float[np.ndarray, "d d"]:
        """The tangent kernel in input space, ``M = eta_w a^2 + eta_a w w^T``: kernels of data are ``X M X^T``."""
        path = self.at(time)
        return self.rates[1] * path.a[0] ** 2 * np.eye(len(self.w)) + self.rates[0] * np.outer(path.w[0], path.w[0])

    def kernel_distance(self, first: float | int, second: float | int) -> float:
        """``S = 1 - <K_1, K_2> / (|K_1| |K_2|)`` between two times."""
        one, two = self.kernel(first), self.kernel(second)
        return float(1 - (one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two)))

    def stationary(self) -> tuple[float, Vector]:
        """``(a, w)`` at infinite time: ``a^2 = (delta + sqrt(delta^2 + 4 |beta*|^2)) / 2`` for unit rates.

        Raises:
            DataError: the start lies on the surface between the basins.
        """
        sign = self.final_sign
        if sign == 0:
            raise DataError("the start lies between the basins of both signs of a; move it a little.")
        c = self._modes()[1]
        a = sign * sqrt((self.delta + c) / 2) / sqrt(self.rates[1])
        if a == 0:
            return 0.0, self.at(1e6).w[0]
        return a, self.target / a

    def plot(self, until: float = 10.0) -> Figure:
        """Both factors and the loss against time."""
        path = self.at(np.linspace(0, until, 201))
        x = tuple(path.times.tolist())
        loss = ((path.beta - self.target) ** 2).sum(1) / 2
        rows = (("a", path.a), ("|w|", np.linalg.norm(path.w, axis=1)), ("loss", loss))
        lines = tuple(Line(name, x, tuple(map(float, row)), slot) for slot, (name, row) in enumerate(rows))
        return Figure(f"One linear neuron, delta = {self.delta:.3g}", Axis("time"), Axis("value"), lines)

    def _modes(self) -> tuple[Vector, float, float, float]:
        """Target in rescaled units, c, and the weights p and q of the growing and fading mode."""
        eta_a, eta_w = self.rates
        aim = sqrt(eta_a * eta_w) * self.target
        c = sqrt(self.delta**2 + 4 * float(aim @ aim))
        a = sqrt(eta_w) * self.a
        slope = (self.delta * a + 2 * sqrt(eta_a) * float(self.w @ aim)) / c if c > 0 else 0.0
        return aim, c, (a + slope) / 2, (a - slope) / 2


def _between(first: float, second: float, t: np.ndarray) -> np.ndarray:
    """``(exp(-first t) - exp(-second t)) / (second - first)``, also where they are equal."""
    gap = abs(second - first)
    ramp = -np.expm1(-gap * t) / gap if gap > 0 else t
    return np.exp(-min(first, second) * t) * ramp
