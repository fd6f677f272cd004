"""Many plane integrals at once: Chebyshev interpolation in the angle and, if they differ, the log variances."""

from collections.abc import Callable
from math import acos

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation
from widthwise.numerics._plane import in_the_plane, on_the_line

DIRECT_ELEMENTS = 1500
ANGLE_NODES = 28
VARIANCE_NODES = (5, 9, 14)
CHECKS = 32
ELEMENTS = 1 << 14


def near_line(
    f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    """E f(u) g(v), E f'(u) g'(v) and the relative error for a list of strongly correlated pairs.

    Args:
        alpha, beta, rho: [m] standard deviations and correlations, float64.
        tolerance: at which to stop refining; the error returned is the one reached.
    """
    value, slope, error = torch.zeros_like(rho), torch.zeros_like(rho), 0.0
    exact = rho.abs() >= 1 - 4e-16
    for chosen, sign in ((exact, 0), (~exact & (rho > 0), 1), (~exact & (rho < 0), -1)):
        if not chosen.any():
            continue
        part = (alpha[chosen], beta[chosen], rho[chosen])
        if sign == 0:
            found = (*_distinct(on_the_line, f, g, *part), 1e-13)
        elif len(part[0]) <= DIRECT_ELEMENTS:
            found = (*in_the_plane(f, g, *part), 1e-12)
        else:
            found = _interpolated(f, g, *part, tolerance)
        value[chosen], slope[chosen], error = found[0], found[1], max(error, found[2])
    return value, slope, error


def _distinct(
    rule: Callable[..., tuple[Tensor, Tensor]], f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor
) -> tuple[Tensor, Tensor]:
    triples, place = torch.unique(torch.stack([alpha, beta, rho.sign()], dim=1), dim=0, return_inverse=True)
    value, slope = rule(f, g, *triples.unbind(1))
    return value[place], slope[place]


def _interpolated(
    f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    checks = torch.linspace(0, len(rho) - 1, CHECKS).long().to(rho.device)
    order = rho.abs().argsort()[checks]  # from the least to the most correlated
    truth = torch.stack(in_the_plane(f, g, alpha[order], beta[order], rho[order]))
    size = truth.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    best: tuple[Tensor, Tensor, float] | None = None
    for nodes in VARIANCE_NODES:
        found = torch.stack(_chebyshev(f, g, alpha, beta, rho, nodes))
        error = 4 * float(((found[:, order] - truth).abs() / size).max()) + 1e-12
        if best is None or error < best[2]:
            best = (found[0], found[1], error)
        if error < tolerance or (_flat(alpha) and _flat(beta)):
            break
    assert best is not None
    return best


def _flat(x: Tensor) -> bool:
    return float(x.max() - x.min()) <= 1e-14 * float(x.max())


def _grid(low: float, high: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Chebyshev points of the interval and the matrix from values there to Chebyshev coefficients."""
    k = torch.arange(nodes, dtype=torch.float64)
    turn = torch.pi * (k + 0.5) / nodes
    to_coefficients = torch.cos(k[:, None] * turn) * 2 / nodes
    to_coefficients[0] /= 2
    return (low + high) / 2 + (high - low) / 2 * torch.cos(turn), to_coefficients


def _basis(x: Tensor, low: float, high: float, nodes: int) -> Tensor:
    """[m, nodes] Chebyshev polynomials."""
    unit = torch.zeros_like(x) if high <= low else ((2 * x - low - high) / (high - low)).clamp(-1, 1)
    return torch.cos(torch.arange(nodes).to(x) * torch.arccos(unit)[:, None])


def _chebyshev(
    f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor, nodes: int
) -> tuple[Tensor, Tensor]:
    side = float(rho[0].sign())
    theta = torch.arccos(rho.abs())
    axes = []
    for x, flat, count in ((alpha.log(), _flat(alpha), nodes), (beta.log(), _flat(beta), nodes), (theta, False, 0)):
        low, high = (float(x.min()), float(x.max())) if count else (0.0, acos(float(rho.abs().min())))
        axes.append((x, low, high, (1 if flat else count) or ANGLE_NODES))
    points, matrices = zip(*(_grid(*axis[1:]) for axis in axes), strict=True)
    mesh = torch.meshgrid(*points, indexing="ij")
    s, t, angle = (m.reshape(-1).to(rho) for m in mesh)
    tables = in_the_plane(f, g, s.exp(), t.exp(), side * torch.cos(angle))
    results = []
    for table in tables:
        cube = torch.einsum("ijk,ai,bj,ck->abc", table.reshape(mesh[0].shape).cpu(), *matrices).to(rho)
        results.append(torch.cat([_evaluate(cube, axes, start) for start in range(0, len(rho), ELEMENTS)]))
    return results[0], results[1]


def _evaluate(cube: Tensor, axes: list, start: int) -> Tensor:
    first, second, third = (_basis(x[start : start + ELEMENTS], *rest) for x, *rest in axes)
    partial = (third @ cube.flatten(0, 1).T).reshape(-1, *cube.shape[:2])
    return torch.einsum("mab,ma,mb->m", partial, first, second)
