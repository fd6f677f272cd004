"""Exponents through rates that are known to lie between two tried ones, or only beyond one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log1p

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats
from scipy.special import log_ndtr

from widthwise.core import DataError, Value

Row = Float[np.ndarray, "n"]
LEAST_SPREAD = 0.1  # of the median interval: the scatter below which rounding to the grid says nothing
_WIDEST = 50.0
STARTS = (-1.0, -4.0)  # logarithm of the scatter, in octaves


@dataclass(frozen=True)
class RateBound(Value):
    """A rate read off a grid.

    Attributes:
        value: the best guess; at the end of the tried rates where it is censored; NaN where nothing is known.
        low, high: it lies between them; zero or infinite on the side that the grid leaves open.
    """

    value: float
    low: float
    high: float

    @property
    def censored(self) -> bool:
        """Whether the tried rates leave a side open."""
        return not (self.low > 0 and np.isfinite(self.high))


@dataclass(frozen=True)
class Exponent(Value):
    """Exponent of a rate in gamma.

    Attributes:
        value: slope of log rate against log gamma.
        low, high: its 95 % interval by the profile likelihood, widened for few points as Student's t is.
        intercept: log2 of the rate at gamma = 1 on that line.
        points, censored: how many rates it rests on, and how many of them are bounds from one side.
    """

    value: float
    low: float
    high: float
    intercept: float
    points: int
    censored: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def fit_exponent(gammas: Sequence[float] | Row, rates: Sequence[RateBound]) -> Exponent | None:
    """Maximum likelihood of ``log rate = exponent * log gamma + constant + normal scatter`` for interval-valued rates.

    A rate between two grid values adds the probability of that interval, one beyond the grid that of the open side
    (Tobin, Econometrica 26:24, 1958), so that censored points pull the line only as far as they know.

    Args:
        gammas: ``[n]``, positive.
        rates: one per gamma.

    Returns:
        None where fewer than three rates, or fewer than two different gammas, are known from both sides.

    Raises:
        DataError: there are not as many gammas as rates.

    >>> found = fit_exponent([1, 2, 4, 8], [RateBound(g**2, g**2 / 1.4, g**2 * 1.4) for g in (1.0, 2.0, 4.0, 8.0)])
    >>> round(found.value, 2)
    2.0
    """
    if len(gammas) != len(rates):
        raise DataError(f"there are {len(gammas)} gammas but {len(rates)} rates; give as many of each.")
    kept = [k for k, rate in enumerate(rates) if np.isfinite(rate.value) and rate.high > rate.low]
    whole = [k for k in kept if not rates[k].censored]
    if len(whole) < 3 or len({float(gammas[k]) for k in whole}) < 2:
        return None
    with np.errstate(divide="ignore"):
        x = np.log2([gammas[k] for k in kept])
        low, high = np.log2([rates[k].low for k in kept]), np.log2([rates[k].high for k in kept])
    middle = np.log2([rates[k].value for k in whole])
    centre = float(x.mean())
    start = np.polyfit(np.log2([gammas[k] for k in whole]) - centre, middle, 1)
    problem = _Likelihood(x - centre, low, high, LEAST_SPREAD * float(np.median((high - low)[np.isfinite(high - low)])))
    slope, offset, best = problem.maximum(start)
    drop = _drop(len(whole))
    ends = [problem.end(slope, best - drop, side) for side in (-1.0, 1.0)]
    return Exponent(slope, ends[0], ends[1], offset - slope * centre, len(kept), len(kept) - len(whole))


def _drop(points: int) -> float:
    """How far the log-likelihood falls at the end of a 95 % interval: exact for a normal regression of n points."""
    free = max(1, points - 2)
    return points / 2 * log1p(float(stats.t.ppf(0.975, free)) ** 2 / free)


class _Likelihood:
    """Log-likelihood of a line through intervals, the scatter fitted too."""

    def __init__(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, least: float) -> None:
        self.x, self.low, self.high, self.least = x, low, high, least

    def __call__(self, slope: float, offset: float, log_extra: float) -> float:
        sigma = self.least + np.exp(min(log_extra, 20.0))
        middle = slope * self.x + offset
        a, b = (self.low - middle) / sigma, (self.high - middle) / sigma
        flip = a > 0
        a, b = np.where(flip, -b, a), np.where(flip, -a, b)
        outer, inner = log_ndtr(b), log_ndtr(a)
        return float((outer + np.log1p(-np.exp(np.minimum(inner - outer, -1e-12)))).sum())

    def maximum(self, start: np.ndarray) -> tuple[float, float, float]:
        runs = [_lowest(lambda p: -self(*p), [start[0], start[1], extra]) for extra in STARTS]
        found = min(runs, key=lambda run: float(run.fun))
        self._last = found.x[1:]
        return float(found.x[0]), float(found.x[1]), -float(found.fun)

    def profile(self, slope: float) -> float:
        """The largest likelihood at one slope, sought from the last one found."""
        starts = [self._last, [self._last[0], STARTS[0]]]
        found = min((_lowest(lambda p: -self(slope, *p), one) for one in starts), key=lambda run: float(run.fun))
        self._last = found.x
        return -float(found.fun)

    def end(self, slope: float, level: float, side: float) -> float:
        """Where the profile crosses `level` on one side of the best slope."""
        step = 0.02
        while self.profile(slope + side * step) > level:
            step *= 2
            if step > _WIDEST:
                return side * float("inf")
        gap = optimize.brentq(lambda t: self.profile(slope + side * t) - level, 0.0, step, xtol=1e-3)
        return slope + side * float(gap)


def _lowest(function: Callable[[np.ndarray], float], start: np.ndarray | list[float]) -> optimize.OptimizeResult:
    """The last parameter is the logarithm of the scatter."""
    bounds = [(None, None)] * (len(start) - 1) + [(-8.0, 5.0)]
    return optimize.minimize(function, start, method="L-BFGS-B", bounds=bounds)
