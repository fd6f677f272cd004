"""A low-rank approximation of a Gram matrix that makes conjugate gradients converge in few steps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular

from widthwise.kernels.regression._gram import Gram


@dataclass(frozen=True)
class LowRank:
    """``K`` is about ``F F'``.

    Attributes:
        factor: ``[n, rank]`` F.
        pivots: ``[rank]`` the examples whose rows were read.
        residual: ``[n]`` diagonal of ``K - F F'``, not negative.
    """

    factor: Float[np.ndarray, "n rank"]
    pivots: np.ndarray
    residual: Float[np.ndarray, "n"]


def pivoted_cholesky(gram: Gram, rank: int, rng: np.random.Generator, *, block: int = 128) -> LowRank:
    """Randomly pivoted Cholesky in blocks: pivots are drawn in proportion to what is not yet explained.

    (Chen, Epperly, Tropp and Webber, arXiv:2207.06503, algorithms 2.1 and 4.1.) It reads ``rank`` rows of K.
    """
    n = gram.n
    factor, left = np.zeros((n, min(rank, n)), order="F"), np.maximum(gram.diagonal().astype(np.float64), 0.0)
    trace, done, pivots = left.sum(), 0, np.empty(0, dtype=np.int64)
    while done < factor.shape[1] and left.sum() > n * np.finfo(gram.dtype).eps * trace:
        wanted = min(block, factor.shape[1] - done, int((left > 0).sum()))
        picked = np.sort(rng.choice(n, size=wanted, replace=False, p=left / left.sum()))
        columns = gram.rows(picked).T.astype(np.float64) - factor[:, :done] @ factor[picked, :done].T
        core = (columns[picked] + columns[picked].T) / 2
        try:
            shift = 10 * wanted * np.finfo(gram.dtype).eps * max(np.trace(core) / wanted, 0.0)
            root = cholesky(core + shift * np.eye(wanted), lower=True)
        except LinAlgError:
            break
        new = solve_triangular(root, columns.T, lower=True).T
        factor[:, done : done + wanted] = new
        done, pivots = done + wanted, np.concatenate([pivots, picked])
        left = np.maximum(left - (new**2).sum(1), 0.0)
        left[picked] = 0.0
    return LowRank(np.ascontiguousarray(factor[:, :done]), pivots, left)


class Preconditioner:
    """``(F F' + shift I)^-1``, applied through the eigenvectors of ``F F'``; the identity where F is empty.

    Attributes:
        largest: the largest eigenvalue of ``F F'`` plus shift.
    """

    def __init__(self, low: LowRank, ridge: float) -> None:
        mean_left = float(low.residual.mean())
        self.shift = max(ridge, 1e-3 * mean_left, np.finfo(float).tiny)
        self.rank = low.factor.shape[1]
        if not self.rank:
            self.largest = self.shift
            return
        values, basis = eigh(low.factor.T @ low.factor)
        kept = values > values[-1] * 1e-14
        self.basis = low.factor @ (basis[:, kept] / np.sqrt(values[kept]))
        self.weights = 1.0 / (values[kept] + self.shift) - 1.0 / self.shift
        self.largest = float(values[-1]) + self.shift

    def __call__(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """Apply to vectors."""
        if not self.rank:
            return vectors / self.shift
        return vectors / self.shift + self.basis @ (self.weights[:, None] * (self.basis.T @ vectors))
