"""A task measured on a sample: the user's door to learning curves."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit

from widthwise.core import DataError
from widthwise.theory._accuracy import extrapolated_error_rate, predicted_accuracy
from widthwise.theory._arrays import check_inputs
from widthwise.theory._curve import LearningCurve
from widthwise.theory._degrees import correct_knots
from widthwise.theory._exponents import Exponents, fit_exponents
from widthwise.theory._knots import measure_knots
from widthwise.theory._overfitting import Overfitting, overfitting
from widthwise.theory._risk import Risk, risk
from widthwise.theory._sample import SampleSpectrum
from widthwise.theory._spectrum import Numbers
from widthwise.theory._tail import Blocks, Calibration, Tail, fit_tail, jackknife, jackknife_deviation, measure_blocks

ANSATZ = 0.02  # relative error of the theory that no check on the sample reveals
FEATURES = 0.03  # the same at finite width, where no check is made
DRIFT = 0.08  # relative change of the local exponent per e-fold beyond the sample


@dataclass(frozen=True, eq=False)
class TaskSpectrum:
    """A kernel and targets as the eigenframework sees them, measured on P samples. Make it with `fit`.

    Predictions for up to P samples, at any ridge and width, are read from sums that one eigendecomposition gives
    (see `_sample`); leave-one-out errors of disjoint blocks calibrate them at zero ridge and carry them beyond P.

    Attributes:
        samples, outputs: P and the number of outputs.
        spectrum: the four sums as functions of the effective ridge.
        eigenvalues: ``[samples]`` of ``K / P``, largest first; empirical: only the first half is resolved.
        coefficients: ``[samples]`` power of the targets in each empirical mode, summed over outputs.
        labels: class of each sample, or None.
        frequencies: class frequencies that were subtracted from the one-hot targets, or zeros.
        jitter: what was added to every eigenvalue of the Gram matrix for stability.

    >>> x = np.random.default_rng(0).standard_normal((60, 5))
    >>> task = TaskSpectrum.fit(x @ x.T + 0.1 * np.eye(60), x[:, 0])
    >>> task.risk([20, 40]).test.shape
    (2,)
    """

    samples: int
    outputs: int
    spectrum: SampleSpectrum = field(repr=False)
    eigenvalues: Float[np.ndarray, "samples"] = field(repr=False)
    coefficients: Float[np.ndarray, "samples"] = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    frequencies: Float[np.ndarray, "outputs"] = field(repr=False)
    jitter: float
    blocks: Blocks = field(repr=False)
    calibration: Calibration = field(repr=False)

    @classmethod
    def fit(
        cls, gram: Any, targets: Any, *, labels: Any = None, frequencies: Any = None, seed: int = 0
    ) -> "TaskSpectrum":
        """Measure a task on its Gram matrix.

        Args:
            gram: ``[P, P]`` kernel matrix of the samples (array or tensor).
            targets: ``[P]`` or ``[P, outputs]``; for classification, one-hot rows minus the class frequencies.
            labels: ``[P]`` class indices, to predict accuracy as well.
            frequencies: ``[outputs]`` what was subtracted from the one-hot rows; it is added back before arg max.
            seed: of the random partitions into blocks.

        Raises:
            DataError: shapes do not match, a value is not finite, or the matrix is not symmetric.
        """
        gram, targets, labels, frequencies = check_inputs(gram, targets, labels, frequencies)
        knots, values, power = measure_knots(gram, targets)
        blocks = measure_blocks(gram, targets, knots, labels, frequencies, seed)
        knots = correct_knots(knots, blocks)
        means = np.maximum(blocks.errors.mean(1), 1e-300)
        spectrum = SampleSpectrum(knots, fit_tail(blocks.sizes, blocks.errors, _alpha(blocks)))
        theory = risk(spectrum, blocks.sizes).test
        theory[0] = means[0]  # the same leave-one-out errors, by construction
        return cls(
            samples=len(gram),
            outputs=targets.shape[1],
            spectrum=spectrum,
            eigenvalues=values / len(gram),
            coefficients=power / len(gram),
            labels=labels,
            frequencies=frequencies,
            jitter=knots.jitter,
            blocks=blocks,
            calibration=Calibration(blocks.sizes, np.log(means / np.maximum(theory, 1e-300))),
        )

    @property
    def noise(self) -> float:
        """Estimated noise floor of the test error, summed over outputs: the constant that the curve bends towards."""
        return float(self.spectrum.tail.offset * self.spectrum.knots.bias[0])

    @property
    def resolved(self) -> int:
        """Number of empirical modes to trust."""
        return self.samples // 2

    def risk(self, n: Numbers, ridge: Numbers | str = 0.0, width: Numbers | None = None, noise: Numbers = 0.0) -> Risk:
        """Predicted errors at `n` samples.

        Args:
            n, width: sizes (None or infinity: the kernel itself); beyond the P samples the result is extrapolated.
            ridge: a number, ``"zero"`` or ``"optimal"``.
            noise: variance of label noise to add, summed over outputs.

        Raises:
            DataError: a size is not positive, a ridge or noise is negative.
        """
        base = risk(self.spectrum, n, ridge, width, noise)
        shape = base.test.shape
        flat = replace(base, **{name: np.atleast_1d(getattr(base, name)).ravel() for name in base.__dataclass_fields__})
        kernel = risk(self.spectrum, flat.n).coefficient
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.clip(np.log(flat.coefficient) / np.log(kernel), 0.0, 1.0)
        log_ratio = self.calibration.at(np.minimum(flat.n, flat.width)) * np.nan_to_num(share, nan=1.0)
        test, train = flat.test * np.exp(log_ratio), flat.train * np.exp(log_ratio)
        extrapolated = flat.gamma < self.spectrum.knots.kappa[0] * (1 - 1e-9)
        deviation = self._deviation(flat, log_ratio)
        accuracy = self._accuracies(flat, test, deviation, extrapolated)
        parts = {
            "test": test,
            "train": train,
            "low": test * np.exp(-1.96 * deviation),
            "high": test * np.exp(1.96 * deviation),
            "extrapolated": extrapolated,
            "accuracy": accuracy[0],
            "accuracy_low": accuracy[1],
            "accuracy_high": accuracy[2],
        }
        return replace(base, **{name: part.reshape(shape) for name, part in parts.items()})

    def learning_curve(
        self, sizes: Numbers, ridge: Numbers | str = "zero", width: Numbers | None = None, noise: Numbers = 0.0
    ) -> LearningCurve:
        """Predicted errors at a row of sizes."""
        sizes = np.atleast_1d(np.asarray(sizes, dtype=float))
        return LearningCurve(ridge if isinstance(ridge, str) else "fixed", self.risk(sizes, ridge, width, noise))

    def optimal_ridge(self, n: Numbers, width: Numbers | None = None) -> np.ndarray:
        """Ridge of least predicted test error."""
        return risk(self.spectrum, n, "optimal", width).ridge

    def noise_only_error(self, n: Numbers) -> np.ndarray:
        """Test error of ridgeless regression on pure unit noise at `n` samples; tends to alpha for power laws."""
        return risk(self.spectrum, n).coefficient

    def overfitting(self, n: float | int, *, noise: float | int = 0.0) -> Overfitting:
        """The cost of interpolating `n` samples; the rank bound comes from empirical modes and is a guide only."""
        values = self.eigenvalues[self.eigenvalues > 0]
        return overfitting(self.spectrum, n, noise=noise, eigenvalues=values)

    def exponents(self) -> Exponents:
        """Power-law exponents of eigenvalues and target over P/16 to P samples."""
        if len(self.blocks.sizes) < 3:
            raise DataError(f"{self.samples} samples are too few for exponents; give at least 64.")
        return fit_exponents(self.blocks, self.noise)

    def learnability(self, n: Numbers, ridge: Numbers | str = 0.0) -> np.ndarray:
        """Share of the target that is learned on average: ``sum L_i v_i^2 / sum v_i^2``, noise counted as unlearned."""
        gamma = risk(self.spectrum, n, ridge).gamma
        gap = self.spectrum.moments(np.atleast_1d(gamma).ravel()).gap.reshape(gamma.shape)
        return np.asarray(1 - gap / self.spectrum.knots.gap[-1])

    def _deviation(self, flat: Risk, log_ratio: np.ndarray) -> np.ndarray:
        """Standard deviation of the logarithm of the predicted test error."""
        knots = self.spectrum.knots
        means = np.maximum(knots.errors.mean(1), 1e-300)
        relative = knots.errors.std(1) / means / np.sqrt(self.samples)
        level = np.interp(np.log(flat.gamma), np.log(knots.kappa), relative)
        ansatz = ANSATZ + 0.4 * np.abs(log_ratio) + np.where(np.isfinite(flat.width), FEATURES, 0.0)
        beyond = np.maximum(np.log(np.maximum(flat.degrees, 1e-300) / self.samples), 0.0)
        return np.minimum(np.sqrt(ansatz**2 + self._tail_variance(beyond, level)), 10.0)

    def _tail_variance(self, beyond: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Sampling, choice of form and drift of the exponent.

        Level and exponent are strongly anticorrelated, so that they are resampled together.
        """
        tail = self.spectrum.tail
        drift = DRIFT * abs(tail.slope) * beyond * (1 + beyond) / 2
        logs = [base + np.log(part.shape(beyond)) for base, part in self._tail_replicates]
        sampling = np.where(beyond > 0, jackknife_deviation(np.array(logs)), level)
        return sampling**2 + tail.spread(beyond) ** 2 + drift**2

    @cached_property
    def _tail_replicates(self) -> list[tuple[float, Tail]]:
        """Logarithm of the error at P and the tail, with each group of samples left out in turn."""
        return [
            (float(np.log(max(errors[0].mean(), 1e-300))), fit_tail(self.blocks.sizes, errors, 1.0))
            for errors in jackknife(self.blocks.errors)
        ]

    @cached_property
    def _accuracy_shift(self) -> Calibration:
        """Measured minus predicted log-odds of a right arg max, at the ridgeless block sizes."""
        knots, labels = self.spectrum.knots, self.labels
        assert labels is not None
        found = risk(self.spectrum, self.blocks.sizes)
        errors = self.blocks.errors.mean(1)
        predicted = np.array(
            [
                predicted_accuracy(knots, labels, self.frequencies, gamma, error)[0]
                for gamma, error in zip(found.gamma, errors, strict=True)
            ]
        )
        edge = 0.5 / self.samples
        odds = [logit(np.clip(part, edge, 1 - edge)) for part in (self.blocks.hits.mean(1), predicted)]
        return Calibration(self.blocks.sizes, odds[0] - odds[1])

    @cached_property
    def _rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of ridgeless squared error and of error rate at P/8, P/4, P/2 and P."""
        sizes = self.samples / np.array([8.0, 4.0, 2.0, 1.0])
        found = self.risk(sizes)
        return np.log(found.test), np.log(np.maximum(1 - found.accuracy, 0.5 / self.samples))

    def _accuracies(self, flat: Risk, test: np.ndarray, deviation: np.ndarray, extrapolated: np.ndarray) -> np.ndarray:
        """Accuracy, low and high, ``[3, points]``."""
        rows = np.full((3, len(test)), np.nan)
        if self.labels is None or self.outputs < 2:
            return rows
        knots = self.spectrum.knots
        for point in range(len(test)):
            error = test[point] - flat.noise[point]
            if not np.isfinite(error):
                continue
            if not extrapolated[point]:
                value, stderr = predicted_accuracy(knots, self.labels, self.frequencies, flat.gamma[point], error)
                least = np.minimum(flat.n, flat.width)[point : point + 1]
                shift = float(self._accuracy_shift.at(least)[0])
                value = float(expit(logit(np.clip(value, 1e-6, 1 - 1e-6)) + shift))
                spread = 1.96 * np.hypot(stderr, 0.005 + 0.25 * abs(shift) * value * (1 - value))
                rows[:, point] = value, max(value - spread, 0.0), min(value + spread, 1.0)
                continue
            log_rate, spread = extrapolated_error_rate(*self._rates, np.log(error))
            spread = 1.96 * np.hypot(spread, deviation[point])
            rates = np.exp(log_rate + spread * np.array([0, 1, -1]))
            rows[:, point] = np.clip(1 - rates, 0.0, 1.0)
        return rows


def _alpha(blocks: Blocks) -> float:
    """Exponent of kappa over the last factor of 8; held above 1, where the trace converges."""
    if len(blocks.sizes) < 2:
        return 1.5
    near = blocks.sizes >= blocks.sizes[0] / 8.4
    kappas = np.log([part.mean() for part in blocks.kappas])
    return max(-float(np.polyfit(np.log(blocks.sizes[near] + 1), kappas[near], 1)[0]), 1.02)
