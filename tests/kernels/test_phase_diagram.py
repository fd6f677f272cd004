"""Signal propagation against published fixed points, closed forms, and brute-force iteration."""

import numpy as np
import pytest
import torch

from widthwise.core import DataError
from widthwise.kernels import critical_line, deep_kernels, phase_diagram
from widthwise.kernels._correlation_map import CorrelationMap
from widthwise.numerics import ACTIVATIONS, ActivationError

LINE = {  # q*: sigma_w^2, sigma_b^2 (tanh)
    0.01: (1.0197107608, 1.2579959e-6),
    0.1: (1.1775690962, 0.0008322804),
    0.5: (1.6879751206, 0.0380412011),
    1.0: (2.1533026490, 0.1509646294),
    2.0: (2.8611624014, 0.5122649469),
}


def test_tanh_critical_line():
    line = critical_line("tanh", list(LINE))
    expected = np.array(list(LINE.values()))
    assert np.allclose(np.stack([line.weight_variance, line.bias_variance], 1), expected, atol=1e-10, rtol=2e-7)
    again = phase_diagram("tanh", line.weight_variance[:, None], line.bias_variance[:, None])
    assert np.allclose(again.chi_1, 1, atol=1e-10) and (again.phase == "critical").all()


@pytest.mark.parametrize(
    ("weight", "bias", "expected"),
    [
        (1.0, 0.05, (0.1935925202, 0.7590316472, 1.0, 3.62698)),
        (2.5, 0.05, (1.0639583774, 1.1335156987, 0.4468042, 11.79560)),
        (1.76, 0.05, (0.5694628, 0.9997964, 1.0, 1 / -np.log(0.9997964242))),
    ],
)
def test_tanh_fixed_points(weight, bias, expected):
    point = phase_diagram("tanh", weight, bias)
    q, chi, c, xi = expected
    assert float(point.q) == pytest.approx(q, abs=1e-7) and float(point.chi_1) == pytest.approx(chi, abs=1e-7)
    assert float(point.c) == pytest.approx(c, abs=1e-7) and float(point.xi_c) == pytest.approx(xi, rel=1e-5)


def test_relu_is_critical_at_one_point_only():
    line = critical_line("relu", [0.3, 1.0, 7.0])
    assert np.array_equal(line.weight_variance, [2.0, 2.0, 2.0]) and np.array_equal(line.bias_variance, [0.0, 0.0, 0.0])
    diagram = phase_diagram("relu", [1.0, 2.0, 3.0], [0.0, 0.3], start=0.7)
    assert diagram.q.tolist() == [[0.0, pytest.approx(0.6)], [0.7, np.inf], [np.inf, np.inf]]
    assert diagram.chi_1[:, 0].tolist() == [0.5, 1.0, 1.5]
    assert diagram.marginal.tolist() == [[False, False], [True, False], [False, False]]
    assert diagram.phase[1, 0] == "critical" and np.isinf(diagram.xi_c[1, 0])


def test_just_beyond_criticality():
    """1 - c* = 2 (chi_1 - 1) / C''(1) to first order, where iteration would need 10^8 layers."""
    line = critical_line("tanh", 1.0)
    weight, bias = float(line.weight_variance[0]) * (1 + 1e-8), float(line.bias_variance[0])
    point = phase_diagram("tanh", weight, bias)
    expected = 2 * (float(point.chi_1) - 1) / float(line.curvature[0])
    assert 1 - float(point.c) == pytest.approx(expected, rel=1e-3)
    assert 0 < float(point.xi_c) < np.inf and float(point.chi_c) < 1


@pytest.mark.parametrize("name", ["tanh", "sin", "softplus", "gelu_tanh"])
def test_fixed_points_by_iterating_a_quadrature(name):
    """Plain iteration of both maps with a Gauss-Hermite rule of 96 x 96 nodes (48 are off by 2e-5 for tanh)."""
    phi, weight, bias = ACTIVATIONS[name](), 2.6, 0.2
    point = phase_diagram(phi, weight, bias, start=0.5)
    z, w = np.polynomial.hermite_e.hermegauss(96)
    w = w / w.sum()

    def average(q, c):
        u, v = np.sqrt(q) * z[:, None], np.sqrt(q) * (c * z[:, None] + np.sqrt(1 - c * c) * z)
        return w @ (phi(torch.tensor(u)) * phi(torch.tensor(v))).numpy() @ w

    q, c = 0.5, 0.3
    for _ in range(100):
        q = min(weight * average(q, 1.0) + bias, 1e12)
    if not np.isfinite(point.q):
        assert q > 1e3
        return
    assert float(point.q) == pytest.approx(q, rel=1e-5)
    for _ in range(250):
        c = (weight * average(q, min(c, 1.0)) + bias) / q
    assert abs(float(point.chi_1) - 1) > 0.05 and float(point.c) == pytest.approx(c, abs=1e-5)


