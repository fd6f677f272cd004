"""Finite networks against the limit: Monte Carlo over initialisations, with its standard error and its rate."""

import pytest
import torch
from torch import nn

from tests.kernels.finite import agrees, finite_kernels, limit_at, slopes
from tests.kernels.networks import (
    NETWORKS,
    Function,
    Network,
    evaluated_batch_norm,
    group_normalised,
    mlp,
    token_positions,
    tokens,
)
from widthwise.kernels import infinite
from widthwise.kernels._fields import Local
from widthwise.program import trace


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "readout of two layers"])
def test_mean_over_initialisations(name):
    network, width = NETWORKS[name], 256
    limit, x = limit_at(network, width)
    products, tangents = finite_kernels(network.build, x, width, 60)
    agrees(products, limit.feature_kernel(x), 3 / width)
    agrees(tangents, limit(x).ntk, 3 / width)


def test_one_readout_for_two_layers():
    """``v h1 + v h2 = v (h1 + h2)``: the same kernels as the sum of the features."""
    network = NETWORKS["readout of two layers"]
    net = network.build(16)
    summed = Function(
        lambda m, x: m.last((h := m.first(x).relu()) + m.second(h).relu()),
        first=net.first,
        second=net.second,
        last=nn.Linear(16, 4, bias=False),
    )
    summed.last.weight = net.last.weight
    net.last.bias = None
    x = network.inputs(4)
    for one, other in zip(*(infinite(trace(m, x.float()))(x) for m in (net, summed)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def only(build, part: str):
    """The network with nothing trained but the parameters whose names hold `part`."""

    def made(width: int) -> nn.Module:
        net = build(width)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(part in name)
        return net

    return made


def scaled_branch(value: float):
    def build(width: int) -> nn.Module:
        def forward(m: Function, x: torch.Tensor) -> torch.Tensor:
            h = m.first(x)
            return m.last(torch.tanh(h + m.gamma * m.second(h.relu())))

        gamma = nn.Parameter(torch.full((width,), value))
        return Function(
            forward, first=nn.Linear(3, width), second=nn.Linear(width, width), last=nn.Linear(width, 4), gamma=gamma
        )

    return build


# Norm gains, layer scales, positional parameters and embedding rows: small in the whole kernel, so tested alone.
ALONE = {
    "layer norm gain, relu": (mlp(nn.LayerNorm, lambda n: nn.ReLU()), "1.weight", (3,)),
    "layer norm gain, tanh": (mlp(nn.LayerNorm, lambda n: nn.Tanh()), "1.weight", (3,)),
    "layer norm bias, tanh": (mlp(nn.LayerNorm, lambda n: nn.Tanh()), "1.bias", (3,)),
    "rms norm gain after relu": (mlp(lambda n: nn.ReLU(), nn.RMSNorm, lambda n: nn.GELU()), "2.weight", (3,)),
    "group norm gain": (group_normalised, "2.weight", (2, 6)),
    "batch norm gain": (evaluated_batch_norm, "1.weight", (2, 5, 5)),
    "batch norm bias": (evaluated_batch_norm, "1.bias", (2, 5, 5)),
    "layer scale of 0": (scaled_branch(0.0), "gamma", (3,)),
    "layer scale of 0.5": (scaled_branch(0.5), "gamma", (3,)),
    "positions that start at zero": (lambda n: tokens(n, torch.zeros(6, n)), "position", (6,)),
    "positions": (tokens, "position", (6,)),
    "table with a padding row": (lambda n: tokens(n, padding=0), "table", (6,)),
    "table of positions": (token_positions, "place", (6,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALONE))
def test_tangent_kernel_of_one_parameter(name):
    build, part, shape = ALONE[name]
    network, width = Network(only(build, part), shape, 9 if shape == (6,) else 0), 256
    limit, x = limit_at(network, width)
    _, tangents = finite_kernels(network.build, x, width, 60)
    agrees(tangents, limit(x).ntk, 3 / width)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn2d", "postactivation", "layer norm", "tokens"])
def test_error_falls_like_the_root_of_the_width(name):
    """From width 64 on: below, the corrections of order 1/width to the squared error are not small."""
    widths = (64, 128, 256, 512)
    for slope, error in slopes(NETWORKS[name], widths if name != "cnn2d" else widths[:3], 40):
        assert abs(slope + 0.5) < 3 * error, (slope, error)
        assert error < 0.15


def gaussian_pair(function, width: int = 16) -> tuple:
    """A limit whose last field is a function of two Gaussian fields of one hidden layer, and inputs."""
    parts = {"a": nn.Linear(3, width, bias=False), "b": nn.Linear(3, width, bias=False)}
    net = Function(lambda m, x: m.last(function(m.a(x), m.b(x))), last=nn.Linear(width, 1, bias=False), **parts)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return infinite(trace(net, x.float()), weight_std=1.0), x


def test_sampled_product_of_independent_fields():
    """``E a b a' b' = K^2``, and the tangent kernel of the product is ``2 K^2``, with ``K = x x' / 3``."""
    limit, x = gaussian_pair(lambda a, b: a * b)
    expected = (x @ x.T / 3) ** 2
    kernels = limit(x)
    scale = float(expected.diagonal().max())
    torch.testing.assert_close(kernels.nngp, expected, rtol=0, atol=0.05 * scale)
    torch.testing.assert_close(kernels.ntk, 3 * expected, rtol=0, atol=0.05 * 3 * scale)


def test_sampled_product_of_one_field():
    """``E a^2 a'^2 = K11 K22 + 2 K12^2`` (Isserlis)."""
    limit, x = gaussian_pair(lambda a, b: a * a)
    k = x @ x.T / 3
    expected = k.diagonal()[:, None] * k.diagonal()[None] + 2 * k**2
    torch.testing.assert_close(limit(x).nngp, expected, rtol=0, atol=0.05 * float(expected.max()))


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_sampled_moments_of_a_gaussian_argument(activation):
    """Where the argument is in fact Gaussian sampling gives what the exact rule gives, within its own error."""
    function = getattr(torch.nn.functional, activation) if activation != "tanh" else torch.tanh
    limit, x = gaussian_pair(lambda a, b: function(a + b))
    image = limit.features
    run = limit.evaluator(x, None, torch.float64)
    local = Local(function, (image.source,), activation)
    exact = run.moment(image, image, "12", diagonal=True)
    got = run.sampled(local, local, "12", diagonal=True)
    size = float(exact.reshape(5, 5).diagonal().max())
    assert float((got.value - exact).abs().max()) < 4 * got.error * size
    torch.testing.assert_close(
        got.chain, run.chain(image, image, "12", diagonal=True), rtol=0, atol=4 * got.error * float(got.chain.max())
    )


def test_sampled_moments_against_brute_force():
    """``relu(a + tanh(b))`` with plain random numbers."""
    limit, x = gaussian_pair(lambda a, b: torch.relu(a + torch.tanh(b)))
    generator = torch.Generator().manual_seed(5)
    w, v = (torch.randn(400_000, 3, generator=generator, dtype=torch.float64) / 3**0.5 for _ in range(2))
    h = torch.relu(w @ x.T + torch.tanh(v @ x.T))
    expected = h.T @ h / len(h)
    got = limit.feature_kernel(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=0.01 * float(expected.max()))
