"""Nyström features: any kernel as inner products of few numbers per example."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
from torch import Tensor

from widthwise.core import DataError
from widthwise.kernels._limit import Parametrization
from widthwise.kernels.regression._gram import KernelGram
from widthwise.kernels.regression._inputs import check_finite, source_of
from widthwise.kernels.regression._preconditioner import pivoted_cholesky
from widthwise.kernels.store._source import KernelSource, torch_type

_ROWS = 1024


def checked_inputs(estimator: BaseEstimator, x: Any, *, reset: bool) -> Any:
    """Arrays as scikit-learn checks them; tensors as they are."""
    if isinstance(x, Tensor):
        check_finite(x, "X")
        return x
    return validate_data(estimator, x, dtype=[np.float64, np.float32, np.int64], allow_nd=True, reset=reset)


class NystromFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features ``K(x, Z) K(Z, Z)^(-1/2)`` from landmark examples Z, for any kernel, convolutions included.

    Their inner products never exceed the kernel: ``K - F F'`` is positive semidefinite, so that each entry is off by at
    most ``sqrt(r_i r_j)`` with ``r = k(x, x) - |f(x)|^2``, and `error` (its sum, relative) is exact and cheap.

    Args:
        kernel: as in `KernelRegressor` (not precomputed).
        n_components: landmarks.
        sampling: ``"pivoted"`` (randomly pivoted Cholesky, arXiv:2207.06503: it reads n_components rows of the Gram
            matrix and comes near the best low-rank error) or ``"uniform"``.
        kind, parametrization, dtype: as in `KernelRegressor`.
        random_state: seed of the draw.

    Attributes:
        landmarks_: indices of Z among the fitted examples.
        normalization_: ``[landmarks, features]`` the inverse square root, directions below rounding left out.

    >>> import numpy as np, widthwise as ww
    >>> x = np.random.default_rng(0).standard_normal((200, 5))
    >>> features = ww.kernels.NystromFeatures("mlp", n_components=50).fit(x)
    >>> features.transform(x).shape, features.error(x) < 0.2
    ((200, 50), True)
    """

    source_: KernelSource

    def __init__(
        self,
        kernel: Any = "mlp",
        n_components: int = 500,
        *,
        sampling: str = "pivoted",
        kind: str = "ntk",
        parametrization: Parametrization = "ntk",
        dtype: Any = "float64",
        random_state: int | None = 0,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.sampling = sampling
        self.kind = kind
        self.parametrization = parametrization
        self.dtype = dtype
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "NystromFeatures":
        """Choose the landmarks.

        Raises:
            DataError: an option is unknown or out of range.
        """
        X = checked_inputs(self, X, reset=True)
        if self.n_components < 1:
            raise DataError(f"n_components is {self.n_components}; give at least 1 landmark.")
        if self.sampling not in ("pivoted", "uniform"):
            raise DataError(f"sampling {self.sampling!r} is not known; give pivoted or uniform.")
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        self.source_ = source_of(self.kernel, X, self.kind, torch_type(self.dtype), self.parametrization)
        count = min(self.n_components, len(X))
        if self.sampling == "uniform":
            self.landmarks_ = np.sort(rng.choice(len(X), size=count, replace=False))
        else:
            self.landmarks_ = pivoted_cholesky(KernelGram(self.source_, X), count, rng).pivots
        self.inputs_ = X[self.landmarks_]
        core = self.source_(self.inputs_, None)[self.kind].astype(np.float64)
        values, vectors = eigh((core + core.T) / 2)
        eps = np.finfo(self.source_(self.inputs_[:1], None)[self.kind].dtype).eps
        kept = values > len(values) * eps * max(values[-1], 0.0)
        self.normalization_ = vectors[:, kept] / np.sqrt(values[kept])
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n features"]:
        """Features of inputs, block by block."""
        check_is_fitted(self)
        X = checked_inputs(self, X, reset=False)
        blocks = (self.source_(X[i : i + _ROWS], self.inputs_)[self.kind] for i in range(0, len(X), _ROWS))
        return np.concatenate([block.astype(np.float64) @ self.normalization_ for block in blocks])

    def error(self, X: Any) -> float:
        """Relative error of the trace, ``sum k(x, x) - |f(x)|^2`` over ``sum k(x, x)``: from 0 to 1."""
        found = self.transform(X)
        diagonal = self.source_.diagonal(X)[self.kind].astype(np.float64)
        return float(np.maximum(diagonal - (found**2).sum(1), 0.0).sum() / diagonal.sum())

    @property
    def _n_features_out(self) -> int:
        return self.normalization_.shape[1]
