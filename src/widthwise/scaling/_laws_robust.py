"""Weighted and robust least squares for many weightings at once."""

import numpy as np
from jaxtyping import Float, Int

RunWeights = Float[np.ndarray, "#resamples runs"]
CellWeights = Float[np.ndarray, "#resamples cells"]
Coefficients = Float[np.ndarray, "_ 6"]
Design = Float[np.ndarray, "rows 3"]


def lines(
    design: Design, values: Float[np.ndarray, "resamples rows"], weights: Float[np.ndarray, "resamples rows"]
) -> Float[np.ndarray, "_ 3"]:
    """Weighted least squares for many weightings; a column of zeros in the design keeps its coefficient at zero."""
    gram = np.einsum("rk,ki,kj->rij", weights, design, design, optimize=True)
    right = np.einsum("rk,rk,ki->ri", weights, values, design, optimize=True)
    return solve_many(gram, right, 1e-10)


def solve_many(
    grams: Float[np.ndarray, "many k k"], right: Float[np.ndarray, "many k"], cutoff: float
) -> Float[np.ndarray, "many k"]:
    """Solutions of many symmetric systems; the least ones where some are singular (pinv is ten times slower)."""
    diagonal = np.einsum("mii->mi", grams)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled, target = grams / scale[:, :, None] / scale[:, None, :], right / scale
    try:
        if np.linalg.cond(scaled[:1]).max() < 1 / cutoff:
            found = np.linalg.solve(scaled, target[..., None])[..., 0]
            if np.isfinite(found).all():
                return found / scale
    except np.linalg.LinAlgError:
        pass
    return np.einsum("mij,mj->mi", np.linalg.pinv(scaled, rcond=cutoff, hermitian=True), target) / scale


def huber(residuals: Float[np.ndarray, "rows"], scale: float, cut: float = 2.0) -> Float[np.ndarray, "rows"]:
    """Weights of the Huber loss; `cut` in units of `scale`."""
    return np.minimum(1.0, cut * max(scale, 1e-12) / np.maximum(np.abs(residuals), 1e-300))


def spread_of(residuals: Float[np.ndarray, "rows"]) -> float:
    """Standard deviation of a normal distribution with the same median absolute value."""
    return float(1.4826 * np.median(np.abs(residuals)))


def sway(
    runs: int,
    rows: Int[np.ndarray, "rows"],
    leverage: Float[np.ndarray, "rows"],
    robust: Float[np.ndarray, "rows"],
) -> Float[np.ndarray, "runs"]:
    """By how much to reweight each run around one, so that a bootstrap has the spread of independent errors.

    1 / (1 - leverage) makes up for the errors that a fit absorbs (the jackknife's correction); the robust weights are
    held fixed in resamples, which understates their own motion by the mean weight over the share of full weights.
    """
    out = np.ones(runs)
    held = float(robust.mean() / max((robust >= 1).mean(), 0.5))
    out[rows] = held / np.maximum(1 - leverage, 0.2)
    return out


def leverages(table: Float[np.ndarray, "rows k"], weights: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Diagonal of the hat matrix of weighted least squares."""
    gram = table.T @ (table * weights[:, None])
    return weights * np.einsum("ri,ij,rj->r", table, np.linalg.pinv(gram, rcond=1e-12, hermitian=True), table)
