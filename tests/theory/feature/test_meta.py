"""Meta-learning: gradients against autograd, kernel learners against their networks, growth and clipping."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from widthwise.kernels import infinite
from widthwise.program import trace
from widthwise.theory.feature import (
    FeatureLimitError,
    GradientLearner,
    KernelLearner,
    LinearLimit,
    draw_episodes,
    linear_kernel,
    meta_test,
    meta_train,
    relu_kernels,
)


@pytest.fixture(scope="module")
def pool() -> torch.Tensor:
    """Classes that differ in 6 of 40 directions, with noise above all in the others."""
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 6, generator=random, dtype=torch.float64))[0]
    middle = torch.randn(60, 1, 6, generator=random, dtype=torch.float64) @ basis.T
    noise = torch.randn(60, 10, 40, generator=random, dtype=torch.float64)
    return 2 * middle + noise - 0.6 * noise @ basis @ basis.T


def limit() -> LinearLimit:
    return LinearLimit(40, 5, sigma_v=0.5, bias=True, dtype=torch.float64)


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_meta_gradient_is_that_of_autograd(pool, order):
    """Written out with retained graphs; the first order leaves the inner gradients out of the graph."""
    tasks = draw_episodes(pool, tasks=3, seed=1)
    net = limit()
    with torch.no_grad():
        net.first += 0.1 * torch.randn(net.first.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = dict(net.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    for index in range(3):
        weights = dict(start)
        for _ in range(2):
            outputs = torch.func.functional_call(net, weights, (tasks.support[index],))
            loss = cross_entropy(outputs, tasks.support_labels[index])
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=order == "second")
            weights = {name: value - 0.3 * g for (name, value), g in zip(weights.items(), slopes, strict=True)}
        outputs = torch.func.functional_call(net, weights, (tasks.queries[index],))
        total = total + cross_entropy(outputs, tasks.query_labels[index]) / 3
    expected = torch.autograd.grad(total, list(start.values()))
    found, loss = GradientLearner(net, order).meta_gradient(tasks, 2, 0.3)
    assert loss == pytest.approx(float(total.detach()))
    for name, value in zip(start, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10)


def test_a_wide_network_meta_trains_like_the_limit(pool):
    """With orthonormal Gaussians a finite network is the limit, through inner and outer loop."""
    net = limit()
    Omega = torch.linalg.qr(torch.randn(120, net.width, dtype=torch.float64))[0]
    wide = net.sample(120)
    with torch.no_grad():
        wide.first.copy_(Omega @ net.first)
        wide.readout.copy_(net.readout @ Omega.T)
    runs = [
        meta_train(GradientLearner(one, "second"), lambda s: draw_episodes(pool, tasks=4, seed=s), steps=4, rate=0.2)
        for one in (net, wide)
    ]
    torch.testing.assert_close(runs[0].losses, runs[1].losses, rtol=1e-10, atol=1e-10)


def test_relu_kernels_are_the_engines():
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    pair = infinite(trace(module, x[:2].float()), parametrization="ntk", weight_std=1.0, bias_std=0.0)(x)
    nngp, ntk = relu_kernels()
    scaled = x / 5**0.5  # the engine divides by the fan-in
    torch.testing.assert_close(nngp(scaled, scaled), torch.as_tensor(pair.nngp), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ntk(scaled, scaled), torch.as_tensor(pair.ntk), rtol=1e-8, atol=1e-8)
    biased, _ = relu_kernels(weight_variance=0.7, bias_variance=0.3)
    h = 0.7**0.5 * x[:2] @ torch.randn(5, 400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = (h + 0.3**0.5 * torch.randn(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).relu()
    torch.testing.assert_close(biased(x[:2], x[:2]), h @ h.T / 400_000, rtol=0.02, atol=0.01)


def test_a_kernel_learner_is_a_linear_model_in_feature_space(pool):
    """With the linear kernel: MAML of one weight matrix that starts at zero, inner and outer loop, clipping too."""
    net = nn.Linear(40, 5, bias=False, dtype=torch.float64)
    nn.init.zeros_(net.weight)
    draw = lambda step: draw_episodes(pool, tasks=4, seed=step, queries=2)  # noqa: E731
    runs, outputs = [], []
    for learner in (GradientLearner(net), KernelLearner(linear_kernel, 5)):
        runs.append(meta_train(learner, draw, steps=5, rate=0.3, inner_steps=2, inner_rate=0.05, clip=0.05).losses)
        outputs.append(learner.adapt(draw(99), 3, 0.05))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-9)


def test_decay_multiplies_the_function(pool):
    learner = KernelLearner(relu_kernels()[1], 5)
    x = pool[0]
    learner.append(x, torch.ones(10, 5, dtype=torch.float64))
    before = learner(x)
    learner.decay(0.5)
    torch.testing.assert_close(learner(x), before / 2)


def test_the_limit_learns_the_shared_directions(pool):
    """The sheet's check: classes in a shared subspace; the linear limit beats the kernels on classes not seen."""
    seen, new = pool[:45], pool[45:]
    tasks = draw_episodes(new, tasks=200, queries=5, seed=10**6)
    found = {}
    for name, learner in {
        "limit": GradientLearner(limit()),
        "linear": KernelLearner(linear_kernel, 5),
        "ntk": KernelLearner(relu_kernels()[1], 5),
    }.items():
        meta_train(learner, lambda s: draw_episodes(seen, tasks=8, seed=s), steps=60, rate=0.1)
        found[name] = meta_test(learner, tasks)
    for name in ("linear", "ntk"):
        # The tasks are the same, so that independent errors overstate that of the difference.
        assert found["limit"].accuracy > found[name].accuracy + 2 * np.hypot(found["limit"].error, found[name].error)


def test_requests_that_cannot_be_met(pool):
    with pytest.raises(FeatureLimitError, match="60 classes of 10 examples and a task needs 70"):
        draw_episodes(pool, tasks=2, ways=70)
    with pytest.raises(FeatureLimitError, match="ways=1"):
        KernelLearner(linear_kernel, 1)
    with pytest.raises(FeatureLimitError, match="meta-training diverges"):
        meta_train(
            GradientLearner(limit()),
            lambda s: draw_episodes(100 * pool, tasks=2, seed=s),
            steps=20,
            rate=1e4,
            clip=None,
        )
