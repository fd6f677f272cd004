"""The exact limit of linear networks: hand recursion, exact equality, conservation, rates in width."""

from functools import partial

import numpy as np
import pytest
import torch

from widthwise.theory.feature import FeatureLimitError, LinearLimit, LinearNetwork, descend
from widthwise.theory.feature._losses import square

# Fact sheet of arXiv:2011.14522, section 6: inputs 3, outputs 2, samples 6 (seed 0), rate 0.3.
SHEET = (
    .782986, .260233, .226202, .217100, .212578, .210277, .209113, .208530, .208239, .208096, .208025, .207991,
)  # fmt: skip


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    return torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)


def limit(**settings) -> LinearLimit:
    return LinearLimit(3, 2, dtype=torch.float64, **settings)


def test_losses_of_the_sheet(task):
    losses = descend(limit(), *task, steps=12, rate=0.3).losses
    np.testing.assert_allclose(losses[:12], SHEET, atol=6e-7)


def test_the_untrained_limit_is_zero(task):
    assert limit(bias=True)(task[0]).abs().max() == 0


def test_gradients_equal_the_hand_recursion(task):
    """dA = alpha B' chi' x, dB = alpha chi' (x A')."""
    x, y = task
    net = limit(sigma_u=0.7, sigma_v=1.3, multiplier=0.8)
    A, B = net.first.detach().clone(), net.readout.detach().clone()
    for _ in range(5):
        chi = (0.8 * x @ A.T @ B.T - y) / len(x)
        A, B = A - 0.2 * 0.8 * B.T @ chi.T @ x, B - 0.2 * 0.8 * chi.T @ (x @ A.T)
    descend(net, x, y, steps=5, rate=0.2)
    torch.testing.assert_close(net.first.detach(), A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net.readout.detach(), B, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_a_finite_network_with_orthonormal_gaussians_is_the_limit(task, bias):
    """The only difference at finite width is that Omega' Omega / n is not the identity."""
    x, y = task
    net = limit(sigma_u=1.2, sigma_v=0.5, multiplier=1.5, bias=bias, bias_multiplier=0.6)
    zeros = partial(torch.zeros, dtype=torch.float64)
    Omega = torch.linalg.qr(torch.randn(40, net.width, dtype=torch.float64))[0]
    with torch.no_grad():
        wide = LinearNetwork(
            Omega @ net.first, net.readout @ Omega.T,
            zeros(40) if bias else None, zeros(2) if bias else None,
            multiplier=1.5, bias_multiplier=0.6,
        )  # fmt: skip
    settings = {"steps": 10, "rate": 0.1, "momentum": 0.8, "weight_decay": 0.05}
    losses = [descend(module, x, y, **settings).losses for module in (net, wide)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    gram = [module.features(x) @ module.features(x).T for module in (net, wide)]
    torch.testing.assert_close(gram[0], gram[1], rtol=1e-11, atol=1e-11)


def test_imbalance_is_conserved_to_first_order_in_the_rate(task):
    def drift(rate: float) -> float:
        net = limit(bias=True)
        before = net.imbalance().detach()
        descend(net, *task, steps=round(2 / rate), rate=rate)
        return float((net.imbalance().detach() - before).abs().max())

    coarse, fine = drift(0.02), drift(0.005)
    assert fine < 0.01
    assert coarse / fine == pytest.approx(4, rel=0.1)


def outputs_at(width: int, seed: int, task) -> torch.Tensor:
    net = limit().sample(width, seed)
    descend(net, *task, steps=4, rate=0.3)
    return net(task[0]).detach()


def test_finite_networks_converge_like_the_inverse_root_of_width(task):
    net, widths, seeds = limit(), (64, 256, 1024, 4096), 30
    descend(net, *task, steps=4, rate=0.3)
    target = net(task[0]).detach()
    squares = np.array(
        [[float((outputs_at(n, s, task) - target).square().mean()) for s in range(seeds)] for n in widths]
    )
    slope = np.polyfit(np.log(widths), np.log(squares.mean(1)) / 2, 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.08)  # four mean squares known to 0.25 each


def test_networks_drawn_after_training_converge_to_the_trained_limit(task):
    net = limit(bias=True)
    descend(net, *task, steps=12, rate=0.3)
    target = net(task[0]).detach()
    errors = [
        np.mean([float((net.sample(n, s)(task[0]) - target).square().mean().detach()) for s in range(30)]) * n
        for n in (16, 256, 4096)
    ]
    assert max(errors) / min(errors) < 1.8  # of mean squares over 30 seeds: relative error 0.2 each


def test_large_rates_and_bad_sizes_are_refused(task):
    with pytest.raises(FeatureLimitError, match=r"diverges: the loss is .* with rate=50"):
        descend(limit(), *task, steps=50, rate=50.0)
    with pytest.raises(FeatureLimitError, match="not finite"):
        descend(limit(), task[0] * float("nan"), task[1], steps=1, rate=0.1)
    with pytest.raises(FeatureLimitError, match="outputs=0"):
        LinearLimit(3, 0)
    with pytest.raises(FeatureLimitError, match="width=0"):
        limit().sample(0)
    with pytest.raises(FeatureLimitError, match="sigma_u=-1"):
        limit(sigma_u=-1)
    with pytest.raises(FeatureLimitError, match="loss='hinge' is not known"):
        descend(limit(), *task, steps=1, rate=0.1, loss="hinge")


def test_a_loss_of_ones_own(task):
    own = descend(limit(), *task, steps=3, rate=0.1, loss=lambda f, y: square(f, y)).losses
    torch.testing.assert_close(own, descend(limit(), *task, steps=3, rate=0.1).losses)
