"""Numbers that are not finite are named before anything is computed from them."""

from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from torch import Tensor, nn

from widthwise import probe
from widthwise.core import DataError, ModelError

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Y = torch.ones(4, 2)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum() / 2


MEASUREMENTS: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "empirical_ntk": lambda net, x, y: probe.empirical_ntk(net, x),
    "x2": lambda net, x, y: probe.empirical_ntk(net, X, x),
    "trace": lambda net, x, y: probe.ntk_trace(net, x),
    "product": lambda net, x, y: probe.ntk_vector_product(net, x, None, Y),
    "eigenvalue": lambda net, x, y: probe.ntk_largest_eigenvalue(net, x),
    "linearize": lambda net, x, y: probe.linearize(net).solve(x, y),
    "descend": lambda net, x, y: probe.linearize(net).descend(x, y, 2, 0.1),
    "drift": lambda net, x, y: probe.kernel_drift(lambda _: net, [5], x, y, steps=1, draws=1, progress=False),
    "catapult": lambda net, x, y: probe.catapult_scan(net, x, y, multiples=[0.5], steps=2, progress=False),
    "curvature": lambda net, x, y: probe.largest_curvature(net, x, y, half_square),
    "gradients": lambda net, x, y: probe.per_example_gradients(net, x, y, half_square),
    "moments": lambda net, x, y: probe.activation_moments(net, x),
    "features": lambda net, x, y: probe.features(net, x),
}
WITH_TARGETS = ("linearize", "descend", "drift", "catapult")
WITH_WEIGHTS = ("empirical_ntk", "trace", "product", "eigenvalue", "linearize", "drift", "catapult")


def broken(values: Tensor, value: float) -> Tensor:
    values = values.clone()
    values[2, 1] = values[3, 0] = value
    return values


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize("value", [nan, inf])
def test_inputs(name: str, value: float) -> None:
    with pytest.raises(DataError, match=rf"(x|x1|x2|inputs) hold {value} at \[2, 1\]; "):
        MEASUREMENTS[name](network(), broken(X, value), Y)


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_targets(name: str) -> None:
    with pytest.raises(DataError, match=r"targets hold nan at \[2, 1\]; "):
        MEASUREMENTS[name](network(), X, broken(Y, nan))


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights(name: str) -> None:
    net = network()
    with torch.no_grad():
        net[2].bias[1] = nan
    with pytest.raises(ModelError, match=r"parameter '2.bias' is nan at \[1\]; "):
        MEASUREMENTS[name](net, X, Y)


def test_vectors_and_outputs() -> None:
    with pytest.raises(DataError, match=r"v hold nan at \[2, 1\]"):
        probe.ntk_vector_product(network(), X, None, broken(Y, nan))
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    net[1].running_var.fill_(nan)
    with pytest.raises(ModelError, match="outputs that are not finite"):
        probe.empirical_ntk(net, X)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_finite_numbers_pass(name: str) -> None:
    MEASUREMENTS[name](network(), X, Y)
