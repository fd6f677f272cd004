"""Limits by sampling: equality with particles, kernel closed forms, finite networks, exactness for linear ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.kernels import infinite
from widthwise.numerics import tanh
from widthwise.program import trace
from widthwise.scaling import abc, classify, named_abc
from widthwise.theory.feature import AbcNetwork, FeatureLimitError, LinearLimit, descend, feature_limit
from widthwise.theory.feature._lazy import Coordinates, LazyMatrix
from widthwise.theory.feature._particles import Particles

STEPS, RATE = 5, 0.3


@pytest.fixture(scope="module")
def task():
    random = torch.Generator().manual_seed(1)
    x, y = (torch.randn(5, size, dtype=torch.float64, generator=random) for size in (3, 2))
    return x, y


def test_one_hidden_linear_layer_is_the_exact_module(task):
    net = LinearLimit(3, 2, sigma_u=0.8, dtype=torch.float64)
    losses = descend(net, *task, steps=STEPS, rate=RATE).losses
    limit = feature_limit(*task, activation="identity", steps=STEPS, rate=RATE, sigma=(0.8, 1.0), samples=32)
    torch.testing.assert_close(limit.losses, losses, rtol=1e-11, atol=1e-11)
    assert limit.loss_errors.max() < 1e-12
    fresh = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(limit(fresh).mean, net(fresh).detach(), rtol=1e-10, atol=1e-11)
    gram = net.features(fresh) @ net.features(fresh).T
    torch.testing.assert_close(limit.feature_kernel(fresh).mean, gram.detach(), rtol=1e-10, atol=1e-11)


def test_particles_are_a_mean_field_network_of_that_width(task):
    """One hidden layer: M samples of coordinates are a muP network of width M."""
    x, y = task
    particles = Particles((3, 2), (1.0, 0.7), tanh(), 128, 0)
    net = AbcNetwork(3, 128, 2, named_abc("mup", 1), dtype=torch.float64)
    with torch.no_grad():
        net.weights[0].copy_(particles.U / 128**0.5)
        net.weights[1].copy_(particles.V.T / 128**0.5)
    for _ in range(STEPS):
        done = particles.forward(x)
        particles.step(done, (done.outputs - y) / len(x), (RATE, RATE))
    descend(net, x, y, steps=STEPS, rate=RATE, groups=net.parameter_groups(RATE))
    torch.testing.assert_close(particles.forward(x).outputs, net(x).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3])
def test_lazy_matrices_written_out_make_an_ordinary_network(task, depth):
    """The samples are a network of that width whose hidden matrices are drawn as they are used: same training."""
    x, y = task
    particles = Particles((3, 2), (1.0,) + (0.9,) * (depth - 1) + (0.7,), tanh(), 256, 0)
    first, last = particles.U.clone(), particles.V.clone()
    for _ in range(STEPS):
        done = particles.forward(x)
        particles.step(done, (done.outputs - y) / len(x), (1.0,) * (depth + 1))
    outputs = particles.forward(x).outputs
    net = AbcNetwork(3, 256, 2, named_abc("mup", depth), dtype=torch.float64)
    with torch.no_grad():
        net.weights[0].copy_(first / 256**0.5)
        net.weights[-1].copy_(last.T / 256**0.5)
        for weight, matrix in zip(net.weights[1:-1], particles.matrices, strict=True):
            met = matrix.images @ matrix.used.T + matrix.used_back @ matrix.images_back.T
            weight.copy_(matrix.sigma * met / 256)
    descend(net, x, y, steps=STEPS, rate=1.0, groups=net.parameter_groups(1.0))
    torch.testing.assert_close(outputs, net(x).detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_trained_readout_alone_is_gradient_descent_with_the_nngp_kernel(task, depth):
    x, y = task
    rates = (0.0,) * depth + (RATE,)
    limit = feature_limit(x, y, depth=depth, steps=STEPS, rate=rates, samples=2048, replicates=6)
    K = infinite_nngp(x, depth)
    f = torch.zeros_like(y)
    for _ in range(STEPS):
        f = f - RATE * K @ (f - y) / len(x)
    found = limit(x)
    assert ((found.mean - f).abs() < 4.5 * found.error + 1e-4).all()
    assert found.error.max() < 0.015
    assert limit.movement.max() < 1e-12


def infinite_nngp(x: torch.Tensor, depth: int) -> torch.Tensor:
    """Feature kernel of an untrained network with unit weight variances, from the kernel engine."""
    layers = [nn.Linear(3, 8, bias=False), nn.Tanh()]
    for _ in range(depth - 1):
        layers += [nn.Linear(8, 8, bias=False), nn.Tanh()]
    program = trace(nn.Sequential(*layers, nn.Linear(8, 1, bias=False)), x[:2].float())
    limit = infinite(program, weight_std=1.0, bias_std=0.0)
    return torch.as_tensor(limit(3**0.5 * x).nngp)  # the engine divides by the fan-in of the first layer


@pytest.mark.parametrize("depth", [2, 3])
def test_deep_linear_limits_do_not_depend_on_the_samples(task, depth):
    limits = [
        feature_limit(
            *task, depth=depth, activation="identity", steps=STEPS, rate=RATE, samples=m, replicates=2, seed=m
        )
        for m in (128, 300)
    ]
    torch.testing.assert_close(limits[0].losses, limits[1].losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(limits[0].movement, limits[1].movement, rtol=1e-9, atol=1e-9)


def mean_of_networks(limit, task, width: int, seeds: int, rate=RATE) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of trained networks of one width: mean over seeds, and its standard errors."""
    found = []
    for seed in range(seeds):
        net = limit.network(width, seed)
        descend(net, *task, steps=STEPS, rate=RATE, groups=net.parameter_groups(rate))
        found.append(net(task[0]).detach().numpy())
    return np.mean(found, 0), np.std(found, 0, ddof=1) / seeds**0.5


