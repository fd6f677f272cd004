"""Criticality: constants known otherwise, and the conditions they must meet."""

import numpy as np
import pytest
import torch

from widthwise.numerics import ACTIVATIONS, Activation, diagonal_moments
from widthwise.theory import critical, flow
from widthwise.theory.effective import EffectiveTheoryError, _gauss, gaussian_moments

CRITICAL = ("relu", "abrelu", "tanh", "erf", "elu", "gelu", "silu", "mish")


def test_classes_cover_the_table():
    kinds = {
        name: critical(name).kind for name in ("relu", "absolute", "tanh", "elu", "hardtanh", "gelu", "mish", "cos")
    }
    assert kinds == {
        "relu": "scale-invariant", "absolute": "scale-invariant", "tanh": "K*=0", "elu": "K*=0", "hardtanh": "K*=0",
        "gelu": "half-stable", "mish": "half-stable", "cos": "none",
    }  # fmt: skip


@pytest.mark.parametrize("name", CRITICAL)
def test_both_susceptibilities_are_one_at_the_fixed_point(name):
    found = critical(name)
    K = {"scale-invariant": 1.7, "K*=0": 1e-7, "half-stable": found.kernel}[found.kind]
    moments = gaussian_moments(ACTIVATIONS[name](), K)
    near = 2e-3 if found.kind == "K*=0" else 1e-10
    assert found.C_W * moments.slope == pytest.approx(1, abs=near)
    assert found.C_W * moments.d2 == pytest.approx(1, abs=near)
    assert found.C_b + found.C_W * moments.s2 == pytest.approx(K, rel=near)


def test_gelu_fixed_point_in_closed_form_and_swish_in_many_digits():
    assert critical("gelu").kernel == pytest.approx((3 + np.sqrt(17)) / 2, abs=1e-10)
    # Root found in 25-digit arithmetic.
    assert critical("silu").kernel == pytest.approx(14.3201736180257988, abs=1e-9)
    assert critical("silu").C_b == pytest.approx(0.55514317072153040, abs=1e-11)
    assert pytest.approx(1.98800467826949201, abs=1e-11) == critical("silu").C_W


@pytest.mark.parametrize(("name", "nu"), [("identity", 2), ("relu", 5), ("absolute", 2), ("tanh", 2 / 3)])
def test_growth_of_the_vertex(name, nu):
    assert critical(name).nu == pytest.approx(nu)


def test_vertex_of_the_zero_class_grows_alike_whatever_the_order_of_the_fall():
    """tanh (K ~ 1/l), elu (K ~ 1/l^2): V / (K^2 l) goes to 2/3."""
    for name in ("tanh", "elu"):
        found = flow([1, *[50] * 399, 1], name)
        assert (found.V / found.K**2)[-1] / 400 == pytest.approx(2 / 3, rel=0.03)


@pytest.mark.slow
def test_half_stable_approach():
    """From the attracting side the vertex grows five times more slowly than at the fixed point.

    The approach is slow: 1.31 at layer 600, 1.10 at layer 2400, for 0.98 in the end.
    """
    expected = critical("gelu")
    found = flow([1, *[50] * 2399, 1], "gelu", square=(2 * expected.kernel - expected.C_b) / expected.C_W)
    growth = np.diff(found.V / found.K**2)[-1]
    assert growth == pytest.approx(expected.exponents["approach"], rel=0.15)


def test_advice_is_good_advice():
    shifted = critical(lambda z: torch.sigmoid(z) - 0.5)
    assert shifted.kind == "K*=0"
    assert f"C_W = {shifted.C_W:g}" in critical("sigmoid").advice
    assert "towards 2" in critical("softplus").advice
    assert "jumps" in critical("sign").advice


def test_moments_agree_with_closed_forms():
    for name in ("gelu", "relu", "erf", "sin", "hardtanh"):
        f = ACTIVATIONS[name]()
        for K in (0.01, 1.0, 40.0):
            moments, exact = gaussian_moments(f, K), diagonal_moments(f, torch.tensor([K], dtype=torch.float64))
            assert moments.s2 == pytest.approx(float(exact.value), rel=1e-11)
            assert moments.d2 == pytest.approx(float(exact.derivative), rel=1e-11)


def test_derivatives_by_the_kernel():
    """slope, bend and d2_slope are derivatives of <s^2> and <s'^2>; s_curve is <s s''>."""
    f, K, h = ACTIVATIONS["tanh"](), 0.8, 1e-3
    low, at, high = (gaussian_moments(f, K + step) for step in (-h, 0, h))
    assert at.slope == pytest.approx((high.s2 - low.s2) / (2 * h), rel=1e-5)
    assert at.bend == pytest.approx((high.slope - low.slope) / (2 * h), rel=1e-5)
    assert at.d2_slope == pytest.approx((high.d2 - low.d2) / (2 * h), rel=1e-5)
    curve = Activation.of(lambda z: torch.tanh(z) * (-2 * torch.tanh(z) * (1 - torch.tanh(z) ** 2)), "tanh tanh''")
    x, w = _gauss.line(curve, K, 2)
    assert at.s_curve == pytest.approx(float((curve(np.sqrt(K) * x) * w).sum()), rel=1e-10)
    slope = 1 - torch.tanh(np.sqrt(K) * x) ** 2
    assert at.s_curve_d2 == pytest.approx(float((curve(np.sqrt(K) * x) * slope**2 * w).sum()), rel=1e-10)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: critical("tanhh"), "tanhh"),
        (lambda: flow([1, 5, 1], "sigmoid"), "no critical"),
        (lambda: flow([1, 5], "tanh"), "widths"),
        (lambda: flow([1, 5, 1], "tanh", C_b=-1.0), "C_b"),
        (lambda: flow([1, 5, 1], "tanh", lambda_W=[1.0, 2.0, 3.0]), "lambda_W"),
        (lambda: flow([1, 5, 1], "tanh", square=0.0), "square"),
        (lambda: gaussian_moments(ACTIVATIONS["exp"](), 1e3), "finite moments"),
    ],
)
def test_refusals(act, word):
    with pytest.raises(EffectiveTheoryError, match=word):
        act()
