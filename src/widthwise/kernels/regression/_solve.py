"""Which solver, and what it found."""

import warnings
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning

from widthwise.core import DataError, ResourceError, available_bytes
from widthwise.kernels.regression._cholesky import Cholesky, factorise
from widthwise.kernels.regression._conjugate import Checkpoint, conjugate_gradients, problem_key
from widthwise.kernels.regression._eigen import Spectrum
from widthwise.kernels.regression._errors import PrecisionWarning, precision_sentence
from widthwise.kernels.regression._gram import Gram, dense, exact_product, gram_identity
from widthwise.kernels.regression._preconditioner import Preconditioner, pivoted_cholesky

SOLVERS = ("auto", "exact", "cholesky", "cg")
_EXACT_LIMIT = 2000
_CHOLESKY_LIMIT = 25_000


@dataclass(frozen=True)
class Request:
    """What a fit was asked for; the names are those of `KernelRegressor`."""

    ridge: float | str
    solver: str
    amplitude: float | str
    tol: float
    max_iter: int
    rank: int | None
    memory: float | None
    workdir: str | Path | None
    checkpoint: str | Path | None
    seed: int
    show: bool

    def checked(self, n: int) -> "Request":
        """Itself.

        Raises:
            DataError: a value is unknown or out of range.
        """
        if self.solver not in SOLVERS:
            raise DataError(f"solver {self.solver!r} is not known; give one of {', '.join(SOLVERS)}.")
        if isinstance(self.ridge, str):
            if self.ridge not in ("loo", "evidence"):
                raise DataError(f"ridge {self.ridge!r} is not known; give a number of at least 0, 'loo' or 'evidence'.")
            if self.solver not in ("auto", "exact"):
                raise DataError(
                    f"ridge {self.ridge!r} needs one eigendecomposition and solver {self.solver!r} makes none; give a "
                    "number, or solver='exact'."
                )
            if n < 2:
                raise DataError(f"ridge {self.ridge!r} cannot be chosen from one sample; give a number.")
        elif not (isfinite(self.ridge) and self.ridge >= 0):
            raise DataError(f"ridge is {self.ridge}; give a number of at least 0, 'loo' or 'evidence'.")
        if self.amplitude != "evidence" and not (
            not isinstance(self.amplitude, str) and isfinite(self.amplitude) and self.amplitude > 0
        ):
            raise DataError(f"amplitude is {self.amplitude!r}; give a positive number or 'evidence'.")
        return self


@dataclass(frozen=True, eq=False)
class Solved:
    """A solved system ``(K + ridge I) a = y``.

    Attributes:
        coefficients: ``[n, outputs]`` a.
        ridge, solver: as chosen.
        residual: ``|y - (K + ridge I) a| / |y|`` (Frobenius norms; for CG the worst column).
        condition: of ``K + ridge I``; exact with solver "exact", else a bound or estimate.
        iterations: of CG, 0 for the others.
        amplitudes: ``[outputs]`` factor of the prior covariance.
        spectrum, factor, gram: what predictive variances need.
    """

    coefficients: Float[np.ndarray, "n outputs"]
    ridge: float
    solver: str
    residual: float
    condition: float
    iterations: int
    amplitudes: Float[np.ndarray, "outputs"]
    request: Request
    spectrum: Spectrum | None = None
    factor: Cholesky | None = None
    gram: Gram | None = None
    preconditioner: Preconditioner | None = None

    def quadratic(self, cross: Float[np.ndarray, "t n"]) -> Float[np.ndarray, "t"]:
        """``k' (K + ridge I)^-1 k`` for each row k."""
        if self.spectrum is not None:
            turned = cross @ self.spectrum.vectors
            return (turned**2 / (self.spectrum.values + self.ridge)).sum(1)
        if self.factor is not None:
            return (self.factor.solve_lower(cross.T.astype(np.float64)).astype(np.float64) ** 2).sum(0)
        assert self.gram is not None and self.preconditioner is not None
        columns = np.ascontiguousarray(cross.T, dtype=np.float64)
        found = conjugate_gradients(
            self.gram, columns, self.ridge, self.preconditioner, tol=self.request.tol, max_iter=self.request.max_iter
        )
        return (columns * found.solution).sum(0)


def solve(gram: Gram, targets: Float[np.ndarray, "n outputs"], request: Request) -> Solved:
    """Solve for the coefficients by the solver asked for.

    Raises:
        NotPositiveDefinite: the matrix plus ridge has an eigenvalue that is not positive.
        ResourceError: it would not fit.
    """
    request = request.checked(gram.n)
    solver = _chosen(gram, request)
    return {"exact": _exact, "cholesky": _cholesky, "cg": _cg}[solver](gram, targets, request)


