"""Linearisation, kernel drift and large learning rates against closed forms and each other."""

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError
from widthwise.probe import catapult_scan, empirical_ntk, kernel_drift, linearize, two_layer_linear_map
from widthwise.theory import KernelDynamics


def net(width=32, outputs=2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, outputs)).double()


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TEST = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
Y = torch.stack([X[:, 0].sin(), X[:, 1]], 1)


def test_expansion_is_of_second_order():
    module = net()
    linear = linearize(module)
    delta = {name: torch.randn_like(weight) for name, weight in linear.weights.items()}
    errors = []
    for size in (1e-2, 1e-3):
        step = {name: size * part for name, part in delta.items()}
        with torch.no_grad():
            moved = torch.func.functional_call(module, {n: w + step[n] for n, w in linear.weights.items()}, (X,))
        errors.append(float((moved - linear(X, step)).norm()))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_pull_is_the_transpose_of_push():
    linear = linearize(net())
    delta = {name: torch.randn_like(weight) for name, weight in linear.weights.items()}
    vector = torch.randn(5, 2, dtype=torch.float64)
    pushed = (vector * (linear(X, delta) - linear(X, linear.zero()))).sum()
    pulled = sum((delta[name] * part).sum() for name, part in linear.pull(X, vector).items())
    assert float(pushed) == pytest.approx(float(pulled), rel=1e-10)


@pytest.mark.parametrize("time", [0.0, 0.03, 2.0, float("inf")])
def test_weights_and_functions_agree(time):
    """Closed form in weights, and in function space from the full tangent kernel."""
    module = net(outputs=1)
    linear, y = linearize(module), Y[:, :1]
    kernel, cross = (empirical_ntk(module, a, X).numpy() for a in (X, TEST))
    with torch.no_grad():
        start, test_start = module(X).numpy(), module(TEST).numpy()
    theory = KernelDynamics.fit(kernel, y.numpy(), cross, initial=start, test_initial=test_start).flow(time, rate=0.7)
    delta = linear.solve(X, y, time, rate=0.7)
    assert np.allclose(linear(TEST, delta).numpy(), theory.test[0], atol=1e-8)
    assert np.allclose(linear(X, delta).numpy(), theory.train[0], atol=1e-8)


def test_the_expansion_stays_when_the_module_trains():
    module = net()
    linear, before = linearize(module), net()(TEST).detach()
    expected = linear(TEST, linear.solve(X, Y))
    with torch.no_grad():
        for weight in module.parameters():
            weight += 1.0
    moved = [weight.clone() for weight in module.parameters()]
    assert torch.allclose(linear(TEST, linear.zero()), before)
    assert torch.allclose(linear(TEST, linear.solve(X, Y)), expected)
    assert all(torch.equal(a, b) for a, b in zip(moved, module.parameters(), strict=True))


def test_descent_in_weights_is_descent_on_outputs():
    module = net(outputs=1)
    linear, y = linearize(module), Y[:, :1]
    kernel, cross = (empirical_ntk(module, a, X).numpy() for a in (X, TEST))
    start, test_start = (module(a).detach().numpy() for a in (X, TEST))
    theory = KernelDynamics.fit(kernel, y.numpy(), cross, initial=start, test_initial=test_start)
    rate = 0.3 * theory.largest_rate()
    delta = linear.descend(X, y, 12, rate, momentum=0.6)
    assert np.allclose(linear(TEST, delta).numpy(), theory.descent(12, rate, 0.6).test[0], atol=1e-10)


def test_a_linear_model_does_not_drift():
    drift = kernel_drift(lambda width: nn.Linear(3, 2), [1, 2], X.float(), Y.float(), steps=20, draws=2, progress=False)
    assert (drift.ntk < 1e-6).all() and (drift.loss < 0.5).all()


