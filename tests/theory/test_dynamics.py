"""Training in time against published values, ODE solvers, step-by-step simulation and limits."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.sparse.linalg import aslinearoperator
from torch import nn

import widthwise as ww
from widthwise.core import DataError
from widthwise.theory import KernelDynamics, largest_eigenvalue
from widthwise.theory._dynamics_filters import Descent, Flow, convergence

CONVENTIONS = ("sum", "mean", "mse")


@pytest.fixture(scope="module")
def task():
    """Nine inputs in four dimensions, six to train on; ReLU kernels of two hidden layers."""
    x = np.random.RandomState(1).randn(9, 4)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    limit = ww.infinite(ww.trace(net, torch.zeros(2, 4)), "ntk", 2**0.5, 0.1**0.5)
    nngp, ntk = (part.numpy() for part in limit(torch.tensor(x)))
    return nngp, ntk, (np.sin(x[:, 0]) + x[:, 1] / 2)[:6]


@pytest.fixture(scope="module")
def dynamics(task):
    _, ntk, y = task
    return KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6])


def ensemble(kernel, nngp, y, times, **options):
    made = KernelDynamics.fit(kernel[:6, :6], y, kernel[6:, :6])
    return made.ensemble(nngp[:6, :6], times, test_nngp=nngp[6:, 6:], test_train_nngp=nngp[6:, :6], **options)


def test_published_values_of_the_ensemble(task, dynamics):
    nngp, ntk, y = task
    found = ensemble(ntk, nngp, y, [0.0, 0.1, 1.0, np.inf])
    means = [[0, 0, 0], [0.10884042, -0.0055577, -0.09031892], [0.33599698, -0.01972668, -0.33512415],
             [0.33447574, -0.03436551, -0.40298208]]  # fmt: skip
    variances = [[1.38489583, 0.79442445, 1.11865533], [0.21076995, 0.5179331, 0.6569064],
                 [0.07669291, 0.41265786, 0.40205507], [0.07627497, 0.40857049, 0.37333003]]  # fmt: skip
    assert np.allclose(found.mean[:, :, 0], means, atol=1e-8) and np.allclose(found.variance, variances, atol=1e-8)
    assert dynamics.largest_rate() == pytest.approx(0.0772727347, abs=1e-10)
    assert dynamics.condition_number == pytest.approx(26.79967671, abs=1e-7)


def test_training_the_readout_alone_gives_the_posterior(task):
    nngp, _, y = task
    found = ensemble(nngp, nngp, y, np.inf)
    gain = nngp[6:, :6] @ np.linalg.inv(nngp[:6, :6])
    assert np.allclose(found.mean[0, :, 0], gain @ y)
    assert np.allclose(found.covariance[0], nngp[6:, 6:] - gain @ nngp[:6, 6:])
    assert np.allclose(found.mean[0, :, 0], [0.32398006, -0.07366721, -0.53210332], atol=1e-8)


def test_ensemble_by_sampling_initial_outputs(task):
    """Each draw of f_0 from the NNGP, trained by matrix exponentials, has the ensemble's moments."""
    nngp, ntk, y = task
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(9), nngp, 40000)
    left = expm(-0.3 * ntk[:6, :6])
    gain = ntk[6:, :6] @ np.linalg.solve(ntk[:6, :6], np.eye(6) - left)
    trained = draws[:, 6:] + (y - draws[:, :6]) @ gain.T
    found = ensemble(ntk, nngp, y, 0.3)
    error = np.sqrt(found.variance[0] / len(draws))
    assert (np.abs(trained.mean(0) - found.mean[0, :, 0]) < 4.5 * error).all()
    assert np.allclose(np.cov(trained.T), found.covariance[0], atol=0.03)
    with_targets = found.expected_error(y[:3])
    assert with_targets[0] == pytest.approx(np.square(trained - y[:3]).mean(), rel=0.03)


