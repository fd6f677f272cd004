"""The price of interpolation: cost, overfitting coefficient, effective ranks and the taxonomy (2306.13185)."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from widthwise.core import DataError, Value
from widthwise.theory._risk import risk
from widthwise.theory._spectrum import Spectrum

OBLIGATORY_RATIO = 0.01  # optimal train error below this share of the test error: near-interpolation is required


class Verdict(StrEnum):
    """What ridgeless fitting of noise does as n grows."""

    BENIGN = "benign"
    TEMPERED = "tempered"
    CATASTROPHIC = "catastrophic"


@dataclass(frozen=True)
class Overfitting(Value):
    """What it costs to interpolate n samples instead of tuning the ridge.

    Attributes:
        n: samples.
        cost: ridgeless test error over the tuned one, at least 1.
        coefficient: test error on pure unit noise at zero ridge; bounds the cost for every target and noise level.
        bound: bound on the coefficient from effective ranks; infinite where none applies.
        optimal_ridge, optimal_fitting_ratio: at the tuned ridge; train error over test error.
        verdict: benign, tempered or catastrophic, from `trend`.
        trend: ``d log coefficient / d log n`` around n.
        obligatory: the best train error is below 1 % of the test error: near-interpolation is required.
    """

    n: float
    cost: float
    coefficient: float
    bound: float
    optimal_ridge: float
    optimal_fitting_ratio: float
    verdict: Verdict
    trend: float
    obligatory: bool


def overfitting(
    spectrum: Spectrum,
    n: float | int,
    *,
    noise: float | int = 0.0,
    eigenvalues: Float[np.ndarray, "modes"] | None = None,
) -> Overfitting:
    """The cost of overfitting at `n` samples.

    Args:
        spectrum: the task.
        n: samples.
        noise: variance of extra label noise.
        eigenvalues: from which to compute the effective-rank bound; by default the spectrum's own, if it lists them.
    """
    zero, best = risk(spectrum, n, 0.0, noise=noise), risk(spectrum, n, "optimal", noise=noise)
    around = risk(spectrum, np.array([n / 3, n])).coefficient
    trend = float(np.log(around[1] / around[0]) / np.log(3))
    coefficient = float(zero.coefficient)
    if eigenvalues is None:
        eigenvalues = _listed(spectrum)
    ratio = float(best.fitting_ratio)
    return Overfitting(
        n=float(n),
        cost=float(zero.test / best.test),
        coefficient=coefficient,
        bound=coefficient_bound(eigenvalues, n) if eigenvalues is not None else float("inf"),
        optimal_ridge=float(best.ridge),
        optimal_fitting_ratio=ratio,
        verdict=_verdict(coefficient, trend),
        trend=trend,
        obligatory=ratio < OBLIGATORY_RATIO,
    )


def _verdict(coefficient: float, trend: float) -> Verdict:
    if trend > 0.3:
        return Verdict.CATASTROPHIC
    if trend < 0.02 and coefficient < 1.1:
        return Verdict.BENIGN
    return Verdict.TEMPERED


def _listed(spectrum: Spectrum) -> Float[np.ndarray, "modes"] | None:
    values = getattr(spectrum, "eigenvalues", None)
    if values is None or getattr(spectrum, "tail", None) is not None:
        return None
    return np.repeat(values, np.asarray(getattr(spectrum, "multiplicities", 1)).astype(int))


def effective_ranks(
    eigenvalues: Float[np.ndarray, "modes"],
) -> tuple[Float[np.ndarray, "modes"], Float[np.ndarray, "modes"]]:
    """``r_k = sum_{i>k} lambda_i / lambda_{k+1}`` and ``R_k = (sum_{i>k} lambda_i)^2 / sum_{i>k} lambda_i^2``
    for k = 0, 1, ... (eigenvalues positive; they are sorted here).

    >>> [ranks[:2].tolist() for ranks in effective_ranks(np.ones(4))]
    [[4.0, 3.0], [4.0, 3.0]]
    """
    values = np.sort(eigenvalues)[::-1]
    if not len(values) or values[-1] <= 0:
        raise DataError("effective ranks need positive eigenvalues; leave the zero ones out.")
    tail, squares = np.cumsum(values[::-1])[::-1], np.cumsum(values[::-1] ** 2)[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        large = np.nan_to_num(tail**2 / squares, nan=1.0, posinf=1.0)  # squares of the smallest may underflow
    return tail / values, large


def coefficient_bound(eigenvalues: Float[np.ndarray, "modes"], n: float | int) -> float:
    """Least upper bound on the ridgeless overfitting coefficient over all ``k < n`` with ``R_k > n``.

    The smaller of ``(1 - k/n)^-2 (1 - n/R_k)^-1`` and ``1 / (1 - k/n - (n/R_k) / (1 - n/R_k)^2)``; infinite where
    no k qualifies.
    """
    ranks = effective_ranks(eigenvalues)[1]
    k = np.arange(len(ranks))
    fit = (k < n) & (ranks > n)
    share, rest = k[fit] / n, n / ranks[fit]
    first = 1 / ((1 - share) ** 2 * (1 - rest))
    slack = 1 - share - rest / (1 - rest) ** 2
    second = np.where(slack > 0, 1 / np.maximum(slack, 1e-300), np.inf)
    return float(min(first.min(initial=np.inf), second.min(initial=np.inf)))


def classify_spectrum(eigenvalues: Float[np.ndarray, "modes"]) -> tuple[Verdict, float]:
    """Verdict from the trend of ``k / r_k`` in the middle of M modes, and that trend (slope in logarithms).

    A rank ratio that falls is benign, a constant one tempered, a growing one catastrophic. k runs from ``M^0.35`` to
    ``M^0.75``: further up the sums are cut short. What the list leaves out is added as a power law with the exponent
    of its last decade, if that exceeds 1.
    """
    values = np.sort(eigenvalues)[::-1]
    modes = len(values)
    if modes < 16 or values[-1] <= 0:
        raise DataError(f"{modes} eigenvalues do not show a trend; give at least 16 positive ones.")
    alpha = -float(np.log(values[-1] / values[modes // 10]) / np.log(modes / (modes // 10 + 1)))
    missing = modes * values[-1] / (alpha - 1) if alpha > 1.01 else 0.0
    k = np.unique(np.geomspace(modes**0.35, modes**0.75, 12).astype(int))
    ranks = (np.cumsum(values[::-1])[::-1][k] + missing) / values[k]
    slope = float(np.polyfit(np.log(k), np.log(k / ranks), 1)[0])
    verdict = Verdict.BENIGN if slope < -0.05 else Verdict.CATASTROPHIC if slope > 0.3 else Verdict.TEMPERED
    return verdict, slope