def _chosen(gram: Gram, request: Request) -> str:
    """ "auto": exact where the ridge is to be found or n is small; Cholesky while it takes minutes; else CG."""
    if request.solver != "auto":
        return request.solver
    if isinstance(request.ridge, str) or gram.n <= _EXACT_LIMIT:
        return "exact"
    return "cholesky" if gram.n <= _CHOLESKY_LIMIT else "cg"


def _exact(gram: Gram, targets: np.ndarray, request: Request) -> Solved:
    needed, budget = 8.0 * 3 * gram.n**2, 0.9 * available_bytes() if request.memory is None else request.memory
    if needed > budget:
        raise ResourceError(
            f"an eigendecomposition of {gram.n} examples takes {needed / 2**30:.3g} GiB and {budget / 2**30:.3g} GiB "
            "are allowed; give the ridge as a number (then solver 'cholesky' or 'cg' will do), or fewer examples."
        )
    spectrum = Spectrum.of(dense(gram, np.float64), targets, float(np.finfo(gram.dtype).eps))
    ridge = request.ridge
    ridge = spectrum.best_ridge(ridge, request.amplitude) if isinstance(ridge, str) else float(ridge)
    spectrum.check(ridge)
    condition = spectrum.condition(ridge)
    _say(condition, gram)
    found = spectrum.coefficients(ridge)
    amplitudes = _amplitudes(request, spectrum.amplitudes(ridge))
    residual = _residual(
        spectrum.vectors @ (spectrum.values[:, None] * (spectrum.vectors.T @ found)), found, ridge, targets
    )
    return Solved(found, ridge, "exact", residual, condition, 0, amplitudes, request, spectrum=spectrum)


def _cholesky(gram: Gram, targets: np.ndarray, request: Request) -> Solved:
    ridge = float(request.ridge)
    factor = factorise(gram, ridge, memory=request.memory, workdir=request.workdir, show=request.show)
    _say(factor.condition, gram)
    found = factor.solve(targets).astype(np.float64)
    for _ in range(2):  # refinement: residuals in float64 against a factor that may be float32
        found = found + factor.solve(targets - exact_product(gram, found) - ridge * found).astype(np.float64)
    residual = _residual(exact_product(gram, found), found, ridge, targets)
    amplitudes = _amplitudes(request, (targets * found).mean(0))
    return Solved(found, ridge, "cholesky", residual, factor.condition, 0, amplitudes, request, factor=factor)


def _cg(gram: Gram, targets: np.ndarray, request: Request) -> Solved:
    ridge = float(request.ridge)
    rank = min(max(1000, gram.n // 30), gram.n // 2) if request.rank is None else request.rank
    low = pivoted_cholesky(gram, rank, np.random.default_rng(request.seed))
    preconditioner = Preconditioner(low, ridge)
    key = problem_key(gram_identity(gram), targets, ridge, rank, request.seed)
    done = conjugate_gradients(
        gram,
        targets,
        ridge,
        preconditioner,
        tol=request.tol,
        max_iter=request.max_iter,
        checkpoint=Checkpoint(request.checkpoint, key),
        show=request.show,
    )
    condition = preconditioner.largest / ridge if ridge else float("inf")
    if not done.converged:
        advice = "raise max_iter" if done.iterations >= request.max_iter else "use a larger ridge or dtype='float64'"
        sentence = f"conjugate gradients ended at residual {done.residual:.2g} above tol {request.tol:g}; {advice}."
        warnings.warn(sentence, ConvergenceWarning, stacklevel=4)
    amplitudes = _amplitudes(request, (targets * done.solution).mean(0))
    return Solved(
        done.solution,
        ridge,
        "cg",
        done.residual,
        condition,
        done.iterations,
        amplitudes,
        request,
        gram=gram,
        preconditioner=preconditioner,
    )


def _residual(product: np.ndarray, found: np.ndarray, ridge: float, targets: np.ndarray) -> float:
    size = float(np.linalg.norm(targets))
    return float(np.linalg.norm(targets - product - ridge * found)) / size if size else 0.0


def _amplitudes(request: Request, found: Any) -> np.ndarray:
    if request.amplitude == "evidence":
        return np.asarray(found, dtype=np.float64)
    return np.full(len(found), float(request.amplitude))


def _say(condition: float, gram: Gram) -> None:
    sentence = precision_sentence(condition, float(np.finfo(gram.dtype).eps), str(gram.dtype))
    if sentence is not None:
        warnings.warn(sentence, PrecisionWarning, stacklevel=5)
