"""Estimators against scikit-learn's, brute force and the textbook formulas."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

import widthwise as ww
from widthwise.core import DataError, ResourceError
from widthwise.kernels import GramStore, NotPositiveDefinite, PrecisionWarning
from widthwise.kernels.regression._estimators import project_on_simplex
from widthwise.kernels.regression._solve import Request

RNG = np.random.default_rng(0)
X = RNG.standard_normal((80, 4))
Y = np.stack([np.sin(X[:, 0]) + 0.1 * RNG.standard_normal(80), X[:, 1] * X[:, 2]], 1)
T = RNG.standard_normal((13, 4))
SOLVERS = ("exact", "cholesky", "cg")


def rbf(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return rbf_kernel(a, b, gamma=0.5)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_mean_is_that_of_kernel_ridge(solver: str, ridge: float) -> None:
    model = ww.KernelRegressor(rbf, ridge=ridge, solver=solver, tol=1e-10).fit(X, Y)
    peer = KernelRidge(alpha=ridge, kernel="rbf", gamma=0.5).fit(X, Y)
    assert np.allclose(model.predict(T), peer.predict(T), atol=1e-7)
    assert np.allclose(model.dual_coef_, peer.dual_coef_, atol=1e-5)
    assert model.solver_ == solver and model.residual_ < 1e-9
    assert model.predict(T).shape == (13, 2)
    assert ww.KernelRegressor(rbf, ridge=ridge, solver=solver).fit(X, Y[:, 0]).predict(T).shape == (13,)


@pytest.mark.parametrize("solver", SOLVERS)
def test_deviation_is_that_of_a_gaussian_process(solver: str) -> None:
    model = ww.KernelRegressor(rbf, ridge=0.05, solver=solver, tol=1e-10).fit(X, Y)
    peer = GaussianProcessRegressor(RBF(1.0), alpha=0.05, optimizer=None).fit(X, Y)
    mean, std = model.predict(T, return_std=True)
    peer_mean, peer_std = peer.predict(T, return_std=True)
    assert np.allclose(mean, peer_mean, atol=1e-7)
    assert np.allclose(std, peer_std, atol=1e-7)
    scaled = ww.KernelRegressor(rbf, ridge=0.05, solver=solver, tol=1e-10, amplitude=4.0).fit(X, Y)
    assert np.allclose(scaled.predict(T, return_std=True)[1], 2 * std)


def test_leave_one_out_is_that_of_fits_without_each_example() -> None:
    model = ww.KernelRegressor(rbf, ridge=0.03, solver="exact").fit(X, Y)
    for i in (0, 17, 79):
        rest = np.arange(80) != i
        left = KernelRidge(alpha=0.03, kernel="rbf", gamma=0.5).fit(X[rest], Y[rest])
        assert np.allclose(model.loo_errors_[i], Y[i] - left.predict(X[i : i + 1])[0], atol=1e-8)


def test_evidence_is_the_log_density_of_the_targets() -> None:
    model = ww.KernelRegressor(rbf, ridge=0.03, solver="exact").fit(X, Y)
    covariance = rbf(X, X) + 0.03 * np.eye(80)
    direct = sum(multivariate_normal(cov=covariance).logpdf(Y[:, j]) for j in range(2))
    assert model.log_evidence_ == pytest.approx(direct, rel=1e-9)
    free = ww.KernelRegressor(rbf, ridge=0.03, amplitude="evidence", solver="exact").fit(X, Y)
    scales = free.solved_.amplitudes
    at_best = sum(multivariate_normal(cov=scales[j] * covariance).logpdf(Y[:, j]) for j in range(2))
    assert free.log_evidence_ == pytest.approx(at_best, rel=1e-9)
    for factor in (0.9, 1.1):
        beside = sum(multivariate_normal(cov=factor * scales[j] * covariance).logpdf(Y[:, j]) for j in range(2))
        assert beside < at_best


@pytest.mark.parametrize("rule", ["loo", "evidence"])
@pytest.mark.parametrize("amplitude", [1.0, "evidence"])
def test_the_ridge_that_is_chosen_beats_all_others(rule: str, amplitude: float | str) -> None:
    def cost(ridge: float | str) -> float:
        model = ww.KernelRegressor(rbf, ridge=ridge, amplitude=amplitude, solver="exact").fit(X, Y)
        return float((model.loo_errors_**2).mean()) if rule == "loo" else -model.log_evidence_

    chosen = ww.KernelRegressor(rbf, ridge=rule, amplitude=amplitude).fit(X, Y)
    assert chosen.ridge_ < 10
    best = cost(chosen.ridge_)
    assert all(best <= cost(ridge) + 1e-9 for ridge in np.geomspace(1e-6, 1e3, 40))


def test_every_form_of_kernel_gives_the_same(tmp_path) -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    x, t = torch.tensor(X, dtype=torch.float32), torch.tensor(T, dtype=torch.float32)
    limit = ww.infinite(ww.trace(net, x[:2]))
    k, cross = limit(x).ntk.numpy(), limit(t, x).ntk.numpy()
    store = GramStore.create(tmp_path / "gram.zarr", limit, x, dtype="float64", tile=32)
    store.fill()
    rows = GramStore.create(tmp_path / "gram.zarr" / "test", limit, t, x, dtype="float64", tile=32)
    rows.fill()
    want = cross @ np.linalg.solve(k + 0.1 * np.eye(80), Y)
    for solver in SOLVERS:
        options = {"ridge": 0.1, "solver": solver, "tol": 1e-10}
        for kernel in (net, limit, lambda a, b: limit(torch.as_tensor(a), torch.as_tensor(b))):
            assert np.allclose(ww.KernelRegressor(kernel, **options).fit(x, Y).predict(t), want, atol=1e-7)
        for kernel, fitted, asked in (
            ("precomputed", k, cross),
            ("precomputed", store, rows),
            (store, None, rows),
            (store, np.zeros((80, 1)), cross),
        ):
            model = ww.KernelRegressor(kernel, **options).fit(fitted, Y)
            assert np.allclose(model.predict(asked), want, atol=1e-7)
        model = ww.KernelRegressor("precomputed", **options).fit(store, Y)
        std = model.predict(rows, return_std=True, diagonal=limit(t).ntk.diagonal().numpy())[1]
        assert np.allclose(std, ww.KernelRegressor(limit, **options).fit(x, Y).predict(t, return_std=True)[1])


def test_images_and_nngp() -> None:
    data = ww.data.load("digits").subset(torch.arange(150))
    scores = {}
    for kind in ("ntk", "nngp"):
        model = ww.KernelClassifier("cnn", kind=kind, ridge=1e-2).fit(data.inputs[:100], data.targets[:100])
        scores[kind] = model.score(data.inputs[100:], data.targets[100:])
    assert min(scores.values()) > 0.7


def test_classifier_is_least_squares_on_one_hot_targets() -> None:
    labels = np.array(["b", "a", "c"])[RNG.integers(3, size=80)]
    model = ww.KernelClassifier(rbf, ridge=0.1).fit(X, labels)
    onehot = (labels[:, None] == np.array(["a", "b", "c"])).astype(float)
    peer = KernelRidge(alpha=0.1, kernel="rbf", gamma=0.5).fit(X, onehot - onehot.mean(0))
    want = peer.predict(T) + onehot.mean(0)
    assert np.allclose(model.decision_function(T), want)
    assert list(model.predict(T)) == [model.classes_[i] for i in want.argmax(1)]
    probabilities = model.predict_proba(T)
    assert np.allclose(probabilities.sum(1), 1) and (probabilities >= 0).all()
    assert np.allclose(want.sum(1), 1)


def test_projection_is_the_nearest_point_of_the_simplex() -> None:
    scores = RNG.standard_normal((200, 4))
    found = project_on_simplex(scores)
    assert np.allclose(found.sum(1), 1) and (found >= 0).all()
    assert (found.argmax(1) == scores.argmax(1)).all()
    for other in RNG.dirichlet(np.ones(4), size=300):  # the angle criterion of a projection on a convex set
        assert (((scores - found) * (other - found)).sum(1) <= 1e-12).all()


EXPECTED = {"check_do_not_raise_errors_in_init_or_set_params": "these tests check annotations at run time"}


@pytest.mark.parametrize("kind", [ww.KernelRegressor, ww.KernelClassifier])
@pytest.mark.parametrize("ridge", [1e-2, "loo"])
def test_scikit_learns_own_checks(kind, ridge) -> None:
    results = check_estimator(kind(rbf, ridge=ridge), expected_failed_checks=EXPECTED, on_skip=None, on_fail=None)
    failed = [(one["check_name"], one["exception"]) for one in results if one["status"] == "failed"]
    assert len(results) > 30 and not failed


def test_works_in_scikit_learns_searches() -> None:
    search = GridSearchCV(ww.KernelRegressor(rbf), {"ridge": [1e-2, 10.0]}).fit(X, Y)
    assert search.best_params_ == {"ridge": 1e-2}
    k = rbf(X, X)
    direct = cross_val_score(ww.KernelRegressor(rbf, ridge=0.1), X, Y[:, 0])
    assert np.allclose(cross_val_score(ww.KernelRegressor("precomputed", ridge=0.1), k, Y[:, 0]), direct)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    copy = clone(ww.KernelRegressor(ww.infinite(ww.trace(net, torch.zeros(2, 4))), ridge=0.3))
    assert copy.fit(X, Y[:, 0]).ridge_ == 0.3


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_indefinite_matrix_names_its_eigenvalue_and_a_ridge_that_helps(solver: str) -> None:
    q, _ = np.linalg.qr(RNG.standard_normal((40, 40)))
    values = np.linspace(0.1, 5, 40)
    values[7] = -0.5
    matrix = (q * values) @ q.T
    matrix = (matrix + matrix.T) / 2
    y = RNG.standard_normal(40)
    with pytest.raises(NotPositiveDefinite, match=r"eigenvalue -0\.49.*give ridge=") as caught:
        ww.KernelRegressor("precomputed", ridge=0.01, solver=solver).fit(matrix, y)
    assert caught.value.eigenvalue == pytest.approx(-0.49, rel=1e-6)
    model = ww.KernelRegressor("precomputed", ridge=caught.value.jitter, solver=solver, tol=1e-9).fit(matrix, y)
    assert np.allclose(model.dual_coef_[:, 0], np.linalg.solve(matrix + caught.value.jitter * np.eye(40), y), atol=1e-6)


def test_repeated_examples_without_a_ridge_are_refused_not_jittered() -> None:
    twice = np.concatenate([X, X[:1]])
    for solver in ("exact", "cholesky"):
        with pytest.raises(NotPositiveDefinite, match="ridge 0"):
            ww.KernelRegressor(rbf, ridge=0, solver=solver).fit(twice, np.append(Y[:, 0], Y[0, 0] + 1))


def test_float32_where_float64_is_needed_is_said() -> None:
    def smooth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return rbf_kernel(a, b, gamma=0.01)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ww.KernelRegressor(smooth, ridge=1e-4).fit(X, Y)
    with pytest.warns(PrecisionWarning, match="too large for float32; use dtype='float64' or a larger ridge"):
        ww.KernelRegressor(smooth, ridge=1e-4, dtype="float32", solver="exact").fit(X, Y)
    with pytest.warns(PrecisionWarning, match="too large for float32"):
        ww.KernelRegressor(
            lambda a, b: 1e4 * np.ones((len(a), len(b))), ridge=1e-2, dtype="float32", solver="cholesky"
        ).fit(X, Y)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"ridge": -1.0}, "ridge is -1"),
        ({"ridge": "aic"}, "ridge 'aic' is not known"),
        ({"ridge": "loo", "solver": "cg"}, "solver 'cg' makes none"),
        ({"solver": "lu"}, "solver 'lu' is not known"),
        ({"amplitude": 0.0}, "amplitude is 0"),
        ({"dtype": "float16"}, "dtype float16"),
        ({"kernel": "mpl"}, "kernel 'mpl' is not known"),
        ({"kernel": 3}, "a int is no kernel"),
        ({"kernel": "precomputed"}, r"shape \[80, 4\] was given; give a square matrix"),
        ({"kind": "ntkk", "kernel": rbf}, "kernel 'ntkk' is not known"),
    ],
)
def test_bad_requests_are_one_sentence(options: dict, what: str) -> None:
    with pytest.raises(DataError, match=what):
        ww.KernelRegressor(**options).fit(X, Y)


def test_bad_inputs_of_predict() -> None:
    model = ww.KernelRegressor("precomputed", ridge=0.1).fit(rbf(X, X), Y)
    with pytest.raises(DataError, match="give it as diagonal="):
        model.predict(rbf(T, X), return_std=True)
    with pytest.raises(DataError, match="not symmetric"):
        ww.KernelRegressor("precomputed", ridge=0.1).fit(RNG.standard_normal((80, 80)), Y)
    tensor = torch.tensor(X)
    fitted = ww.KernelRegressor("mlp", ridge=0.1).fit(tensor, Y)
    with pytest.raises(DataError, match=r"inputs of shape \[3\]"):
        fitted.predict(tensor[:, :3])
    with pytest.raises(DataError, match="not finite"):
        fitted.predict(tensor * float("nan"))


def test_an_eigendecomposition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ResourceError, match="give the ridge as a number"):
        ww.KernelRegressor(rbf, memory=1e4).fit(X, Y)


def test_auto_chooses_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from widthwise.kernels.regression import _solve
    from widthwise.kernels.regression._gram import ArrayGram

    request = Request(0.1, "auto", 1.0, 1e-6, 10, None, None, None, None, 0, False)
    gram = ArrayGram(np.eye(30))
    monkeypatch.setattr(_solve, "_EXACT_LIMIT", 20)
    assert _solve._chosen(gram, request) == "cholesky"
    monkeypatch.setattr(_solve, "_CHOLESKY_LIMIT", 25)
    assert _solve._chosen(gram, request) == "cg"
