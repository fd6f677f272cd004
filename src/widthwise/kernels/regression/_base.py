"""What both kernel estimators share."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, validate_data
from torch import Tensor

from widthwise.core import DataError, available_bytes, progress
from widthwise.kernels._limit import Parametrization
from widthwise.kernels.regression._inputs import (
    check_finite,
    is_precomputed,
    source_of,
    training_gram,
)
from widthwise.kernels.regression._solve import Request, Solved, solve
from widthwise.kernels.store import GramStore
from widthwise.kernels.store._source import KernelSource, numpy_type, torch_type

_ROWS = 1024


class KernelEstimator(BaseEstimator):
    """Kernel ridge regression behind `KernelRegressor` and `KernelClassifier`, which document the parameters."""

    solved_: Solved
    source_: KernelSource | None

    def __init__(
        self,
        kernel: Any = "mlp",
        *,
        ridge: float | str = "loo",
        solver: str = "auto",
        kind: str = "ntk",
        parametrization: Parametrization = "ntk",
        dtype: Any = "float64",
        amplitude: float | str = 1.0,
        tol: float = 1e-6,
        max_iter: int = 1000,
        rank: int | None = None,
        memory: float | None = None,
        workdir: str | Path | None = None,
        checkpoint: str | Path | None = None,
        random_state: int | None = 0,
        progress: bool = False,
    ) -> None:
        self.kernel = kernel
        self.ridge = ridge
        self.solver = solver
        self.kind = kind
        self.parametrization = parametrization
        self.dtype = dtype
        self.amplitude = amplitude
        self.tol = tol
        self.max_iter = max_iter
        self.rank = rank
        self.memory = memory
        self.workdir = workdir
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.progress = progress

    # -- what was found -------------------------------------------------------------------------------------------

    @property
    def ridge_(self) -> float:
        """The ridge that was used: as given, or as chosen."""
        return self.solved_.ridge

    @property
    def dual_coef_(self) -> Float[np.ndarray, "n outputs"]:
        """``(K + ridge I)^-1 y``."""
        return self.solved_.coefficients

    @property
    def solver_(self) -> str:
        """The solver that was used."""
        return self.solved_.solver

    @property
    def residual_(self) -> float:
        """``|y - (K + ridge I) a| / |y|``."""
        return self.solved_.residual

    @property
    def condition_(self) -> float:
        """Condition number of ``K + ridge I``: exact with solver "exact", else a bound from the factor or estimate."""
        return self.solved_.condition

    @property
    def n_iter_(self) -> int:
        """Products of conjugate gradients; 1 for direct solvers."""
        return max(1, self.solved_.iterations)

    @property
    def loo_errors_(self) -> Float[np.ndarray, "n outputs"]:
        """Errors of the fits without one example each (solver "exact").

        Raises:
            DataError: another solver was used.
        """
        if self.solved_.spectrum is None:
            raise DataError(f"solver {self.solver_!r} gives no leave-one-out errors; fit with solver='exact'.")
        return self.solved_.spectrum.leave_one_out(self.ridge_)

    @property
    def log_evidence_(self) -> float:
        """Log marginal likelihood of the targets under the Gaussian process (solver "exact").

        Raises:
            DataError: another solver was used.
        """
        if self.solved_.spectrum is None:
            raise DataError(f"solver {self.solver_!r} gives no evidence; fit with solver='exact'.")
        return self.solved_.spectrum.log_evidence(self.ridge_, self.amplitude)

    # -- fitting --------------------------------------------------------------------------------------------------

    def _fit_targets(self, x: Any, targets: Float[np.ndarray, "n outputs"]) -> None:
        """Solve for inputs that were checked and targets that were encoded."""
        dtype, n = torch_type(self.dtype), len(targets)
        rng = check_random_state(self.random_state)
        request = Request(
            ridge=self.ridge,
            solver=self.solver,
            amplitude=self.amplitude,
            tol=self.tol,
            max_iter=self.max_iter,
            rank=self.rank,
            memory=self.memory,
            workdir=self.workdir,
            checkpoint=self.checkpoint,
            seed=int(rng.randint(2**31 - 1)),
            show=self.progress,
        ).checked(n)
        self.source_ = None
        if not is_precomputed(self.kernel):
            self.source_ = source_of(self.kernel, x, self.kind, dtype, self.parametrization)
            self.X_fit_ = x
        budget = available_bytes() / 2 if self.memory is None else self.memory
        copies = 1 if request.solver == "cg" else 2  # a factor overwrites its own copy
        keep = request.solver != "exact" and copies * n**2 * numpy_type(dtype).itemsize <= budget
        gram = training_gram(self.kernel, x, self.source_, numpy_type(dtype), keep, self.progress)
        if gram.n != n:
            raise DataError(f"the kernel is of {gram.n} examples and {n} targets were given; give one target each.")
        self.solved_ = solve(gram, targets, request)

    def _checked_fit(self, x: Any, y: Any, **options: Any) -> tuple[Any, np.ndarray]:
        """Inputs and targets, checked as scikit-learn does; tensors and stores stay what they are."""
        if isinstance(self.kernel, GramStore):
            x = self.kernel
        if isinstance(x, (GramStore, Tensor)):
            check_finite(x, "X")
            y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
            self.n_features_in_ = int(np.prod(x.shape[1:]))
        else:
            kinds = {"dtype": [np.float64, np.float32, np.int64], "allow_nd": True, "multi_output": True}
            fewest = 2 if isinstance(self.ridge, str) else 1  # nothing can be left out of one example
            x, y = validate_data(self, x, y, **{**kinds, "ensure_min_samples": fewest, **options})
        if len(x) != len(y):
            raise DataError(f"{len(x)} inputs and {len(y)} targets were given; give one target for each input.")
        return x, np.asarray(y)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = is_precomputed(self.kernel)
        return tags

    # -- predicting -----------------------------------------------------------------------------------------------

    def _checked_inputs(self, x: Any) -> Any:
        check_is_fitted(self)
        if isinstance(x, (GramStore, Tensor)):
            check_finite(x, "X")
        else:
            kinds = [np.float64, np.float32, np.int64]
            x = validate_data(self, x, dtype=kinds, allow_nd=True, reset=False)
        if self.source_ is None:
            if x.shape[1] != len(self.dual_coef_):
                raise DataError(
                    f"kernel values of shape {list(x.shape)} were given for {len(self.dual_coef_)} training examples; "
                    "give one row per input and one column per training example."
                )
        elif tuple(x.shape[1:]) != tuple(self.X_fit_.shape[1:]):
            raise DataError(
                f"inputs of shape {list(x.shape[1:])} were given and the fit had {list(self.X_fit_.shape[1:])}; "
                "give equal shapes."
            )
        return x

    def _cross(self, x: Any, rows: slice) -> np.ndarray:
        """Kernel of some inputs with all training inputs."""
        if self.source_ is None:
            return np.asarray(x[rows])
        n, some = len(self.dual_coef_), x[rows]
        parts = [self.source_(some, self.X_fit_[i : i + 8 * _ROWS])[self.kind] for i in range(0, n, 8 * _ROWS)]
        return np.concatenate(parts, axis=1)

    def _mean(self, x: Any) -> Float[np.ndarray, "t outputs"]:
        return self._moments(x, None)[0]

    def _moments(
        self, x: Any, diagonal: Float[np.ndarray, "t"] | None
    ) -> tuple[Float[np.ndarray, "t outputs"], Float[np.ndarray, "t"] | None]:
        """``K* a``, and with the prior variances also the posterior ones, block by block."""
        count = len(x)
        mean = np.empty((count, self.dual_coef_.shape[1]))
        variance = None if diagonal is None else np.empty(count)
        with progress("predictions", count, show=self.progress and count > _ROWS) as advance:
            for start in range(0, count, _ROWS):
                rows = slice(start, min(start + _ROWS, count))
                cross = self._cross(x, rows)
                mean[rows] = cross @ self.dual_coef_.astype(cross.dtype, copy=False)
                if variance is not None and diagonal is not None:
                    variance[rows] = diagonal[rows] - self.solved_.quadratic(cross.astype(np.float64))
                advance(rows.stop - start)
        return mean, None if variance is None else np.maximum(variance, 0.0)

    def _prior_variance(self, x: Any, diagonal: Any) -> Float[np.ndarray, "t"]:
        """Kernel of each input with itself."""
        if diagonal is not None:
            found = np.asarray(diagonal, dtype=np.float64)
            if found.shape != (len(x),):
                raise DataError(f"diagonal has shape {list(found.shape)} for {len(x)} inputs; give one number each.")
            return found
        if self.source_ is None:
            raise DataError(
                "the kernel of each input with itself is not among precomputed values; give it as diagonal=, [inputs]."
            )
        return self.source_.diagonal(x)[self.kind].astype(np.float64)
