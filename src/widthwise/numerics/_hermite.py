"""Mehler's expansion E f(u) g(v) = sum_k h_k(f, a) h_k(g, b) rho^k, with Parseval's remainder as its error.

Source: Daniely, Frostig & Singer 2016 (arXiv 1602.05207), section 4, at any variances.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation
from widthwise.numerics._quadrature import COARSE_NODES, PANEL_NODES, line_rule

TERMS = 128
LEVELS = 5
ROW_BUDGET = 1 << 21
GOAL = 1e-14


@dataclass(frozen=True)
class Line:
    """One-dimensional expectations of an activation at n variances.

    Attributes:
        mean: [n, 2] of f and f'.
        square: [n, 2] of f^2 and f'^2.
        series: [2, terms, n] normalised Hermite coefficients of f and f'.
        error: relative quadrature error of the squares.
    """

    mean: Tensor
    square: Tensor
    series: Tensor
    error: float

    def remainder(self) -> Tensor:
        """[2, terms + 1]: largest share of E f^2 and E f'^2 that the first k terms leave out."""
        total = self.square.detach().T[:, None].clamp(min=1e-300)
        kept = torch.cumsum(self.series.detach() ** 2, dim=1) / total
        left = (1 - kept).clamp(min=1e-16).amax(dim=-1)
        return torch.cat([torch.ones_like(left[:, :1]), left], dim=1)


def line(f: Activation, sigma: Tensor, terms: int = 0) -> Line:
    """Expectations at standard deviations `sigma` [n], float64, refined until they no longer change."""
    level, error = _level(f, sigma.detach())
    shared = all(kink == 0 for kink in f.kinks)
    parts = [_line(f, chunk, terms, level, shared) for chunk in _chunks(sigma, f, level)]
    mean, square, series = zip(*parts, strict=True)
    return Line(torch.cat(mean), torch.cat(square), torch.cat(series, dim=-1), error)


def _chunks(sigma: Tensor, f: Activation, level: int) -> Iterator[Tensor]:
    size = line_rule(sigma.detach().amax()[None], f.kinks, f.scale, level)[0].shape[1]
    yield from sigma.split(max(1, ROW_BUDGET // size))


def _level(f: Activation, sigma: Tensor) -> tuple[int, float]:
    """The refinement at which two rules agree, tried at up to 64 of the variances."""
    ordered = sigma.sort().values
    picked = ordered[torch.linspace(0, len(ordered) - 1, min(64, len(ordered))).round().long().to(sigma.device)]
    best = (0, float("inf"))
    for level in range(LEVELS):
        fine, coarse = (_probe(f, picked, level, nodes) for nodes in (PANEL_NODES, COARSE_NODES))
        size = fine[:2].abs().sqrt().clamp(min=1e-150)
        error = float(((fine - coarse).abs() / torch.cat([size**2, size])).max())
        if error < best[1]:
            best = (level, error)
        if error < GOAL * 10:
            break
    # Where both rules converge, 16 nodes err by about the difference to 10 nodes to the power 16/10.
    return best[0], max(best[1] ** 1.5 if best[1] < 1e-8 else best[1], GOAL)


def _probe(f: Activation, sigma: Tensor, level: int, nodes: int) -> Tensor:
    """[4, n] E f^2, E f'^2, E f, E f': among them a kink that nobody mentioned shows."""
    x, w = line_rule(sigma, f.kinks, f.scale, level, nodes)
    value, slope = (function(sigma[:, None] * x) for function in (f.function, f.derivative))
    return torch.stack([(w * t).sum(1) for t in (value**2, slope**2, value, slope)])


def _line(f: Activation, sigma: Tensor, terms: int, level: int, shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    x, w = line_rule(sigma.max()[None] if shared else sigma, f.kinks, f.scale, level)
    u = sigma[:, None] * x
    values = torch.stack([f.function(u), f.derivative(u)], dim=1)  # [n, 2, nodes]
    weighted = values * w[:, None]
    mean, square = weighted.sum(-1), (weighted * values).sum(-1)
    if not terms:
        return mean, square, mean.T[:, None]
    rows, before, now = [mean.T], torch.zeros_like(x), torch.ones_like(x)
    basis = [now]
    for k in range(1, terms):
        before, now = now, (x * now - sqrt(k - 1) * before) / sqrt(k)
        if shared:
            basis.append(now)
        else:
            rows.append((weighted * now[:, None]).sum(-1).T)
    series = (weighted @ torch.cat(basis).T).permute(1, 2, 0) if shared else torch.stack(rows, dim=1)
    return mean, square, series


def mehler(left: Tensor, right: Tensor, rho: Tensor) -> Tensor:
    """sum_k left_k right_k rho^k by Horner's rule.

    Args:
        left, right: [terms, ...], whose trailing axes broadcast against those of rho.
        rho: correlations.
    """
    if left[0].numel() == 1 and right[0].numel() == 1 and not (left.requires_grad or right.requires_grad):
        total = torch.zeros_like(rho)
        for product in reversed((left * right).flatten().tolist()):
            total = total * rho + product
        return total
    total = (left[-1] * right[-1]).expand(rho.shape)
    for one, two in zip(reversed(left[:-1].unbind()), reversed(right[:-1].unbind()), strict=True):
        total = torch.addcmul(one * two, total, rho)
    return total
