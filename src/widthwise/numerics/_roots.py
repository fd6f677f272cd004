"""Roots of monotone functions, many at once."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from widthwise.core import WidthwiseError


class RootError(WidthwiseError, ValueError):
    """A bracket that cannot be used, or that holds no root."""


def solve_monotone(
    function: Callable[[np.ndarray], ArrayLike],
    low: ArrayLike,
    high: ArrayLike,
    *,
    target: ArrayLike = 0.0,
    tolerance: float = 1e-13,
    max_steps: int = 200,
) -> Float[np.ndarray, "..."]:
    """x > 0 with function(x) = target, for a function that rises or falls throughout; elementwise over arrays.

    Searches in log x: the ITP method (Oliveira & Takahashi 2021), which is never slower than bisection by more than a
    step and converges superlinearly on smooth functions. Everything broadcasts: `low`, `high`, `target` and what the
    function returns.

    Args:
        function: takes x of the broadcast shape and returns values of that shape.
        low, high: a bracket, 0 < low < high. A root on the edge counts.
        target: the value to reach.
        tolerance: relative error of x.
        max_steps: most evaluations after the first two.

    Returns:
        The roots, float64.

    Raises:
        RootError: an edge is not positive or not finite, or some bracket holds no root.

    >>> solve_monotone(lambda x: x**2, 1e-3, 1e3, target=[4.0, 9.0])
    array([2., 3.])
    """
    low, high, target = (np.asarray(x, dtype=np.float64) for x in (low, high, target))
    if not (np.all(low > 0) and np.all(high > low) and np.all(np.isfinite(high))):
        raise RootError(f"the bracket [{low.min():g}, {high.max():g}] cannot be used; give 0 < low < high < infinity.")
    shape = np.broadcast_shapes(low.shape, high.shape, target.shape)
    shape = np.broadcast_shapes(shape, np.shape(function(np.broadcast_to(low, shape))))

    def residual(log_x: ArrayLike) -> np.ndarray:
        return np.asarray(np.broadcast_to(np.asarray(function(np.exp(log_x)), dtype=np.float64), shape) - target)

    left, right = (np.broadcast_to(np.log(x), shape).copy() for x in (low, high))
    f_left, f_right = residual(left), residual(right)
    bad = ~(f_left * f_right <= 0)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise RootError(
            f"no root between {np.exp(left[place]):g} and {np.exp(right[place]):g} at index {place}: the function less "
            f"its target is {f_left[place]:g} and {f_right[place]:g} there; widen the bracket."
        )
    return _itp(residual, left, right, f_left, f_right, tolerance, max_steps)


def _itp(
    residual: Callable[[ArrayLike], np.ndarray],
    left: np.ndarray,
    right: np.ndarray,
    f_left: np.ndarray,
    f_right: np.ndarray,
    tolerance: float,
    max_steps: int,
) -> np.ndarray:
    first = right - left
    halvings = np.ceil(np.log2(np.maximum(first / tolerance, 1.0)))
    for step in range(max_steps):
        width = right - left
        if np.all(width <= tolerance):
            break
        middle = (left + right) / 2
        gap = f_right - f_left
        secant = np.where(gap == 0, middle, left - f_left * width / np.where(gap == 0, 1.0, gap))
        delta = np.minimum(0.2 / first * width**2, np.abs(middle - secant))
        truncated = secant + np.sign(middle - secant) * np.maximum(delta, np.minimum(tolerance / 4, width / 2))
        radius = tolerance / 2 * 2.0 ** np.maximum(halvings + 1 - step, 0) - width / 2
        guess = middle + np.clip(truncated - middle, -np.maximum(radius, 0), np.maximum(radius, 0))
        guess = np.clip(guess, left, right)
        found = residual(guess)
        to_left = (np.sign(found) == np.sign(f_left)) & (found != 0)
        to_right = ~to_left
        left, f_left = np.where(to_left | (found == 0), guess, left), np.where(to_left | (found == 0), found, f_left)
        right, f_right = np.where(to_right, guess, right), np.where(to_right, found, f_right)
    return np.asarray(np.exp(np.where(f_left == 0, left, np.where(f_right == 0, right, (left + right) / 2))))
