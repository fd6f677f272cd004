"""The sampler of one coordinate against the covariance recursion, closed forms and finite networks."""

from dataclasses import replace
from math import pi, sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.kernels.finite import hidden_only, make_gaussian
from tests.kernels.networks import NETWORKS, Function, Network
from widthwise.core import DataError, UnsupportedOperation, seeded
from widthwise.kernels import infinite
from widthwise.kernels._coordinates_matrices import Family
from widthwise.probe import empirical_ntk
from widthwise.program import trace

LONG = {"cnn2d", "cnn3d", "batch norm in eval mode", "layer norm and tanh", "postactivation"}
PARAMETERS = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NETWORKS]


def program_of(network: Network):
    with seeded(0, "coordinates"):
        module = network.build(16).eval()
    inputs = network.inputs(3)
    return trace(module, inputs if network.tokens else inputs.float())


def deviations(sampled, exact) -> torch.Tensor:
    """Differences in standard errors."""
    pairs = ((sampled.nngp, exact.nngp, sampled.nngp_error), (sampled.ntk, exact.ntk, sampled.ntk_error))
    return torch.cat([((got - known) / error).flatten() for got, known, error in pairs])


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_interpreters_agree(name):
    """Each kind of field gives the same kernels as moments and as samples."""
    network = NETWORKS[name]
    program = program_of(network)
    x1, x2 = network.inputs(3), network.inputs(2, seed=1)
    sampled = infinite(program, "standard", method="sampled").sampled(x1, x2)
    away = deviations(sampled, infinite(program, "standard", method="exact")(x1, x2))
    assert sampled.relative_error < 1e-2
    assert float(away.abs().max()) < 6
    assert float(away.square().mean()) < 6  # entries share their samples: this is far from 1 now and then


@pytest.mark.parametrize("parametrization", ["ntk", "plain"])
def test_parametrizations_agree(parametrization):
    program, x = program_of(NETWORKS["reused matrix"]), NETWORKS["reused matrix"].inputs(3)
    scales = {"weight_std": 1.3, "bias_std": 0.3}
    sampled = infinite(program, parametrization, **scales, method="sampled").sampled(x)
    assert float(deviations(sampled, infinite(program, parametrization, **scales)(x)).abs().max()) < 6


def test_error_falls_faster_than_at_the_rate_of_monte_carlo():
    """16 times as many points: 4 times less error with pseudo-random points, at best 16 times with Sobol points."""
    program, x = program_of(NETWORKS["tanh"]), NETWORKS["tanh"].inputs(3)
    exact = infinite(program)(x)
    limit = infinite(program, method="sampled", rtol=1e-9)
    found = []
    for most in (1 << 13, 1 << 17):
        limit._sampler = replace(limit._sampler, most=most)
        sampled = limit.sampled(x)
        assert sampled.samples == most
        assert float(deviations(sampled, exact).abs().max()) < 6
        found.append((float((sampled.ntk - exact.ntk).norm()), float(sampled.ntk_error.norm())))
    assert found[1][1] < found[0][1] / 4
    assert found[1][0] < found[0][0] / 2


def test_samples_are_the_same_again():
    program, x = program_of(NETWORKS["mlp"]), NETWORKS["mlp"].inputs(3)
    first, second = (infinite(program, method="sampled")(x) for _ in range(2))
    assert torch.equal(first.ntk, second.ntk)
    assert torch.equal(first.ntk, first.ntk.T)


def test_certificate_and_tolerance():
    program, x = program_of(NETWORKS["mlp"]), NETWORKS["mlp"].inputs(3)
    limit = infinite(program, method="sampled", rtol=3e-3)
    assert limit.sampled(x).relative_error <= 3e-3
    assert limit.method == "sampled"
    rows = {row.node: row for row in limit.certificate}
    assert set(rows) == {node.name for node in program.nodes if node.kind == "op"}
    assert all(row.rule == "sampled" and 0 <= row.error < 0.1 for row in rows.values())
    assert rows[program.output].error > 0


def test_tiles_do_not_matter_beyond_the_error(monkeypatch):
    program, x = program_of(NETWORKS["cnn1d"]), NETWORKS["cnn1d"].inputs(3)
    limit = infinite(program, method="sampled")
    whole = limit.sampled(x)
    monkeypatch.setattr("widthwise.kernels._coordinates.MOST_ROWS", 28)
    tiles = limit.sampled(x)
    error = (whole.ntk_error.square() + tiles.ntk_error.square()).sqrt()
    assert float(((whole.ntk - tiles.ntk) / error).abs().max()) < 6


