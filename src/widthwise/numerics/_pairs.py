"""Pairs of Gaussians on a broadcast grid, block by block."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CPU_CHUNK, GPU_CHUNK = 1 << 15, 1 << 24
Piece = tuple[slice, ...]


def pieces(shape: torch.Size, device: torch.device) -> Iterator[Piece]:
    """Index tuples that cut an array of this shape into blocks that stay in the cache."""
    limit = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK
    axis, block = len(shape), 1
    while axis and block * shape[axis - 1] <= limit:
        axis -= 1
        block *= shape[axis]
    if not axis:
        yield ()
        return
    rows = max(1, limit // max(block, 1))
    cuts = [[slice(i, i + 1) for i in range(n)] for n in shape[: axis - 1]]
    cuts.append([slice(i, i + rows) for i in range(0, shape[axis - 1], rows)])
    yield from itertools.product(*cuts)


def take(x: Tensor, piece: Piece) -> Tensor:
    """The part of a broadcastable tensor, with as many axes as the array, that belongs to a piece from `pieces`."""
    return x[tuple(slice(None) if n == 1 else cut for n, cut in zip(x.shape, piece, strict=False))]


@dataclass(frozen=True)
class Pairs:
    """Standard deviations and covariances, all with as many axes as their broadcast `shape`."""

    alpha: Tensor
    beta: Tensor
    c: Tensor
    shape: torch.Size

    def blocks(self) -> Iterator[Piece]:
        """The pieces of the grid."""
        return pieces(self.shape, self.c.device)

    def correlation(self, piece: Piece) -> Tensor:
        """Correlations of a piece in [-1, 1]; 0 where a variance vanishes."""
        scale = take(self.alpha, piece) * take(self.beta, piece)
        positive = scale > 0
        rho = torch.where(positive, take(self.c, piece) / torch.where(positive, scale, 1.0), 0.0)
        return (rho + (rho.clamp(-1, 1) - rho).detach()).expand(self.size(piece))

    def size(self, piece: Piece) -> torch.Size:
        """Shape of a piece."""
        return torch.broadcast_shapes(*(take(t, piece).shape for t in (self.alpha, self.beta, self.c)))

    def furthest(self) -> float:
        """Largest absolute correlation."""
        return max(float(self.correlation(piece).detach().abs().max()) for piece in self.blocks())

    def beyond(self, piece: Piece, reach: float) -> tuple[Tensor, list[Tensor]]:
        """The mask of the correlations beyond `reach`, and alpha, beta and rho there."""
        rho = self.correlation(piece)
        mask = rho.detach().abs() > reach
        return mask, [t.expand(rho.shape)[mask] for t in (take(self.alpha, piece), take(self.beta, piece), rho)]
