"""Recursions: closed forms, exact steps, drawn networks, and what broken formulas do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from widthwise.numerics import ACTIVATIONS, second_moments
from widthwise.theory import balanced_rates, flow, flow_inputs, verify_flow
from widthwise.theory.effective import _flow, _verify, extrapolate

SHEET = ("tanh", 0.1, 1.3, 0.5, 0.8)
INPUTS = np.array([[1.0, 0.5, -0.3], [0.2, 1.0, 0.7], [-0.5, 0.4, 1.0]])


def test_relu_in_closed_form():
    b, w, square = 0.7, 0.4, 1.5
    found = flow([3, *[64] * 6, 2], "relu", lambda_b=b, lambda_W=w, square=square)
    K, steps = 2 * square, np.arange(7)
    theta = (b + w * square) + steps * (b + w * K / 2)
    np.testing.assert_allclose(found.K, K)
    np.testing.assert_allclose(found.theta, theta)
    np.testing.assert_allclose(found.V, 5 * steps * K**2, atol=1e-10)
    np.testing.assert_allclose(np.diff(found.F), 2 * K * theta[:-1])
    np.testing.assert_allclose(np.diff(found.B), 2 * theta[:-1] ** 2)
    np.testing.assert_allclose(np.diff(found.D), w / 2 * found.V[1:] + K * theta[:-1])
    cross = w * (found.D[1:] - w / 2 * found.V[1:])
    np.testing.assert_allclose(np.diff(found.A), theta[:-1] ** 2 + (w / 2) ** 2 * found.V[1:] + cross)
    np.testing.assert_allclose(found.P, 0, atol=1e-10)
    np.testing.assert_allclose(np.diff(found.Q), w / 2 * found.F[1:])


def test_linear_networks():
    found = flow([3, *[32] * 5, 1], "identity", lambda_b=0.0)
    np.testing.assert_allclose(found.V / found.K**2, 2 * np.arange(6), atol=1e-12)
    np.testing.assert_allclose(np.diff(found.Q), found.F[1:])
    np.testing.assert_allclose(found.P, 0, atol=1e-12)


def test_unequal_widths_weigh_layers_by_their_own_fan_in():
    """V / n_{l-1} adds 5 K^2 / n for each hidden layer."""
    widths = [4, 20, 80, 10, 1]
    found = flow(widths, "relu")
    np.testing.assert_allclose((found.V / found.fan_in / found.K**2)[1:], 5 * np.cumsum(1 / np.array(widths[1:-1])))


def test_kernel_and_ntk_of_several_inputs():
    """One layer by the package's own V-transforms; the diagonal is the single-input flow."""
    found = flow_inputs(INPUTS, [3, 30, 20, 10, 1], *SHEET)
    gram = torch.from_numpy(found.K[1])
    own = gram.diagonal()
    pairs = second_moments(ACTIVATIONS["tanh"](), own[:, None], own[None], gram)
    np.testing.assert_allclose(found.K[2], 0.1 + 1.3 * pairs.value, rtol=1e-9)
    np.testing.assert_allclose(
        found.theta[2], 0.5 + 0.8 * pairs.value + 1.3 * pairs.derivative * found.theta[1], rtol=1e-9
    )
    single = flow([3, 30, 20, 10, 1], *SHEET, square=float(INPUTS[0] @ INPUTS[0] / 3))
    for name in ("K", "theta"):
        np.testing.assert_allclose(getattr(found, name)[:, 0, 0], getattr(single, name), rtol=1e-9)
    np.testing.assert_allclose(found.V_own[:, 0, 0], single.V, rtol=1e-9)
    np.testing.assert_allclose(found.V_cross[:, 0, 0], single.V, rtol=1e-9)