@pytest.mark.parametrize(("depth", "activation"), [(2, "identity"), (2, "tanh"), (2, "relu"), (3, "tanh")])
def test_deep_limits_are_the_means_of_wide_networks(task, depth, activation):
    """Means over networks deviate by order 1/width, and by chance."""
    limit = feature_limit(*task, depth=depth, activation=activation, steps=STEPS, rate=RATE, samples=2048)
    target = limit(task[0])
    mean, error = mean_of_networks(limit, task, 256, 10)
    spread = np.hypot(error, np.nan_to_num(target.error.numpy()))
    assert np.all(np.abs(mean - target.mean.numpy()) < 4 * spread + 3 / 256)
    assert spread.max() < 0.06


def test_rates_by_layer(task):
    rates = (0.2, 0.0, 0.5)
    limit = feature_limit(*task, depth=2, steps=STEPS, rate=rates, samples=2048)
    mean, error = mean_of_networks(limit, task, 256, 10, rates)
    assert np.all(np.abs(mean - limit(task[0]).mean.numpy()) < 4 * error + 3 / 256)


@pytest.mark.parametrize("depth", [1, 2])
def test_drawn_networks_converge_to_the_trained_limit(task, depth):
    limit = feature_limit(
        *task, depth=depth, steps=STEPS, rate=RATE, samples=16384 if depth == 1 else 4096, replicates=2
    )
    target = limit(task[0]).mean
    scaled = [
        n * np.mean([float((limit.sample(n, s)(task[0]) - target).square().mean().detach()) for s in range(25)])
        for n in (32, 96, 288)
    ]
    assert max(scaled) / min(scaled) < 2  # of mean squares over 25 seeds: relative error about 0.15 each
    features = limit.sample(2000).hidden(task[0])[-1].detach()
    torch.testing.assert_close(features @ features.T / 2000, limit.feature_kernel(task[0]).mean, rtol=0.15, atol=0.06)


def test_batches_are_followed(task):
    """Two half batches equal the particles driven by hand; the last loss is of the whole set."""
    x, y = task
    rows = [torch.tensor([0, 1]), torch.tensor([2, 3, 4]), torch.tensor([0, 4])]
    limit = feature_limit(x, y, batches=rows, rate=RATE, samples=64, replicates=1, activation="identity")
    net = LinearLimit(3, 2, dtype=torch.float64)
    for chosen in rows:
        descend(net, x[chosen], y[chosen], steps=1, rate=RATE)
    torch.testing.assert_close(limit(x).mean, net(x).detach(), rtol=1e-11, atol=1e-11)
    assert limit.losses[-1] == pytest.approx(float(((net(x) - y).square().sum() / 10).detach()))
    assert bool(limit.loss_errors.isnan().all())


def test_classification_learns(task):
    labels = torch.tensor([0, 1, 2, 1, 0])
    limit = feature_limit(task[0], labels, loss="cross-entropy", steps=30, rate=2.0, samples=256, replicates=2)
    assert limit.losses[0] == pytest.approx(np.log(3), abs=0.05)
    assert limit.losses[-1] < 0.5 * limit.losses[0]


