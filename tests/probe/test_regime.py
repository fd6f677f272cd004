"""Regimes of real runs, and steps of loss curves with known times."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from widthwise.core import DataError
from widthwise.probe import RegimeRecorder, empirical_ntk, kernel_distance, loss_staircase, regime
from widthwise.scaling import diagnose_regime, mode_time
from widthwise.theory import KernelDynamics

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X[:, :1] * X[:, 1:2].sign()).contiguous()


def net(width=64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, width, False), nn.ReLU(), nn.Linear(width, width, False), nn.ReLU(), nn.Linear(width, 1, False)
    ).double()


@pytest.mark.parametrize("depth", [2, 3])
def test_steps_of_a_deep_linear_network_are_at_their_known_times(depth):
    """Modes of strengths 4, 2, 1 of a balanced network from a small start (gradient flow, integrated)."""
    strengths, start = np.array([4.0, 2.0, 1.0]), 1e-5 if depth == 2 else 1e-3
    u, dt, losses = np.full(3, start), 2e-3, []
    for _ in range(14000 if depth == 2 else 20000):
        losses.append(float(((strengths - u) ** 2).sum() / 2))
        u = u + dt * depth * u ** (2 - 2 / depth) * (strengths - u)
    found = loss_staircase(losses, dt * np.arange(len(losses)))
    fastest = (2 - 2 / depth) / (4 - 2 / depth)  # share of a mode at which u^(2 - 2/L) (s - u)^2 is largest
    expected = [mode_time(s, start, depth, fastest) for s in strengths]
    assert [step.time for step in found.steps] == pytest.approx(expected, rel=0.06)
    assert found.steps[0].before == pytest.approx(10.5, rel=0.01)
    assert found.steps[-1].after < 0.1  # of 0.5: the span ends where the hull leaves the curve


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0.05, 2), st.floats(1e-3, 3)), min_size=1, max_size=6), st.integers(0, 99))
def test_sums_of_decaying_exponentials_have_no_steps(terms, seed):
    t = np.arange(1500) * 0.1
    losses = 0.1 + sum(size * np.exp(-rate * t) for size, rate in terms)
    assert not loss_staircase(losses, t).steps
    noise = 0.02 * losses[0] * np.random.default_rng(seed).normal(size=len(t))
    assert len(loss_staircase(losses + noise, t).steps) == 0


def test_steps_are_found_under_batch_noise():
    t = np.arange(4000.0)
    losses = 1 / (1 + np.exp((t - 1200) / 60)) + 0.6 / (1 + np.exp((t - 2900) / 60))
    noisy = losses + 0.05 * np.random.default_rng(0).normal(size=len(t))
    assert [step.time for step in loss_staircase(noisy, t).steps] == pytest.approx([1200, 2900], abs=90)


def test_lazy_run_follows_the_linearised_network():
    """At gamma = 1e-3 the losses are those of kernel gradient descent."""
    from widthwise.scaling._richness import prepare

    gamma, rate, steps = 1e-3, 2e-7, 60
    found = diagnose_regime(net, X, Y, gamma=gamma, rate=rate, steps=steps, batch_size=None, scheme=None)
    assert found.verdict == "lazy" and found.trace.moved[-1] < 0.01
    starts, _ = prepare(net, X, Y, 1, None, None, 0, gamma)
    kernel = empirical_ntk(starts.module, X).numpy() / gamma**2
    path = KernelDynamics.fit(kernel, Y.numpy(), convention="mean").descent(list(range(steps)), rate)
    errors = ((path.train - Y.numpy()) ** 2).mean((1, 2)) / 2
    assert found.trace.losses == pytest.approx(errors, rel=5e-3)


def test_regimes_of_one_network():
    """Rates follow the law; only gamma differs between the runs."""
    verdicts = {}
    for gamma, rate, steps in ((2.0**-7, 2.0**-14, 300), (1.0, 0.7, 300), (2.0**9, 2.0**6, 1500)):
        verdicts[gamma] = diagnose_regime(net(24), X, Y, gamma=gamma, rate=rate, steps=steps, batch_size=None)
    assert [one.verdict for one in verdicts.values()] == ["lazy", "rich", "ultra-rich"]
    ultra, lazy = verdicts[2.0**9], verdicts[2.0**-7]
    assert ultra.staircase.steps and not lazy.staircase.steps
    assert ultra.silent > 0.5 and ultra.trace.scale[-1] > 10 * lazy.trace.scale[-1]
    assert "ultra-rich" in str(ultra) and len(ultra.plot().series) >= 5


def test_measures_of_the_kernel():
    recorder = RegimeRecorder(model := nn.Linear(6, 1, bias=False).double(), X, Y)
    recorder(1.0)
    with torch.no_grad():
        model.weight.mul_(3.0)
    trace = recorder.trace()
    K = (X @ X.T).numpy()
    y = Y[:, 0].numpy()
    assert trace.alignment == pytest.approx([y @ K @ y / (np.linalg.norm(K) * y @ y)] * 2)
    assert trace.moved == pytest.approx([0, 2]) and trace.norms[:, 0] == pytest.approx([1, 3])
    assert trace.change == pytest.approx([0, 0], abs=1e-12)
    one, two = torch.randn(4, 4), torch.randn(4, 4)
    cosine = nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0)
    assert kernel_distance(one, two) == pytest.approx(1 - float(cosine), abs=1e-6)


def test_a_run_that_goes_nowhere_is_undecided():
    found = diagnose_regime(net(), X, Y, rate=1e-9, steps=20)
    assert found.verdict == "undecided"


def test_bad_input_is_named():
    with pytest.raises(DataError, match="eight"):
        loss_staircase([1.0, 0.5])
    with pytest.raises(DataError, match="increase"):
        loss_staircase(np.ones(9), np.zeros(9))
    with pytest.raises(DataError, match="diverged after"):
        diagnose_regime(net(), X, Y, rate=1e6, steps=50)
    with pytest.raises(DataError, match="rate is"):
        diagnose_regime(net(), X, Y, rate=-1.0)
    with pytest.raises(DataError, match="too few"):
        RegimeRecorder(net(), X[:1], Y[:1])
    with pytest.raises(DataError, match="no step"):
        RegimeRecorder(net(), X, Y).trace()


def test_the_way_to_the_last_kernel():
    """Distances of the snapshots' kernels from the last one, and the share of the way at a tenth of the fall."""
    module = net(8)
    recorder, kernels = RegimeRecorder(module, X[:6], Y[:6]), []
    for step in range(8):
        kernels.append(empirical_ntk(module, X[:6]))
        recorder(1.0 - step / 8)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(0.9).add_(0.05 * parameter.roll(1))
    trace = recorder.trace()
    last = empirical_ntk(module, X[:6])
    wanted = [kernel_distance(kernels[at], last) for at in trace.at[:-1]]
    assert trace.remaining == pytest.approx([*wanted, 0.0], abs=1e-12) and wanted[0] > 0.01
    found = regime(trace)
    at_tenth = np.interp(found.staircase.times[np.argmax(found.staircase.losses <= 0.9 * found.staircase.losses[0])],
                         trace.at, trace.remaining)  # fmt: skip
    assert found.settled == pytest.approx(1 - at_tenth / wanted[0], abs=0.05)
