"""A measured task as a `Spectrum`: sums between knots, and a tail below the smallest effective ridge."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from widthwise.theory._knots import Knots
from widthwise.theory._spectrum import Moments
from widthwise.theory._tail import Tail

Points = Float[np.ndarray, "points"]


@dataclass(frozen=True, eq=False)
class SampleSpectrum:
    """A task measured on a sample: the sums between knots, and `tail` below the smallest effective ridge."""

    knots: Knots
    tail: Tail

    def __post_init__(self) -> None:
        knots = self.knots
        table = np.log(np.stack([knots.s1, knots.s2, knots.bias, knots.gap], 1))
        object.__setattr__(self, "_interpolate", PchipInterpolator(np.log(knots.kappa), table))

    def _table(self, u: Points) -> np.ndarray:
        return np.asarray(vars(self)["_interpolate"](u))

    @property
    def capacity(self) -> float:
        """Infinite: the tail holds modes without end."""
        return float("inf")

    @property
    def log_range(self) -> tuple[float, float]:
        """Logarithms of effective ridges between which the sums are defined."""
        first, last = np.log(self.knots.kappa[[0, -1]])
        return float(first - 40 * self.tail.alpha), float(last + 30)

    def degrees(self, gamma: Points) -> Points:
        """``sum L_i``."""
        return self.moments(gamma).s1

    def moments(self, gamma: Points) -> Moments:
        """All four sums. Below the range ``S1`` and ``S2`` follow a power of kappa, and the bias follows `tail`."""
        with np.errstate(divide="ignore"):
            u = np.log(gamma)
        first, last = np.log(self.knots.kappa[[0, -1]])
        s1, s2, bias, gap = np.exp(self._table(np.clip(u, first, last))).T
        above = np.exp(-np.maximum(u - last, 0.0))
        deeper = np.minimum(
            np.maximum(first - u, 0.0) / self.tail.alpha, 300.0
        )  # log of S1 over its last measured value
        grow, shrink = np.exp(deeper), self.tail.shape(deeper)
        return Moments(s1 * above * grow, s2 * above**2 * grow, bias * shrink, gap * shrink)
