"""Gauss-Legendre panels for Gaussian integrals, split at kinks and graded where the integrand is steep."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2, pi, sqrt

import numpy as np
import torch
from torch import Tensor

REACH = 12.0  # standard deviations: exp(-72) times a polynomial is nothing
PANEL_NODES, COARSE_NODES = 16, 10


@lru_cache(maxsize=8)
def legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1) and weights that add up to 1."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return (x + 1) / 2, w / 2


def gaussian_panels(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for E g(x), x ~ N(0, 1), between the given edges.

    Args:
        edges: [..., panels + 1], in any order; panels of width 0 do no harm.
        nodes: per panel.

    Returns:
        Nodes and weights, both [..., panels * nodes].
    """
    edges = edges.sort(dim=-1).values
    unit, weight = (torch.as_tensor(array).to(edges) for array in legendre(nodes))
    width = edges[..., 1:] - edges[..., :-1]
    x = edges[..., :-1, None] + width[..., None] * unit
    w = width[..., None] * weight * torch.exp(-x * x / 2) / sqrt(2 * pi)
    return x.flatten(-2), w.flatten(-2)


def dyadic(scale: float, furthest: float) -> list[float]:
    """+-scale, +-2 scale, +-4 scale ... up to `furthest`: panels that follow a function with one length scale."""
    count = max(0, ceil(log2(max(furthest, 1e-300) / scale)))
    return [side * scale * 2.0**j for j in range(min(count, 60)) for side in (-1.0, 1.0)]


def line_rule(
    sigma: Tensor, kinks: Sequence[float], scale: float, level: int = 0, nodes: int = PANEL_NODES
) -> tuple[Tensor, Tensor]:
    """Rule for E g(sigma x), x ~ N(0, 1), where g has these kinks and bends over `scale`.

    Args:
        sigma: [n] standard deviations, float64.
        level: each level halves the panels and grades four times closer to 0.

    Returns:
        Nodes x and weights, both [n, nodes].
    """
    sigma = sigma.detach()
    uniform = torch.linspace(-REACH, REACH, int(2 * REACH) * 2**level + 1).to(sigma)
    marks = torch.tensor([*kinks, *dyadic(scale / 4**level, REACH * float(sigma.max()))]).to(sigma)
    moved = (marks / sigma.clamp(min=1e-300)[:, None]).clamp(-REACH, REACH)
    return gaussian_panels(torch.cat([uniform.expand(len(sigma), -1), moved], dim=1), nodes)
