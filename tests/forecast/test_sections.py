"""The sections' numbers against independent computation."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

import widthwise as ww
from tests.forecast.conftest import make_run, small_net
from widthwise.core import generator
from widthwise.forecast._curves import fit_task, overfitting_section, task_section
from widthwise.forecast._grams import Grams
from widthwise.forecast._run import Run
from widthwise.forecast._width import width_curve
from widthwise.report import ForecastReport
from widthwise.theory import TaskSpectrum


def error_and_accuracy(run: Run, predicted: np.ndarray) -> tuple[float, float]:
    error = np.square(predicted - run.targets.test.numpy()).sum(1).mean()
    labels = (predicted + run.train.class_frequencies().numpy()).argmax(1)
    return float(error), float((labels == run.test.targets.numpy()).mean())


def kernel_ridge(run: Run, grams: Grams, pick: np.ndarray, ridge: float) -> tuple[float, float]:
    gram, cross = grams.ntk.numpy()[np.ix_(pick, pick)], grams.ntk_test.numpy()[:, pick]
    fitted = KernelRidge(alpha=max(ridge, 1e-10), kernel="precomputed").fit(gram, run.targets.train.numpy()[pick])
    return error_and_accuracy(run, fitted.predict(cross))


def test_measured_points_are_kernel_regression(report: ForecastReport, run: Run, grams: Grams) -> None:
    """At P the training set is known; below, the means over draws agree within their standard errors."""
    rng = np.random.default_rng(11)
    for point in report.learning_curve:
        if point.extrapolated:
            assert point.measured_mse is None and point.n > run.settings.samples
            continue
        if point.n == run.settings.samples:
            error, accuracy = kernel_ridge(run, grams, np.arange(point.n), point.ridge_value)
            assert point.measured_mse == pytest.approx(error, rel=1e-5)
            assert point.measured_accuracy == pytest.approx(accuracy, abs=0.02)
            continue
        draws = [
            kernel_ridge(run, grams, rng.choice(len(run.train), point.n, replace=False), point.ridge_value)[0]
            for _ in range(60)
        ]
        spread = np.hypot(np.std(draws) / 60**0.5, np.std(draws) / run.settings.draws**0.5)
        assert abs(point.measured_mse - np.mean(draws)) < 4.5 * spread


def test_both_ridges_reach_from_the_sizes_to_eight_times_the_samples(report: ForecastReport, run: Run) -> None:
    p = run.settings.samples
    for kind in ("zero", "optimal"):
        points = [point for point in report.learning_curve if point.ridge == kind]
        assert [point.n for point in points] == [*run.settings.sizes, p, 2 * p, 4 * p, 8 * p]
        assert [point.extrapolated for point in points[-3:]] == [True] * 3
        for point in points:
            assert point.predicted_mse_low < point.predicted_mse < point.predicted_mse_high
    zero, optimal = ([p for p in report.learning_curve if p.ridge == kind] for kind in ("zero", "optimal"))
    assert all(b.predicted_mse <= a.predicted_mse * (1 + 1e-9) for a, b in zip(zero, optimal, strict=True))


def test_the_same_spectrum_speaks_in_every_section(report: ForecastReport, task: TaskSpectrum, run: Run) -> None:
    found = task.overfitting(run.settings.samples)
    assert report.overfitting.cost == pytest.approx(found.cost, rel=1e-6)
    assert report.overfitting.verdict == found.verdict.value
    assert report.overfitting.optimal_fitting_ratio == pytest.approx(found.optimal_fitting_ratio, rel=1e-5)
    assert report.task.alpha == pytest.approx(task.exponents().alpha, rel=1e-6)
    values = np.linalg.eigvalsh(task.eigenvalues[:, None] * np.eye(len(task.eigenvalues)))[::-1]
    index = np.array(report.task.eigenvalue_index) - 1
    assert np.allclose(report.task.eigenvalues, np.maximum(values[index], 0), rtol=1e-6)
    assert report.task.cumulative_power[-1] == pytest.approx(1.0)
    for row in report.training:
        assert row.kernel_mse == pytest.approx(float(task.risk(row.n, "zero").test), rel=1e-6)


def test_target_power_is_the_error_of_the_mean(report: ForecastReport, run: Run) -> None:
    frequencies = torch.bincount(run.train.targets, minlength=10).double() / len(run.train)
    assert report.task.target_power == pytest.approx(float((frequencies * (1 - frequencies)).sum()))


def test_overfitting_words_carry_the_verdict(task: TaskSpectrum, run: Run) -> None:
    section = overfitting_section(task, run.settings)
    assert section.verdict in section.explanation


def test_pure_noise_costs_at_least_itself(grams: Grams, task: TaskSpectrum, run: Run) -> None:
    section = task_section(run, grams, task, fit_task(grams.features, run.targets, 0))
    assert section.noise_error is not None and section.noise_error > 1
    assert section.noise_error == pytest.approx(float(task.noise_only_error(len(run.train) // 2)), rel=0.35)


def test_width_points_of_one_module_are_ridge_regression_on_its_features() -> None:
    module = small_net(20)
    run = make_run(module)
    limit = ww.infinite(ww.trace(module, run.train.inputs[:2]))
    points = width_curve(run, fit_task(limit.feature_kernel(run.train.inputs), run.targets, 0))
    assert {(point.width, point.features, point.n) for point in points} == {(20, 20, 48)}
    with torch.no_grad():
        train, test = (module[:3](part.inputs).double().numpy() for part in (run.train, run.test))
    for point in points[1:]:  # at the best ridge, where rounding does not matter
        errors = []
        for draw in range(3):
            pick = torch.randperm(96, generator=generator(run.settings.seed, "subset", draw, 48))[:48].numpy()
            fitted = Ridge(alpha=point.ridge_value * 20, fit_intercept=False)
            fitted.fit(train[pick], run.targets.train.numpy()[pick])
            errors.append(error_and_accuracy(run, fitted.predict(test))[0])
        assert point.measured_mse == pytest.approx(np.mean(errors), rel=1e-4)
        assert point.measured_mse_stderr == pytest.approx(np.std(errors, ddof=1) / 3**0.5, rel=1e-3)


def test_width_points_follow_the_features_and_the_theory(report: ForecastReport, run: Run, grams: Grams) -> None:
    spectrum = fit_task(grams.features, run.targets, run.settings.seed)
    assert [point.width for point in report.width_curve[::2]] == [2, 6, 24, 96]
    for point in report.width_curve:
        assert point.features == point.width
        expected = float(spectrum.risk(point.n, point.ridge_value, width=point.features).test)
        assert point.predicted_mse == pytest.approx(expected, rel=1e-5)
    surface = report.width_surface
    assert surface is not None
    expected = spectrum.risk(surface.n[0], "optimal", width=surface.width[-1])
    assert surface.mse[0][-1] == pytest.approx(float(expected.test), rel=1e-5)


def fussy(width: int = 24) -> torch.nn.Module:
    assert width % 12 == 0
    return small_net(width)


def test_widths_that_the_factory_refuses_are_left_out() -> None:
    run = make_run(fussy)
    limit = ww.infinite(ww.trace(small_net(), run.train.inputs[:2]))
    points = width_curve(run, fit_task(limit.feature_kernel(run.train.inputs), run.targets, 0))
    assert {point.width for point in points} == {24, 96}
