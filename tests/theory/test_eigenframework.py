"""The population eigenframework against the tables of 2306.13185 and 2311.14646, closed forms and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.theory import EigenSpectrum, PowerTail, risk, solve_gamma, solve_kappa

TABLE = EigenSpectrum.power_law(1.3, 1.6, 400, noise=0.1)


@pytest.mark.parametrize(
    "n, ridge, kappa, coefficient, test, train",
    [
        (20, 0, 0.069032, 1.43587, 0.62565, 0),
        (20, 0.1, 0.076089, 1.38881, 0.62936, 0.00272),
        (60, 0, 0.013061, 1.61810, 0.37563, 0),
        (60, 0.03, 0.013859, 1.57444, 0.37315, 0.00049),
        (60, 1, 0.035259, 1.21191, 0.40529, 0.09056),
        (150, 0, 0.002523, 2.07243, 0.29278, 0),
    ],
)
def test_kernel_table(n, ridge, kappa, coefficient, test, train):
    found = risk(TABLE, n, ridge)
    assert found.kappa == pytest.approx(kappa, abs=6e-7)
    assert found.coefficient == pytest.approx(coefficient, abs=6e-6)
    assert found.test == pytest.approx(test, abs=6e-6)
    assert found.train == pytest.approx(train, abs=6e-6)


@pytest.mark.parametrize(
    "n, width, ridge, test, train",
    [
        (60, 120, 0, 0.74728, 0),
        (60, 60, 0.05, 1.06361, 0.04669),
        (60, 30, 0.05, 1.03943, 0.28082),
        (60, 400, 0.05, 0.42784, 0.00189),
        (30, 120, 0.02, 0.68962, 0.00034),
    ],
)
def test_random_feature_table(n, width, ridge, test, train):
    found = risk(TABLE, n, ridge, width)
    assert found.test == pytest.approx(test, abs=6e-6)
    assert found.train == pytest.approx(train, abs=6e-6)


def test_more_is_better_table():
    spectrum = EigenSpectrum.power_law(1.5, 1.3, 2000, noise=0.1)
    found = risk(spectrum, [[32], [128]], "optimal", [32, 64, 128, 256, 1024]).test
    expected = [[1.9640, 1.8050, 1.6992, 1.6339, 1.5757], [1.5921, 1.3684, 1.2056, 1.0938, 0.9790]]
    assert found == pytest.approx(np.array(expected), abs=6e-5)
    fixed = risk(spectrum, 64, 1e-4, [16, 48, 60, 64, 80, 128, 512]).test
    assert fixed == pytest.approx(np.array([2.285, 4.65, 15.6, 33.8, 5.38, 2.29, 1.40]), rel=4e-3)


@pytest.mark.parametrize(
    "beta, noise, cost", [(1.2, 0, 1.0505), (1.8, 0, 1.0), (1.8, 0.1, 1.0138), (2.5, 1, 1.3319), (1, 10, 1.291)]
)
def test_costs_of_overfitting(beta, noise, cost):
    spectrum = EigenSpectrum.power_law(1.5, beta, 20000, noise=noise)
    zero, best = risk(spectrum, 50), risk(spectrum, 50, "optimal")
    assert zero.test / best.test == pytest.approx(cost, abs=3e-4)
    assert zero.coefficient == pytest.approx(1.506, abs=5e-4)


def test_flat_and_spiked_closed_forms():
    flat = EigenSpectrum(np.ones(30), np.zeros(30), noise=1.0)
    sizes = np.array([1, 5, 10, 29])
    assert solve_kappa(flat, sizes) == pytest.approx((30 - sizes) / sizes, rel=1e-11)
    assert risk(flat, sizes).test == pytest.approx(30 / (30 - sizes), rel=1e-10)
    assert risk(flat, 40).coefficient == pytest.approx(40 / 10)  # rank deficient: n / (n - rank)
    k, m, n = 5, 500, 60
    spiked = EigenSpectrum(np.array([1e9, 1.0]), np.zeros(2), np.array([k, m], float), noise=1.0)
    assert risk(spiked, n).test == pytest.approx(n / (n - k - (n - k) ** 2 / m), rel=1e-6)


def test_pure_noise_error_tends_to_alpha():
    spectrum = EigenSpectrum.power_law(1.2, 2, 2_000_000)
    assert risk(spectrum, [10, 100, 1000]).coefficient == pytest.approx(np.array([1.164, 1.220, 1.245]), abs=6e-4)
    tailed = EigenSpectrum.power_law(1.5, 2, 3000, tail=True)
    assert risk(tailed, 1e6).coefficient == pytest.approx(1.5, abs=1e-3)


def test_tail_equals_many_modes():
    gamma = np.geomspace(1e-6, 1e2, 17)
    short = EigenSpectrum.power_law(1.4, 1.7, 40, tail=True).moments(gamma)
    long = EigenSpectrum.power_law(1.4, 1.7, 1_000_000, tail=True).moments(gamma)
    plain = EigenSpectrum.power_law(3.0, 4.0, 1_000_000).moments(gamma)
    steep = EigenSpectrum.power_law(3.0, 4.0, 40, tail=True).moments(gamma)
    for name in ("s1", "s2", "bias", "gap"):
        assert getattr(short, name) == pytest.approx(getattr(long, name), rel=3e-6)
        assert getattr(steep, name) == pytest.approx(getattr(plain, name), rel=3e-6)
    with pytest.raises(DataError, match="must exceed 1"):
        PowerTail(0.9, 2.0)


def test_limits():
    assert risk(TABLE, 60, 0.3, 1e12).test == pytest.approx(risk(TABLE, 60, 0.3).test, rel=1e-9)
    wide = risk(TABLE, np.inf, 0.0, 40)
    assert wide.kappa == 0 and wide.degrees == pytest.approx(40)
    assert wide.test == pytest.approx(TABLE.moments(wide.gamma[None]).gap[0])
    narrow = risk(TABLE, 60, 0.0, 25)
    assert narrow.train == pytest.approx((1 - 25 / 60) ** 2 * narrow.test)
    assert np.isinf(risk(TABLE, 60, 0.0, 60).test)
    assert risk(TABLE, 1e9, 0.0).test == pytest.approx(0.1, rel=1e-5)
    assert risk(EigenSpectrum.power_law(1.5, 2, 50, noise=0.2, tail=True), np.inf).test == pytest.approx(0.2)


@settings(max_examples=12, deadline=None)
@given(
    alpha=st.floats(1.05, 4),
    beta=st.floats(0.2, 4),
    noise=st.floats(0, 3),
    sizes=st.tuples(st.integers(3, 200), st.integers(3, 200)),
    ridge=st.floats(1e-6, 1e3),
    seed=st.integers(0, 99),
)
def test_laws_over_random_spectra(alpha, beta, noise, sizes, ridge, seed):
    jitter = np.random.default_rng(seed).uniform(0.2, 5, (2, 300))
    index = np.arange(1.0, 301)
    spectrum = EigenSpectrum(jitter[0] * index**-alpha, jitter[1] * index**-beta, noise=noise)
    n, k = sizes
    found = risk(spectrum, n, ridge, k)
    # Both equations of the eigenframework.
    assert found.degrees + ridge / found.kappa == pytest.approx(n, rel=1e-9)
    assert found.degrees + k * found.kappa / found.gamma == pytest.approx(k, rel=1e-9)
    # Gamma depends on the unordered pair and on ridge * width only.
    assert solve_gamma(spectrum, k, ridge * k / n, n) == pytest.approx(found.gamma, rel=1e-9)
    # More is better at tuned ridge; 1 <= cost <= E0.
    tuned = risk(spectrum, [n, n + 20, n], "optimal", [k, k, k + 20]).test
    assert (tuned[1:] <= tuned[0] * (1 + 1e-6)).all()
    zero, best = risk(spectrum, n), risk(spectrum, n, "optimal")
    assert 1 - 1e-9 <= zero.test / best.test <= zero.coefficient * (1 + 1e-9)


def test_bad_arguments():
    with pytest.raises(DataError, match="n=0"):
        risk(TABLE, 0)
    with pytest.raises(DataError, match="ridge=-1"):
        risk(TABLE, 10, -1.0)
    with pytest.raises(DataError, match="'best'"):
        risk(TABLE, 10, "best")
    with pytest.raises(DataError, match=r"eigenvalues\[1\]"):
        EigenSpectrum(np.array([1.0, np.nan]), np.ones(2))
    with pytest.raises(DataError, match="do not match"):
        EigenSpectrum(np.ones(2), np.ones(1))
