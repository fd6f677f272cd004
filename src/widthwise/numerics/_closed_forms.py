"""Exact V-transforms: E f(u) f(v) and E f'(u) f'(v) for (u, v) ~ N(0, [[a, c], [c, b]]).

Sources: Cho & Saul 2009 (arc-cosine kernels), Williams 1997 (erf), Tsuchida et al. 2018 (leaky ReLU; arXiv 1711.09090),
Tsuchida et al. 2021 (GELU; arXiv 2002.08517), Rahimi & Recht 2007 (sine features). One signature: see `ClosedForm`.
"""

from math import comb, factorial, pi, sqrt

import torch
from torch import Tensor

from widthwise.numerics._activation import ClosedForm

Pair = tuple[Tensor, Tensor]


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite; negative rounding counts as 0."""
    if not x.requires_grad:
        return x.clamp(min=0).sqrt_()
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def angle(a: Tensor, b: Tensor, c: Tensor, root: Tensor) -> Tensor:
    """Angle between u and v in [0, pi]; a right angle where just one of them vanishes."""
    theta = torch.atan2(root, c)
    zero_a, zero_b = a == 0, b == 0
    if zero_a.any() or zero_b.any():
        theta = torch.where(zero_a ^ zero_b, pi / 2, theta)
        theta = torch.where(zero_a & zero_b, 0.0, theta)
    return theta


def abrelu_form(low: float, high: float) -> ClosedForm:
    """Slope `low` below zero and `high` above it (arc-cosine kernel of order 1)."""
    half, jump = (low * low + high * high) / 2, (high - low) ** 2 / (2 * pi)

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        root = safe_sqrt(gap)
        slope = half - jump * angle(a, b, c, root)
        return torch.addcmul(jump * root, slope, c), slope

    def means(a: Tensor) -> Pair:
        return (high - low) / sqrt(2 * pi) * safe_sqrt(a), torch.full_like(a, (low + high) / 2)

    return ClosedForm(pair, lambda a: (half * a, torch.full_like(a, half)), means)


def step_form(low: float, high: float) -> ClosedForm:
    """The value `low` below zero and `high` above it (arc-cosine kernel of order 0). The derivative is 0."""
    half, jump = (low * low + high * high) / 2, (high - low) ** 2 / (2 * pi)

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        value = half - jump * angle(a, b, c, safe_sqrt(gap))
        return value, torch.zeros_like(value)

    def constant(value: float, a: Tensor) -> Pair:
        return torch.full_like(a, value), torch.zeros_like(a)

    return ClosedForm(pair, lambda a: constant(half, a), lambda a: constant((low + high) / 2, a))


def rectified_monomial_form(order: int) -> ClosedForm:
    """max(0, x)^order for order 1, 2, 3 (Cho & Saul 2009, equation 4 in a, b, c)."""

    def moment(k: int, a: Tensor, b: Tensor, c: Tensor, root: Tensor, rest: Tensor) -> Tensor:
        if k == 0:
            return rest / (2 * pi)
        if k == 1:
            return (root + rest * c) / (2 * pi)
        if k == 2:
            return (3 * root * c + rest * (a * b + 2 * c * c)) / (2 * pi)
        return (root * (4 * a * b + 11 * c * c) + rest * c * (9 * a * b + 6 * c * c)) / (2 * pi)

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        root = safe_sqrt(gap)
        rest = pi - angle(a, b, c, root)
        return moment(order, a, b, c, root, rest), order**2 * moment(order - 1, a, b, c, root, rest)

    odd = [1, 1, 3, 15]  # E x^(2k) / 2 = (2k - 1)!! / 2
    return ClosedForm(pair, lambda a: (odd[order] / 2 * a**order, order**2 * odd[order - 1] / 2 * a ** (order - 1)))


def erf_form() -> ClosedForm:
    """erf(x): V = (2/pi) atan2(2c, s), s^2 = (1 + 2a)(1 + 2b) - 4c^2 (Williams 1997)."""

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        root = (1 + 2 * (a + b) + 4 * gap).sqrt()
        return (2 / pi) * torch.atan2(2 * c, root), (4 / pi) / root

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), lambda a: _odd(a, 2 / sqrt(pi), 2.0))


def _odd(a: Tensor, slope: float, rate: float) -> Pair:
    """Means of an odd function whose derivative is ``slope * exp(-rate x^2 / 2)``."""
    return torch.zeros_like(a), slope / (1 + rate * a).sqrt()


def sigmoid_like_form(width: float) -> ClosedForm:
    """0.5 erf(x / width) + 0.5."""
    erf, rate = erf_form(), 1 / width**2

    def shifted(value: Tensor, slope: Tensor) -> Pair:
        return 0.25 * value + 0.25, 0.25 * rate * slope

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        return shifted(*erf.pair(rate * a, rate * b, rate * c, rate * rate * gap))

    def means(a: Tensor) -> Pair:
        return torch.full_like(a, 0.5), 1 / (width * sqrt(pi)) / (1 + 2 * rate * a).sqrt()

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def gelu_form() -> ClosedForm:
    """x Phi(x), exact (Tsuchida et al. 2021, equation for the GELU kernel)."""

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        outer = 1 + a + b + a * b
        square = 1 + a + b + gap
        root = square.sqrt()
        phase = torch.atan2(c, root)
        value = ((c * c + a * b * square) / (outer * root) + c * phase) / (2 * pi) + c / 4
        slope = (1 / square + (1 - a * b) / outer + 1) * c / (2 * pi * root) + 0.25 + phase / (2 * pi)
        return value, slope

    def means(a: Tensor) -> Pair:
        return a / (2 * pi * (1 + a)).sqrt(), torch.full_like(a, 0.5)

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def sin_form(rate: float, phase: float) -> ClosedForm:
    """sin(rate x + phase)."""
    square, swing = rate * rate, float(torch.cos(torch.tensor(2 * phase, dtype=torch.float64)))
    sine, cosine = (float(f(torch.tensor(phase, dtype=torch.float64))) for f in (torch.sin, torch.cos))

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        half = (a + b) / 2
        near, far = torch.exp(square * (c - half)), swing * torch.exp(-square * (c + half))
        return (near - far) / 2, square * (near + far) / 2

    def means(a: Tensor) -> Pair:
        damp = torch.exp(-square * a / 2)
        return sine * damp, rate * cosine * damp

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def rbf_form(gamma: float) -> ClosedForm:
    """sqrt(2) sin(sqrt(2 gamma) x + pi/4), whose V is the Gaussian kernel exp(-gamma (a + b - 2c))."""

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        value = torch.exp(-gamma * (a + b - 2 * c))
        return value, 2 * gamma * value

    def means(a: Tensor) -> Pair:
        damp = torch.exp(-gamma * a)
        return damp, sqrt(2 * gamma) * damp

    return ClosedForm(pair, lambda a: (torch.ones_like(a), torch.full_like(a, 2 * gamma)), means)


def exp_form(rate: float) -> ClosedForm:
    """exp(rate x)."""
    square = rate * rate

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        value = torch.exp(square * ((a + b) / 2 + c))
        return value, square * value

    def means(a: Tensor) -> Pair:
        value = torch.exp(square * a / 2)
        return value, rate * value

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def gaussian_form() -> ClosedForm:
    """exp(-x^2): V = 1/sqrt((1 + 2a)(1 + 2b) - 4c^2)."""

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        value = (1 + 2 * (a + b) + 4 * gap).rsqrt()
        return value, 4 * c * value**3

    def means(a: Tensor) -> Pair:
        return (1 + 2 * a).rsqrt(), torch.zeros_like(a)

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def monomial_form(order: int) -> ClosedForm:
    """x^order (Isserlis): sum over j of j! (C(k, j) (k-j-1)!!)^2 c^j (ab)^((k-j)/2)."""

    def moment(k: int, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        total = torch.zeros_like(a * b * c)
        for j in range(k % 2, k + 1, 2):
            total = total + factorial(j) * (comb(k, j) * _odd_factorial(k - j)) ** 2 * c**j * (a * b) ** ((k - j) // 2)
        return total

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        return moment(order, a, b, c), order**2 * moment(order - 1, a, b, c)

    def means(a: Tensor) -> Pair:
        if order % 2:
            return torch.zeros_like(a), order * _odd_factorial(order - 1) * a ** ((order - 1) // 2)
        return _odd_factorial(order) * a ** (order // 2), torch.zeros_like(a)

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)), means)


def _odd_factorial(even: int) -> int:
    """(even - 1)!!, the moment of that order of a standard Gaussian."""
    return factorial(even) // (2 ** (even // 2) * factorial(even // 2))


def hermite_form(order: int) -> ClosedForm:
    """He_k(x)/sqrt(k!): at unit variance V = c^k.

    From He_k(s x) = sum_j k!/(2^j j! (k-2j)!) (s^2-1)^j s^(k-2j) He_(k-2j)(x).
    """

    def moment(k: int, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        total = torch.zeros_like(a * b * c)
        for j in range(k // 2 + 1):
            weight = factorial(k) / ((2**j * factorial(j)) ** 2 * factorial(k - 2 * j))
            total = total + weight * ((a - 1) * (b - 1)) ** j * c ** (k - 2 * j)
        return total

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        slope = order * moment(order - 1, a, b, c) if order else torch.zeros_like(a * b * c)
        return moment(order, a, b, c), slope

    return ClosedForm(pair, lambda a: pair(a, a, a, torch.zeros_like(a)))


def identity_form() -> ClosedForm:
    """x: V = c, Vdot = 1."""

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> Pair:
        value = c.expand(torch.broadcast_shapes(a.shape, b.shape, c.shape)).clone()
        return value, torch.ones_like(value)

    return ClosedForm(
        pair, lambda a: (a.clone(), torch.ones_like(a)), lambda a: (torch.zeros_like(a), torch.ones_like(a))
    )
