"""What the theory is checked against: exact kernel regression on random subsets, and Gaussian-feature simulation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from widthwise.core import DataError, Value, progress
from widthwise.theory._arrays import as_array, check_inputs
from widthwise.theory._knots import JITTER
from widthwise.theory._spectrum import EigenSpectrum, Numbers


@dataclass(frozen=True)
class Measured(Value):
    """Mean and standard error over trials; every array is ``[sizes, ridges]``.

    Errors are mean squared errors summed over outputs; accuracies are NaN without labels.
    """

    sizes: Float[np.ndarray, "sizes"]
    ridges: Float[np.ndarray, "sizes ridges"]
    trials: Float[np.ndarray, "sizes"]
    test: Float[np.ndarray, "sizes ridges"]
    test_stderr: Float[np.ndarray, "sizes ridges"]
    train: Float[np.ndarray, "sizes ridges"]
    accuracy: Float[np.ndarray, "sizes ridges"]
    accuracy_stderr: Float[np.ndarray, "sizes ridges"]


def measure_kernel_regression(
    gram: Any,
    targets: Any,
    test_gram: Any,
    test_targets: Any,
    sizes: Numbers,
    ridges: Numbers = 0.0,
    *,
    trials: int = 10,
    seed: int = 0,
    labels: Any = None,
    frequencies: Any = None,
) -> Measured:
    """Exact kernel ridge regression on random subsets of a training set.

    Args:
        gram: ``[train, train]``; `targets`: ``[train, outputs]``.
        test_gram: ``[test, train]``; `test_targets`: ``[test, outputs]``.
        sizes: ``[sizes]`` subset sizes.
        ridges: a number, ``[ridges]``, or ``[sizes, ridges]``; added to the kernel matrix, like the relative jitter
            of 1e-12 of the mean diagonal that every solve gets.
        trials: subsets of each size (one where the size is the whole set).
        labels: ``[test]`` classes of the test points, for accuracy.
        frequencies: ``[outputs]`` added to the predictions before arg max.

    Raises:
        DataError: shapes do not match, or a size exceeds the training set.
    """
    gram, targets, _, frequencies = check_inputs(gram, targets, None, frequencies)
    test_gram, test_targets = as_array(test_gram), as_array(test_targets)
    test_targets = test_targets[:, None] if test_targets.ndim == 1 else test_targets
    if test_gram.shape != (len(test_targets), len(gram)):
        raise DataError(
            f"the test kernel has shape {list(test_gram.shape)}; {len(test_targets)} test targets and {len(gram)} "
            "training samples ask for one row per test point and one column per training sample."
        )
    sizes = np.atleast_1d(np.asarray(sizes, dtype=int))
    if sizes.min() < 1 or sizes.max() > len(gram):
        raise DataError(f"sizes from {sizes.min()} to {sizes.max()} do not fit {len(gram)} training samples.")
    ridges = np.atleast_1d(np.asarray(ridges, dtype=float))
    ridges = np.array(np.broadcast_to(ridges, (len(sizes), ridges.shape[-1])))
    test_labels = None if labels is None else as_array(labels).astype(int)
    rng = np.random.default_rng(seed)
    counts = np.where(sizes == len(gram), 1, trials)
    rows: list[np.ndarray] = []
    with progress("kernel regression", float(counts.sum())) as advance:
        for size, count, row in zip(sizes, counts, ridges, strict=True):
            results = []
            for _ in range(count):
                pick = rng.choice(len(gram), size, replace=False)
                block, cross = gram[np.ix_(pick, pick)], test_gram[:, pick]
                results.append(
                    [_one(block, targets[pick], cross, test_targets, ridge, test_labels, frequencies) for ridge in row]
                )
                advance(1)
            rows.append(np.array(results))
    means = np.array([part.mean(0) for part in rows])
    errors = np.array(
        [part.std(0, ddof=1) / np.sqrt(len(part)) if len(part) > 1 else part[0] * np.nan for part in rows]
    )
    return Measured(
        sizes.astype(float), ridges, counts.astype(float), means[:, :, 0], errors[:, :, 0],
        means[:, :, 1], means[:, :, 2], errors[:, :, 2],
    )  # fmt: skip


def _one(
    block: np.ndarray,
    targets: np.ndarray,
    cross: np.ndarray,
    test_targets: np.ndarray,
    ridge: float,
    labels: np.ndarray | None,
    frequencies: np.ndarray,
) -> tuple[float, float, float]:
    ridge = ridge + JITTER * np.trace(block) / len(block)
    weights = solve_ridge(block, targets, ridge)
    scores = cross @ weights
    accuracy = float("nan") if labels is None else float(((scores + frequencies).argmax(1) == labels).mean())
    train = float((ridge * weights) ** 2 @ np.ones(weights.shape[1]) @ np.ones(len(weights)) / len(weights))
    return float(((scores - test_targets) ** 2).sum(1).mean()), train, accuracy


def solve_ridge(block: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """``(block + ridge)^-1 targets`` by Cholesky, by eigenvalues where rounding has made the block indefinite."""
    try:
        return cho_solve(cho_factor(block + ridge * np.eye(len(block))), targets)
    except LinAlgError:
        values, vectors = np.linalg.eigh(block)
        return vectors @ ((vectors.T @ targets) / (np.maximum(values, 0.0) + ridge)[:, None])


@dataclass(frozen=True)
class Simulated(Value):
    """Mean and standard error over trials of Gaussian-feature regression."""

    test: float
    test_stderr: float
    train: float
    train_stderr: float
    coefficients_mean: Float[np.ndarray, "modes"]
    coefficients_variance: Float[np.ndarray, "modes"]


def gaussian_simulation(
    spectrum: EigenSpectrum,
    n: int,
    ridge: float | int = 0.0,
    width: int | None = None,
    *,
    trials: int = 50,
    seed: int = 0,
) -> Simulated:
    """Ridge regression with Gaussian eigenfunctions, the ansatz made flesh; the test error is exact per draw.

    Args:
        spectrum: listed modes without multiplicities (a tail is ignored); all target coefficients are positive roots.
        n, ridge, width: as in `risk`; with a width, features are ``G diag(sqrt lambda) x`` with a fresh Gaussian G.
    """
    roots, target = np.sqrt(spectrum.eigenvalues), np.sqrt(spectrum.coefficients_squared)
    rng = np.random.default_rng(seed)
    tests, trains, learned = [], [], []
    for _ in range(trials):
        x = rng.standard_normal((n, len(roots)))
        y = x @ target + np.sqrt(spectrum.noise) * rng.standard_normal(n)
        features = x * roots
        mixing = None
        if width is not None:
            mixing = rng.standard_normal((len(roots), width)) / np.sqrt(width)
            features = features @ mixing
        weights = np.linalg.lstsq(features, y, rcond=None)[0] if ridge == 0 else _ridge(features, y, ridge)
        found = roots * (weights if mixing is None else mixing @ weights)
        tests.append(((found - target) ** 2).sum() + spectrum.noise)
        trains.append(((features @ weights - y) ** 2).mean())
        learned.append(found)
    root = np.sqrt(max(trials - 1, 1))
    return Simulated(
        float(np.mean(tests)), float(np.std(tests) / root), float(np.mean(trains)), float(np.std(trains) / root),
        np.mean(learned, 0), np.var(learned, 0),
    )  # fmt: skip


def _ridge(features: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    return features.T @ solve_ridge(features @ features.T, y[:, None], ridge)[:, 0]
