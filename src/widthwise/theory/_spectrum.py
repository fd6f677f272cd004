"""What the theory needs to know about a task: four sums over its eigenmodes, as functions of one scalar."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.special import hyp2f1

from widthwise.core import DataError

Numbers = float | int | np.number | np.ndarray | Sequence
"""What stands for an array of numbers in arguments that broadcast."""

_CHUNK = 4_000_000  # entries of a [gammas, modes] block that are held at once


@dataclass(frozen=True)
class Moments:
    """Sums over modes at effective ridge gamma, with ``L_i = lambda_i / (lambda_i + gamma)``.

    Attributes:
        s1: ``sum L_i``, the effective number of learned modes.
        s2: ``sum L_i^2``.
        bias: ``sum (1 - L_i)^2 v_i^2 + noise`` (summed over outputs).
        gap: ``sum (1 - L_i) v_i^2 + noise``. The two are tied: ``bias = gap - gamma d gap / d gamma``.
    """

    s1: Float[np.ndarray, "*points"]
    s2: Float[np.ndarray, "*points"]
    bias: Float[np.ndarray, "*points"]
    gap: Float[np.ndarray, "*points"]


@runtime_checkable
class Spectrum(Protocol):
    """A task as the eigenframework sees it."""

    @property
    def capacity(self) -> float:
        """Supremum of `s1`: the number of modes with a non-zero eigenvalue (infinite with a tail)."""
        ...

    @property
    def log_range(self) -> tuple[float, float]:
        """Logarithms of effective ridges below and above which nothing changes."""
        ...

    def degrees(self, gamma: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        """``s1`` alone."""
        ...

    def moments(self, gamma: Float[np.ndarray, "points"]) -> Moments:
        """All four sums. `gamma` may hold 0 and infinity."""
        ...


@dataclass(frozen=True)
class PowerTail:
    """Modes beyond the listed ones: ``lambda_i = scale i^-alpha``, ``v_i^2 = power i^-beta``, alpha, beta > 1."""

    alpha: float | int
    beta: float | int
    scale: float | int = 1.0
    power: float | int = 1.0

    def __post_init__(self) -> None:
        if not (self.alpha > 1 and self.beta > 1):
            raise DataError(
                f"a power-law tail with alpha={self.alpha:g} and beta={self.beta:g} has no finite trace or power; "
                "both exponents must exceed 1."
            )

    def moments(self, gamma: Float[np.ndarray, "points"], after: int) -> Moments:
        """Sums over ``i > after`` by the midpoint Euler-Maclaurin rule; the integrals are hypergeometric.

        The second integral of each pair follows from the first by parts:
        ``alpha int L^2 = (alpha - 1) int L - m L(m)``.
        """
        a, b, m = self.alpha, self.beta, after + 0.5
        x = self.scale * m**-a / np.maximum(gamma, 1e-200)  # L / (1 - L) at the start of the tail
        learned = 1 / (1 + 1 / x)
        s1 = m * x / (a - 1) * hyp2f1(1, 1 - 1 / a, 2 - 1 / a, -x)
        s2 = ((a - 1) * s1 - m * learned) / a
        p = (a + b - 1) / a
        start = m ** (1 - b)
        gap = start * (1 / (b - 1) - x / (a * p) * hyp2f1(1, p, 1 + p, -x))
        bias = gap + ((1 - b) * gap + start * (1 - learned)) / a
        # First Euler-Maclaurin term at the half-integer: f'(m) / 24.
        slope1 = -a / m * learned * (1 - learned)
        d1 = m**-b / m * ((1 - learned) * (a * learned - b))
        d2 = m**-b / m * ((1 - learned) ** 2 * (2 * a * learned - b))
        return Moments(
            s1 + slope1 / 24,
            s2 + 2 * learned * slope1 / 24,
            self.power * (bias + d2 / 24),
            self.power * (gap + d1 / 24),
        )

    def total(self, after: int) -> float:
        """Power of the target in the tail."""
        m = after + 0.5
        return self.power * (m ** (1 - self.beta) / (self.beta - 1) - self.beta * m ** (-self.beta - 1) / 24)


@dataclass(frozen=True, eq=False)
class EigenSpectrum:
    """A task given by the eigenvalues of its kernel and the power of the target in each mode.

    Args:
        eigenvalues: ``[levels]``, not negative, in any order.
        coefficients_squared: ``[levels]``, power ``v_i^2`` of the target in each level (the level's total, where
            levels have multiplicities), summed over outputs.
        multiplicities: ``[levels]``, how many modes share each eigenvalue; 1 by default.
        noise: variance of the label noise, summed over outputs; it is part of every risk.
        tail: modes beyond the listed ones.

    Raises:
        DataError: lengths differ, or a value is negative or not finite.

    >>> flat = EigenSpectrum(np.ones(30), np.zeros(30), noise=1.0)
    >>> float(flat.moments(np.array([0.5])).s1[0])
    20.0
    """

    eigenvalues: Float[np.ndarray, "_"]
    coefficients_squared: Float[np.ndarray, "_"]
    multiplicities: Float[np.ndarray, "_"] | None = None
    noise: float | int = 0.0
    tail: PowerTail | None = None
    unlearnable: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        values = _column(self.eigenvalues, "eigenvalues")
        power = _column(self.coefficients_squared, "coefficients_squared")
        counts = np.ones_like(values) if self.multiplicities is None else _column(self.multiplicities, "multiplicities")
        if not len(values) == len(power) == len(counts):
            raise DataError(
                f"{len(values)} eigenvalues, {len(power)} squared coefficients and {len(counts)} multiplicities do not "
                "match; give one of each per level."
            )
        if self.noise < 0:
            raise DataError(f"noise={self.noise:g} is a variance and cannot be negative; give 0 or more.")
        seen = values > 0
        object.__setattr__(self, "unlearnable", float(power[~seen].sum()))
        object.__setattr__(self, "eigenvalues", values[seen])
        object.__setattr__(self, "coefficients_squared", power[seen])
        object.__setattr__(self, "multiplicities", counts[seen])

    @classmethod
    def power_law(
        cls, alpha: float | int, beta: float | int, modes: int, *, noise: float | int = 0.0, tail: bool = False
    ) -> "EigenSpectrum":
        """``lambda_i = i^-alpha``, ``v_i^2 = i^-beta`` for ``i = 1..modes``, and beyond where `tail` is true."""
        index = np.arange(1, modes + 1, dtype=float)
        return cls(index**-alpha, index**-beta, noise=noise, tail=PowerTail(alpha, beta) if tail else None)

    @property
    def capacity(self) -> float:
        """Number of modes with a non-zero eigenvalue."""
        return float("inf") if self.tail else float(self._listed)

    @property
    def log_range(self) -> tuple[float, float]:
        """Logarithms of effective ridges below and above which nothing changes."""
        top = np.log(self.eigenvalues.max() * self._listed) + 35
        if self.tail is None:
            return float(np.log(self.eigenvalues.min()) - 35), float(top)
        return float(np.log(self.eigenvalues.min()) - 60 * self.tail.alpha), float(top)

    @property
    def total_power(self) -> float:
        """``sum v_i^2``, without the noise."""
        tail = self.tail.total(self._listed) if self.tail else 0.0
        return float(self.coefficients_squared.sum()) + self.unlearnable + tail

    @property
    def _listed(self) -> int:
        assert self.multiplicities is not None  # filled in when the spectrum is made
        return int(self.multiplicities.sum())

    def learnabilities(self, gamma: Numbers) -> Float[np.ndarray, "points levels"]:
        """``L_i`` of every listed level (eigenvalue zero left out) at every effective ridge."""
        return self.eigenvalues / (self.eigenvalues + np.atleast_1d(np.asarray(gamma, dtype=float))[:, None])

    def degrees(self, gamma: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        """``sum L_i``."""
        s1 = self._blocks(gamma, lambda g: [(self.eigenvalues / (self.eigenvalues + g)) @ self.multiplicities])[0]
        return s1 + self.tail.moments(gamma, self._listed).s1 if self.tail else s1

    def moments(self, gamma: Float[np.ndarray, "points"]) -> Moments:
        """All four sums."""

        def block(g: Float[np.ndarray, "points 1"]) -> list[Float[np.ndarray, "points"]]:
            learned = self.eigenvalues / (self.eigenvalues + g)
            missed = 1 / (1 + self.eigenvalues / g)
            first = learned @ self.multiplicities, missed @ self.coefficients_squared
            np.square(learned, out=learned)
            np.square(missed, out=missed)
            return [first[0], learned @ self.multiplicities, missed @ self.coefficients_squared, first[1]]

        with np.errstate(divide="ignore"):
            s1, s2, bias, gap = self._blocks(gamma, block)
        fixed = self.noise + self.unlearnable
        if self.tail:
            tail = self.tail.moments(gamma, self._listed)
            s1, s2, bias, gap = s1 + tail.s1, s2 + tail.s2, bias + tail.bias, gap + tail.gap
        return Moments(s1, s2, bias + fixed, gap + fixed)

    def _blocks(self, gamma: np.ndarray, block: Callable[[np.ndarray], list[np.ndarray]]) -> list[np.ndarray]:
        step = max(1, _CHUNK // max(1, len(self.eigenvalues)))
        parts = [block(gamma[start : start + step, None]) for start in range(0, len(gamma), step)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _column(values: Numbers, name: str) -> Float[np.ndarray, "levels"]:
    array = np.asarray(values, dtype=float).reshape(-1)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        bad = int(np.flatnonzero(~(np.isfinite(array) & (array >= 0)))[0])
        raise DataError(f"{name}[{bad}] is {array[bad]:g}; give finite values that are not negative.")
    return array
