"""Balance of layers: which pairs, what is conserved, and what finite steps do to it."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError, ModelError
from widthwise.probe import balance_drift, layer_balance
from widthwise.scaling import unbalance

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.stack([X[:, 0].relu(), X[:, 1] * X[:, 2].sign()], 1)


def relu_net(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7, bias), nn.ReLU(), nn.Linear(7, 6, bias), nn.ReLU(), nn.Linear(6, 2)).double()


def linear_net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4, False), nn.Linear(4, 3, False), nn.Linear(3, 2, False)).double()


class Branches(nn.Module):
    """A residual branch (its inner pair counts), a normalisation and a tanh (theirs do not)."""

    def __init__(self):
        super().__init__()
        self.read, self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.norm, self.c, self.d, self.e = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.read(x)
        x = x + self.b(self.a(x).relu())
        return self.e(torch.relu(self.d(torch.tanh(self.c(self.norm(x))))))


def names(balance):
    return [(pair.upstream, pair.downstream) for pair in balance.pairs]


def test_pairs_are_those_that_a_rescaling_leaves_alone():
    torch.manual_seed(0)
    assert names(layer_balance(Branches(), X)) == [("a", "b"), ("d", "e")]
    convolutions = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.LeakyReLU(), nn.Flatten(),
        nn.Linear(24, 2),
    )  # fmt: skip
    images = torch.randn(3, 1, 8, 8)
    assert names(layer_balance(convolutions, images)) == [("0", "3"), ("3", "6")]
    assert not any(pair.matrix is not None for pair in layer_balance(convolutions, images).pairs)


def test_numbers_are_those_of_the_definition():
    net = relu_net()
    pair = layer_balance(net, X, rates={"0.weight": 2.0, "2.weight": 0.5, "0.bias": 4.0}).pairs[0]
    W, b, A = net[0].weight, net[0].bias, net[2].weight
    delta = 2.0 * A.square().sum(0) - 0.5 * W.square().sum(1) - 0.5 * 2.0 / 4.0 * b.square()
    assert pair.delta == pytest.approx(delta.detach().numpy())
    assert pair.lam == pytest.approx(float(delta.mean()))
    linear = layer_balance(linear_net(), X).pairs[0]
    W, A = linear_net()[0].weight, linear_net()[1].weight
    assert linear.matrix == pytest.approx((A.T @ A - W @ W.T).detach().numpy())


@pytest.mark.parametrize("make", [relu_net, linear_net])
def test_drift_is_what_finite_steps_add_up_to(make):
    found = balance_drift(make(), X, Y, rate=0.1, steps=120, rates={"0.weight": 0.3})
    assert found.residual.max() < 1e-11 < found.drift[:, -1].min()
    assert found.losses[-1] < 0.7 * found.losses[0]
    assert (found.drift[:, -1] < 0.2 * found.moved[:, -1]).all()


def test_drift_vanishes_with_the_step():
    """First order: half the step, half the drift at the same time."""
    coarse = balance_drift(relu_net(), X, Y, rate=0.04, steps=150).drift[:, -1]
    fine = balance_drift(relu_net(), X, Y, rate=0.02, steps=300).drift[:, -1]
    assert coarse / fine == pytest.approx([2, 2], rel=0.1)


def test_weight_decay_is_told_from_finite_steps():
    found = balance_drift(relu_net(), X, Y, rate=0.1, steps=100, weight_decay=0.1)
    assert found.residual[:, -1].min() > 0.01 * found.moved[:, -1].min()


def test_whole_matrix_is_conserved_for_linear_layers():
    net = linear_net()
    before = layer_balance(net, X).pairs[1].matrix
    sgd = torch.optim.SGD(net.parameters(), 4e-3)
    for _ in range(500):
        sgd.zero_grad()
        ((net(X) - Y).square().mean() / 2).backward()
        sgd.step()
    after, moved = layer_balance(net, X).pairs[1].matrix, net[2].weight.detach().T @ net[2].weight.detach()
    start = linear_net()[2].weight.detach()
    assert np.abs(after - before).max() < 0.01 * float((moved - start.T @ start).abs().max())


@pytest.mark.parametrize("setting", [{"alpha": 3.0}, {"alpha": 0.2}, {"delta": 2.0}, {"delta": -2.0}, {"delta": 0.0}])
def test_unbalance_keeps_the_function(setting):
    net = relu_net()
    before, old = net(X), layer_balance(net, X).pairs[0]
    new = unbalance(net, X, **setting).pairs[0]
    torch.testing.assert_close(net(X), before, rtol=1e-10, atol=1e-12)
    if "delta" in setting:
        assert new.delta == pytest.approx(np.full(7, setting["delta"]), abs=1e-9)
    else:
        assert (new.share > old.share) == (setting["alpha"] > 1)


def test_unbalance_of_convolutions_keeps_the_function():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2)).double()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    before = net(images)
    assert unbalance(net, images, delta=0.7).pairs[0].delta == pytest.approx(np.full(4, 0.7))
    torch.testing.assert_close(net(images), before)


def test_upstream_networks_move_their_first_layer_more():
    """The same function and step size: only the balance differs."""
    moved = []
    for alpha in (0.25, 4.0):
        net = relu_net()
        unbalance(net, X, alpha=alpha)
        start = deepcopy(net[0].weight.detach())
        (net(X) - Y).square().mean().backward()
        moved.append(float((0.01 * net[0].weight.grad).norm() / start.norm()))
    assert moved[1] / moved[0] == pytest.approx(4.0**4, rel=1e-6)


def test_bad_input_is_named():
    net = relu_net()
    with pytest.raises(DataError, match="exactly one"):
        unbalance(net, X)
    with pytest.raises(DataError, match="above zero"):
        unbalance(net, X, alpha=-1.0)
    with pytest.raises(DataError, match="share a layer"):
        unbalance(net, X, delta=1.0, pairs=[("0", "2"), ("2", "4")])
    with pytest.raises(ModelError, match="no linear or convolution layer"):
        layer_balance(net, X, pairs=[("0", "1")])
    with pytest.raises(DataError, match="changes the outputs"):
        layer_balance(net, X, pairs=[("0", "4")])
    with pytest.raises(DataError, match="no two adjacent"):
        layer_balance(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)), X)
    with pytest.raises(DataError, match="do not fit"):
        balance_drift(net, X, Y[:, :1], rate=0.1, steps=2)
    with pytest.raises(DataError, match=r"rate of 0\.weight"):
        layer_balance(net, X, rates={"0.weight": 0.0})
    dead = relu_net(False)
    with torch.no_grad():
        dead[0].weight[3] = 0
    with pytest.raises(ModelError, match="neuron 3"):
        unbalance(dead, X, delta=1.0)


def test_inputs_that_are_not_finite_are_named() -> None:
    inputs = torch.randn(4, 5)
    inputs[2, 1] = torch.nan
    with pytest.raises(DataError, match=r"inputs hold nan at \[2, 1\]"):
        layer_balance(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)), inputs)
