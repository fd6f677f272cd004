"""Gaussian expectations against the fact sheet, brute force and identities; every test runs over the whole table."""

import math

import numpy as np
import pytest
import torch

from widthwise.numerics import (
    ACTIVATIONS,
    Activation,
    ActivationError,
    diagonal_moments,
    mean,
    mean_derivative,
    rectified_monomial,
    relu,
    scaled,
    second_moments,
    sign,
    tanh,
)
from widthwise.numerics import hermite as hermite_activation
from widthwise.numerics._piecewise import piecewise_form

EVERY = pytest.mark.parametrize("name", sorted(ACTIVATIONS))
DOUBLE = torch.float64


def numbers(*values):
    return [torch.tensor(value, dtype=DOUBLE) for value in values]


def without_closed_form(f):
    return Activation(f.name + ":numerical", f.function, f.derivative, f.kinks, scale=f.scale, continuous=f.continuous)


def panels(edges, count):
    """Gauss-Legendre nodes between edges [..., k], with the weight of a standard Gaussian."""
    edges = np.sort(np.clip(edges, -10, 10), axis=-1)
    unit, weight = np.polynomial.legendre.leggauss(count)
    middle, half = (edges[..., 1:] + edges[..., :-1]) / 2, (edges[..., 1:] - edges[..., :-1]) / 2
    x, w = middle[..., None] + half[..., None] * unit, half[..., None] * weight
    w = w * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    return x.reshape(*edges.shape[:-1], -1), w.reshape(*edges.shape[:-1], -1)


def brute_force(f, a, b, rho):
    """E f f and E f' f' on a fine product grid split at the kinks; shares no code with the package."""
    root, kinks = math.sqrt(1 - rho * rho), np.array(f.kinks)
    smoothed = np.add.outer(kinks / (math.sqrt(b) * rho), np.linspace(-9, 9, 13) * root / abs(rho)).ravel()
    x, w = panels(np.concatenate([np.linspace(-10, 10, 41), kinks / math.sqrt(a), smoothed]), 12)
    grid = np.broadcast_to(np.linspace(-10, 10, 33), (len(x), 33))
    z, v = panels(np.concatenate([grid, (kinks / math.sqrt(b) - rho * x[:, None]) / root], axis=1), 10)
    first, second = torch.tensor(math.sqrt(a) * x), torch.tensor(math.sqrt(b) * (rho * x[:, None] + root * z))
    return [float(w * h(first).numpy() @ (v * h(second).numpy()).sum(1)) for h in (f.function, f.derivative)]


SHEET = {
    "relu": (0.281553196, 0.328184819),
    "erf": (0.198106043, 0.455018692),
    "gelu": (0.204546043, 0.334624157),
    "sin": (0.171189761, 0.405760049),
    "tanh": (0.170264703020, 0.388618012),
    "silu": (0.164203928938, 0.306539615),
}


@pytest.mark.parametrize("name", SHEET)
def test_pair_of_the_fact_sheet(name):
    found = second_moments(ACTIVATIONS[name](), *numbers(1.3, 0.7, 0.45))
    value, slope = SHEET[name]
    assert float(found.value) == pytest.approx(value, abs=6e-10)
    assert float(found.derivative) == pytest.approx(slope, abs=6e-10)


@EVERY
@pytest.mark.parametrize("a, b, rho", [(1.3, 0.7, 0.47), (1.0, 1.0, 0.995), (0.8, 2.0, -0.97), (9.0, 4.0, 0.6)])
def test_brute_force(name, a, b, rho):
    f = ACTIVATIONS[name]()
    found = second_moments(f, *numbers(a, b, rho * math.sqrt(a * b)))
    for j, exact in enumerate(brute_force(f, a, b, rho)):
        size = math.sqrt(float(diagonal_moments(f, a)[j] * diagonal_moments(f, b)[j]))
        assert float(found[j]) == pytest.approx(exact, abs=2e-10 * size + 1e-300)


