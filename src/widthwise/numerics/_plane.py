"""Two-dimensional quadrature of E f(u) g(v), element by element: slow, exact, for correlations near +-1."""

from collections.abc import Callable

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation
from widthwise.numerics._quadrature import dyadic, gaussian_panels, line_rule

REACH = 9.5
INNER_PANELS = OUTER_PANELS = 12
NODES = 12
EVALUATIONS = 1 << 19  # a chunk that stays in the cache
TRANSITION = (0.0, 1.5, 3.0, 4.5, 6.5, 9.0)  # panel edges, in widths, that resolve a Gaussian-smoothed kink


def on_the_line(f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """E f(u) g(v) and E f'(u) g'(v) where v/beta = +-u/alpha; all [m], float64."""
    side = torch.sign(rho)

    def chunk(alpha: Tensor, beta: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        ratio = (side * beta)[:, None]
        x, w = line_rule(alpha, f.kinks, f.scale / 2, 0)
        if f is not g or bool((beta != alpha).any()):
            marks = torch.tensor([*g.kinks, *dyadic(g.scale / 2, REACH * float(beta.max()))]).to(alpha)
            first = torch.tensor([*f.kinks, *dyadic(f.scale / 2, REACH * float(alpha.max()))]).to(alpha)
            edges = [torch.linspace(-12, 12, 25).to(alpha).expand(len(alpha), -1)]
            edges += [(first / alpha.clamp(min=1e-300)[:, None]), marks / _away(ratio)]
            x, w = gaussian_panels(torch.cat([e.clamp(-12, 12) for e in edges], dim=1), 16)
        u, v = alpha[:, None] * x, ratio * x
        return (w * f.function(u) * g.function(v)).sum(1), (w * f.derivative(u) * g.derivative(v)).sum(1)

    return _chunked(chunk, (alpha, beta, side), 2000)


def in_the_plane(f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """E f(u) g(v) and E f'(u) g'(v) for |rho| < 1; alpha, beta, rho: [m], float64."""

    def chunk(alpha: Tensor, beta: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        root = ((1 - rho) * (1 + rho)).sqrt()
        x, w = _outer(f, g, alpha, beta, rho, root)  # [m, N]
        middle = rho[:, None] * x
        z, v = _inner(g, beta, middle, root)  # [m, N, n]
        shifted = beta[:, None, None] * (middle[..., None] + root[:, None, None] * z)
        u = alpha[:, None] * x
        value = (v * g.function(shifted)).sum(-1)
        slope = (v * g.derivative(shifted)).sum(-1)
        return (w * f.function(u) * value).sum(-1), (w * f.derivative(u) * slope).sum(-1)

    return _chunked(chunk, (alpha, beta, rho), 80_000)


def _outer(
    f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor, root: Tensor
) -> tuple[Tensor, Tensor]:
    """Panels for x = u/alpha: split at the kinks of f, graded around the smoothed kinks of E[g | x]."""
    rho = _away(rho)
    parts = [torch.linspace(-REACH, REACH, OUTER_PANELS + 1).to(alpha).expand(len(alpha), -1)]
    marks = torch.tensor([*f.kinks, *dyadic(f.scale, REACH * float(alpha.max()))]).to(alpha)
    parts.append(marks / alpha.clamp(min=1e-300)[:, None])
    width = (root / rho.abs())[:, None]
    spread = torch.tensor([*TRANSITION, *(-t for t in TRANSITION[1:])]).to(alpha)
    for kink in g.kinks:
        parts.append((kink / (beta.clamp(min=1e-300) * rho))[:, None] + width * spread)
    bends = torch.tensor(dyadic(g.scale, REACH * float(beta.max()))).to(alpha)
    parts.append(bends / (beta.clamp(min=1e-300) * rho)[:, None])
    return gaussian_panels(torch.cat([part.clamp(-REACH, REACH) for part in parts], dim=1), NODES)


def _inner(g: Activation, beta: Tensor, middle: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Panels for z, where v = beta (rho x + root z)."""
    uniform = torch.linspace(-REACH, REACH, INNER_PANELS + 1).to(beta).expand(*middle.shape, -1)
    marks = torch.tensor([*g.kinks, *dyadic(g.scale, REACH * float((beta * root).max()))]).to(beta)
    moved = (marks / beta.clamp(min=1e-300)[:, None])[:, None] - middle[..., None]
    moved = moved / root.clamp(min=1e-300)[:, None, None]
    return gaussian_panels(torch.cat([uniform, moved.clamp(-REACH, REACH)], dim=-1), NODES)


def _away(x: Tensor) -> Tensor:
    """x, moved away from 0 where it would divide."""
    return torch.where(x.abs() < 1e-12, 1e-12, x)


def _chunked(
    rule: Callable[..., tuple[Tensor, Tensor]], inputs: tuple[Tensor, ...], cost: int
) -> tuple[Tensor, Tensor]:
    size = max(1, EVALUATIONS // cost)
    parts = [rule(*chunk) for chunk in zip(*(t.split(size) for t in inputs), strict=True)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
