"""Train and test error of kernel and random-feature ridge regression from a task's spectrum.

Everything follows 2311.14646 (random features) and 2306.13185 (kernel limit); the ridge is added to K, not to K/n.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from widthwise.core import DataError, Value
from widthwise.theory._solve import solve_increasing
from widthwise.theory._spectrum import Moments, Numbers, Spectrum

Points = Float[np.ndarray, "points"]


@dataclass(frozen=True)
class Risk(Value):
    """Predicted errors; all arrays have the shape that the arguments broadcast to.

    Errors are mean squared errors summed over outputs, label noise included.

    Attributes:
        n, width, ridge, noise: what was asked for (`ridge` after tuning; `noise` is what was added to the task's own).
        test, train: expected errors; `train` is measured against the noisy labels.
        low, high: 95 % interval of `test`; equal to it where the spectrum is given exactly.
        gamma, kappa: effective ridges; equal at infinite width.
        degrees: ``sum L_i``, the effective number of learned modes.
        coefficient: overfitting coefficient: the test error on pure unit noise.
        accuracy, accuracy_low, accuracy_high: of the arg max over outputs; NaN where there are no classes.
        extrapolated: whether the prediction lies beyond what the task was measured on.
    """

    n: Float[np.ndarray, "*points"]
    width: Float[np.ndarray, "*points"]
    ridge: Float[np.ndarray, "*points"]
    noise: Float[np.ndarray, "*points"]
    test: Float[np.ndarray, "*points"]
    train: Float[np.ndarray, "*points"]
    low: Float[np.ndarray, "*points"]
    high: Float[np.ndarray, "*points"]
    gamma: Float[np.ndarray, "*points"]
    kappa: Float[np.ndarray, "*points"]
    degrees: Float[np.ndarray, "*points"]
    coefficient: Float[np.ndarray, "*points"]
    accuracy: Float[np.ndarray, "*points"]
    accuracy_low: Float[np.ndarray, "*points"]
    accuracy_high: Float[np.ndarray, "*points"]
    extrapolated: Shaped[np.ndarray, "*points"]

    @property
    def fitting_ratio(self) -> Float[np.ndarray, "*points"]:
        """Train error over test error."""
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(self.test), 0.0, self.train / self.test)


def solve_gamma(spectrum: Spectrum, n: Numbers, ridge: Numbers = 0.0, width: Numbers | None = None) -> np.ndarray:
    """Effective ridge gamma of random-feature ridge regression, shaped as the arguments broadcast.

    The root of ``(n - S(gamma)) (width - S(gamma)) gamma = ridge * width``, the pair of equations of 2311.14646 with
    kappa eliminated. Zero where ridge is zero and the task has no more than ``min(n, width)`` modes.

    Raises:
        DataError: a size is not positive, or a ridge is negative.
    """
    n, width, ridge = _arguments(n, width, ridge)
    return _solve(spectrum, n.ravel(), width.ravel(), ridge.ravel()).reshape(n.shape)


def solve_kappa(spectrum: Spectrum, n: Numbers, ridge: Numbers = 0.0) -> np.ndarray:
    """Effective ridge kappa of kernel ridge regression: ``sum L_i + ridge / kappa = n`` (2306.13185).

    >>> from widthwise.theory import EigenSpectrum
    >>> float(solve_kappa(EigenSpectrum(np.ones(30), np.zeros(30)), 10).round(12))  # flat: (M - n) / n
    2.0
    """
    return solve_gamma(spectrum, n, ridge)


def risk(
    spectrum: Spectrum,
    n: Numbers,
    ridge: Numbers | str = 0.0,
    width: Numbers | None = None,
    noise: Numbers = 0.0,
) -> Risk:
    """Errors of ridge regression on `n` samples with `width` random features (None or infinity: the kernel itself).

    Args:
        spectrum: the task.
        n, width: sizes; infinity is allowed.
        ridge: added to the kernel matrix; ``"optimal"`` minimises the test error (zero included).
        noise: variance of extra label noise, summed over outputs.

    Raises:
        DataError: a size is not positive, a ridge or noise is negative, or the name of the ridge is unknown.

    >>> from widthwise.theory import EigenSpectrum
    >>> flat = EigenSpectrum(np.ones(30), np.zeros(30), noise=1.0)
    >>> float(risk(flat, 10).test.round(12))  # M / (M - n)
    1.5
    """
    tune = isinstance(ridge, str)
    if tune and ridge not in ("optimal", "zero"):
        raise DataError(f"ridge={ridge!r} is not known; give 'optimal', 'zero' or a number.")
    n, width, number, noise = _arguments(n, width, 0.0 if tune else ridge, noise)
    shape = n.shape
    n, width, number, noise = (part.ravel() for part in (n, width, number, noise))
    gamma = _solve(spectrum, n, width, number)
    if tune and ridge == "optimal":
        gamma, number = _tune(spectrum, gamma, n, width, noise)
    test, train, coefficient, sums = evaluate(spectrum, gamma, n, width, number, noise)
    arrays = {
        "n": n,
        "width": width,
        "ridge": number,
        "noise": noise,
        "test": test,
        "train": train,
        "low": test,
        "high": test,
        "gamma": gamma,
        "kappa": gamma * _headroom(sums.s1, width),
        "degrees": sums.s1,
        "coefficient": coefficient,
        "accuracy": np.full_like(test, np.nan),
        "accuracy_low": np.full_like(test, np.nan),
        "accuracy_high": np.full_like(test, np.nan),
        "extrapolated": np.zeros(test.shape, dtype=bool),
    }
    return Risk(**{name: part.reshape(shape) for name, part in arrays.items()})


def evaluate(
    spectrum: Spectrum, gamma: Points, n: Points, width: Points, ridge: Points, noise: Points
) -> tuple[Points, Points, Points, Moments]:
    """Test error, train error, overfitting coefficient and moments at known gamma."""
    sums = spectrum.moments(gamma)
    z, q = sums.s1, sums.s2
    with np.errstate(divide="ignore", invalid="ignore"):
        finite = np.isfinite(width)
        share = np.where(finite, (width - z) / (width - q), 1.0)
        spread = np.where(finite, (q * (width - 2 * z) + z**2) / (width - q), q)
        # Modes that fill the width exactly (a rank that equals it) leave 0/0: the limit is the full share.
        share, spread = np.where(np.isnan(share), 1.0, share), np.where(np.isnan(spread), z, spread)
        remaining = np.where(np.isinf(n), 1.0, 1 - spread / n)
        remaining = np.where(remaining < 1e-13, 0.0, remaining)
        coefficient = 1 / remaining
        test = (sums.gap - share * (sums.gap - sums.bias) + noise) * coefficient
        unfit = np.where((ridge == 0) & (z >= n * (1 - 1e-9)), 0.0, np.maximum(1 - z / n, 0.0))
        train = np.where(unfit == 0, 0.0, unfit**2 * test)
    both = np.isinf(n) & np.isinf(width)
    if both.any():
        floor = noise + spectrum.moments(np.full(1, np.exp(spectrum.log_range[0]))).bias
        test, train = np.where(both, floor, test), np.where(both, floor, train)
        coefficient = np.where(both, 1.0, coefficient)
    return test, train, coefficient, sums


def _arguments(n: Numbers, width: Numbers | None, ridge: Numbers, noise: Numbers | None = None) -> list:
    parts = [n, np.inf if width is None else width, ridge, *([] if noise is None else [noise])]
    arrays = [np.asarray(part, dtype=float) for part in parts]
    for name, array, least in zip(("n", "width", "ridge", "noise"), arrays, (0, 0, None, None), strict=False):
        bad = ~(array > least) if least is not None else ~(array >= 0)
        if bad.any():
            raise DataError(
                f"{name}={array[bad].flat[0]:g} cannot be used; "
                f"give {'a positive size' if least is not None else 'a finite number that is not negative'}."
            )
    return [np.array(part) for part in np.broadcast_arrays(*arrays)]


def _headroom(s1: Points, width: Points) -> Points:
    with np.errstate(invalid="ignore"):
        room = np.where(np.isinf(width), 1.0, 1 - s1 / width)
    return np.where(room < 1e-12, 0.0, room)


def _solve(spectrum: Spectrum, n: Points, width: Points, ridge: Points) -> Points:
    ridge = np.where(np.isinf(n), 0.0, ridge)
    least = np.minimum(n, width)
    low, high = (np.full(n.shape, end) for end in spectrum.log_range)
    start = np.where(least < spectrum.capacity, _ridgeless(spectrum, least), -np.inf)
    ridged = ridge > 0
    if not ridged.any():
        return np.exp(start)

    def excess(u: Points, n: Points, width: Points, ridge: Points) -> Points:
        s = spectrum.degrees(np.exp(u))
        with np.errstate(divide="ignore", invalid="ignore"):
            product = (n - s) * _headroom(s, width)
            value = np.log(product) + u - np.log(ridge)
        return np.where((s >= np.minimum(n, width)) | ~(product > 0), -1e3, value)

    pick = np.flatnonzero(ridged)
    bottom = np.maximum(start[pick], np.minimum(low[pick], np.log(ridge[pick] / n[pick]) - 1))
    top = np.maximum(high[pick], np.log(ridge[pick] / np.minimum(n, 1)[pick]) + 40)
    start[pick] = solve_increasing(excess, bottom, top, n[pick], width[pick], ridge[pick])
    return np.exp(start)


def _ridgeless(spectrum: Spectrum, least: Points) -> Points:
    """Log of the gamma at which ``sum L_i = least``, each distinct value once."""
    values, inverse = np.unique(least, return_inverse=True)
    wanted = np.flatnonzero(values < spectrum.capacity)
    roots = np.full(values.shape, -np.inf)
    if not wanted.size:
        return roots[inverse]
    low, high = (np.full(wanted.shape, end) for end in spectrum.log_range)

    def deficit(u: Points, least: Points) -> Points:
        return np.log(least) - np.log(spectrum.degrees(np.exp(u)))

    roots[wanted] = solve_increasing(deficit, low, high, values[wanted])
    return roots[inverse]


def _tune(spectrum: Spectrum, start: Points, n: Points, width: Points, noise: Points) -> tuple[Points, Points]:
    """Gamma and ridge of least test error: a grid in log gamma above the ridgeless value, then golden sections."""
    bottom, top = spectrum.log_range
    begin = np.where(start > 0, np.log(np.maximum(start, 1e-300)), bottom)
    end = _ridgeless(spectrum, np.minimum(np.minimum(n, width), 1.0) * 1e-3)
    end = np.where(np.isfinite(end), np.maximum(end, begin + 1), top)

    shares = np.concatenate([[0.0], np.geomspace(1e-4, 1, 40)])
    grid = begin + shares[:, None] * (end - begin)
    repeated = (np.broadcast_to(part, grid.shape).ravel() for part in (n, width, noise))
    scores = _score(spectrum, grid.ravel(), *repeated).reshape(grid.shape)
    best = scores.argmin(0)
    columns = np.arange(len(n))
    left, right = grid[np.maximum(best - 1, 0), columns], grid[np.minimum(best + 1, len(shares) - 1), columns]
    golden = (np.sqrt(5) - 1) / 2
    c, d = right - golden * (right - left), left + golden * (right - left)
    fc, fd = _score(spectrum, c, n, width, noise), _score(spectrum, d, n, width, noise)
    for _ in range(18):  # the test error is flat at its minimum: this settles it to ten digits
        keep = fc < fd
        left, right = np.where(keep, left, c), np.where(keep, d, right)
        fresh = np.where(keep, right - golden * (right - left), left + golden * (right - left))
        f_fresh = _score(spectrum, fresh, n, width, noise)
        c, d, fc, fd = (
            np.where(keep, fresh, d),
            np.where(keep, c, fresh),
            np.where(keep, f_fresh, fd),
            np.where(keep, fc, f_fresh),
        )
    found = np.exp((left + right) / 2)
    zero = scores[0] <= np.minimum(fc, fd)
    gamma = np.where(zero, start, found)
    s = spectrum.degrees(gamma)
    with np.errstate(invalid="ignore"):
        ridge = np.where(zero | np.isinf(n), 0.0, (n - s) * _headroom(s, width) * gamma)
    return gamma, np.maximum(ridge, 0.0)


def _score(spectrum: Spectrum, u: Points, n: Points, width: Points, noise: Points) -> Points:
    test = evaluate(spectrum, np.exp(u), n, width, np.ones_like(n), noise)[0]
    return np.where(np.isnan(test), np.inf, test)
