"""Batch norm in training mode: integrals, samples and sums that have to come out."""

from dataclasses import replace
from math import acos, asin, pi, sqrt

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.finite import agrees
from widthwise.core import DataError, UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.kernels._batch_norm import (
    RELU,
    Batch,
    Pair,
    Slopes,
    across,
    batch_norm_relu,
    batch_norm_relu_across,
    passed_within,
    within,
)
from widthwise.kernels._rules_sampled import standardised
from widthwise.program import trace

EPS = 0.1
GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(b, 7, generator=GENERATOR, dtype=torch.float64) for b in (6, 5))
SLOPE1, SLOPE2 = (torch.randn(b, 7, generator=GENERATOR, dtype=torch.float64) for b in (6, 5))
BATCHES = torch.randn(11, 3, generator=GENERATOR, dtype=torch.float64)


def drawn(chunks: int = 20) -> list[tuple[Tensor, ...]]:
    """Plain Monte Carlo of one coordinate: moments and tangents within the first batch and across."""

    def layers(values: Tensor) -> Tensor:
        return torch.relu(standardised(EPS)(values))

    found = []
    for _ in range(chunks):
        z, slope = (torch.randn(10000, 7, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
        h, dh = torch.func.jvp(layers, (z @ FIRST.T,), (slope @ SLOPE1.T,))
        k, dk = torch.func.jvp(layers, (z @ SECOND.T,), (slope @ SLOPE2.T,))
        found.append(tuple(a.T @ b / len(z) for a, b in ((h, h), (dh, dh), (h, k), (dh, dk))))
    return found


def test_integrals_against_monte_carlo():
    within = batch_norm_relu(FIRST @ FIRST.T, SLOPE1 @ SLOPE1.T, eps=EPS)
    across = batch_norm_relu_across(FIRST @ FIRST.T, SECOND @ SECOND.T, FIRST @ SECOND.T, SLOPE1 @ SLOPE2.T, eps=EPS)
    draws = drawn()
    for place, exact in enumerate((*within, *across)):
        stacked = torch.stack([draw[place] for draw in draws])
        error = stacked.std(0) / len(draws) ** 0.5
        assert float(((stacked.mean(0) - exact) / error).abs().max()) < 4.5


def test_half_of_the_power_passes():
    """Each coordinate has power B after batch norm; ReLU keeps half of it in the mean, for any covariance."""
    moment, _ = batch_norm_relu(FIRST @ FIRST.T, SLOPE1 @ SLOPE1.T)
    assert float(moment.trace()) == pytest.approx(3.0, abs=1e-9)


def test_scale_and_shift_of_a_batch_do_not_matter():
    sigma = FIRST @ FIRST.T
    shifted = 4 * sigma + 3 * torch.ones(6, 6, dtype=torch.float64)
    for one, other, factor in zip(
        batch_norm_relu(sigma, sigma), batch_norm_relu(shifted, sigma), (1.0, 0.25), strict=True
    ):
        torch.testing.assert_close(other, factor * one, rtol=1e-9, atol=1e-9)


def normed(phi: nn.Module, n: int = 16, **options: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(3, n), nn.BatchNorm1d(n, **options), phi, nn.Linear(n, 1, bias=False))


def limit_of(net: nn.Module, x: Tensor, **options):
    return infinite(trace(net.train(), x.float(), training=True), weight_std=1.0, bias_std=0.0, **options)


def test_without_an_activation_traces_and_rows():
    """Standardised rows: the NNGP kernel of a batch has trace B, and its rows sum to zero."""
    x = BATCHES[:6]
    net = normed(nn.Identity(), affine=False)
    net[1].eps = 1e-12
    got = limit_of(net, x).sampled(x)
    assert float(got.nngp.trace()) == pytest.approx(6.0, abs=1e-6)
    torch.testing.assert_close(got.nngp.sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_sampler_against_integrals():
    """One hidden layer, two batches: each is normalised by itself."""
    x1, x2 = BATCHES[:6], BATCHES[6:]
    net = normed(nn.ReLU())
    net[1].eps = EPS
    limit = limit_of(net, x1, rtol=3e-3)
    products = [a @ b.T / 3 for a, b in ((x1, x1), (x2, x2), (x1, x2))]
    within, passed = batch_norm_relu(products[0], products[0], eps=EPS)
    across, passed_across = batch_norm_relu_across(*products, products[2], eps=EPS)
    for got, moment, tangent in (
        (limit.sampled(x1), within, passed),
        (limit.sampled(x1, x2), across, passed_across),
    ):
        assert float(((got.nngp - moment) / got.nngp_error).abs().max()) < 6
        assert float(((got.ntk - moment - tangent) / got.ntk_error).abs().max()) < 6


# -- integrals -------------------------------------------------------------------------------------------------------

LINES = {"relu": RELU, "nothing": Slopes(0.0, 1.0), "leaky": Slopes(0.45, 0.55), "absolute": Slopes(1.0, 0.0)}


@pytest.mark.parametrize(("first", "second"), [("relu", "relu"), ("relu", "nothing"), ("leaky", "absolute")])
def test_one_variable_and_two_agree(first, second):
    """A batch and itself as two batches: the integral in one variable is that in two."""
    batch = Batch.of(FIRST @ FIRST.T, 1e-3)
    pair = Pair.of(batch, batch, FIRST @ FIRST.T)
    slopes, tangent = (LINES[first], LINES[second]), SLOPE1 @ SLOPE1.T
    for one, two in (
        (within(batch, *slopes), across(pair, *slopes)),
        (passed_within(batch, *slopes, tangent), across(pair, *slopes, tangent)),
    ):
        torch.testing.assert_close(one.value, two.value, rtol=0, atol=1e-6)
        assert one.error < 1e-8 and two.error < 1e-8


def test_tangents_across_are_derivatives_of_moments():
    one, other, z, h = Batch.of(FIRST @ FIRST.T), Batch.of(SECOND @ SECOND.T), SLOPE1 @ SLOPE2.T, 1e-5
    up, down = (across(Pair.of(one, other, FIRST @ SECOND.T + sign * h * z), RELU, RELU).value for sign in (1, -1))
    found = across(Pair.of(one, other, FIRST @ SECOND.T), RELU, RELU, z).value
    torch.testing.assert_close(found, (up - down) / (2 * h), rtol=1e-7, atol=1e-8)


def fixed_point(b: int) -> tuple[float, float]:
    """ReLU behind batch norm of a batch without correlations: the correlation that it leaves, and the growth of squared
    gradients between two such layers.

    Coordinates are uniform on a sphere of dimension b - 2, on which homogeneous functions have Gaussian means.
    """
    rho = -1 / (b - 1)
    arc = (sqrt(1 - rho**2) + (pi - acos(rho)) * rho) / pi
    eigenvalue = (1 - arc) / 2
    both = 1 / 4 + asin(rho) / (2 * pi)
    trace = b * (b - 2) / (b - 3) / 2
    centred = b / 2 - (1 / 2 + (b - 1) * both)
    radial = (1 + (b - 1) * arc) / 2
    ones = b / (b - 3) * (centred - radial)
    return arc, (trace - ones / b) / (b - 1) / eigenvalue


@pytest.mark.parametrize("b", [5, 8, 300])
def test_symmetric_fixed_point(b):
    """Variance 1/2 and the correlation of the arc-cosine kernel at -1 / (b - 1)."""
    arc, growth = fixed_point(b)
    moment = within(Batch.of(torch.eye(b, dtype=torch.float64)), RELU, RELU).value
    expected = torch.full((b, b), arc / 2, dtype=torch.float64).fill_diagonal_(0.5)
    torch.testing.assert_close(moment, expected, rtol=0, atol=1e-9)
    passed = passed_within(Batch.of(moment), RELU, RELU, torch.eye(b, dtype=torch.float64)).value
    assert float(torch.linalg.eigvalsh(passed - passed.mean(0))[1:].mean()) == pytest.approx(growth, rel=1e-8)
    if b == 300:  # arXiv:1902.08129: gradients explode at any weight variance
        assert growth == pytest.approx(pi / (pi - 1), rel=5 / b)


# -- limits ----------------------------------------------------------------------------------------------------------


def both_ways(program, parametrization):
    """By integrals, and by a number of samples whose errors are known well enough, small or not."""
    exact, sampled = (infinite(program, parametrization, method=how) for how in ("exact", "sampled"))
    sampled._sampler = replace(sampled._sampler, most=1 << 13)
    return exact, sampled


def deviations(exact, sampled) -> Tensor:
    """In standard errors."""
    away = ((sampled.nngp - exact.nngp) / sampled.nngp_error, (sampled.ntk - exact.ntk) / sampled.ntk_error)
    return torch.stack(away).abs().max()


@pytest.mark.parametrize(
    ("phi", "parametrization"),
    [
        (nn.ReLU(), "standard"),
        pytest.param(nn.LeakyReLU(0.2), "ntk", marks=pytest.mark.slow),
        pytest.param(nn.Identity(), "standard", marks=pytest.mark.slow),
    ],
)
def test_exact_limits_against_samples(phi, parametrization):
    """Within a batch and between two; where gain and bias count as trained they have terms of their own."""
    x = torch.randn(13, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), phi, nn.Linear(16, 16), nn.BatchNorm1d(16), phi)
    program = trace(nn.Sequential(*net, nn.Linear(16, 1)).train(), x.float(), training=True)
    exact, sampled = both_ways(program, parametrization)
    assert {row.rule for row in exact.certificate} == {"exact", "exact (batch-norm integral)"}
    for sides in ((x[:7], None), (x[:7], x[7:])):
        assert float(deviations(exact(*sides), sampled.sampled(*sides))) < 6
    assert max(row.error for row in exact.certificate) < 1e-8


class Residual(nn.Module):
    """A residual network with norms in front of activations, whose stream stays Gaussian."""

    def __init__(self, n: int = 8) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv1d(2, n, 3, padding=1), nn.Conv1d(n, n, 3, padding=1)
        self.first, self.second, self.last = nn.BatchNorm1d(n), nn.BatchNorm1d(n), nn.Linear(n, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.inner(torch.relu(self.first(x)))
        return self.last(torch.relu(self.second(x)).mean(2))


def test_convolutions_are_standardised_over_positions_too():
    x = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    program = trace(Residual().train(), x.float(), training=True)
    exact, sampled = both_ways(program, "standard")
    for sides in ((x[:3], None), (x[:3], x[3:])):
        assert float(deviations(exact(*sides), sampled.sampled(*sides))) < 6


def test_means_and_skips_of_what_is_standardised():
    """Sums of a batch-normed field, its source and an independent block: means and Stein's lemma."""

    class Skips(nn.Module):
        def __init__(self, n: int = 16) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(8, n), nn.Linear(n, n), nn.Linear(n, 1)
            self.one, self.two = nn.BatchNorm1d(n), nn.BatchNorm1d(n)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            h = x + torch.relu(self.one(x)) + 0.5 * self.one(x)
            return self.last(h + torch.relu(self.two(self.inner(h))))

    x = torch.randn(17, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    program = trace(Skips().train(), x.float(), training=True)
    exact, sampled = both_ways(program, "ntk")
    for sides in ((x[:9], None), (x[:9], x[9:])):
        assert float(deviations(exact(*sides), sampled.sampled(*sides))) < 6


def test_which_batches_have_integrals():
    """Other activations, batches that are too small or too large, and gradients are left to samples."""
    x = BATCHES[:6]
    with pytest.raises(UnsupportedOperation, match=r"aten\.tanh.*module '2'"):
        limit_of(normed(nn.Tanh()), x, method="exact")
    assert limit_of(normed(nn.Tanh()), x).method == "sampled"
    exact = limit_of(normed(nn.ReLU()), x, method="exact")
    with pytest.raises(DataError, match="batch of 3 examples is too small"):
        exact(x[:3])
    with pytest.raises(DataError, match="joins 1600 numbers"):
        exact(torch.randn(1600, 3))
    with pytest.raises(DataError, match="no gradients"):
        exact(x.clone().requires_grad_())
    either = limit_of(normed(nn.ReLU()), x)
    assert either(x).nngp.shape == (6, 6) and "sampled" not in {row.rule for row in either.certificate}
    assert either(x[:3]).nngp.shape == (3, 3) and {row.rule for row in either.certificate} == {"sampled"}
    with pytest.raises(DataError, match="engine 'numba' does not fit"):
        limit_of(normed(nn.ReLU()), x, method="exact", engine="numba")(x)
    with pytest.raises(DataError, match="batch of 3 examples is too small"):
        batch_norm_relu(torch.eye(3), torch.eye(3))


# -- finite networks -------------------------------------------------------------------------------------------------


def finite(width: int, x: Tensor, draws: int) -> Tensor:
    """Both kernels of the last features of drawn networks of two hidden layers, ``[draws, 2, b, b]``: mean products,
    and tangents by the second hidden matrix, both per coordinate."""
    found = []
    for draw in range(draws):
        torch.manual_seed(draw)
        one, two = (torch.randn(width, n, dtype=torch.float64) / n**0.5 for n in (x.shape[1], width))
        readout = torch.randn(width, dtype=torch.float64)
        h = torch.relu(standardised(EPS)((x @ one.T).T).T)
        layer = (h @ two.T).requires_grad_()
        k = torch.relu(standardised(EPS)(layer.T).T)
        outputs = k @ readout / width**0.5
        back = torch.stack([torch.autograd.grad(y, layer, retain_graph=True)[0] for y in outputs])  # [b, b, width]
        tangent = torch.einsum("iaw,jbw,ab->ij", back, back, h @ h.T / width)
        found.append(torch.stack([(k @ k.T / width).detach(), tangent.detach()]))
    return torch.stack(found)


def expected_of(x: Tensor) -> Tensor:
    first, _ = batch_norm_relu(x @ x.T / x.shape[1], torch.eye(len(x), dtype=torch.float64), eps=EPS)
    return torch.stack(batch_norm_relu(first, first, eps=EPS))


def test_finite_networks_approach_the_integrals():
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    draws, expected = finite(512, x, 16), expected_of(x)
    for got, known in zip(draws.transpose(0, 1), expected, strict=True):
        agrees(got, known, 3 / 512)


@pytest.mark.slow
def test_error_falls_like_the_root_of_the_width():
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected, widths = expected_of(x), (64, 128, 256, 512, 1024)
    norms = expected.square().sum((1, 2))
    squares = torch.stack([(finite(n, x, 48) - expected).square().sum((2, 3)) / norms for n in widths])
    logs = torch.tensor(widths, dtype=torch.float64).log()
    weights = (logs - logs.mean()) / (logs - logs.mean()).square().sum()
    for one in squares.permute(2, 0, 1):  # [widths, draws]
        slope = float(weights @ one.mean(1).log()) / 2
        error = float((weights.square() @ (one.std(1) / one.mean(1)).square() / 48).sqrt()) / 2
        assert abs(slope + 0.5) < 3 * error and error < 0.05, (slope, error)
