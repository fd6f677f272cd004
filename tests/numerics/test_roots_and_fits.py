"""Root finding against closed forms, fits against known truth and coverage of the errors."""

import numpy as np
import pytest
from scipy.special import lambertw

from widthwise.numerics import FitError, RootError, fit_offset_power_law, fit_power_law, solve_monotone


def test_powers_over_many_decades():
    target = np.geomspace(1e-20, 1e20, 41)
    root = solve_monotone(lambda x: x**3, 1e-12, 1e12, target=target)
    np.testing.assert_allclose(root, np.cbrt(target), rtol=1e-12)


def test_falling_function_and_lambert():
    y = np.array([[0.1, 1.0], [10.0, 1e4]])
    np.testing.assert_allclose(
        solve_monotone(lambda x: -x * np.exp(x), 1e-8, 1e3, target=-y), lambertw(y).real, rtol=1e-12
    )


def test_step_function_is_bracketed_as_by_bisection():
    root = solve_monotone(lambda x: np.where(x > np.pi, 1.0, -1.0), 1e-3, 1e3)
    assert root == pytest.approx(np.pi, rel=1e-12)


def test_smooth_functions_take_few_evaluations():
    calls = []
    solve_monotone(lambda x: calls.append(1) or np.log1p(x), 1e-6, 1e6, target=2.0)
    assert len(calls) < 25


def test_root_errors():
    with pytest.raises(RootError, match="widen"):
        solve_monotone(lambda x: x + 1, 1e-3, 1e3)
    with pytest.raises(RootError, match="bracket"):
        solve_monotone(lambda x: x, -1.0, 1.0)


def test_power_law_matches_the_normal_equations():
    rng = np.random.default_rng(0)
    x, w = np.geomspace(1, 100, 12), rng.uniform(0.5, 2, 12)
    y = 3 * x**-0.7 * np.exp(0.1 * rng.standard_normal(12))
    fit = fit_power_law(x, y, w)
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1, w=np.sqrt(w))
    assert (fit.slope, fit.intercept) == (pytest.approx(slope), pytest.approx(intercept))


def test_power_law_errors_cover_with_unequal_noise():
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 1000, 16)
    inside = 0
    for _ in range(400):
        fit = fit_power_law(x, 2 * x**-0.5 * np.exp(0.02 * x**0.4 * rng.standard_normal(16)))
        inside += abs(fit.slope + 0.5) < 1.96 * fit.slope_stderr
    assert 0.88 < inside / 400 < 0.995


def test_offset_power_law_recovers_and_covers():
    x = np.geomspace(10, 1e4, 10)
    fit = fit_offset_power_law(x, 5 * x**-0.4 + 0.25)
    assert (fit.scale, fit.exponent, fit.floor) == (pytest.approx(5), pytest.approx(0.4), pytest.approx(0.25))
    np.testing.assert_allclose(fit.predict([1e6]), 5 * 1e6**-0.4 + 0.25)
    rng, inside = np.random.default_rng(2), 0
    for _ in range(60):
        noisy = fit_offset_power_law(x, 5 * x**-0.4 + 0.25 + 0.01 * rng.standard_normal(10), np.full(10, 0.01))
        inside += abs(noisy.exponent - 0.4) < 1.96 * noisy.exponent_stderr
    assert inside / 60 > 0.8


def test_offset_power_law_forgives_an_outlier():
    x = np.geomspace(1, 1000, 12)
    y = 2 * x**-0.5 + 0.1
    y[5] += 1.0
    assert fit_offset_power_law(x, y).exponent == pytest.approx(0.5, abs=0.1)


def test_fit_errors():
    with pytest.raises(FitError, match="y > 0"):
        fit_power_law([1, 2, 3], [1, 0, 1])
    with pytest.raises(FitError, match="different"):
        fit_offset_power_law([1, 2, 2], [1, 2, 3])
