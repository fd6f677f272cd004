"""Ratios, initialisation, reports and training predictions."""

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.nn import cnn, mlp
from widthwise.program import trace
from widthwise.theory import (
    EffectiveTheoryError,
    critical,
    finite_width_report,
    flow,
    fluctuations,
    optimal_ratio,
    rate_groups,
    residual_nu,
    residual_vertex,
    to_torch_init,
    train_predict,
    width_for_depth,
)
from widthwise.theory.effective import _ensemble, first_layer, next_layer, perceptrons


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 1.0])
def test_residual_growth(gamma):
    assert residual_nu("identity", gamma) == pytest.approx(2 * (1 - gamma**4))
    assert residual_nu("relu", 0.0) == critical("relu").nu
    assert residual_nu("relu", 1.0) == 0
    growth = np.diff(residual_vertex("relu", gamma, 400))[-1]
    assert growth == pytest.approx(residual_nu("relu", gamma), abs=1e-9)


def test_width_for_depth_inverts_the_ratio():
    assert 24 / width_for_depth(24, "relu", 10) == pytest.approx(optimal_ratio(5, 10)) == pytest.approx(0.016)
    assert width_for_depth(24, "relu", 1, gamma=0.9) < width_for_depth(24, "relu", 1)


def test_initialisation_has_the_critical_variances():
    net = nn.Sequential(nn.Linear(300, 400), nn.GELU(), nn.Linear(400, 300))
    to_torch_init(net, "gelu", seed=3)
    found = critical("gelu")
    for layer in (net[0], net[2]):
        assert layer.weight.var().item() * layer.in_features == pytest.approx(found.C_W, rel=0.02)
        assert layer.bias.var().item() == pytest.approx(found.C_b, rel=0.3)
    again = to_torch_init(nn.Sequential(nn.Linear(300, 400), nn.GELU(), nn.Linear(400, 300)), "gelu", seed=3)
    assert torch.equal(net[0].weight, again[0].weight)


def test_a_step_with_the_rate_groups_moves_the_output_by_the_ntk():
    net = to_torch_init(nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 1)), "tanh").double()
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ensemble = perceptrons((3, 40, 1), "tanh", lambda_b=0.5, lambda_W=2.0)
    parameters = tuple(p.detach()[None] for p in (net[0].weight, net[0].bias, net[2].weight, net[2].bias))
    H = ensemble.tangent_kernel(parameters, x).item()
    before = net(x)
    before.sum().backward()
    torch.optim.SGD(rate_groups(net, 0.5, 2.0, lr=1e-6)).step()
    assert (before - net(x)).item() == pytest.approx(1e-6 * H, rel=1e-4)


def test_groups_refuse_what_is_no_perceptron():
    with pytest.raises(EffectiveTheoryError, match=r"1\.weight"):
        rate_groups(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)), 1.0, 1.0, lr=0.1)
    with pytest.raises(EffectiveTheoryError, match="no critical"):
        to_torch_init(nn.Linear(2, 2), "sigmoid")


def test_the_report_reads_a_traced_perceptron():
    report = finite_width_report(trace(mlp(128, input_shape=(5,), outputs=2, depth=3), torch.ones(2, 5)))
    by_hand = flow([5, 128, 128, 128, 2], "relu", 0.0, [2, 2, 2, 1], 1.0, [5, 128, 128, 128])
    assert report.exact and report.widths == (5, 128, 128, 128, 2)
    assert report.relative_ntk == pytest.approx(by_hand.relative_ntk[-1])
    assert report.ratio == pytest.approx(3 / 128)
    assert report.relative_to_optimum == pytest.approx(3 / 128 / optimal_ratio(5, 2))


def test_the_report_is_honest_about_other_networks():
    found = fluctuations(trace(cnn(16, input_shape=(1, 8, 8), outputs=3), torch.ones(2, 1, 8, 8)))
    assert not found.report.exact and not found.figures and np.isnan(found.report.relative_ntk)
    assert "conv2d" in found.report.notes[0] and found.report.ratio == pytest.approx(2 / 16)


def test_pytorch_defaults_lose_their_gradients():
    layers = [module for _ in range(5) for module in (nn.Linear(50, 50), nn.Tanh())]
    found = fluctuations(trace(nn.Sequential(*layers, nn.Linear(50, 1)), torch.ones(2, 50)))
    assert any("shrink" in note and "C_W = 1" in note for note in found.report.notes)
    assert set(found.figures) == {"layers", "width"}


def test_the_ntk_of_an_ensemble_is_the_exact_step():
    net = perceptrons((2, 6, 7, 3), "tanh", 0.1, 1.3, 0.5, 0.8)
    start = net.draw(4, 0)
    x = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    layer = first_layer(net(start[:2], x)[:, 0], 0.5 + 0.8 * float(x.square().mean()), False)
    for index in (2, 4):
        layer = next_layer(layer, net.activation, start[index], start[index + 1], 0.5, 0.8)
    torch.testing.assert_close(layer.H, net.tangent_kernel(start, x))


def test_taylor_of_every_order():
    origin, move = (torch.tensor([0.3]),), (torch.tensor([0.2]),)
    values = [_ensemble.taylor(lambda p: torch.exp(p[0]), origin, move, order) for order in range(6)]
    terms = np.cumsum([0.2**k / np.prod(np.arange(1, k + 1)) for k in range(6)]) * np.exp(0.3)
    np.testing.assert_allclose(torch.cat(values), terms, rtol=1e-6)


def test_wide_networks_train_as_at_infinite_width():
    random = np.random.default_rng(0)
    x, points, y = random.normal(size=(3, 3)), random.normal(size=(2, 3)), np.array([1.0, -1.0, 0.5])
    net = (x, y, points, (3, 300, 1), "tanh", 0.0, 1.0, 0.5, 0.5)
    real = train_predict(*net, lr=0.3, steps=12, order=None, networks=1200)
    infinite = train_predict(*net, lr=0.3, steps=12)
    assert (np.abs(real.mean - infinite.mean) < 4 * real.mean_error + 0.02).all()
    assert (np.abs(real.variance - infinite.variance) < 4 * real.variance_error + 0.02).all()


def test_the_cubic_expansion_explains_what_training_changes():
    random = np.random.default_rng(0)
    x, points, y = random.normal(size=(3, 3)), random.normal(size=(2, 3)), np.array([1.0, -1.0, 0.5])
    net = (x, y, points, (3, 48, 1), "tanh", 0.0, 1.0, 0.5, 0.5)
    options = {"lr": 0.3, "steps": 8, "networks": 100}
    real = train_predict(*net, **options, order=None).mean
    errors = [np.abs(train_predict(*net, **options, order=1, expansion=power).mean - real).max() for power in (1, 3)]
    assert errors[1] < 0.3 * errors[0]


def test_refused_rates():
    with pytest.raises(EffectiveTheoryError, match="diverges"):
        train_predict(np.eye(2), np.ones(2), np.eye(2), [2, 9, 1], "tanh", lr=1e3, steps=2)