@EVERY
def test_numerical_route_meets_the_closed_form_within_its_error(name):
    f = ACTIVATIONS[name]()
    if f.closed_form is None:
        pytest.skip("no closed form")
    a, b, rho = numbers([0.05, 0.6, 1.0, 4.0], [0.9, 0.05, 1.0, 7.0], [-0.9999, -0.7, 0.0, 0.4, 0.98, 0.999999, 1.0])
    a, b, rho = a[:, None, None], b[:, None], rho
    c = rho * (a * b).sqrt()
    exact, found = second_moments(f, a, b, c), second_moments(without_closed_form(f), a, b, c)
    for j in range(2):
        size = (diagonal_moments(f, a)[j] * diagonal_moments(f, b)[j]).sqrt()
        # The derivative near the line moves by sqrt(1 - rho) where rho itself is rounded: 1e-8.
        slack = 2e-8 if j and f.kinks else 1e-13
        assert bool(((exact[j] - found[j]).abs() <= (found.error + slack) * size).all())


@EVERY
def test_derivative_is_the_slope_of_the_value(name):
    f = ACTIVATIONS[name]()
    if not f.continuous:
        pytest.skip("the function jumps")
    for a, b, c in [(1.3, 0.7, 0.45), (2.0, 1.0, -0.9), (0.3, 0.2, 0.2)]:
        h = 1e-4
        steps = torch.tensor([c - 2 * h, c - h, c + h, c + 2 * h], dtype=DOUBLE)
        value = second_moments(f, *numbers(a, b), steps, tolerance=1e-13).value
        slope = float(value @ torch.tensor([1, -8, 8, -1], dtype=DOUBLE)) / (12 * h)
        assert float(second_moments(f, *numbers(a, b, c)).derivative) == pytest.approx(slope, abs=2e-8, rel=2e-8)


@EVERY
def test_diagonal(name):
    f = ACTIVATIONS[name]()
    (a,) = numbers([0.04, 1.0, 6.0])
    exact, found = diagonal_moments(f, a), second_moments(f, a, a, a)
    torch.testing.assert_close(found.value, exact.value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.derivative, exact.derivative, rtol=1e-7, atol=1e-12)


@EVERY
def test_means_by_stein(name):
    """E[u f(u)] = a E f'(u) for continuous f, with both sides from a plain grid."""
    f, a = ACTIVATIONS[name](), 0.8
    x, w = np.polynomial.hermite_e.hermegauss(200)
    if not f.kinks:
        u, w = torch.tensor(x * math.sqrt(a)), torch.tensor(w / w.sum())
        assert float(mean(f, a)) == pytest.approx(float(w @ f(u)), abs=1e-10)
        assert float(a * mean_derivative(f, a)) == pytest.approx(float(w @ (u * f(u))), abs=1e-9)
    else:
        u = torch.linspace(-12, 12, 240_000, dtype=DOUBLE) * math.sqrt(a)
        w = torch.exp(-u * u / (2 * a))
        w = w / w.sum()
        assert float(mean(f, a)) == pytest.approx(float(w @ f(u)), abs=1e-5)
        if f.continuous:
            assert float(a * mean_derivative(f, a)) == pytest.approx(float(w @ (u * f(u))), abs=1e-5)


@EVERY
def test_gram_is_symmetric_and_positive(name):
    f = ACTIVATIONS[name]()
    x = torch.randn(25, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    gram = x @ x.T / 6
    value = second_moments(f, gram.diagonal()[:, None], gram.diagonal(), gram).value
    torch.testing.assert_close(value, value.T, rtol=1e-9, atol=1e-9)
    eigenvalues = torch.linalg.eigvalsh((value + value.T) / 2)
    assert float(eigenvalues[0]) >= -1e-9 * float(eigenvalues[-1])


@EVERY
def test_no_nan_at_zero_and_on_the_diagonal(name):
    f = ACTIVATIONS[name]()
    a, b, c = numbers([0.0, 0.0, 1.0, 0.7], [0.0, 1.0, 0.0, 0.7], [0.0, 0.0, 0.0, 0.7])
    for tensor in (a, b, c):
        tensor.requires_grad_()
    found = second_moments(f, a, b, c)
    assert bool(torch.isfinite(found.value).all() and torch.isfinite(found.derivative).all())
    gradients = torch.autograd.grad(found.value.sum(), (a, b, c), allow_unused=True)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "elu", "hardtanh", "erf", "softsign"])