def test_flow_is_the_matrix_exponential(dynamics, task):
    _, ntk, y = task
    dynamics = dynamics.starting_at(np.arange(6.0), np.arange(3.0))
    for convention, factor in zip(CONVENTIONS, (1.0, 1 / 6, 2 / 6), strict=True):
        made = KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6], initial=np.arange(6.0), test_initial=np.arange(3.0),
                                  convention=convention)  # fmt: skip
        path = made.flow([0.2, 3.0], rate=0.7)
        for row, t in enumerate((0.2, 3.0)):
            left = expm(-0.7 * factor * t * ntk[:6, :6])
            assert np.allclose(path.train[row, :, 0], y + left @ (np.arange(6.0) - y), atol=1e-12)
            gain = ntk[6:, :6] @ np.linalg.solve(ntk[:6, :6], np.eye(6) - left)
            assert np.allclose(path.test[row, :, 0], np.arange(3.0) - gain @ (np.arange(6.0) - y), atol=1e-11)
    assert np.allclose(dynamics.flow(0.2).train, made.flow(0.2, rate=3.0).train)


def test_small_and_large_times(dynamics, task):
    _, ntk, y = task
    t = 1e-9
    assert np.allclose(dynamics.flow(t).test[0, :, 0] / t, ntk[6:, :6] @ y, rtol=1e-7)
    late, forever = dynamics.flow([1e4, np.inf]).test
    assert np.allclose(late, forever, atol=1e-12)
    assert np.allclose(forever[:, 0], ntk[6:, :6] @ np.linalg.solve(ntk[:6, :6], y))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_descent_step_by_step(task, convention, momentum):
    _, ntk, y = task
    made = KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6], initial=np.ones(6), test_initial=np.ones(3),
                              convention=convention)  # fmt: skip
    rate = 0.9 * made.largest_rate(momentum)
    a, velocity = np.zeros(6), np.zeros(6)
    kept = [a]
    for _ in range(60):
        velocity = momentum * velocity + made.factor * (1 + ntk[:6, :6] @ a - y)
        a = a - rate * velocity
        kept.append(a)
    path = made.descent([0, 1, 2, 17, 60], rate, momentum)
    for row, step in enumerate((0, 1, 2, 17, 60)):
        assert np.allclose(path.train[row, :, 0], 1 + ntk[:6, :6] @ kept[step], atol=1e-10)
        assert np.allclose(path.test[row, :, 0], 1 + ntk[6:, :6] @ kept[step], atol=1e-10)
    if convention != "mse":
        same = made.simulate("squared", [17, 60], rate, momentum)
        assert np.allclose(same.test, path.test[3:], atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_largest_rate_separates_convergence_from_divergence(dynamics, momentum):
    edge = dynamics.largest_rate(momentum)
    below, above = (dynamics.descent(20000, share * edge, momentum).train_error[0] for share in (0.999, 1.001))
    assert below < 1e-9 and above > 1.0
    assert dynamics.slowest(0.999 * edge, momentum) < 1 < dynamics.slowest(1.001 * edge, momentum)
    forever = dynamics.descent(np.inf, 0.9 * edge, momentum)
    assert np.allclose(forever.test, dynamics.flow(np.inf).test)


def test_coinciding_roots():
    """(1 - sqrt(eta lambda))^2 = m: the recurrence has one root r, and z_k = (1 + k (1 - eta lambda - r) / r) r^k."""
    m = 0.36
    values = np.array([(1 - 0.6) ** 2])
    filter_ = Descent(1.0, m)
    for k in (1, 5, 30):
        exact = (1 + k * (1 - values[0] - 0.6) / 0.6) * 0.6**k
        assert filter_.left(values, np.array([float(k)]))[0, 0] == pytest.approx(exact, rel=1e-9)
    assert convergence(values, 1.0, m)[0] == pytest.approx(0.6)


@pytest.mark.parametrize("filter_", [Flow(0.5), Descent(0.5, 0.0), Descent(0.5, 0.7)])
def test_learned_is_what_is_not_left(filter_):
    values, times = np.array([0.0, 1e-14, 1e-5, 0.3, 2.0]), np.array([0.0, 1.0, 8.0, 300.0])
    left, learned = filter_.left(values, times), filter_.learned(values, times)
    assert np.allclose(1 - left, values * learned, atol=1e-12)
    assert np.allclose(learned[:, 0], learned[:, 1], rtol=1e-9)  # continuous at eigenvalue zero


def test_repeated_inputs(task):
    """A singular kernel learns the mean of contradicting targets, at all times and at infinity."""
    _, ntk, y = task
    rows = [0, 0, 1, 2, 3, 4, 5]
    targets = np.concatenate([[y[0] + 1], [y[0] - 1], y[1:]])
    double = KernelDynamics.fit(ntk[np.ix_(rows, rows)], targets, ntk[6:][:, rows])
    path = double.flow([1e3, np.inf])
    assert np.allclose(path.train[:, 0], y[0]) and np.allclose(path.train[:, 1], y[0])
    single = KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6]).flow(np.inf)
    assert np.allclose(path.test[1], single.test[0], atol=1e-9)


