"""The task and learning-curve sections: what the Gram matrix says, beside measured kernel regression."""

import numpy as np
import torch
from torch import Tensor

from widthwise.core import generator
from widthwise.forecast._grams import Grams
from widthwise.forecast._run import Run, Targets
from widthwise.forecast._settings import EXTRAPOLATION, Settings
from widthwise.forecast._types import LearningPoint, OverfittingSection, RidgeKind, TaskSection
from widthwise.theory import Risk, TaskSpectrum, measure_kernel_regression

SPECTRUM_POINTS = 60
NOISE_COLUMNS = 10


def fit_task(gram: Tensor, targets: Targets, seed: int) -> TaskSpectrum:
    """The task under one kernel."""
    return TaskSpectrum.fit(
        gram, targets.train, labels=targets.train_labels, frequencies=targets.frequencies, seed=seed
    )


def task_section(run: Run, grams: Grams, task: TaskSpectrum, nngp: TaskSpectrum) -> TaskSection:
    """Spectrum, target power, exponents, and the check on pure noise labels."""
    exponents = task.exponents()
    index = _log_spaced(len(task.eigenvalues))
    noise = run.stages.plain("noise", lambda: _noise_error(grams, run.settings))
    return TaskSection(
        samples=len(run.train),
        held_out=len(run.test),
        inputs=int(np.prod(run.train.input_shape)),
        outputs=run.train.outputs,
        alpha=exponents.alpha,
        alpha_stderr=exponents.alpha_stderr,
        beta=exponents.beta,
        beta_stderr=exponents.beta_stderr,
        noise=task.noise,
        noise_error=noise[0],
        noise_error_stderr=noise[1],
        target_power=run.targets.power,
        eigenvalues=_at(task.eigenvalues, index),
        eigenvalue_index=tuple(int(i) + 1 for i in index),
        cumulative_power=_at(_cumulative(task.coefficients), index),
        nngp_eigenvalues=_at(nngp.eigenvalues, index),
        nngp_cumulative_power=_at(_cumulative(nngp.coefficients), index),
    )


def _log_spaced(count: int) -> np.ndarray:
    return np.unique(np.geomspace(1, count, SPECTRUM_POINTS).round().astype(int)) - 1


def _at(values: np.ndarray, index: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in np.maximum(values[index], 0.0))


def _cumulative(power: np.ndarray) -> np.ndarray:
    return np.cumsum(power) / power.sum()


def _noise_error(grams: Grams, settings: Settings) -> tuple[float, float]:
    """Ridgeless test error on labels of unit noise, at half of the samples: E0 in theory, alpha for power laws."""
    shape = (len(grams.ntk), NOISE_COLUMNS)
    noise = torch.randn(shape, generator=generator(settings.seed, "noise labels"), dtype=torch.float64)
    blank = torch.zeros(len(grams.ntk_test), NOISE_COLUMNS, dtype=torch.float64)
    found = measure_kernel_regression(
        grams.ntk, noise, grams.ntk_test, blank, [max(1, len(grams.ntk) // 2)], 0.0, trials=4, seed=settings.seed
    )
    return 1 + float(found.test[0, 0]) / NOISE_COLUMNS, float(found.test_stderr[0, 0]) / NOISE_COLUMNS


def learning_curve(run: Run, grams: Grams, task: TaskSpectrum) -> tuple[LearningPoint, ...]:
    """Predicted and measured points at zero and at optimal ridge, then beyond the samples."""
    inside = (*run.settings.sizes, run.settings.samples)
    beyond = tuple(run.settings.samples * factor for factor in EXTRAPOLATION)
    kinds: tuple[RidgeKind, RidgeKind] = ("zero", "optimal")
    risks = {kind: task.learning_curve(np.array([*inside, *beyond]), ridge=kind).risk for kind in kinds}
    tuned = np.stack([np.zeros(len(inside)), risks["optimal"].ridge[: len(inside)]], axis=1)
    measured = run.stages.plain("measured curve", lambda: _measure(run, grams, inside, tuned))
    return tuple(
        _point(risks[kind], kind, i, measured[i][k] if i < len(inside) else None)
        for k, kind in enumerate(kinds)
        for i in range(len(inside) + len(beyond))
    )


def _measure(run: Run, grams: Grams, sizes: tuple[int, ...], ridges: np.ndarray) -> list[list[list[float]]]:
    """``[size][ridge] = [mse, its standard error, accuracy, its standard error]`` of actual kernel regression."""
    found = measure_kernel_regression(
        grams.ntk,
        run.targets.train,
        grams.ntk_test,
        run.targets.test,
        list(sizes),
        ridges,
        trials=run.settings.draws,
        seed=run.settings.seed,
        labels=run.targets.test_labels,
        frequencies=run.targets.frequencies,
    )
    columns = (found.test, found.test_stderr, found.accuracy, found.accuracy_stderr)
    return [[[float(c[i, k]) for c in columns] for k in range(ridges.shape[1])] for i in range(len(sizes))]


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _point(risk: Risk, kind: RidgeKind, i: int, measured: list[float | None] | None) -> LearningPoint:
    mse, mse_stderr, accuracy, accuracy_stderr = (_number(v) for v in measured or [None] * 4)
    return LearningPoint(
        n=int(risk.n[i]),
        ridge=kind,
        ridge_value=float(risk.ridge[i]),
        predicted_mse=float(risk.test[i]),
        predicted_mse_low=float(risk.low[i]),
        predicted_mse_high=float(risk.high[i]),
        predicted_accuracy=_number(float(risk.accuracy[i])),
        measured_mse=mse,
        measured_mse_stderr=mse_stderr,
        measured_accuracy=accuracy,
        measured_accuracy_stderr=accuracy_stderr,
        extrapolated=bool(risk.extrapolated[i]),
    )


OVERFITTING_WORDS = {
    "benign": "Fitting the samples exactly costs next to nothing, even with noisy labels",
    "tempered": "Fitting noisy samples exactly costs a constant factor that more data does not remove",
    "catastrophic": "Fitting noisy samples exactly costs more and more as data is added",
}


def overfitting_section(task: TaskSpectrum, settings: Settings) -> OverfittingSection:
    """What interpolating all samples costs."""
    found = task.overfitting(settings.samples)
    loose = "the best ridge leaves some error on the samples"
    need = "near-interpolation is needed for the best error" if found.obligatory else loose
    words = (
        f"{OVERFITTING_WORDS[found.verdict.value]} ({found.verdict.value}); for these targets interpolation costs "
        f"{100 * (found.cost - 1):.2g} % and {need}."
    )
    return OverfittingSection(
        n=int(found.n),
        cost=found.cost,
        coefficient=found.coefficient,
        verdict=found.verdict.value,
        optimal_ridge=found.optimal_ridge,
        optimal_fitting_ratio=found.optimal_fitting_ratio,
        obligatory=found.obligatory,
        explanation=words,
    )