def test_given_all_earlier_draws():
    """Portions drawn one after another have the covariance of all at once, singular or not."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    covariance = root @ root.T
    family = Family(lambda k: torch.randn(1 << 16, k, generator=generator, dtype=torch.float64))
    family.extend(None, covariance[:2, :2])
    family.extend(covariance[:2, 2:4], covariance[2:4, 2:4])
    family.extend(covariance[:4, 4:], covariance[4:, 4:])
    draws = family.draws
    torch.testing.assert_close(draws.T @ draws / len(draws), covariance, rtol=0, atol=0.05)
    null = torch.linalg.svd(root.T)[2][3:]  # directions that the covariance does not have
    assert float((draws @ null.T).abs().max()) < 1e-5


def test_maximum_of_two():
    """E max^2 = (a + b) / 2 by symmetry, E max = sqrt((a + b - 2 c) / 2 pi); each is the maximum half of the time."""
    x = torch.zeros(2, 2, 6)
    x[0, :, :3] = torch.tensor([[1.0, 2.0, -0.5], [0.3, -1.0, 1.5]])
    x[1, :, 3:] = torch.tensor([[2.0, 0.4, 0.1], [1.0, 1.0, -1.0]])
    net = Function(
        lambda m, x: m.last(torch.amax(m.first(x), 1)),
        first=nn.Linear(6, 8, bias=False),
        last=nn.Linear(8, 1, bias=False),
    )
    got = infinite(trace(net, x), weight_std=1.0, rtol=2e-3).sampled(x.double())
    power = x.square().sum(2) / 6
    means = ((power.sum(1) - 2 * (x[:, 0] * x[:, 1]).sum(1) / 6) / (2 * pi)).sqrt()
    assert got.nngp.diagonal().tolist() == pytest.approx((power.sum(1) / 2).tolist(), rel=1e-2)
    assert float(got.nngp[0, 1]) == pytest.approx(float(means[0] * means[1]), rel=2e-2)
    assert got.ntk.diagonal().tolist() == pytest.approx(power.sum(1).tolist(), rel=1e-2)
    assert float(got.ntk[0, 1]) == pytest.approx(float(got.nngp[0, 1]), rel=5e-2)  # the inputs have no overlap


def test_a_sorted_sequence_keeps_its_power():
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(4))
    net = Function(
        lambda m, x: m.last(torch.sort(m.first(x), 1)[0]),
        first=nn.Linear(5, 8, bias=False),
        last=nn.Linear(8, 1, bias=False),
    )
    got = infinite(trace(net, x), weight_std=1.0, rtol=3e-3).nngp(x.double())
    assert got.diagonal().tolist() == pytest.approx((x.square().sum((1, 2)) / 20).tolist(), rel=1e-2)


def cell(n: int) -> nn.Module:
    """Two steps of an LSTM, written by hand with a matrix for each gate."""

    def forward(m: Function, x: torch.Tensor) -> torch.Tensor:
        h = c = None
        for step in range(2):
            i, f, g, o = (getattr(m, f"x{gate}")(x[:, step]) for gate in "ifgo")
            if h is not None:
                i, f, g, o = (z + getattr(m, f"h{gate}")(h) for z, gate in zip((i, f, g, o), "ifgo", strict=True))
            new = torch.sigmoid(i) * torch.tanh(g)
            c = new if c is None else torch.sigmoid(f) * c + new
            h = torch.sigmoid(o) * torch.tanh(c)
        return m.last(h)

    parts = {f"x{gate}": nn.Linear(4, n) for gate in "ifgo"} | {f"h{gate}": nn.Linear(n, n) for gate in "ifgo"}
    return Function(forward, **parts, last=nn.Linear(n, 16))


FINITE = {
    "max pooling": (
        lambda n: nn.Sequential(
            nn.Conv2d(2, n, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(n, n, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(n, 16),
        ),
        (2, 6, 6),
    ),
    "adaptive max pooling": (
        lambda n: nn.Sequential(nn.Conv2d(2, n, 3), nn.GELU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(n, 16)),
        (2, 5, 5),
    ),
    "largest two": (
        lambda n: Function(
            lambda m, x: m.last(torch.topk(m.first(x), 2, 1)[0].mean(1)), first=nn.Linear(6, n), last=nn.Linear(n, 16)
        ),
        (4, 6),
    ),
    "lstm cell": (hidden_only(cell), (2, 4)),  # other terms of its tangent kernel are of another order in the width
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FINITE))
def test_finite_networks(name):
    """The mean over draws of finite networks' NTK comes closer as 1/width; one draw as width^(-1/2)."""
    build, shape = FINITE[name]
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    distances = []
    for width in (32, 128):
        program = trace(build(width), x.float())
        ntk = infinite(program, "standard", method="sampled", rtol=3e-3)(x).ntk
        draws = []
        for draw in range(12):
            with seeded(draw, name, width):
                draws.append(empirical_ntk(make_gaussian(build(width)).double(), x).double())
        stacked = torch.stack(draws)
        error = stacked.std(0) / sqrt(len(draws))
        assert bool(((stacked.mean(0) - ntk).abs() < 4 * error + (0.02 + 1 / width) * ntk.diagonal().mean()).all())
        distances.append(float((stacked - ntk).flatten(1).norm(dim=1).mean() / ntk.norm()))
    assert distances[1] < 0.75 * distances[0]  # 1/2 at the rate width^(-1/2)


def test_an_average_inside_the_network_is_refused():
    def forward(m: Function, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(m.first(x))
        return m.last(h * torch.sigmoid(h.mean(1, keepdim=True)))

    net = Function(forward, first=nn.Linear(3, 8), last=nn.Linear(8, 1))
    with pytest.raises(UnsupportedOperation, match=r"average over coordinates|line up"):
        infinite(trace(net, torch.ones(2, 3)))


def test_arguments():
    program = program_of(NETWORKS["mlp"])
    with pytest.raises(DataError, match="rtol is 2"):
        infinite(program, rtol=2)
    with pytest.raises(DataError, match="method='sampled'"):
        infinite(program).sampled(torch.ones(2, 3))