def test_lanczos_equals_eigenvectors():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5))
    gram = np.exp(-np.square(x[:, None] - x[None]).sum(2) / 20)
    y, test = rng.standard_normal((200, 2)), gram[200:, :200]
    exact = KernelDynamics.fit(gram[:200, :200], y, test)
    large = KernelDynamics.fit(aslinearoperator(gram[:200, :200]), y, test, lanczos=60)
    rate = 0.5 * exact.largest_rate()
    for a, b in ((exact.flow([0.01, 1.0]), large.flow([0.01, 1.0])),
                 (exact.descent([5, 60], rate, 0.5), large.descent([5, 60], rate, 0.5))):  # fmt: skip
        assert np.allclose(a.test, b.test, atol=1e-8) and np.allclose(a.train, b.train, atol=1e-8)
    assert large.largest_rate() == pytest.approx(exact.largest_rate(), rel=1e-10)
    assert largest_eigenvalue(lambda v: gram @ v, 300) == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-10)
    with pytest.raises(DataError, match="eigenvectors"):
        large.ensemble(gram[:200, :200], 1.0)


@pytest.mark.parametrize("convention", ["sum", "mean"])
def test_other_losses(task, convention):
    _, ntk, y = task
    targets = np.stack([y > 0, y <= 0], 1).astype(float)
    made = KernelDynamics.fit(ntk[:6, :6], targets, ntk[6:, :6], convention=convention)
    squared = made.evolve("squared", [0.0, 0.4, 2.0])
    assert np.allclose(squared.test, made.flow([0.0, 0.4, 2.0]).test, atol=1e-6)
    average = 1.0 if convention == "sum" else 1 / 6

    def softmax(outputs, wanted):
        return -average * (wanted * outputs.log_softmax(1)).sum()

    named, given = (made.evolve(loss, [0.5, 5.0]).test for loss in ("cross-entropy", softmax))
    assert np.allclose(named, given, atol=1e-6)
    small = made.simulate("cross-entropy", [2000], 5e-4 * 2)  # time 2
    assert np.allclose(small.test, made.evolve("cross-entropy", 2.0).test, atol=3e-3)
    logistic = made.evolve("logistic", 5.0)
    assert np.array_equal(logistic.train_accuracy(y <= 0), [1.0])
    assert np.isfinite(logistic.test).all()


def test_small_steps_on_minibatches_follow_the_flow(task):
    _, ntk, y = task
    made = KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6])
    errors = [
        np.abs(made.simulate("squared", [round(1 / rate)], rate, batch_size=2).test - made.flow(1.0).test).max()
        for rate in (1e-3, 1e-4)
    ]
    assert errors[1] < 0.3 * errors[0] < 0.01


def test_early_stopping_is_a_ridge():
    """Filters of a ridge 1 / (rate t) and of time t agree within 0.3 everywhere, and at both ends."""
    values, t = np.geomspace(1e-4, 1e4, 200), 3.0
    made = KernelDynamics.fit(np.diag(values), np.ones(200))
    ridge = made.effective_ridge(t)[0]
    stopped, shrunk = made.flow(t).train[0, :, 0], values / (values + ridge)
    assert np.abs(stopped - shrunk).max() < 0.3
    assert np.allclose(stopped[:20], shrunk[:20], rtol=1e-2) and np.allclose(stopped[-20:], shrunk[-20:], rtol=1e-2)


