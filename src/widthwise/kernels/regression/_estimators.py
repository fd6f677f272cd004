"""scikit-learn estimators on the kernels of infinitely wide networks, or any other kernel."""

from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from widthwise.core import DataError
from widthwise.kernels.regression._base import KernelEstimator


class KernelRegressor(RegressorMixin, KernelEstimator):
    """Kernel ridge regression with the kernel of an infinitely wide network: ``f(x) = k(x, X) (K + ridge I)^-1 y``.
    Args:
        kernel: ``"mlp"`` or ``"cnn"`` (the package's own, infinitely wide), any ``torch.nn.Module``, a `Limit`, a
            function ``kernel(x1, x2)``, or ``"precomputed"``: then X holds kernel values, as an array or a `GramStore`.
            A square `GramStore` as kernel says the same, and X is not needed to fit.
        ridge: added to the diagonal of the Gram matrix: a number, or ``"loo"`` (least leave-one-out error) or
            ``"evidence"`` (largest marginal likelihood), both in closed form from one eigendecomposition.
        solver: ``"exact"`` (eigendecomposition), ``"cholesky"`` (in panels on disk where it exceeds `memory`),
            ``"cg"`` (conjugate gradients; the matrix stays in its store, or is computed again for each product where it
            does not fit) or ``"auto"``: exact up to 2000 examples or where the ridge is to be found, Cholesky up to
            25 000, else CG.
        kind: ``"ntk"`` (at ridge 0 the mean prediction of wide networks trained to convergence by gradient descent) or
            ``"nngp"`` (Bayesian networks).
        parametrization: of the tangent kernel, see `widthwise.infinite`.
        dtype: float64 or float32, of the kernel; float32 halves memory and leaves fewer digits for small ridges.
        amplitude: factor s^2 of the prior covariance ``s^2 (K + ridge I)``: it scales predictive variances and nothing
            else. ``"evidence"``: the best one in closed form, per output.
        tol, max_iter: of CG: residual ``|y - (K + ridge I) a| / |y|``, and products with K.
        rank: of the preconditioner; by default 1000, or a thirtieth of the examples if more, and at most half of them.
        memory: bytes that matrices may take; by default half of what is available.
        workdir: folder for Cholesky panels; by default the system's temporary one.
        checkpoint: file for the state of CG, from which an interrupted fit goes on.
        random_state: seed of the preconditioner's pivots.
        progress: whether to show progress bars.

    Attributes:
        ridge_, solver_: as used.
        dual_coef_: ``(K + ridge I)^-1 y``, ``[n, outputs]``.
        residual_, condition_, n_iter_: how well the system was solved.
        loo_errors_, log_evidence_: in closed form (solver "exact").

    >>> import numpy as np, widthwise as ww
    >>> x = np.random.default_rng(0).standard_normal((60, 3))
    >>> model = ww.KernelRegressor("mlp", ridge="loo").fit(x, np.sin(x[:, 0]))
    >>> mean, std = model.predict(x[:5], return_std=True)
    >>> mean.shape, std.shape
    ((5,), (5,))
    """

    def fit(self, X: Any, y: Any) -> "KernelRegressor":
        """Solve for the coefficients.

        Args:
            X: ``[n, *input_shape]`` array or tensor; kernel values ``[n, n]`` if precomputed.
            y: ``[n]`` or ``[n, outputs]``.

        Raises:
            NotPositiveDefinite: with the smallest eigenvalue of ``K + ridge I`` and a ridge that helps.
            DataError, ResourceError: one sentence with the mend.
        """
        X, y = self._checked_fit(X, y, y_numeric=True)
        if y.ndim > 2 or y.dtype.kind not in "iufb":
            raise DataError(
                f"targets of shape {list(y.shape)} and type {y.dtype} were given; give numbers [n] or [n, k]."
            )
        self._one_column = y.ndim == 1
        self._fit_targets(X, y.reshape(len(y), -1).astype(np.float64))
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(
        self, X: Any, return_std: bool = False, *, diagonal: Any = None
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The posterior mean, and on request its standard deviation (of the function, without the noise ``ridge``).

        ``std^2 = s^2 (k(x, x) - k(x, X) (K + ridge I)^-1 k(X, x))``: the Gaussian process whose covariance is the
        kernel. With ``kind="nngp"`` that is the Bayesian network; with ``kind="ntk"`` it is not the spread of trained
        networks, whose covariance needs both kernels.

        Args:
            X: inputs as in `fit`; kernel values ``[t, n]`` if precomputed.
            diagonal: k(x, x), ``[t]``, needed for the deviation of precomputed kernels.

        Returns:
            ``[t]`` or ``[t, outputs]``, as the targets were; with `return_std` also the deviation in the same shape.
        """
        X = self._checked_inputs(X)
        prior = self._prior_variance(X, diagonal) if return_std else None
        mean, variance = self._moments(X, prior)
        mean = mean[:, 0] if self._one_column else mean
        if variance is None:
            return mean
        std = np.sqrt(variance[:, None] * self.solved_.amplitudes)
        return mean, std[:, 0] if self._one_column else std


class KernelClassifier(ClassifierMixin, KernelEstimator):
    """Least-squares classification with the kernel of an infinitely wide network.

    Targets are one-hot rows minus the class frequencies; scores are the regression's predictions plus the frequencies,
    estimates of the class probabilities that sum to one but may leave [0, 1]. `predict_proba` gives the nearest
    probability vector (Euclidean projection on the simplex); it is not calibrated beyond that. Parameters and
    attributes are those of `KernelRegressor`, and ``classes_``: labels in the order of the columns.

    >>> import widthwise as ww
    >>> data = ww.data.load("iris")
    >>> model = ww.KernelClassifier("mlp").fit(data.inputs, data.targets)
    >>> bool(model.score(data.inputs, data.targets) > 0.95)
    True
    """

    def fit(self, X: Any, y: Any) -> "KernelClassifier":
        """Solve for the coefficients; `y` holds labels ``[n]``. Raises as `KernelRegressor.fit` does."""
        X, y = self._checked_fit(X, y, multi_output=False)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"the classifier needs samples of at least 2 classes; the data have one class, {y[0]!r}.")
        onehot = np.eye(len(self.classes_))[index]
        self.frequencies_ = onehot.mean(0)
        self._fit_targets(X, onehot - self.frequencies_)
        return self

    def scores(self, X: Any) -> Float[np.ndarray, "t classes"]:
        """Estimates of the class probabilities, before projection; rows sum to one up to rounding."""
        return self._mean(self._checked_inputs(X)) + self.frequencies_

    def decision_function(self, X: Any) -> np.ndarray:
        """The scores ``[t, classes]``; for two classes the second minus the first, ``[t]``."""
        found = self.scores(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, X: Any) -> np.ndarray:
        """The class of the largest score."""
        best = self.scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "t classes"]:
        """The probability vectors nearest to the scores."""
        return project_on_simplex(self.scores(X))


def project_on_simplex(scores: Float[np.ndarray, "t k"]) -> Float[np.ndarray, "t k"]:
    """For each row the nearest vector of non-negative numbers that sum to one (Duchi et al., ICML 2008, figure 1).

    >>> project_on_simplex(np.array([[0.5, 0.9, -0.4]])).round(12)
    array([[0.3, 0.7, 0. ]])
    """
    falling = -np.sort(-scores, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1.0) / np.arange(1, scores.shape[1] + 1)
    last = (falling > excess).sum(1) - 1
    found = np.maximum(scores - np.take_along_axis(excess, last[:, None], axis=1), 0.0)
    return found / found.sum(1, keepdims=True)


__all__ = ["KernelClassifier", "KernelRegressor", "project_on_simplex"]
