"""Strongly correlated pairs: plane integrals one by one, or a Chebyshev surface where there are many of them."""

from dataclasses import dataclass
from math import acos, log

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation
from widthwise.numerics._plane import in_the_plane, on_the_line

DIRECT_ELEMENTS = 1500
ANGLE_NODES = 28
VARIANCE_NODES = (9, 13)
ELEMENTS = 1 << 14
EXACT = 1 - 4e-16
DIRECT_ERROR = 1e-12
Ranges = tuple[tuple[float, float], ...]


def near_line(f: Activation, g: Activation, alpha: Tensor, beta: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """E f(u) g(v) and E f'(u) g'(v) by quadrature; [m] standard deviations and correlations, float64."""
    value, slope = torch.zeros_like(rho), torch.zeros_like(rho)
    exact = rho.abs() >= EXACT
    if exact.any():
        triples = torch.stack([alpha[exact], beta[exact], rho[exact].sign()], dim=1)
        distinct, place = torch.unique(triples, dim=0, return_inverse=True)
        value[exact], slope[exact] = (t[place] for t in on_the_line(f, g, *distinct.unbind(1)))
    if not exact.all():
        value[~exact], slope[~exact] = in_the_plane(f, g, alpha[~exact], beta[~exact], rho[~exact])
    return value, slope


@dataclass(frozen=True)
class Surface:
    """E f(u) g(v) and E f'(u) g'(v) for correlations of one sign, as a polynomial in log alpha, log beta and the angle.

    Attributes:
        ranges: the interval of each of the three.
        cubes: Chebyshev coefficients, [nodes, nodes, nodes] for the value and for the derivative.
        error: four times the largest relative difference from plane integrals at the sample it was fitted with.
    """

    ranges: Ranges
    cubes: tuple[Tensor, Tensor]
    error: float

    @staticmethod
    def fit(
        f: Activation, g: Activation, sample: Tensor, ranges: tuple[tuple[float, float], ...], goal: float
    ) -> "Surface":
        """Refine until the error is below the goal or the nodes are used up.

        Args:
            sample: [3, k] alpha, beta and rho of one sign, against which to measure the error.
            ranges: of alpha, beta and |rho|.
        """
        truth = torch.stack(near_line(f, g, *sample))
        squares = [torch.stack(near_line(h, h, s, s, torch.ones_like(s))) for h, s in ((f, sample[0]), (g, sample[1]))]
        size = (squares[0] * squares[1]).sqrt().clamp(min=1e-300)
        box = (*((log(low), log(high)) for low, high in ranges[:2]), (0.0, acos(ranges[2][0])))
        flat = [high - low < 1e-14 for low, high in box[:2]]
        best: Surface | None = None
        for nodes in VARIANCE_NODES:
            counts = [1 if is_flat else nodes for is_flat in flat] + [ANGLE_NODES]
            cubes = _cubes(f, g, box, counts, float(sample[2, 0].sign()))
            now = Surface(box, cubes, 0.0)
            error = 4 * float(((torch.stack(now(*sample)) - truth).abs() / size).max()) + DIRECT_ERROR
            if best is None or error < best.error:
                best = Surface(box, cubes, error)
            if error < goal or all(flat):
                break
        assert best is not None
        return best

    def __call__(self, alpha: Tensor, beta: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative at [m] pairs inside the ranges."""
        where = (alpha.log(), beta.log(), torch.arccos(rho.abs()))
        value: list[Tensor] = []
        slope: list[Tensor] = []
        for start in range(0, len(rho), ELEMENTS):
            cut = slice(start, start + ELEMENTS)
            bases = [
                _basis(x[cut], *bounds, n) for x, bounds, n in zip(where, self.ranges, self.cubes[0].shape, strict=True)
            ]
            for cube, results in zip(self.cubes, (value, slope), strict=True):
                partial = (bases[2] @ cube.flatten(0, 1).T).reshape(-1, *cube.shape[:2])
                results.append(torch.einsum("mab,ma,mb->m", partial, bases[0], bases[1]))
        return torch.cat(value), torch.cat(slope)


def _cubes(
    f: Activation, g: Activation, box: tuple[tuple[float, float], ...], counts: list[int], side: float
) -> tuple[Tensor, Tensor]:
    points, matrices = zip(*(_grid(low, high, n) for (low, high), n in zip(box, counts, strict=True)), strict=True)
    mesh = torch.meshgrid(*points, indexing="ij")
    log_alpha, log_beta, angle = (m.reshape(-1) for m in mesh)
    tables = [torch.empty_like(angle) for _ in range(2)]
    mirror = f == g and box[0] == box[1] and counts[0] == counts[1]
    half = log_alpha <= log_beta if mirror else torch.ones_like(angle, dtype=torch.bool)
    found = in_the_plane(f, g, log_alpha[half].exp(), log_beta[half].exp(), side * torch.cos(angle[half]))
    for table, part in zip(tables, found, strict=True):
        table[half] = part
        if mirror:
            table[~half] = table.reshape(counts).transpose(0, 1).reshape(-1)[~half]
    cubes = [torch.einsum("ijk,ai,bj,ck->abc", table.reshape(counts), *matrices) for table in tables]
    return cubes[0], cubes[1]


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
    columns = [torch.ones_like(unit), unit]
    for _ in range(nodes - 2):
        columns.append(2 * unit * columns[-1] - columns[-2])
    return torch.stack(columns[:nodes], dim=1)
