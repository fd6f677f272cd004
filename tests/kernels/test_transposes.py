"""A matrix and its transpose in one network: known slopes, random-matrix moments, finite networks."""

from math import pi, sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.finite import make_gaussian
from tests.kernels.networks import Function
from widthwise.core import UnsupportedOperation, seeded
from widthwise.kernels import infinite
from widthwise.kernels._coordinates_backward import Backward
from widthwise.kernels._coordinates_matrices import RandomMatrix
from widthwise.kernels._coordinates_values import Coordinates
from widthwise.kernels._fields import Product
from widthwise.kernels._walks import in_order
from widthwise.probe import empirical_ntk
from widthwise.program import trace

X = torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
UNIT = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)  # |x|^2 / d = 1
relu = functional.relu


def wide(forward, n: int = 16, rows: int | None = None, outputs: int = 1) -> nn.Module:
    rows = rows or n
    w = nn.Parameter(torch.randn(rows, n) / n**0.5)
    parts = {"first": nn.Linear(3, n, bias=False), "last": nn.Linear(n, outputs, bias=False)}
    return Function(forward, w=w, **parts)


def power(net: nn.Module, rtol: float = 4e-3, **stds: float) -> float:
    """Mean square of what the readout reads, for an input of unit power."""
    scales = {"w": 1.0, "*": 1.0} | stds
    limit = infinite(trace(net, UNIT.float().expand(2, 3)), weight_std=scales, rtol=rtol)
    return float(limit.nngp(UNIT))


def back(m: Function, h: Tensor) -> Tensor:
    return functional.linear(h, m.w.t())


def test_tied_auto_encoder():
    """``W' relu(W x) = 0.5 x + noise`` of variance 0.5 (sheet, section 2.3)."""

    def coded(m: Function, x: Tensor) -> Tensor:
        return back(m, relu(functional.linear(m.first(x), m.w)))

    assert power(wide(lambda m, x: m.last(coded(m, x)))) == pytest.approx(0.75, rel=2e-2)
    rest = wide(lambda m, x: m.last(coded(m, x) - 0.5 * m.first(x)))
    assert power(rest) == pytest.approx(0.5, rel=2e-2)