def test_drift_of_a_two_layer_linear_network():
    """T = (|u|^2 + |v|^2) / n moves as the exact map says."""
    width, rate, steps = 50, 0.2, 30
    module = TwoLayerLinear(width)
    with torch.no_grad():
        f, curvature = float(module(ONE)), module.curvature()
    path = two_layer_linear_map(f, curvature, rate, width, steps)
    drift = kernel_drift(
        lambda _: module, [width], ONE, 0 * ONE, steps=steps, rate=lambda _: rate, draws=1, progress=False
    )
    assert drift.ntk[0, 0] == pytest.approx(abs(path[-1, 1] / curvature - 1), rel=1e-9)
    assert drift.loss[0, 0] == pytest.approx((path[-1, 0] / f) ** 2, rel=1e-8)


ONE = torch.ones(1, 1, dtype=torch.float64)


class TwoLayerLinear(nn.Module):
    """``f = u.v x / sqrt(n)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(3)
        self.first = nn.Linear(1, width, bias=False, dtype=torch.float64)
        self.last = nn.Linear(width, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            for part in (self.first, self.last):
                part.weight.normal_(generator=source)
        self.width = width

    def forward(self, x):
        return self.last(self.first(x) / self.width**0.5)

    def curvature(self):
        return float(self.first.weight.square().sum() + self.last.weight.square().sum()) / self.width


@pytest.mark.parametrize("multiple", [1.0, 1.9, 2.5, 3.5])
def test_two_layer_map_is_gradient_descent(multiple):
    module = TwoLayerLinear(400)
    with torch.no_grad():
        module.last.weight += (1 - float(module(ONE))) * 20 * module.first.weight.T / module.first.weight.square().sum()
        f, curvature = float(module(ONE)), module.curvature()
    rate = multiple / curvature
    path = two_layer_linear_map(f, curvature, rate, 400, 40)
    for step in range(41):
        output = module(ONE)
        assert float(output.detach()) == pytest.approx(
            path[step, 0], abs=1e-12 * max(1, abs(path[: step + 1, 0]).max()) * 100
        )
        assert module.curvature() == pytest.approx(path[step, 1], rel=1e-11)
        gradients = torch.autograd.grad(output.square().sum() / 2, list(module.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(module.parameters(), gradients, strict=True):
                weight -= rate * gradient


def test_scan_labels_the_regimes_of_the_two_layer_network():
    """2 and 4 separate them, exactly (n large); published values for n = 400, f = 1."""
    module = TwoLayerLinear(400)
    with torch.no_grad():
        module.last.weight += (1 - float(module(ONE))) * 20 * module.first.weight.T / module.first.weight.square().sum()
    scan = catapult_scan(module, ONE, 0 * ONE, multiples=[1.0, 1.9, 2.5, 3.5, 4.2], steps=150, progress=False)
    assert scan.regimes == ("lazy", "lazy", "catapult", "catapult", "divergent")
    assert scan.edge == (3.5, 4.2) and scan.curvature == pytest.approx(module.curvature(), rel=1e-6)
    for row, multiple in enumerate(scan.multiples[:4]):
        path = two_layer_linear_map(1.0, module.curvature(), multiple / scan.curvature, 400, 150)
        assert scan.peaks[row] == pytest.approx(np.square(path[:, 0]).max(), rel=1e-4)
        assert scan.final_multiples[row] == pytest.approx(multiple * path[-1, 1] / scan.curvature, rel=1e-3)
    assert all(end < 2 for end in scan.final_multiples[:4]) and np.isnan(scan.final_multiples[4])
    assert scan.plot().series and scan.to_dict()["final_multiples"][4] is None


def test_bad_input():
    linear = linearize(net())
    with pytest.raises(DataError, match="targets of shape"):
        linear.solve(X, Y[:, :1])
    with pytest.raises(DataError, match="time=-1"):
        linear.solve(X, Y, -1.0)
    with pytest.raises(DataError, match="targets of shape"):
        catapult_scan(net(), X, Y[:, :1], progress=False)
    with pytest.raises(DataError, match="multiples"):
        catapult_scan(net(), X, Y, multiples=[-1.0], progress=False)
    with pytest.raises(DataError, match="draws=0"):
        kernel_drift(lambda width: net(width), [4], X, Y, draws=0, progress=False)
