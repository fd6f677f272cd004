"""Feature maps: unbiased, at the right rate, and as good as their own stated error."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor, nn

import widthwise as ww
from widthwise.core import DataError, UnsupportedOperation, generator
from widthwise.kernels import NystromFeatures, RandomFeatures
from widthwise.kernels.regression._random_features import tensor_sketch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5))


def dense(activation: nn.Module, depth: int, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(16, 16, bias=bias), activation)]
    return nn.Sequential(nn.Linear(5, 16, bias=bias), activation, *hidden, nn.Linear(16, 1, bias=bias))


def limit_of(net: nn.Module) -> ww.Limit:
    return ww.infinite(ww.trace(net, torch.tensor(X[:2], dtype=torch.float32)), weight_std=1.4, bias_std=0.3)


NETWORKS = {
    "relu": dense(nn.ReLU(), 1),
    "deep relu": dense(nn.ReLU(), 3),
    "no bias": dense(nn.ReLU(), 2, bias=False),
    "gelu": dense(nn.GELU(), 2),
}


@pytest.mark.parametrize(("name", "kind"), [*((name, "ntk") for name in NETWORKS), ("deep relu", "nngp")])
def test_error_falls_like_one_over_the_root_of_the_features(name: str, kind: str) -> None:
    limit, sizes = limit_of(NETWORKS[name]), (100, 400, 1600)
    errors = [
        np.mean([RandomFeatures(limit, m, kind=kind, random_state=s).fit(X).error(X) ** 2 for s in range(5)]) ** 0.5
        for m in sizes
    ]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.65 < slope < -0.35
    assert errors[-1] < 0.2


@pytest.mark.parametrize(("name", "kind"), [("deep relu", "ntk"), ("gelu", "nngp")])
def test_mean_over_draws_is_the_kernel(name: str, kind: str) -> None:
    limit, x = limit_of(NETWORKS[name]), X[:12]
    exact = getattr(limit(torch.tensor(x)), kind).numpy()
    draws = []
    for seed in range(40):
        f = RandomFeatures(limit, 400, kind=kind, random_state=seed).fit(x).transform(x)
        draws.append(f @ f.T)
    mean, deviation = np.mean(draws, 0), np.std(draws, 0, ddof=1) / len(draws) ** 0.5
    bias = ((400 // 2 if kind == "ntk" else 400) ** -1.0) * np.abs(exact).max() * 3  # layers see a finite draw below
    assert (np.abs(mean - exact) < 5 * deviation + bias).all()


def test_tensor_sketch_is_unbiased_with_the_variance_of_its_paper() -> None:
    a, b, c, d = (torch.tensor(RNG.standard_normal((1, k))) for k in (7, 4, 7, 4))
    want = float((a * c).sum() * (b * d).sum())

    def product(m: int, seed: int) -> float:
        first = tensor_sketch(a, b, m, generator(seed, "s"))
        return float((first * tensor_sketch(c, d, m, generator(seed, "s"))).sum())

    for m in (64, 256):
        found = np.array([product(m, seed) for seed in range(600)])
        bound = (
            (2 + 9) * float((a**2).sum() * (b**2).sum() * (c**2).sum() * (d**2).sum()) / m
        )  # Avron et al. 2014, lemma 2
        assert abs(found.mean() - want) < 4 * found.std() / 600**0.5
        assert found.var() < bound


def test_equal_seeds_give_equal_features_at_any_block() -> None:
    features = RandomFeatures("mlp", 300).fit(X)
    assert np.allclose(features.transform(X)[7:9], features.transform(X[7:9]))
    assert not np.allclose(features.transform(X), RandomFeatures("mlp", 300, random_state=1).fit(X).transform(X))
    assert features.transform(X).shape[1] == len(features.get_feature_names_out())


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.last(h + torch.relu(self.second(h)))


def test_networks_that_are_not_dense_and_sequential_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="NystromFeatures"):
        RandomFeatures(Skip()).fit(X)
    with pytest.raises(UnsupportedOperation, match="positions"):
        RandomFeatures("cnn").fit(RNG.standard_normal((4, 1, 8, 8)))
    with pytest.raises(DataError, match="need a network"):
        RandomFeatures(lambda a, b: a @ b.T).fit(X)
    with pytest.raises(DataError, match="n_components is 0"):
        RandomFeatures(n_components=0).fit(X)


@pytest.mark.parametrize("sampling", ["pivoted", "uniform"])
def test_nystrom_error_is_exact_and_bounds_every_entry(sampling: str) -> None:
    limit = limit_of(NETWORKS["deep relu"])
    k = limit(torch.tensor(X)).ntk.numpy()
    errors = []
    for count in (5, 20, 40, 60):
        features = NystromFeatures(limit, count, sampling=sampling).fit(X)
        f = features.transform(X)
        left = k - f @ f.T
        assert np.linalg.eigvalsh(left)[0] > -1e-8 * np.trace(k)
        assert features.error(X) == pytest.approx(np.trace(left) / np.trace(k), abs=1e-9)
        room = np.sqrt(np.maximum(np.diagonal(left), 0) + 1e-8)
        assert (np.abs(left) <= np.outer(room, room) + 1e-8).all()
        landmarks = features.landmarks_
        assert np.allclose(f[landmarks] @ f.T, k[landmarks], atol=1e-6)
        errors.append(features.error(X))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-7


def test_nystrom_of_a_convolutional_network() -> None:
    images = ww.data.load("digits").inputs[:30]
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))
    features = NystromFeatures(net, 20, kind="nngp").fit(images)
    f = features.transform(images)
    k = features.source_(images, None)["nngp"]
    assert np.linalg.norm(f @ f.T - k) / np.linalg.norm(k) <= features.error(images) < 0.01


def test_ridge_on_nystrom_features_is_kernel_regression_as_landmarks_grow() -> None:
    y = np.sin(X[:, 0])
    exact = ww.KernelRegressor("mlp", ridge=0.1).fit(X, y).predict(X[:9] + 0.1)
    model = make_pipeline(NystromFeatures("mlp", 60), Ridge(alpha=0.1, fit_intercept=False)).fit(X, y)
    assert np.allclose(model.predict(X[:9] + 0.1), exact, atol=1e-6)


EXPECTED = {
    "nystrom": {},
    "random": {"check_estimators_pickle": "traced networks do not pickle"},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_scikit_learns_own_checks(name: str) -> None:
    estimator = NystromFeatures(rbf_kernel, 5) if name == "nystrom" else RandomFeatures("mlp", 40)
    known = {"check_do_not_raise_errors_in_init_or_set_params": "these tests check annotations at run time"}
    known |= EXPECTED[name]
    results = check_estimator(estimator, expected_failed_checks=known, on_skip=None, on_fail=None)
    failed = [(one["check_name"], one["exception"]) for one in results if one["status"] == "failed"]
    assert len(results) > 30 and not failed
