"""Random-feature regression against scikit-learn and its own identities."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from torch import nn

from widthwise.core import DataError, generator, seeded
from widthwise.nn import mlp
from widthwise.probe import features, random_feature_regression, ridge_predictions

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=RANDOM)
Y = torch.randn(30, 2, generator=RANDOM)
X_TEST = torch.randn(9, 4, generator=RANDOM)
Y_TEST = torch.randn(9, 2, generator=RANDOM)


def build(width: int) -> nn.Module:
    return mlp(width, input_shape=(4,), outputs=2, depth=1)


@pytest.mark.parametrize("width", [6, 50])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 2.0])
def test_one_draw_is_scikit_learn_ridge(width: int, ridge: float) -> None:
    """Ridge on F / sqrt(k) with alpha = delta (primal), and kernel ridge on F F^T / k (dual), give the same errors."""
    table = random_feature_regression(build, [width], X, Y, X_TEST, Y_TEST, sizes=[20], ridges=[ridge], draws=1, seed=5)
    with seeded(5, "random features", 0, width):
        module = build(width)
    train, test = (features(module, x).double().numpy() / width**0.5 for x in (X, X_TEST))
    chosen = torch.randperm(30, generator=generator(5, "subset", 0, 20))[:20].numpy()
    for model in (Ridge(alpha=ridge, fit_intercept=False), KernelRidge(alpha=ridge)):
        predicted = model.fit(train[chosen], Y.double().numpy()[chosen]).predict(test)
        expected = np.square(predicted - Y_TEST.double().numpy()).sum(1).mean()
        assert float(table.mse[0, 0, 0]) == pytest.approx(expected, rel=1e-8)


def test_primal_and_dual_agree_at_the_border() -> None:
    """Adding zero columns changes k but not F F^T: predictions at delta and delta * k / k' agree across the switch."""
    train, test = torch.randn(8, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    targets = torch.randn(8, 2, dtype=torch.float64)
    wide = [torch.cat([part, torch.zeros(len(part), 7, dtype=torch.float64)], dim=1) for part in (train, test)]
    primal = ridge_predictions(train, targets, test, [0.3])
    dual = ridge_predictions(wide[0], targets, wide[1], [0.3 * 5 / 12])
    torch.testing.assert_close(primal, dual)


@pytest.mark.parametrize("count", [3, 40])
def test_ridgeless_is_the_pseudo_inverse(count: int) -> None:
    train, test = torch.randn(12, count, dtype=torch.float64), torch.randn(4, count, dtype=torch.float64)
    targets = torch.randn(12, 1, dtype=torch.float64)
    expected = test @ torch.linalg.pinv(train) @ targets
    torch.testing.assert_close(ridge_predictions(train, targets, test, [0.0])[0], expected, rtol=1e-6, atol=1e-8)


def test_table_axes_seeds_and_errors() -> None:
    arguments = {"sizes": [5, 10, 20], "ridges": [0.0, 0.1], "draws": 3}
    first = random_feature_regression(build, [4, 16], X, Y, X_TEST, Y_TEST, seed=1, **arguments)
    again = random_feature_regression(build, [4, 16], X, Y, X_TEST, Y_TEST, seed=1, **arguments)
    other = random_feature_regression(build, [4, 16], X, Y, X_TEST, Y_TEST, seed=2, **arguments)
    assert first.mse.shape == first.stderr.shape == (2, 3, 2) and first.features == (4, 16)
    assert torch.equal(first.mse, again.mse) and not torch.equal(first.mse, other.mse)
    with pytest.raises(DataError, match="31"):
        random_feature_regression(build, [4], X, Y, X_TEST, Y_TEST, sizes=[31], ridges=[0.1])
    with pytest.raises(DataError, match=r"-0\.1"):
        random_feature_regression(build, [4], X, Y, X_TEST, Y_TEST, sizes=[3], ridges=[-0.1])


def test_large_ridge_predicts_zero_and_standard_error_shrinks() -> None:
    table = random_feature_regression(build, [8], X, Y, X_TEST, Y_TEST, sizes=[20], ridges=[1e9], draws=2)
    assert float(table.mse[0, 0, 0]) == pytest.approx(float(Y_TEST.double().square().sum(1).mean()), rel=1e-6)