@pytest.mark.parametrize("rho", [0.5, 0.98])
def test_gradients(name, rho):
    f = ACTIVATIONS[name]()
    points = [t.requires_grad_() for t in numbers(1.3, 0.7, rho * math.sqrt(1.3 * 0.7))]
    assert torch.autograd.gradcheck(lambda *p: second_moments(f, *p).value, points, eps=1e-5, atol=2e-6)


@EVERY
def test_single_precision(name):
    f = ACTIVATIONS[name]()
    a, b, c = numbers([[0.5], [1.5]], [0.5, 0.9, 1.5], [[0.5, -0.3, 0.1], [0.2, 0.8, 1.5]])
    exact, found = second_moments(f, a, b, c), second_moments(f, a.float(), b.float(), c.float())
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), exact.value, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(found.derivative.double(), exact.derivative, rtol=5e-4, atol=5e-4)


@pytest.mark.parametrize("k", range(7))
def test_hermite_is_a_power_at_unit_variance(k):
    c = torch.linspace(-1, 1, 9, dtype=DOUBLE)
    found = second_moments(hermite_activation(k), *numbers(1.0, 1.0), c)
    torch.testing.assert_close(found.value, c**k, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_arc_cosine_kernels(order):
    """Cho & Saul 2009: k_n = |x|^n |y|^n J_n(theta)/pi is twice E of the rectified monomials."""
    theta = torch.linspace(0, math.pi, 11, dtype=DOUBLE)
    sine, cosine, rest = theta.sin(), theta.cos(), math.pi - theta
    shape = [rest, sine + rest * cosine, 3 * sine * cosine + rest * (1 + 2 * cosine**2)][order]
    a, b = numbers(2.0, 0.5)
    found = second_moments(rectified_monomial(order), a, b, cosine).value
    torch.testing.assert_close(2 * found, (a * b) ** (order / 2) * shape / math.pi, rtol=1e-10, atol=1e-7)


def test_relu_diagonal_is_exact():
    a = torch.rand(50, dtype=DOUBLE) * 7
    found = diagonal_moments(relu(), a)
    assert torch.equal(found.value, a / 2) and torch.equal(found.derivative, torch.full_like(a, 0.5))
    assert float(diagonal_moments(sign(), 2.0).value) == 1.0


def test_monte_carlo():
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 400_000, dtype=DOUBLE, generator=generator)
    u, v = math.sqrt(1.3) * z[0], 0.9 / math.sqrt(1.3) * z[0] + math.sqrt(0.7 - 0.81 / 1.3) * z[1]
    for name, factory in ACTIVATIONS.items():
        f = factory()
        products = f(u) * f(v)
        found = float(second_moments(f, *numbers(1.3, 0.7, 0.9)).value)
        assert abs(found - float(products.mean())) < 5 * float(products.std()) / math.sqrt(z.shape[1]), name


