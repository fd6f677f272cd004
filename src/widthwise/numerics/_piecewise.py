"""Exact V-transforms of piecewise polynomials through truncated moments of a pair of Gaussians.

With F = (x-h)_+^p (y-k)_+^q and J_pq = E F, Stein's identity E xF = E dF/dx + rho E dF/dy gives

    J_(p+1)q = p J_(p-1)q + rho q J_p(q-1) - h J_pq,

where a factor of order 0 contributes its boundary, phi(h) E[(y-k)_+^q | x=h], instead. J_00 is the bivariate Gaussian
tail, from Owen's T function (Owen 1956). Works at any variances and correlations, +-1 included.
"""

from collections.abc import Sequence
from math import comb, pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from widthwise.numerics._activation import ClosedForm
from widthwise.numerics._quadrature import legendre

OWEN_NODES = 20


class _Factor(NamedTuple):
    """sum_p coefficients[p] (side * x - start)_+^p, or that polynomial of x itself when `start` is None."""

    side: float
    start: float | None
    coefficients: tuple[float, ...]

    @property
    def slopes(self) -> list[float]:
        """Coefficients of the derivative; jumps at the start are left out."""
        return [self.side * p * c for p, c in enumerate(self.coefficients)][1:] or [0.0]


def piecewise_form(kinks: Sequence[float], pieces: Sequence[Sequence[float]]) -> ClosedForm:
    """Closed form of a piecewise polynomial.

    Args:
        kinks: where the pieces meet, ascending.
        pieces: coefficients (constant first) of each piece, one more than there are kinks.
    """
    factors = _factors(kinks, pieces)
    tilted = _factors(kinks, [[p * w for p, w in enumerate(piece)] for piece in pieces])  # u f'(u)

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            grid = _Grid.of(*(t.detach().double() for t in (a, b, c, gap)))
            value, slope = _expectations(factors, factors, grid)
        value, slope = value.to(c.dtype), slope.to(c.dtype)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (a, b, c)):
            # 2a dV/da = E u f'(u) f(v) - c E f'(u) f'(v), and dV/dc = E f'(u) f'(v)
            by_a = _half_ratio(_expectations(tilted, factors, grid)[0] - c.detach() * slope, a.detach())
            by_b = _half_ratio(_expectations(factors, tilted, grid)[0] - c.detach() * slope, b.detach())
            value = value + by_a * (a - a.detach()) + by_b * (b - b.detach()) + slope * (c - c.detach())
        return value, slope

    return ClosedForm(pair)


def _half_ratio(top: Tensor, variance: Tensor) -> Tensor:
    positive = variance > 0
    return torch.where(positive, top / torch.where(positive, 2 * variance, 1.0), 0.0).to(variance.dtype)