def test_a_lazy_matrix_is_one_matrix():
    """Linear, adjoint to its transpose, and the same each time, whatever the order of use."""
    random = torch.Generator().manual_seed(0)
    left, right = Coordinates(256, "left", random), Coordinates(256, "right", random)
    W = LazyMatrix(left, right, sigma=1.5)
    x, y = torch.randn(256, 2, dtype=torch.float64), torch.randn(256, 3, dtype=torch.float64)
    first = W.apply(x)
    back = W.transposed(y)
    second = W.apply(torch.cat([x.sin(), back], 1))
    torch.testing.assert_close(W.apply(x), first)
    torch.testing.assert_close(W.transposed(y), back)
    torch.testing.assert_close(W.apply(2 * back - x[:, :1]), 2 * second[:, 2:] - first[:, :1])
    torch.testing.assert_close(right.inner(first, y), left.inner(x, back))


def test_a_lazy_matrix_has_the_law_of_a_random_one():
    """x' W' W x = |x|^2 and W' y sees what W x made: the mean of x' W' phi(W x) is E phi' |x|^2 (Stein)."""
    random = torch.Generator().manual_seed(3)
    left, right = Coordinates(4096, "left", random), Coordinates(4096, "right", random)
    W = LazyMatrix(left, right)
    x = left.draw(1)
    back = W.transposed(W.apply(x).tanh())
    slope = float(left.inner(x, back))
    z = np.random.default_rng(0).normal(size=400_000)
    assert slope == pytest.approx(float(np.mean(1 / np.cosh(z) ** 2)), abs=0.02)


def test_symmetries_of_the_parametrisation_leave_training_unchanged(task):
    table = named_abc("mup", 2)
    twin = table.shifted(["1/3", "-1/2", "1/4"])
    outputs = []
    for one in (table, twin):
        net = AbcNetwork(3, 37, 2, one, dtype=torch.float64)
        descend(net, *task, steps=4, rate=0.2, groups=net.parameter_groups(0.2))
        outputs.append(net(task[0]).detach())
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("table", [named_abc("mup", 1), named_abc("ntk", 1), abc(["-1/4", "1/2"], ["1/4", "1/4"], 0)])
def test_features_move_by_the_exponent_of_the_classifier(task, table):
    widths = np.array([64, 256, 1024])
    moved = []
    for width in widths:
        sizes = []
        for seed in range(6):
            net = AbcNetwork(3, int(width), 2, table, seed=seed, dtype=torch.float64)
            before = net.hidden(task[0])[0].detach()
            descend(net, *task, steps=3, rate=0.3, groups=net.parameter_groups(0.3))
            sizes.append(float((net.hidden(task[0])[0].detach() - before).square().mean()))
        moved.append(np.mean(sizes) ** 0.5)
    slope = np.polyfit(np.log(widths), np.log(moved), 1)[0]
    assert slope == pytest.approx(-float(classify(table).r), abs=0.1)


def test_requests_that_cannot_be_met(task):
    x, y = task
    with pytest.raises(FeatureLimitError, match="'kernel': its limit is kernel regression: use ww"):
        feature_limit(x, y, parametrization=named_abc("ntk", 1))
    with pytest.raises(FeatureLimitError, match="'unstable'"):
        feature_limit(x, y, parametrization=abc([0, "1/2"], [0, 0], "-1/2"))
    with pytest.raises(FeatureLimitError, match="diverges"):
        feature_limit(x, y, activation="relu", rate=100.0, steps=40, samples=64)
    with pytest.raises(FeatureLimitError, match="samples=32 are too few for hidden layer"):
        feature_limit(x, y, depth=2, samples=32, steps=5)
    with pytest.raises(FeatureLimitError, match="inputs hold values that are not finite"):
        feature_limit(x / 0, y)
    with pytest.raises(FeatureLimitError, match="rate=-0"):
        feature_limit(x, y, rate=-0.1)
    with pytest.raises(FeatureLimitError, match="rate has 2 entries and the network 3 layers"):
        feature_limit(x, y, depth=2, rate=(0.1, 0.1))
    with pytest.raises(FeatureLimitError, match="depth=0"):
        feature_limit(x, y, depth=0)
    with pytest.raises(FeatureLimitError, match="activation='tan' is not known"):
        feature_limit(x, y, activation="tan")
    with pytest.raises(FeatureLimitError, match=r"give \[points, 3\]"):
        feature_limit(x, y, samples=64)(x[:, :2])
    feature_limit(x, y, samples=64, steps=1, parametrization=named_abc("mean-field", 1))
    assert replace(named_abc("mup", 1)) == named_abc("mup", 1)
