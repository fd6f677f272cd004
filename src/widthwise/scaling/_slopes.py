"""Exponents of width with intervals, from a few seeds at each width."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from widthwise.core import Value


@dataclass(frozen=True)
class Slope(Value):
    """Exponent of a quantity in the width, with a 95 % interval.

    Attributes:
        value: of ``log quantity = value * log width + constant``.
        low, high: of the interval: residuals of the line through the means over seeds, and the spread of seeds.
    """

    value: float
    low: float
    high: float

    def within(self, low: float, high: float) -> bool | None:
        """Whether the exponent lies in a range: True or False where the interval decides, None where it does not."""
        if low <= self.value <= high:
            return True
        return False if self.high < low or self.low > high else None


def fit_slope(widths: Float[np.ndarray, "w"], values: Float[np.ndarray, "seeds w"]) -> Slope | None:
    """Line through logarithms; None where the quantity vanishes or is not finite somewhere.

    >>> import numpy as np
    >>> fit_slope(np.array([8.0, 16.0, 32.0]), np.array([[2.0, 4.0, 8.0]])).value
    1.0
    """
    if not np.isfinite(values).all() or (values <= 0).any():
        return None
    x, logs = np.log(widths) - np.log(widths).mean(), np.log(values)
    weights = x / (x @ x)
    per_seed = logs @ weights
    value = float(per_seed.mean())
    residual = logs.mean(0) - logs.mean() - value * x
    free = max(1, len(widths) - 2)
    of_line = float(residual @ residual) / free / float(x @ x)
    of_seeds = float(per_seed.var(ddof=1)) / len(per_seed) if len(per_seed) > 1 else 0.0
    half = float(stats.t.ppf(0.975, max(free, len(per_seed) - 1))) * max(of_line, of_seeds) ** 0.5
    return Slope(round(value, 12), value - half, value + half)