@pytest.mark.parametrize("times,moment", [(1, 1), (2, 2), (3, 5), pytest.param(4, 14, marks=pytest.mark.slow)])
def test_semicircle(times, moment):
    """``E x A^(2k) x`` for ``A = (W + W') / sqrt 2``: the Catalan numbers."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        for _ in range(times):
            h = (functional.linear(h, m.w) + back(m, h)) / sqrt(2)
        return m.last(h)

    assert power(wide(forward)) == pytest.approx(moment, rel=3e-2)


@pytest.mark.parametrize("times,moment", [(1, 1.0), (2, 1 + 2.0), (3, 1 + 3 * 2.0 + 4.0)])
def test_marchenko_pastur(times, moment):
    """``E x (W'W)^k x`` with ``a = columns / rows = 2``: 1, 1 + a, 1 + 3 a + a^2."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        for step in range(times):
            h = functional.linear(h, m.w) if step % 2 == 0 else back(m, h)
        return (m.last if times % 2 == 0 else m.other)(h)

    net = wide(forward, 32, 16)
    net.other = nn.Linear(16, 1, bias=False)
    ratio = 2.0 if times % 2 else 1.0  # of widths: |W x|^2 per row, x per column
    assert power(net, w=sqrt(2.0)) / ratio == pytest.approx(moment, rel=3e-2)


def averaged(n: int) -> nn.Module:
    """An average of hidden units: gradients depend on the forward pass."""
    return Function(
        lambda m, x: relu(m.second(relu(m.first(x)))).mean(1, keepdim=True),
        first=nn.Linear(3, n, bias=False),
        second=nn.Linear(n, n, bias=False),
    )


def slope_of_gradient() -> float:
    """Regression of the gradient by the first hidden layer on that layer."""
    limit = infinite(trace(averaged(16), UNIT.float().expand(2, 3)), weight_std=1.0)
    data = limit._data(UNIT)
    run = Coordinates(data, (1,), limit._contribution, samples=1 << 15, seed=0, tangents=False)
    run.evaluate([limit.output], keep_all=True)
    backward = Backward(run, limit.output)
    second = [one for one in in_order(limit.output) if isinstance(one, Product)][-1]
    hidden = run.track(second.source).value
    gradient = backward.gradients[id(second.source)] * sqrt(16)
    return float((gradient * hidden).mean() / hidden.square().mean())


def test_counterexample_to_gradient_independence(monkeypatch):
    """The slope is ``E relu''(g) = 1 / sqrt(2 pi Var g)``; with a fresh transpose it would be zero."""
    expected = 1 / sqrt(2 * pi * 0.5)
    assert expected == pytest.approx(0.564, abs=1e-3)
    assert slope_of_gradient() == pytest.approx(expected, rel=3e-2)
    multiply = RandomMatrix.multiply
    monkeypatch.setattr(RandomMatrix, "multiply", lambda self, *a, **k: multiply(self, *a, **{**k, "dots": False}))
    assert abs(slope_of_gradient()) < 0.03


NETWORKS = {
    "matrix and transpose": lambda n: wide(
        lambda m, x: m.last(relu(back(m, relu(functional.linear(torch.tanh(m.first(x)), m.w))))), n, 2 * n, 16
    ),
    "to and fro": lambda n: wide(
        lambda m, x: m.last(
            torch.tanh((torch.tanh(back(m, torch.tanh(m.first(x) @ m.w.t())) + m.first(x))) @ m.w.t()) @ m.w
        ),
        n,
        n,
        16,
    ),
    "average": averaged,
    "average of a tied network": lambda n: Function(
        lambda m, x: torch.sigmoid(
            functional.linear(torch.tanh(functional.linear(torch.tanh(m.first(x)), m.w)), m.w.t())
        ).mean(1, keepdim=True),
        first=nn.Linear(3, n),
        w=nn.Parameter(torch.randn(2 * n, n) / n**0.5),
    ),
    "readout inside": lambda n: Function(
        lambda m, x: m.second(torch.tanh(m.second(torch.tanh(m.first(x))))),
        first=nn.Linear(3, n),
        second=nn.Linear(n, n),
    ),
    "hidden layer as output": lambda n: Function(
        lambda m, x: relu(m.second(torch.tanh(m.first(x)))), first=nn.Linear(3, n), second=nn.Linear(n, n)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("parametrization", ["standard"])
def test_finite_networks(name, parametrization):
    width = 96
    limit = infinite(trace(NETWORKS[name](width), X.float()), parametrization, rtol=3e-3)
    ntk = limit(X).ntk
    draws = []
    for draw in range(24):
        with seeded(draw, name):
            draws.append(empirical_ntk(make_gaussian(NETWORKS[name](width)).double(), X).double())
    stacked = torch.stack(draws)
    error = stacked.std(0) / sqrt(len(draws))
    assert bool(((stacked.mean(0) - ntk).abs() < 4 * error + 0.03 * ntk.diagonal().mean()).all())


def test_certificate_names_the_rule():
    limit = infinite(trace(averaged(16), X.float()))
    assert not limit.gradients_independent
    limit(X)
    assert "sampled, transposes" in {row.rule for row in limit.certificate}
    tied = infinite(trace(NETWORKS["matrix and transpose"](16), X.float()))
    tied(X)
    rules = [row.rule for row in tied.certificate if row.op.startswith("aten.linear")]
    assert "sampled, transposes" in rules


def test_refused():
    net = NETWORKS["matrix and transpose"](16)
    program = trace(net, X.float())
    with pytest.raises(UnsupportedOperation, match="used a second time in another way"):
        infinite(program, method="exact")
    finite = Function(
        lambda m, x: relu(functional.linear(x, m.w)) @ m.w, w=nn.Parameter(torch.randn(16, 3))
    )  # three inputs stay three: the sum over the hidden layer grows without bound
    with pytest.raises(UnsupportedOperation, match="used a second time in another way"):
        infinite(trace(finite, X.float()))
