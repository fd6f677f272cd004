"""The two-factor linear neuron: closed forms against integration, limits, conservation and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.theory import (
    LinearNeuron,
    balanced_split,
    bias_gradient,
    function_metric,
    implicit_bias,
    neuron_flow,
)

TIMES = np.array([0.0, 0.05, 0.4, 1.0, 2.5, 6.0])
SHEET = {-4: 0.87131, -2: 0.71325, -1: 0.48645, 0: 0.20000, 1: 0.05014, 2: 0.01241, 4: 0.00147}


@pytest.mark.parametrize("case", range(12))
def test_closed_form_is_the_flow(case):
    """Both signs of delta, a = 0, negative a, unequal rates, d = 2 to 5."""
    random = np.random.default_rng(case)
    d = 2 + case % 4
    a = 0.0 if case == 0 else float(random.normal())
    w, target = random.normal(size=d) * (0.3 if case % 2 else 1.5), random.normal(size=d)
    rates = (1.0, 1.0) if case % 3 else (0.4, 2.5)
    neuron = LinearNeuron(a, w, target, rates)
    flow = neuron_flow(np.eye(d), target, a, w, TIMES, rates)
    path = neuron.at(TIMES)
    assert path.a == pytest.approx(flow[:, 0], abs=1e-8)
    assert path.w == pytest.approx(flow[:, 1:], abs=1e-8)


@pytest.mark.parametrize(("delta", "distance"), SHEET.items())
def test_kernel_distances_of_the_sheet(delta, distance):
    neuron = LinearNeuron.from_balance(delta, [-1.0, 0.0], [0.0, 1.0])
    assert neuron.kernel_distance(0, 20) == pytest.approx(distance, abs=6e-6)
    assert neuron.kernel_distance(3, 3) == pytest.approx(0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-3, 3), st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.floats(0.2, 3), st.floats(0.2, 3),
    st.floats(0, 60),
)  # fmt: skip
def test_delta_is_conserved_at_all_times(a, w, eta_a, eta_w, time):
    neuron = LinearNeuron(a, w, [1.0, -0.5, 0.3], (eta_a, eta_w))
    path = neuron.at(time)
    now = eta_w * path.a[0] ** 2 - eta_a * float(path.w[0] @ path.w[0])
    assert now == pytest.approx(neuron.delta, abs=1e-7 * (1 + abs(neuron.delta)))


@pytest.mark.parametrize("delta", [-3.0, -0.5, 0.0, 0.5, 3.0])
def test_far_ends_are_stationary(delta):
    neuron = LinearNeuron.from_balance(delta, [0.3, -1.0], [0.7, 0.4], (0.5, 2.0))
    a, w = neuron.stationary()
    path = neuron.at(400.0)
    assert a == pytest.approx(path.a[0], rel=1e-8) and w == pytest.approx(path.w[0], rel=1e-7)
    assert a * w == pytest.approx(neuron.target)


def test_the_surface_between_the_basins():
    """w.beta* = -a (delta + sqrt(delta^2 + 4 |beta*|^2)) / 2."""
    target = np.array([0.6, 0.8])
    a = 0.4
    for shift, sign in ((0.05, 1), (-0.05, -1)):
        along = -0.5  # found by fixed point: delta depends on w
        for _ in range(200):
            delta = a**2 - along**2 - 1.0
            along = -a * (delta + np.sqrt(delta**2 + 4)) / 2
        w = (along + shift) * target + np.array([0.8, -0.6])
        neuron = LinearNeuron(a, w, target)
        assert neuron.final_sign == sign and np.sign(neuron.at(200.0).a[0]) == sign


def test_metric_is_the_tangent_kernel_and_moves_beta():
    random = np.random.default_rng(4)
    a, w, rates = 0.7, random.normal(size=3), (0.3, 2.0)
    delta = rates[1] * a**2 - rates[0] * float(w @ w)
    M = function_metric(a * w, delta, rates)
    assert pytest.approx(rates[1] * a**2 * np.eye(3) + rates[0] * np.outer(w, w)) == M
    x = torch.tensor(random.normal(size=(4, 3)))
    heads = [torch.tensor(a, dtype=torch.float64), torch.tensor(w)]
    parts = torch.autograd.functional.jacobian(lambda a, w: a * x @ w, tuple(heads))
    ntk = rates[0] * torch.outer(parts[0], parts[0]) + rates[1] * parts[1] @ parts[1].T
    assert ntk.numpy() == pytest.approx(x.numpy() @ M @ x.numpy().T)
    neuron = LinearNeuron(a, w, [1.0, 0.0, -1.0], rates)
    assert pytest.approx(M) == neuron.kernel()
    step = neuron.at([0.0, 1e-6]).beta
    assert (step[1] - step[0]) / 1e-6 == pytest.approx(-M @ (a * w - neuron.target), rel=1e-4)


def test_limits_of_the_metric():
    beta = np.array([0.6, -0.8])
    assert function_metric(beta, 1e6) == pytest.approx(1e6 * np.eye(2), rel=1e-6, abs=1e-5)
    assert function_metric(beta, -1e6) == pytest.approx(1e6 * np.outer(beta, beta), abs=1e-5)
    assert function_metric(beta, 0.0) == pytest.approx(np.eye(2) + np.outer(beta, beta))


@pytest.mark.parametrize("delta", [-4.0, -1.0, 0.0, 1.0, 4.0, 40.0])
def test_flow_ends_where_the_implicit_bias_says(delta):
    random = np.random.default_rng(7)
    X, start = random.normal(size=(2, 4)), random.normal(size=4)
    y = X @ random.normal(size=4)
    a, w = balanced_split(start, delta)
    end = neuron_flow(X, y, a, w, 15.0 if delta == 40 else 1000.0 if delta < 0 else 150.0)[0]
    found = implicit_bias(X, y, delta, start)
    assert found == pytest.approx(end[0] * end[1:], abs=1e-7)
    residual = bias_gradient(found, delta) - bias_gradient(start, delta)
    assert residual - X.T @ np.linalg.lstsq(X.T, residual, rcond=None)[0] == pytest.approx(np.zeros(4), abs=1e-7)


def test_large_balance_is_the_nearest_solution():
    X, y, start = np.array([[1.0, 2.0, 0.0]]), np.array([2.0]), np.array([0.5, 0.0, 1.0])
    nearest = start + np.linalg.pinv(X) @ (y - X @ start)
    assert implicit_bias(X, y, 1e5, start) == pytest.approx(nearest, abs=1e-4)


@pytest.mark.parametrize("delta", [-2.0, -1e-9, 0.0, 1e-9, 2.0])
def test_split_inverts(delta):
    a, w = balanced_split([0.3, -0.4], delta, (2.0, 0.5))
    assert a > 0 and a * w == pytest.approx([0.3, -0.4])
    assert 0.5 * a**2 - 2.0 * float(w @ w) == pytest.approx(delta, abs=1e-12)


def test_names_and_figure():
    kinds = [LinearNeuron.from_balance(delta, [1.0, 0.0], [0.0, 1.0]).geometry for delta in (1, 0, -1)]
    assert kinds[0] == "hyperboloid of two sheets" and kinds[2] == "hyperboloid of one sheet"
    assert len(LinearNeuron(1.0, [1.0, 0.0], [0.0, 1.0]).plot().series) == 3


def test_bad_values_are_named():
    with pytest.raises(DataError, match="above zero"):
        LinearNeuron(1.0, [1.0], [1.0], (0.0, 1.0))
    with pytest.raises(DataError, match="as many"):
        LinearNeuron(1.0, [1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="from zero"):
        LinearNeuron(1.0, [1.0], [1.0]).at([-1.0])
    with pytest.raises(DataError, match="beta = 0"):
        balanced_split([0.0, 0.0], -1.0)
    with pytest.raises(DataError, match="interpolates"):
        implicit_bias(np.array([[1.0], [1.0]]), np.array([0.0, 1.0]), 0.0, [1.0])
    with pytest.raises(DataError, match="basins"):
        LinearNeuron(0.0, [0.0, 1.0], [1.0, 0.0]).stationary()
