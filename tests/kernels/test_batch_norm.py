"""Batch norm in training mode: integrals, samples and sums that have to come out."""

import pytest
import torch
from torch import Tensor, nn

from widthwise.core import DataError, UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.kernels._batch_norm import batch_norm_relu, batch_norm_relu_across
from widthwise.kernels._rules_sampled import standardised
from widthwise.program import trace

EPS = 0.1
GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(b, 7, generator=GENERATOR, dtype=torch.float64) for b in (6, 5))
SLOPE1, SLOPE2 = (torch.randn(b, 7, generator=GENERATOR, dtype=torch.float64) for b in (6, 5))
BATCHES = torch.randn(11, 3, generator=GENERATOR, dtype=torch.float64)


def drawn(chunks: int = 40) -> list[tuple[Tensor, ...]]:
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
    across = batch_norm_relu_across(
        FIRST @ FIRST.T, SECOND @ SECOND.T, FIRST @ SECOND.T, SLOPE1 @ SLOPE2.T, eps=EPS, nodes=60
    )
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
    across, passed_across = batch_norm_relu_across(*products, products[2], eps=EPS, nodes=60)
    for got, moment, tangent in (
        (limit.sampled(x1), within, passed),
        (limit.sampled(x1, x2), across, passed_across),
    ):
        assert float(((got.nngp - moment) / got.nngp_error).abs().max()) < 6
        assert float(((got.ntk - moment - tangent) / got.ntk_error).abs().max()) < 6


def test_only_samples_have_it():
    x = BATCHES[:6]
    with pytest.raises(UnsupportedOperation, match=r"batch_norm.*module '1'.*method='sampled'"):
        limit_of(normed(nn.ReLU()), x, method="exact")
    with pytest.raises(DataError, match="batch of 3 examples is too small"):
        batch_norm_relu(torch.eye(3), torch.eye(3))
