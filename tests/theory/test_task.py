"""The measured task against what is known of its population, and against regression that is really run."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge

from widthwise.core import DataError
from widthwise.theory import EigenSpectrum, TaskSpectrum, measure_kernel_regression, risk
from widthwise.theory._tail import fit_tail

POPULATION = EigenSpectrum.power_law(1.4, 1.6, 4000, noise=0.05)


def gaussian_task(samples, seed, spectrum=POPULATION):
    """Gram matrix and targets of Gaussian eigenfunctions."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, len(spectrum.eigenvalues)))
    y = x @ np.sqrt(spectrum.coefficients_squared) + np.sqrt(spectrum.noise) * rng.standard_normal(samples)
    return (x * spectrum.eigenvalues) @ x.T, y[:, None]


@pytest.fixture(scope="module")
def tasks():
    return [TaskSpectrum.fit(*gaussian_task(400, seed)) for seed in range(4)]


def relu_ntk(x):
    """NTK of a ReLU network with one hidden layer, no bias."""
    norm = np.sqrt(np.outer((x**2).sum(1), (x**2).sum(1))) / x.shape[1]
    cosine = np.clip(x @ x.T / x.shape[1] / norm, -1, 1)
    slope = (np.pi - np.arccos(cosine)) / np.pi
    return norm * (np.sqrt(1 - cosine**2) / np.pi + 2 * slope * cosine)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] - x.mean()) / x.std(), y[order]
    frequencies = np.eye(10)[y].mean(0)
    return relu_ntk(x), np.eye(10)[y] - frequencies, y, frequencies


def mean(tasks, function):
    return np.mean([function(task) for task in tasks], 0)


def test_transferred_sums_equal_the_population(tasks):
    sizes = np.array([30.0, 60, 120, 200])
    gamma = risk(POPULATION, sizes).gamma
    exact = POPULATION.moments(gamma)
    assert mean(tasks, lambda t: t.spectrum.moments(gamma).s1) == pytest.approx(exact.s1, rel=0.04)
    assert mean(tasks, lambda t: t.spectrum.moments(gamma).s2) == pytest.approx(exact.s2, rel=0.08)
    # Four samples of 400 leave about 4 % of noise in the level of the error.
    assert mean(tasks, lambda t: t.spectrum.moments(gamma).bias) == pytest.approx(exact.bias, rel=0.1)
    assert mean(tasks, lambda t: t.spectrum.moments(gamma).gap) == pytest.approx(exact.gap, rel=0.1)


@pytest.mark.parametrize("ridge", ["zero", "optimal"])
def test_risks_equal_the_population(tasks, ridge):
    n = np.array([30, 100, 200])
    width = np.array([[np.inf], [60.0], [400.0]])
    exact = risk(POPULATION, n, ridge, width).test
    found = mean(tasks, lambda t: t.risk(n, ridge, width).test)
    assert found == pytest.approx(exact, rel=0.1)
    assert mean(tasks, lambda t: t.noise_only_error(n)) == pytest.approx(risk(POPULATION, n).coefficient, rel=0.06)


def test_extrapolation_and_intervals_on_the_population(tasks):
    n = np.array([800.0, 1600, 3200])
    found = [task.risk(n) for task in tasks]
    exact = risk(EigenSpectrum.power_law(1.4, 1.6, 4000, noise=0.05, tail=True), n).test
    assert all(part.extrapolated.all() for part in found)
    assert np.mean([part.test for part in found], 0) == pytest.approx(exact, rel=0.2)
    covered = np.mean([(part.low <= exact) & (exact <= part.high) for part in found])
    assert covered >= 0.6
    widths = found[0].high / found[0].low
    assert (np.diff(widths) > 0).all()


def block_errors(sizes, curve, samples=200):
    """Block errors that follow a curve, with test points of unequal difficulty."""
    difficulty = np.random.default_rng(0).uniform(0.5, 1.5, samples)
    return curve(sizes)[:, None] * difficulty / difficulty.mean()


def test_a_straight_curve_goes_on_straight():
    sizes = 800.0 / np.array([1, 2, 3, 4, 6, 8, 12, 16])
    tail = fit_tail(sizes, block_errors(sizes, lambda n: 3 * n**-0.4), 1.5)
    u = np.log([1.0, 2, 8])
    assert tail.shape(u) == pytest.approx(np.exp(-0.4 * u), rel=0.01)
    assert tail.spread(u) == pytest.approx(np.zeros(3), abs=0.01)


@pytest.mark.parametrize("bend", [0.04, -0.04])
def test_a_bent_curve_is_followed_further_than_a_straight_line(bend):
    def curve(n):
        u = np.log(n / 800)
        return np.exp(-0.4 * u - bend * u**2 / 2)

    sizes = 800.0 / np.array([1, 2, 3, 4, 6, 8, 12, 16])
    tail = fit_tail(sizes, block_errors(sizes, curve), 1.5)
    truth, line = curve(np.array([3200.0])), np.exp(-tail.slope * np.log([4.0]))
    assert abs(np.log(tail.shape(np.log([4.0])) / truth)) < abs(np.log(line / truth))
    assert tail.curvature == pytest.approx(bend, rel=0.5)


