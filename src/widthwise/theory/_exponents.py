"""Power-law exponents of a task by the proxies of 2311.14646, never from empirical eigenvalues."""

from dataclasses import dataclass

import numpy as np

from widthwise.core import Value
from widthwise.theory._tail import GROUPS, Blocks, jackknife


@dataclass(frozen=True)
class Exponents(Value):
    """Local power-law exponents over the measured range.

    Attributes:
        alpha: of the eigenvalues: ``-d log kappa / d log n`` with ``kappa(n) = 1 / Tr K_n^-1``.
        beta: of the target power: one plus the decay exponent of the ridgeless error.
        alpha_stderr, beta_stderr: sampling error and departure from a straight line, combined.
        alpha_drift, beta_drift: exponent over the larger half of the sizes minus that over the smaller half.
        noise: estimated noise floor, summed over outputs.
        fit_from, fit_to: range of n.
    """

    alpha: float
    alpha_stderr: float
    beta: float
    beta_stderr: float
    alpha_drift: float
    beta_drift: float
    noise: float
    fit_from: float
    fit_to: float


def fit_exponents(blocks: Blocks, noise: float) -> Exponents:
    """Exponents from disjoint blocks of the sample; standard errors by deleting groups of samples or blocks."""
    used = blocks.sizes >= blocks.sizes[0] / 16.8  # P / 16 and above
    x, sizes, errors_used = np.log(blocks.sizes[used] + 1), np.log(blocks.sizes[used]), blocks.errors[used]
    kappas = np.log([part.mean() for part in blocks.kappas])[used]
    spread = np.array([_stderr(part, blocks.repeats) for part in blocks.kappas])[used]
    spread[0] = spread[1] / np.sqrt(2) if len(spread) > 1 else np.nan
    alpha, alpha_error, alpha_drift = _line(x, kappas, spread)
    decay, _, decay_drift = _line(sizes, np.log(errors_used.mean(1)), np.zeros(len(x)))
    replicates = np.array(
        [_line(sizes, np.log(errors.mean(1)), np.zeros(len(x)))[0] for errors in jackknife(errors_used)]
    )
    sampling = np.sqrt((GROUPS - 1) / GROUPS * np.sum((replicates - np.mean(replicates)) ** 2))
    residual = _lack_of_fit(sizes, np.log(errors_used.mean(1)))
    return Exponents(
        alpha=alpha,
        alpha_stderr=float(np.hypot(alpha_error, _lack_of_fit(x, kappas))),
        beta=decay + 1,
        beta_stderr=float(np.hypot(sampling, residual)),
        alpha_drift=alpha_drift,
        beta_drift=decay_drift,
        noise=noise,
        fit_from=float(np.exp(x[-1])),
        fit_to=float(np.exp(x[0])),
    )


def _stderr(values: np.ndarray, repeats: int) -> float:
    """Relative standard error of the mean over disjoint blocks; partitions of one sample are not independent."""
    if len(values) < 2:
        return 0.0
    return float(values.std(ddof=1) / values.mean() / np.sqrt(len(values) / repeats))


def _line(x: np.ndarray, y: np.ndarray, spread: np.ndarray) -> tuple[float, float, float]:
    """Minus the slope, its standard error from `spread`, and the change of minus the slope from low to high x."""
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    half = len(x) // 2 + 1  # sizes are largest first
    drift = np.polyfit(x[:half], y[:half], 1)[0] - np.polyfit(x[-half:], y[-half:], 1)[0] if len(x) > 2 else 0.0
    return -float(weight @ y), float(np.sqrt(((weight * spread) ** 2).sum())), -float(drift)


def _lack_of_fit(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3:
        return 0.0
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(np.sqrt((residual**2).sum() / (len(x) - 2) / ((x - x.mean()) ** 2).sum()))