def test_ensemble_on_the_training_set_and_in_steps(task):
    nngp, ntk, y = task
    made = KernelDynamics.fit(ntk[:6, :6], y)
    train = made.ensemble(nngp[:6, :6], [0.0, 0.7])
    left = expm(-0.7 * ntk[:6, :6])
    assert np.allclose(train.covariance[0], nngp[:6, :6])
    assert np.allclose(train.covariance[1], left @ nngp[:6, :6] @ left.T)
    steps = ensemble(ntk, nngp, y, [1000], rate=1e-3, momentum=0.0)
    flow = ensemble(ntk, nngp, y, 1.0)
    assert np.allclose(steps.mean, flow.mean, atol=1e-3) and np.allclose(steps.covariance, flow.covariance, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d.flow(-1.0), "-1"),
        (lambda d: d.flow(1.0, rate=0.0), "rate=0"),
        (lambda d: d.descent(1.5, 0.1), "1.5"),
        (lambda d: d.descent(1, 0.1, 1.0), "momentum=1.0"),
        (lambda d: d.evolve("hinge", 1.0), "hinge"),
        (lambda d: d.evolve("squared", np.inf), "inf"),
        (lambda d: d.simulate("squared", 3, 0.1, batch_size=7), "batch_size=7"),
        (lambda d: d.ensemble(np.eye(6), 1.0), "test_nngp"),
        (lambda d: d.ensemble(np.eye(5), 1.0), "nngp"),
        (lambda d: d.flow(1.0).test_error(np.zeros(4)), "test targets"),
        (lambda d: KernelDynamics.fit(np.eye(3), np.ones(3)).flow(1.0).test_error(np.zeros(3)), "test outputs"),
        (lambda d: KernelDynamics.fit(np.eye(3), np.ones(3), np.ones((2, 4))), "test-train"),
        (lambda d: KernelDynamics.fit(np.eye(3), np.ones(3), initial=np.ones(2)), "initial"),
        (lambda d: KernelDynamics.fit(np.eye(3), np.ones(3), convention="half"), "half"),
        (lambda d: KernelDynamics.fit(np.eye(3), np.ones(2)), "targets"),
    ],
)
def test_bad_input(dynamics, call, words):
    with pytest.raises(DataError, match=words):
        call(dynamics)


def test_values(dynamics):
    path = dynamics.flow([0.0, 0.1, np.inf])
    assert "train" not in path.to_dict() and path.to_dict()["times"][2] is None
    assert path.plot(np.zeros(3)).series[1].name == "test set"
    assert (np.diff(path.train_error) < 0).all()


@pytest.mark.parametrize("lanczos", [None, 3])
def test_a_matrix_with_a_negative_eigenvalue_is_refused_with_a_jitter_that_mends_it(lanczos):
    basis = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    gram = basis @ np.diag([-0.2, 1.0, 2.0]) @ basis.T
    with pytest.raises(DataError, match=r"eigenvalue -0\.2 \(the largest is 2\).*give jitter=0\.22 or more"):
        KernelDynamics.fit(gram, [1.0, -2.0, 3.0], lanczos=lanczos)
    mended = KernelDynamics.fit(gram, [1.0, -2.0, 3.0], lanczos=lanczos, jitter=0.22)
    assert np.allclose(
        mended.flow(1.5).train[0, :, 0], (np.eye(3) - expm(-1.5 * (gram + 0.22 * np.eye(3)))) @ [1, -2, 3]
    )
    with pytest.raises(DataError, match="-1"):
        KernelDynamics.fit(np.eye(3), [1.0, 2.0, 3.0], jitter=-1)


def test_rounding_below_zero_passes_in_the_type_that_has_it():
    """An eigenvalue of -1e-5 of the largest is rounding in single precision and an error in double."""
    gram = np.diag([-1e-5, 0.5, 1.0])
    for given in (gram.astype(np.float32), torch.tensor(gram, dtype=torch.float32)):
        assert KernelDynamics.fit(given, [1.0, 2.0, 3.0]).modes.values[0] == 0.0
    with pytest.raises(DataError, match="-1e-05"):
        KernelDynamics.fit(gram, [1.0, 2.0, 3.0])
    KernelDynamics.fit(np.diag([-1e-15, 0.5, 1.0]), [1.0, 2.0, 3.0])