def test_exponents_are_recovered_with_coverage():
    alpha, beta, hits = 1.5, 1.8, []
    spectrum = EigenSpectrum.power_law(alpha, beta, 6000)
    for seed in range(6):
        found = TaskSpectrum.fit(*gaussian_task(320, seed, spectrum)).exponents()
        assert found.alpha == pytest.approx(alpha, abs=0.12)
        assert found.beta == pytest.approx(beta, abs=0.35)
        hits.append(abs(found.beta - beta) < 2.5 * found.beta_stderr)
    assert np.mean(hits) >= 0.6


def test_at_full_size_the_prediction_is_the_leave_one_out_error():
    gram, targets = gaussian_task(80, 3)
    task = TaskSpectrum.fit(gram, targets)
    for ridge in (0.0, 0.02):
        errors = []
        for left in range(80):
            keep = np.arange(80) != left
            model = KernelRidge(alpha=max(ridge, 1e-10), kernel="precomputed").fit(
                gram[np.ix_(keep, keep)], targets[keep]
            )
            errors.append(float(((model.predict(gram[left : left + 1, keep]) - targets[left]) ** 2).sum()))
        # At a ridge the knots are interpolated and their effective ridges measured on blocks.
        assert task.risk(80.0, ridge).test == pytest.approx(np.mean(errors), rel=1e-6 if ridge == 0 else 0.05)


def test_measured_regression_equals_scikit_learn(digits):
    gram, targets, labels, frequencies = digits
    train, test = np.arange(150), np.arange(150, 500)
    found = measure_kernel_regression(
        gram[np.ix_(train, train)], targets[train], gram[np.ix_(test, train)], targets[test], [150], [0.1, 1.0],
        labels=labels[test], frequencies=frequencies,
    )  # fmt: skip
    for column, ridge in enumerate((0.1, 1.0)):
        model = KernelRidge(alpha=ridge, kernel="precomputed").fit(gram[np.ix_(train, train)], targets[train])
        scores = model.predict(gram[np.ix_(test, train)])
        assert found.test[0, column] == pytest.approx(((scores - targets[test]) ** 2).sum(1).mean(), rel=1e-8)
        fit = model.predict(gram[np.ix_(train, train)]) - targets[train]
        assert found.train[0, column] == pytest.approx((fit**2).sum(1).mean(), rel=1e-6)
        assert found.accuracy[0, column] == (scores + frequencies).argmax(1).__eq__(labels[test]).mean()


def test_digits_in_range(digits):
    gram, targets, labels, frequencies = digits
    part = np.arange(600)
    task = TaskSpectrum.fit(
        torch.from_numpy(gram[:600, :600]), targets[part], labels=labels[part], frequencies=frequencies
    )
    sizes = np.array([40, 100, 300])
    found = task.risk(sizes, "zero")
    rest = np.arange(600, len(gram))
    fresh, test = rest[:600], rest[600:]
    measured = measure_kernel_regression(
        gram[np.ix_(fresh, fresh)], targets[fresh], gram[np.ix_(test, fresh)], targets[test], sizes,
        trials=15, labels=labels[test], frequencies=frequencies,
    )  # fmt: skip
    assert found.test == pytest.approx(measured.test[:, 0], rel=0.1)
    assert found.accuracy == pytest.approx(measured.accuracy[:, 0], abs=0.025)
    curve = task.learning_curve(sizes)
    assert [row["n"] for row in curve.to_dict()["rows"]] == [40, 100, 300]
    assert len(curve.plot().series) == 2
    assert 0 < task.learnability(40) < task.learnability(300) < 1
    assert (np.diff(task.risk([100.0, 600, 1200, 4800]).accuracy) > 0).all()


def test_noise_is_added(tasks):
    task = tasks[0]
    plain, noisy = task.risk(100.0), task.risk(100.0, noise=0.5)
    assert noisy.test - plain.test == pytest.approx(0.5 * task.noise_only_error(100.0), rel=0.1)


def test_bad_input_is_named():
    gram, targets = gaussian_task(40, 0)
    broken = gram.copy()
    broken[3, 4] = np.nan
    skew = gram.copy()
    skew[3, 4] += 1
    for arguments, words in (
        ((gram[:, :30], targets), "square"),
        ((gram, targets[:30]), "one row per sample"),
        ((broken, targets), r"\[3, 4\]"),
        ((skew, targets), "not symmetric"),
        ((-gram, targets), "positive semi-definite"),
    ):
        with pytest.raises(DataError, match=words):
            TaskSpectrum.fit(*arguments)
    with pytest.raises(DataError, match="one class index per sample"):
        TaskSpectrum.fit(gram, targets, labels=np.full(40, 7))


def test_singular_gram_gives_no_nan():
    x = np.random.default_rng(0).standard_normal((100, 5))
    task = TaskSpectrum.fit(x @ x.T, x[:, :1])  # rank 5
    found = task.risk([3.0, 20, 100, 400], "optimal")
    assert np.isfinite(found.test).all() and task.jitter > 0
    smooth = TaskSpectrum.fit(np.exp(-((x[:, :1] - x[:, :1].T) ** 2)), np.sin(x[:, :1]))
    assert np.isfinite(smooth.risk([10.0, 100], [[0.0], [0.1]]).test).all()