def test_two_activations():
    """Stein: E u f(v) = c E f'(v); and E relu(u) tanh(v) by symmetry is E u tanh(v) / 2."""
    a, b, c = numbers(1.3, 0.7, [0.5, 0.94, -0.2])
    linear = ACTIVATIONS["identity"]()
    found = second_moments(linear, a, b, c, g=tanh()).value
    torch.testing.assert_close(found, c * mean_derivative(tanh(), b), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(second_moments(relu(), a, b, c, g=tanh()).value, found / 2, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "name, spread",
    [("elu", 0.0), ("hardtanh", 0.0), *(pytest.param(n, 0.5, marks=pytest.mark.slow) for n in ("elu", "hardtanh"))],
)
def test_surface_error_bounds_what_plane_integrals_find(name, spread):
    """Many strongly correlated pairs, which are interpolated; every 97th is checked one by one."""
    f = without_closed_form(ACTIVATIONS[name]())
    generator = torch.Generator().manual_seed(2)
    a = 4.0 * (1 + spread * torch.rand(60, 1, dtype=DOUBLE, generator=generator))
    c = (1 - 0.1 * torch.rand(60, 60, dtype=DOUBLE, generator=generator) ** 2) * (a * a.T).sqrt()
    found = second_moments(f, a, a.T, c)
    picked = torch.arange(0, 3600, 97)
    rows, columns = picked // 60, picked % 60
    exact = second_moments(f, a[rows, 0], a[columns, 0], c[rows, columns])
    for j in range(2):
        size = (diagonal_moments(f, a[rows, 0])[j] * diagonal_moments(f, a[columns, 0])[j]).sqrt()
        assert float(((found[j][rows, columns] - exact[j]).abs() / size).max()) <= found.error + exact.error
    assert found.error < (1e-3 if name == "hardtanh" and spread else 1e-7)


def test_chunks_do_not_show():
    x = torch.randn(3, 300, 50, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    a, b = x[0].square().mean(-1).reshape(1, 300, 1), x[1].square().mean(-1).reshape(1, 1, 300)
    c = torch.einsum("id,jd->ij", x[0], x[1])[None] / 50
    for f in (relu(), tanh()):
        whole = second_moments(f, a, b, c.expand(2, 300, 300))
        part = second_moments(f, a[0, :7], b[0, :, :5], c[0, :7, :5])
        torch.testing.assert_close(whole.value[1, :7, :5], part.value, rtol=1e-9, atol=1e-10)


def test_any_piecewise_polynomial():
    """Slope, curvature and third derivative jump at kinks on both sides of 0 and nothing cancels."""

    def function(x):
        low, middle, high = -0.2 - 0.1 * x, 0.04 + 0.7 * x + 0.5 * x**2, 0.53 + 0.2 * (x - 0.6) ** 3 + 0.4 * (x - 0.6)
        return torch.where(x < -0.4, low - 0.04, torch.where(x < 0.6, middle, high + 0.11))

    pieces = ((-0.24, -0.1), (0.04, 0.7, 0.5), (0.64 - 0.2 * 0.216 - 0.24, 0.4 + 0.216, -0.36, 0.2))
    form = piecewise_form((-0.4, 0.6), pieces)
    f = Activation.of(function, "cubic pieces", (-0.4, 0.6), closed_form=form)
    for a, b, rho in [(1.3, 0.7, 0.47), (0.8, 2.0, -0.97), (1.0, 1.0, 0.99)]:
        found = second_moments(f, *numbers(a, b, rho * math.sqrt(a * b)))
        for j, exact in enumerate(brute_force(f, a, b, rho)):
            assert float(found[j]) == pytest.approx(exact, rel=1e-9, abs=1e-11)


def test_scaled_and_names():
    f, (a, b, c) = scaled(tanh(), 2.0, 0.5), numbers(1.3, 0.7, 0.45)
    inner = second_moments(tanh(), a / 4, b / 4, c / 4)
    torch.testing.assert_close(second_moments(f, a, b, c).value, 4 * inner.value, rtol=1e-9, atol=0)
    assert ACTIVATIONS["prelu"](0.1) == ACTIVATIONS["leaky_relu"](0.1) != ACTIVATIONS["leaky_relu"](0.2)
    assert len({relu(), relu(), tanh()}) == 2


def test_a_function_with_a_hidden_kink_says_so():
    """A kink the caller did not mention must show in the error."""
    f = Activation.of(lambda x: (x - 0.37).abs(), "hidden")
    a, b, c = numbers(1.0, 1.0, 0.5)
    exact = second_moments(Activation.of(f.function, "told", (0.37,)), a, b, c)
    found = second_moments(f, a, b, c)
    assert abs(float(found.value - exact.value)) <= 4 * found.error and found.error > 1e-9


def test_bad_variances_are_named():
    with pytest.raises(ActivationError, match="-1"):
        second_moments(relu(), *numbers(-1.0, 1.0, 0.0))
    with pytest.raises(ActivationError, match="nan"):
        mean(tanh(), float("nan"))
