"""Variances and depth scales read off a module, against the phase diagram, autograd and drawn networks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import widthwise as ww
from widthwise.core import DataError, ModelError
from widthwise.kernels import init_report, phase_diagram, susceptibility


def perceptron(widths: list[int], phi: type[nn.Module], weight: float = 2.0, bias: float = 0.0) -> nn.Sequential:
    parts: list[nn.Module] = []
    for n, m in pairwise(widths):
        layer = nn.Linear(n, m)
        nn.init.normal_(layer.weight, std=(weight / n) ** 0.5)
        nn.init.normal_(layer.bias, std=bias**0.5) if bias else nn.init.zeros_(layer.bias)
        parts += [layer, phi()]
    return nn.Sequential(*parts[:-1])


def test_variances_and_depth_scales_are_those_of_the_phase_diagram() -> None:
    torch.manual_seed(0)
    net = perceptron([300, 300, 300, 300, 5], nn.Tanh, 1.5, 0.05)
    found = init_report(ww.trace(net, torch.randn(2, 300)))
    assert np.allclose(found.weight_variance, 1.5, rtol=0.05) and np.allclose(found.bias_variance[:3], 0.05, rtol=0.35)
    assert found.point is not None
    same = phase_diagram("tanh", found.weight_variance[1:3].mean(), found.bias_variance[1:3].mean(), start=found.q[2])
    assert float(found.point.xi_c) == pytest.approx(float(same.xi_c), rel=1e-9)
    assert found.layers == ("0.weight", "2.weight", "4.weight", "6.weight")
    assert found.inverse_widths == pytest.approx(3 / 300) and np.isnan(found.beta)


def test_chi_agrees_with_the_tangent_recursion() -> None:
    net = perceptron([40, 60, 60, 60, 60, 3], nn.Tanh, 1.3)
    limit = ww.infinite(ww.trace(net, torch.randn(2, 40)), weight_std=1.3**0.5, bias_std=0.0)
    inputs = torch.randn(4, 40, dtype=torch.float64)
    inputs *= 40**0.5 / inputs.norm(dim=1, keepdim=True)
    found, other = init_report(limit), susceptibility(limit, inputs)
    assert other.chi is not None and other.depth == 3
    assert found.gradient_ratio == pytest.approx(other.chi**3, rel=1e-6)


def test_gradient_ratio_is_that_of_drawn_networks() -> None:
    """Backward through wide ReLU networks with sigma_w^2 = 1: squared gradients halve per layer."""
    torch.manual_seed(1)
    ratios = []
    for _ in range(8):
        net = perceptron([400] * 5 + [1], nn.ReLU, 1.0)
        x, hidden = torch.randn(1, 400), []
        for layer in net:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                x.retain_grad()
                hidden.append(x)
        x.backward()
        ratios.append(float(hidden[0].grad.square().sum() / hidden[3].grad.square().sum()))
    found = init_report(ww.trace(net, torch.randn(2, 400)))
    assert found.gradient_ratio == pytest.approx(0.125, rel=0.05)
    assert np.mean(ratios) == pytest.approx(found.gradient_ratio, abs=4 * np.std(ratios) / 8**0.5)


@pytest.mark.parametrize(("phi", "growth"), [(nn.ReLU, 5.0), (nn.Identity, 2.0)])
def test_log_norms_spread_as_the_law_says(phi: type[nn.Module], growth: float) -> None:
    """10 layers of 100: 3000 drawn networks. Corrections of the next order are of relative size 1/n times a few."""
    n, depth, draws = 100, 10, 3000
    net = perceptron([n] * (depth + 1) + [1], nn.ReLU)
    if phi is nn.ReLU:
        found = init_report(ww.trace(net, torch.randn(2, n)))
        assert found.beta == pytest.approx(growth * depth / n)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(draws, n, generator=generator)
    x *= n**0.5 / x.norm(dim=1, keepdim=True)
    for _ in range(depth):  # given the input's norm, preactivations are Gaussian and independent
        size = x.square().mean(1, keepdim=True).sqrt() * (2**0.5 if phi is nn.ReLU else 1.0)
        x = phi()(size * torch.randn(draws, n, generator=generator))
    spread = float(x.square().sum(1).log().var())
    beta = growth * depth / n
    assert spread == pytest.approx(beta, rel=4 * (2 / draws) ** 0.5 + 3 * growth / n)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)), "no plain feed-forward"),
        (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)), "activations differ"),
        (nn.Linear(4, 2), "no plain feed-forward"),
    ],
)
def test_other_networks_are_refused_in_one_sentence(net: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        init_report(ww.trace(net, torch.randn(2, 4)))
    assert "\n" not in str(caught.value)


def test_inputs_without_size_are_refused() -> None:
    with pytest.raises(DataError, match="square_of_inputs is 0"):
        init_report(ww.trace(perceptron([4, 8, 1], nn.ReLU), torch.randn(2, 4)), square_of_inputs=0.0)