class _Grid(NamedTuple):
    """Standard deviations, correlation and sqrt(1 - rho^2), consistent with each other up to rho = +-1."""

    alpha: Tensor
    beta: Tensor
    rho: Tensor
    root: Tensor

    @staticmethod
    def of(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> "_Grid":
        product = a * b
        positive = product > 0
        product = torch.where(positive, product, 1.0)
        share = torch.where(positive, gap.clamp(min=0) / product, 1.0).clamp(max=1.0)
        rho = torch.where(share < 0.5, torch.sign(c) * (1 - share).sqrt(), (c / product.sqrt()).clamp(-1, 1))
        return _Grid(a.sqrt(), b.sqrt(), torch.where(positive, rho, 0.0), share.sqrt())


def _expectations(lefts: Sequence["_Factor"], rights: Sequence["_Factor"], grid: _Grid) -> tuple[Tensor, Tensor]:
    alpha, beta, rho, root = grid
    value, slope = torch.zeros_like(rho), torch.zeros_like(rho)
    for left in lefts:
        for right in rights:
            table = _truncated_moments(left, right, alpha, beta, rho, root)
            value = value + _contract(table, left.coefficients, right.coefficients, alpha, beta)
            slope = slope + _contract(table, left.slopes, right.slopes, alpha, beta)
    return value, slope


def _factors(kinks: Sequence[float], pieces: Sequence[Sequence[float]]) -> list[_Factor]:
    """The piece around 0, and what every kink away from it adds: no cancellation at small variances."""
    home = sum(kink <= 0 for kink in kinks)
    factors = [_Factor(1.0, None, tuple(pieces[home]))]
    for j, kink in enumerate(kinks):
        inner, outer, side = (pieces[j], pieces[j + 1], 1.0) if j >= home else (pieces[j + 1], pieces[j], -1.0)
        size = max(len(inner), len(outer))
        change = [_at(outer, p) - _at(inner, p) for p in range(size)]
        around = [sum(comb(m, p) * change[m] * kink ** (m - p) for m in range(p, size)) for p in range(size)]
        factors.append(_Factor(side, side * kink, tuple(side**p * w for p, w in enumerate(around))))
    return factors


def _at(coefficients: Sequence[float], p: int) -> float:
    return coefficients[p] if p < len(coefficients) else 0.0


def _contract(
    table: list[list[Tensor]], left: Sequence[float], right: Sequence[float], alpha: Tensor, beta: Tensor
) -> Tensor:
    total = torch.zeros_like(table[0][0])
    for p, u in enumerate(left):
        for q, v in enumerate(right):
            if u * v:
                total = total + u * v * alpha**p * beta**q * table[p][q]
    return total


def _truncated_moments(
    left: _Factor, right: _Factor, alpha: Tensor, beta: Tensor, rho: Tensor, root: Tensor
) -> list[list[Tensor]]:
    """J_pq for all orders of the two factors, in units of the standard deviations."""
    rho = rho * left.side * right.side
    h, k = _start(left, alpha), _start(right, beta)
    orders, zero = (len(left.coefficients), len(right.coefficients)), torch.zeros_like(rho + h + k)
    h_edge = zero if left.start is None else _density(h)
    k_edge = zero if right.start is None else _density(k)
    given_h = _conditional(k - rho * h, root, orders[1], right.start is not None)
    given_k = _conditional(h - rho * k, root, orders[0], left.start is not None)
    table: list[list[Tensor]] = [[zero] * orders[1] for _ in range(orders[0])]
    table[0][0] = _tail(left, right, h, k, rho, root) + zero
    for q in range(orders[1]):
        if q:
            by_y = (q - 1) * table[0][q - 2] if q > 1 else k_edge * given_k[0]
            table[0][q] = by_y + rho * h_edge * given_h[q - 1] - k * table[0][q - 1]
        for p in range(orders[0] - 1):
            by_x = p * table[p - 1][q] if p else h_edge * given_h[q]
            by_y = q * table[p][q - 1] if q else k_edge * given_k[p]
            table[p + 1][q] = by_x + rho * by_y - h * table[p][q]
    return table


def _start(factor: _Factor, sigma: Tensor) -> Tensor:
    """Start in standard deviations; beyond 40 of them double precision cannot tell the tail from 0."""
    if not factor.start:
        return torch.zeros_like(sigma)
    return factor.start / sigma.clamp(min=factor.start / 40)


def _conditional(shift: Tensor, root: Tensor, orders: int, truncated: bool) -> list[Tensor]:
    """E (root z - shift)_+^q for q < orders, or without the truncation."""
    z = shift / root.clamp(min=1e-150)
    moments = [_upper(z) if truncated else torch.ones_like(z)]
    for q in range(orders - 1):
        spread = q * root * root * moments[q - 1] if q else (root * _density(z) if truncated else 0.0)
        moments.append(spread - shift * moments[q])
    return moments


def _tail(left: _Factor, right: _Factor, h: Tensor, k: Tensor, rho: Tensor, root: Tensor) -> Tensor:
    """P(x > h, y > k), where a factor without a start does not restrict. Starts are never negative."""
    if left.start is None or right.start is None:
        one = torch.ones_like(rho)
        return one * (1.0 if left.start is None else _upper(h)) * (1.0 if right.start is None else _upper(k))
    both = (h == 0) & (k == 0)
    toward_k = torch.where(both, 1 - rho, k - rho * h)
    toward_h = torch.where(both, 1 - rho, h - rho * k)
    owen = _owen(h, toward_k, root, both) + _owen(k, toward_h, root, both)
    return ((_upper(h) + _upper(k)) / 2 - owen).clamp(min=0)


def _owen(h: Tensor, shift: Tensor, root: Tensor, unit: Tensor) -> Tensor:
    """Owen's T(h, shift/(h root)) for h >= 0; where `unit`, h is 0 and the ratio is shift/root."""
    base = h * root
    base = torch.where(unit, root, base).clamp(min=1e-300)
    size = shift.abs()
    steep = size > base
    ratio = torch.where(steep, base / torch.where(steep, size, 1.0), size / torch.where(steep, 1.0, base))
    far = torch.where(unit, 0.0, size / root.clamp(min=1e-150))
    start = torch.where(steep, far, h)
    unit_nodes, weights = legendre(OWEN_NODES)
    half, total = -start * start / 2, torch.zeros_like(ratio)
    for node, weight in zip(unit_nodes.tolist(), weights.tolist(), strict=True):
        square = 1 + (node * ratio) ** 2
        total = total + weight * torch.exp(half * square) / square
    direct = ratio * total / (2 * pi)
    tail_h, tail_far = _upper(h), _upper(far)
    mirrored = (tail_h + tail_far) / 2 - tail_h * tail_far - direct
    return torch.sign(shift) * torch.where(steep, mirrored, direct)


def _density(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / sqrt(2 * pi)


def _upper(x: Tensor) -> Tensor:
    return torch.special.erfc(x / sqrt(2)) / 2
