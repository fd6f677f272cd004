"""Variances and depth scales read off a module, against the phase diagram, autograd and drawn networks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import widthwise as ww
from tests.kernels.test_batch_norm import fixed_point
from widthwise.core import DataError, ModelError
from widthwise.kernels import init_report, phase_diagram, susceptibility
from widthwise.kernels._propagation import propagation


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


def test_networks_that_cannot_be_read_are_refused_in_one_sentence() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(5, 8), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.table(x)).mean(1))

    tokens = torch.randint(0, 5, (2, 3))
    for net, x, words in ((nn.Linear(4, 2), torch.randn(2, 4), "no station"), (Tokens(), tokens, "give some as x")):
        with pytest.raises(ModelError, match=words) as caught:
            init_report(ww.trace(net, x))
        assert "\n" not in str(caught.value)


def test_inputs_without_size_are_refused() -> None:
    with pytest.raises(DataError, match="square_of_inputs is 0"):
        init_report(ww.trace(perceptron([4, 8, 1], nn.ReLU), torch.randn(2, 4)), square_of_inputs=0.0)


# -- networks of any kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", [nn.Tanh, nn.ReLU, nn.GELU])
def test_the_recursion_of_any_program_is_that_of_a_chain(phi: type[nn.Module]) -> None:
    x = torch.randn(3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x *= 40**0.5 / x.norm(dim=1, keepdim=True)
    limit = ww.infinite(ww.trace(perceptron([40] * 6 + [1], phi), x.float()), weight_std=1.3, bias_std=0.3)
    chain, found = init_report(limit), propagation(limit, x)
    assert chain.plain
    for name in ("q", "chi", "chi_parallel", "slope"):
        assert np.allclose(getattr(found, name), getattr(chain, name), rtol=1e-10, atol=0), name
    assert chain.verdict == found.verdict and chain.gradient_ratio == pytest.approx(found.gradient_ratio, rel=1e-10)
    assert chain.mended_ratio == pytest.approx(found.mended_ratio, rel=1e-6, nan_ok=True)


class Stream(nn.Module):
    """A residual network whose stream stays Gaussian, or (`after`) passes an activation in every block."""

    def __init__(self, n: int, depth: int, norm: bool = False, after: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.after = nn.Linear(20, n, bias=False), nn.Linear(n, 1, bias=False), after
        self.inner = nn.ModuleList(nn.Linear(n, n, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(n) if norm else nn.Identity() for _ in range(depth))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        self.seen = [x]
        for linear, norm in zip(self.inner, self.norms, strict=True):
            if self.after:
                x = torch.relu(x)
                x = x + linear(x)
            else:
                x = x + linear(torch.relu(norm(x)))
            self.seen.append(x)
        return self.last(torch.relu(x))


def test_residual_relu_closed_form() -> None:
    """Stream plus a branch: chi = 1 + sigma_w^2 / 2, and q grows by the same, so that correlations stay."""
    program = ww.trace(Stream(16, 6), torch.randn(2, 20))
    found = init_report(ww.infinite(program, weight_std=1.2))
    growth = 1 + 1.44 / 2
    assert not found.plain and found.layers == ("first", *("add", *(f"add_{i}" for i in range(1, 6))), "last")
    assert np.allclose(found.chi, growth, rtol=1e-10) and np.allclose(found.chi_parallel, growth, rtol=1e-10)
    assert np.allclose(found.slope, 1.0, rtol=1e-10)
    assert found.gradient_ratio == pytest.approx(growth**6) and found.verdict == "chaotic"
    assert 1.5 < found.mended_ratio < np.e and "Multiply" in found.mend
    factor = float(found.mend.split("by ")[1].split(":")[0])
    assert (1 + 1.44 / 2 * factor**2) ** 6 == pytest.approx(found.mended_ratio, rel=0.02)


def test_a_branch_of_normed_values_adds_the_same_to_every_block() -> None:
    """Pre-norm: q grows by sigma_w^2 / 2 per block, chi = 1 + sigma_w^2 / (2 q)."""
    program = ww.trace(Stream(16, 5, norm=True), torch.randn(2, 20))
    x = torch.randn(2, 20, dtype=torch.float64)
    x *= 20**0.5 / x.norm(dim=1, keepdim=True)
    found = init_report(ww.infinite(program, weight_std=1.2), x)
    assert np.allclose(found.q[:-1], 1.44 + 0.72 * np.arange(6), rtol=1e-4)
    assert np.allclose(found.chi, 1 + 0.72 / found.q[:-2], rtol=1e-4)


def test_periodic_convolutions_are_like_dense_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), nn.Tanh(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1),
    )  # fmt: skip
    limit = ww.infinite(ww.trace(net, torch.randn(2, 3, 4, 4)), weight_std=1.5, bias_std=0.0)
    found = init_report(limit, torch.ones(1, 3, 4, 4, dtype=torch.float64))
    dense = init_report(
        ww.infinite(ww.trace(perceptron([3, 8, 8, 1], nn.ReLU), torch.randn(2, 3)), weight_std=1.5, bias_std=0.0)
    )
    assert not found.plain and found.layers == ("0", "2", "4", "8")
    assert found.chi[0] == pytest.approx(dense.chi[0], rel=1e-10) and found.q[:2] == pytest.approx(dense.q[:2])


def gradients(after: bool, draws: int) -> np.ndarray:
    """Squared gradients of the output at each place of the stream over those at the last, ``[draws, places]``."""
    ratios = []
    x = torch.randn(1, 20, generator=torch.Generator().manual_seed(1))
    for draw in range(draws):
        torch.manual_seed(draw)
        net = Stream(500, 4, after=after)
        for layer in (net.first, *net.inner, net.last):
            nn.init.normal_(layer.weight, std=1.2 / layer.in_features**0.5)
        output = net(x)
        found = torch.autograd.grad(output.sum(), net.seen)
        ratios.append([float(one.square().sum() / found[-1].square().sum()) for one in found])
    return np.array(ratios)


@pytest.mark.parametrize("after", [False, True])
def test_gradients_of_drawn_residual_networks(after: bool) -> None:
    """Where the stream is no Gaussian field its moments are sampled: two percent more."""
    x = torch.randn(1, 20, generator=torch.Generator().manual_seed(1))
    limit = ww.infinite(ww.trace(Stream(16, 4, after=after), x), weight_std=1.2)
    found = init_report(limit, x.double())
    measured = gradients(after, 12)
    expected = np.append(np.cumprod(found.chi[::-1])[::-1], 1.0)
    error = measured.std(0, ddof=1) / 12**0.5
    assert len(expected) == 5
    assert (np.abs(measured.mean(0) - expected) <= 4 * error + (0.02 * after + 3 / 500) * expected).all()


def test_batch_norm_makes_gradients_explode() -> None:
    """Orthogonal inputs: the growth at the symmetric fixed point, whatever the weights' variance."""
    parts: list[nn.Module] = []
    for _ in range(4):
        parts += [nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8, eps=1e-12), nn.ReLU()]
    net = nn.Sequential(*parts, nn.Linear(8, 1)).train()
    limit = ww.infinite(ww.trace(net, torch.randn(8, 8), training=True), weight_std=0.7, bias_std=0.0)
    found = init_report(limit, torch.eye(8, dtype=torch.float64))
    assert found.chi[1:] == pytest.approx(fixed_point(8)[1], rel=1e-7)
    assert found.verdict == "chaotic" and "No factor" in found.mend


def test_tables_of_positions_are_no_data() -> None:
    """A difference between tokens passes the sum with positions as it is; correlations move."""

    class Tokens(nn.Module):
        def __init__(self, n: int = 16) -> None:
            super().__init__()
            self.table, self.places, self.one, self.last = (
                nn.Embedding(7, n),
                nn.Embedding(5, n),
                nn.Linear(n, n),
                nn.Linear(n, 1),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.table(x) + self.places(torch.arange(x.shape[1]))
            return self.last(torch.relu(h + self.one(torch.relu(h))).mean(1))

    x = torch.randint(0, 7, (2, 5))
    limit = ww.infinite(ww.trace(Tokens(), x), weight_std=1.0, bias_std=0.0)
    found = init_report(limit, x)
    assert found.chi[0] == pytest.approx(1.0) and found.slope[0] == pytest.approx(0.5)
    assert found.chi_parallel[0] == pytest.approx(1.0) and found.chi[1] == pytest.approx(1.5)