@pytest.mark.parametrize("name", ["tanh", "relu", "erf", "hardtanh"])
def test_slope_of_the_correlation_map_at_one_is_chi(name):
    point = phase_diagram(name, 1.7, 0.02 if name != "relu" else 0.0)
    q = np.maximum(point.q.reshape(1), 0.2)
    layer = CorrelationMap(ACTIVATIONS[name](), np.array([1.7]), q)
    at_zero = float(layer.slope(np.zeros(1))[0])
    for g in (1e-2, 0.3, 1.2):
        numeric = (layer.gap(np.array([g + 1e-5])) - layer.gap(np.array([g - 1e-5]))) / 2e-5
        assert float(numeric[0]) == pytest.approx(float(layer.slope(np.array([g]))[0]), rel=1e-7)
    if float(point.q) > 0.2:
        assert at_zero == pytest.approx(float(point.chi_1), rel=1e-10)


def test_relu_gap_closed_form():
    """Arc-cosine kernel of degree 1 (Cho and Saul 2009)."""
    layer = CorrelationMap(ACTIVATIONS["relu"](), np.full(4, 2.0), np.ones(4))
    gap = np.array([1e-6, 0.1, 1.0, 2.0])
    angle = 2 * np.arcsin(np.sqrt(gap / 2))
    closed = 1 - (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    assert np.allclose(layer.gap(gap)[1:], closed[1:], rtol=1e-12)
    small = 1e-6 - np.sqrt(2) * 2 / (3 * np.pi) * 1e-9  # next term of the expansion: O(g^2.5)
    assert layer.gap(gap)[0] == pytest.approx(small, rel=1e-12)


def test_depth_of_relu():
    deep = deep_kernels("relu", 2.0, 0.0, 1.0, [0.3, 0.9], 1000)
    assert deep.ratio[-1][0] == pytest.approx(0.2534, abs=2e-4)
    assert np.allclose(deep.tangent, np.arange(1, 1001))
    quotient = deep.gap[[249, 999], 0] * np.array([250, 1000]) ** 2 * 2 / 9 / np.pi**2
    assert abs(quotient[1] - 1) < 0.04 < abs(quotient[0] - 1)  # approaches 1 from below, like log(l) / l
    condition = deep.condition_number(10)[[499, 999], 0]
    assert condition[1] == pytest.approx(3.25 / 0.75, rel=0.03)


def test_depth_of_smooth_activations_at_criticality():
    line = critical_line("erf", 0.5)
    weight, bias = float(line.weight_variance[0]), float(line.bias_variance[0])
    deep = deep_kernels("erf", weight, bias, 0.5, [0.3], 600)
    assert deep.ratio[-1, 0] == pytest.approx(1 / 3, abs=6e-3)
    assert deep.gap[-1, 0] * 600 * line.curvature[0] / 2 == pytest.approx(1, abs=2e-2)


def test_depth_away_from_criticality():
    """The gap shrinks by chi_1 a layer when ordered; the NTK becomes diagonal when chaotic."""
    ordered, chaotic = phase_diagram("tanh", 1.0, 0.05), phase_diagram("tanh", 4.0, 0.05)
    deep = deep_kernels("tanh", 1.0, 0.05, float(ordered.q), [0.5], 40)
    assert deep.gap[-1, 0] / deep.gap[-2, 0] == pytest.approx(float(ordered.chi_1), rel=1e-6)
    deep = deep_kernels("tanh", 4.0, 0.05, float(chaotic.q), [0.5], 200)
    assert deep.ratio[-1, 0] < 1e-3 and deep.correlation[-1, 0] == pytest.approx(float(chaotic.c), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: phase_diagram("tahn", 1.0), "'tahn'"),
        (lambda: phase_diagram("tanh", -1.0), "weight variance is -1"),
        (lambda: phase_diagram("tanh", 1.0, float("nan")), "bias variance is nan"),
        (lambda: phase_diagram("tanh", 1.0, start=0.0), "start=0.0"),
        (lambda: critical_line("tanh", 0.0), "0"),
        (lambda: deep_kernels("tanh", 2.0, 0.1, 3.0, [0.1], 3), "q=3"),
        (lambda: deep_kernels("relu", 2.0, 0.0, 3.0, [1.1], 3), "correlations"),
        (lambda: phase_diagram("tanh", 2.0, 0.1).plot(), "grid"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DataError, match=words):
        call()


def test_jumps_are_refused():
    with pytest.raises(ActivationError, match="sign"):
        phase_diagram("sign", 1.0)


def test_figures():
    figure = phase_diagram("tanh", [1.0, 2.0, 3.0], [0.0, 0.1]).plot("xi_c")
    assert len(figure.x.categories) == 3 and len(figure.y.categories) == 2
    assert critical_line("tanh", [0.1, 1.0]).plot().series[0].x[1] > 2
    assert deep_kernels("relu", 2.0, 0.0, 1.0, [0.3], 5).plot().series