@pytest.mark.parametrize(("name", "near"), [("tanh", 1e-6), ("relu", 5e-3)])
def test_full_vertex_agrees_with_pairs_and_has_its_symmetries(name, near):
    net = ([3, 30, 20, 1], name, 0.1, 1.3)
    pairs, full = flow_inputs(INPUTS, *net), flow_inputs(INPUTS, *net, vertex="full")
    V = full.V
    np.testing.assert_allclose(np.einsum("labab->lab", V), pairs.V_cross, atol=near)
    np.testing.assert_allclose(np.einsum("laabb->lab", V), pairs.V_own, atol=near)
    for order in ((0, 2, 1, 3, 4), (0, 3, 4, 1, 2)):
        np.testing.assert_allclose(V, V.transpose(order), atol=1e-12)


def test_vertex_of_pairs_against_drawn_networks():
    """Cov(G_aa, G_bb) and Var G_ab of the conditional kernel, one hidden layer after a hidden layer."""
    width, draws = 60, 20000
    theory = flow_inputs(INPUTS[:2], [3, width, width, 1], *SHEET)
    random = np.random.default_rng(0)
    root = np.linalg.cholesky(theory.K[0])
    s = np.tanh(random.normal(size=(draws, width, 2)) @ root.T)
    inner = 0.1 + 1.3 * np.einsum("dja,djb->dab", s, s) / width
    root = np.linalg.cholesky(inner)
    s = np.tanh(np.einsum("dab,djb->dja", root, random.normal(size=(draws, width, 2))))
    G = 0.1 + 1.3 * np.einsum("dja,djb->dab", s, s) / width
    for one, other, expected in (((0, 0), (1, 1), theory.V_own[-1, 0, 1]), ((0, 1), (0, 1), theory.V_cross[-1, 0, 1])):
        left, right = (G[:, a, b] - G[:, a, b].mean() for a, b in (one, other))
        sample = width * left * right
        assert sample.mean() == pytest.approx(expected, abs=4 * sample.std() / draws**0.5 + 0.05 * abs(expected))


def test_drawn_networks_agree_and_wrong_recursions_do_not(monkeypatch):
    options = {"square": 0.9, "widths": (12, 20, 40, 80), "draws": 2500}
    found = verify_flow(3, *SHEET, **options)
    assert all(abs(one.deviation) < 4 for one in found.tensors.values())
    right = _flow.step

    def without_the_coupling(state, moments, *rest):
        return right(state, replace(moments, d2_slope=3 * moments.d2_slope, s2d2=1.1 * moments.s2d2), *rest)

    monkeypatch.setattr(_flow, "step", without_the_coupling)
    broken = verify_flow(3, *SHEET, **options)
    assert abs(broken.tensors["F"].deviation) > 5


@pytest.mark.slow
def test_differential_of_drawn_networks():
    found = verify_flow(
        4, *SHEET, square=0.9, widths=(10, 14, 20, 36), draws=(8000, 6000, 3000, 700), differential=True
    )
    assert all(abs(one.deviation) < 4 for one in found.tensors.values())


def test_extrapolation_removes_the_first_two_orders():
    widths = (10, 20, 40, 80, 160)
    values = np.array([2 - 3 / n + 7 / n**2 for n in widths])
    assert extrapolate(widths, values, np.full(5, 0.1))[0] == pytest.approx(2)
    assert _verify.extrapolate(widths[:3], np.array([2 - 3 / n for n in widths[:3]]), np.full(3, 0.1))[
        0
    ] == pytest.approx(2)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_balanced_rates_make_the_ntk_they_promise(name):
    widths = [3, 40, 50, 60, 1]
    rates = balanced_rates(widths, name, total=2.0, square=0.7)
    np.testing.assert_allclose(rates.contributions, 0.5)
    found = flow(widths, name, lambda_b=rates.lambda_b, lambda_W=rates.lambda_W, square=0.7)
    assert found.theta[-1] == pytest.approx(2.0)


def test_one_refined_quadrature_settles():
    coarse, fine = (flow([1, 9, 9, 1], "silu", 0.5, 2.0, square=value) for value in (300.0, 300.0 + 1e-9))
    np.testing.assert_allclose(coarse.V, fine.V, rtol=1e-9)
