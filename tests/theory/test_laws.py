"""Costs, ranks, power-law theorem, analytic eigensystems and the conservation law."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.theory import (
    EigenSpectrum,
    Verdict,
    circle_eigensystem,
    classify_spectrum,
    coefficient_bound,
    effective_ranks,
    gaussian_simulation,
    hypercube_eigensystem,
    learned_coefficients,
    optimal_fitting_ratio,
    overfitting,
    power_law_kappa,
    power_law_risk,
    power_law_risk_ratio,
    risk,
    sphere_eigensystem,
    total_learnability,
)


def test_power_law_theorem_against_the_sums():
    spectrum = EigenSpectrum.power_law(1.5, 2.5, 3000, tail=True)
    n = 1000
    assert risk(spectrum, n).kappa == pytest.approx(power_law_kappa(n, 1.5), rel=2e-3)
    assert risk(spectrum, n).test == pytest.approx(power_law_risk(n, 1.5, 2.5), rel=5e-3)
    ridges = np.geomspace(1e-4, 1, 400)
    for noise, expected in ((0.0, [1.1154, 1.5271, 2.5809]), (3.0, [0.9820, 0.9841, 1.1115])):
        formula = power_law_risk_ratio([0.01, 0.1, 0.3], 1.5, 2.5, noise)
        assert formula == pytest.approx(np.array(expected), abs=6e-5)
        clean = float(risk(spectrum, n).test)
        swept = risk(spectrum, n, ridges, noise=noise * clean)
        ratio = np.interp([0.01, 0.1, 0.3], swept.fitting_ratio, swept.test / (clean * (1 + 1.5 * noise)))
        assert ratio == pytest.approx(formula, rel=6e-3)


def test_interpolation_is_obligatory_up_to_the_noise_threshold():
    alpha, beta = 1.5, 1.8
    threshold = (beta - alpha) / (alpha * (alpha - 1))
    assert optimal_fitting_ratio(alpha, beta, threshold * 0.99) == 0
    assert optimal_fitting_ratio(alpha, beta, threshold * 1.2) > 0
    best = optimal_fitting_ratio(alpha, 1.2)
    around = power_law_risk_ratio(np.linspace(0, 0.9, 2000), alpha, 1.2)
    assert power_law_risk_ratio(best, alpha, 1.2) <= around.min() + 1e-9
    with pytest.raises(DataError, match="alpha=0"):
        optimal_fitting_ratio(0.9, 2.0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 4), st.integers(20, 400), st.integers(2, 60), st.integers(0, 999))
def test_rank_bound_holds(alpha, modes, n, seed):
    values = np.arange(1, modes + 1.0) ** -alpha * np.random.default_rng(seed).uniform(0.1, 1, modes)
    n = min(n, modes - 1)
    found = risk(EigenSpectrum(values, np.zeros(modes), noise=1.0), n)
    assert float(found.coefficient) <= coefficient_bound(values, n) * (1 + 1e-9)


def test_taxonomy():
    index = np.arange(1.0, 200_001)
    assert classify_spectrum(index**-1.5)[0] is Verdict.TEMPERED
    assert classify_spectrum(np.exp(-index[:400] / 5))[0] is Verdict.CATASTROPHIC
    assert classify_spectrum(1 / (index * np.log(1 + index) ** 2))[0] is Verdict.BENIGN
    small, large = effective_ranks(np.ones(10))
    assert small.tolist() == large.tolist() == list(range(10, 0, -1))
    decay = EigenSpectrum(np.exp(-index[:2000] / 5), np.zeros(2000), noise=1.0)
    assert risk(decay, [10, 100]).coefficient == pytest.approx(np.array([2.31, 20.0]), abs=0.02)
    assert overfitting(decay, 100).verdict is Verdict.CATASTROPHIC
    power = overfitting(EigenSpectrum.power_law(1.5, 2.5, 20_000, noise=1.0), 50)
    assert power.verdict is Verdict.TEMPERED and power.cost == pytest.approx(1.3319, abs=2e-4)
    assert power.coefficient <= power.bound and not power.obligatory
    smooth = overfitting(EigenSpectrum.power_law(1.5, 1.8, 20_000), 50)
    assert smooth.obligatory and smooth.optimal_ridge == 0


def test_learned_coefficients_table():
    index = np.arange(1.0, 201)
    spectrum = EigenSpectrum(index**-1.4, index**-1.4, noise=0.2)
    mean, variance = learned_coefficients(spectrum, 40, 0.05)
    rows = np.array([0, 4, 19])
    assert mean[rows] == pytest.approx(np.array([0.9848, 0.2827, 0.0608]), abs=6e-5)
    assert variance[rows] == pytest.approx(np.array([0.0209, 0.01637, 0.00527]), abs=6e-5)
    drawn = gaussian_simulation(spectrum, 40, 0.05, trials=1500)
    assert drawn.coefficients_mean[rows] == pytest.approx(mean[rows], abs=0.006)
    assert drawn.coefficients_variance[rows] == pytest.approx(variance[rows], rel=0.15)


@pytest.mark.parametrize("n, width, ridge", [(60, None, 0.03), (60, None, 1.0), (60, 120, 0), (30, 120, 0.02)])
def test_simulation(n, width, ridge):
    spectrum = EigenSpectrum.power_law(1.3, 1.6, 400, noise=0.1)
    drawn, theory = gaussian_simulation(spectrum, n, ridge, width, trials=80), risk(spectrum, n, ridge, width)
    assert drawn.test == pytest.approx(theory.test, rel=0.03, abs=4 * drawn.test_stderr)
    assert drawn.train == pytest.approx(theory.train, rel=0.05, abs=4 * drawn.train_stderr + 1e-9)


def test_circle_and_hypercube_against_the_matrix():
    def decay(angle):
        return np.exp(2 * np.cos(angle))

    points = 24
    angles = 2 * np.pi * np.arange(points) / points
    values, counts = circle_eigensystem(decay, points)
    dense = np.linalg.eigvalsh(decay(angles[:, None] - angles[None])) / points
    assert np.sort(np.repeat(values, counts.astype(int))) == pytest.approx(dense, abs=1e-12)
    cube = np.array(list(itertools.product([-1, 1], repeat=7)))
    values, counts = hypercube_eigensystem(np.exp, 7)
    dense = np.linalg.eigvalsh(np.exp(cube @ cube.T / 7)) / len(cube)
    assert np.sort(np.repeat(values, counts.astype(int))) == pytest.approx(dense, rel=1e-9, abs=1e-13)


def test_sphere():
    values, counts = sphere_eigensystem(np.exp, 5, 30)
    assert values @ counts == pytest.approx(np.e)  # the trace: K(1)
    assert counts[:4].tolist() == [1, 5, 14, 30]
    cubic, _ = sphere_eigensystem(lambda t: t, 4, 6)
    assert cubic == pytest.approx([0, 1 / 4, 0, 0, 0, 0], abs=1e-14)


def test_conservation_law():
    cube = np.array(list(itertools.product([-1, 1], repeat=6)))
    gram = np.exp(cube @ cube.T / 6)
    train = np.random.default_rng(0).choice(64, 20, replace=False)
    assert total_learnability(gram, train) == pytest.approx(20, rel=1e-9)
    assert total_learnability(gram, train, 0.5) < 20
    # The same sum by learning every function of an orthonormal basis.
    weights = np.linalg.solve(gram[np.ix_(train, train)], np.eye(20))
    predictions = gram[:, train] @ weights @ np.eye(64)[train]
    assert np.trace(predictions) == pytest.approx(20, rel=1e-9)
