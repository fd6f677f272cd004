"""Quasi-random draws of the attention scores of one head at pairs of inputs."""

from collections.abc import Callable, Iterator
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._attention_scores import attention_weights, phases, shift
from widthwise.kernels._fields_attention import Scores

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair

SCRAMBLINGS = 8
SOBOL_LIMIT = 21201
CHUNK_NUMBERS = 4_000_000

Products = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Rows of the pairing and weights of both sides, ``[e, m, P, S]`` and ``[e, m, R, T]``, to ``[e, m, P, R]``."""


class Draws:
    """Joint draws of two attention weights over the pairs of a pairing.

    Scores of both inputs are blocks of ``L_q Z L_k^T`` with L the symmetric roots of the joint covariances of the
    queries and of the keys, Z independent normals (one such term for each pair of phases). Z and -Z are both used.

    Args:
        symmetric: whether both sides are one field: then only half of the pairs of a square tile are computed.
    """

    def __init__(self, run: "Evaluator", first: Scores, second: Scores, pair: "Pair", symmetric: bool = False) -> None:
        self.run, self.first, self.second, self.pair = run, first, second, pair
        left, right = run.sides(pair)
        self.shifts = shift(run, first, left), shift(run, second, right)
        self.planes = phases(first, second, run)
        self.queries = _Joint(run, (first, "query"), (second, "query"), pair)
        self.keys = _Joint(run, (first, "key"), (second, "key"), pair)
        self.half = symmetric and pair == "12" and run.same
        self.points = max(4, run.samples // (8 * SCRAMBLINGS))

    def mean(self, products: Products) -> tuple[Tensor, float]:
        """Mean over draws and heads of what `products` gives, ``[N, P, R]``, and its relative standard error."""
        count = self.run.pairs(self.pair)
        rows = torch.arange(count, device=self.run.device)
        n = self.run.count(0)
        if self.half:
            rows = rows[(rows // n) <= (rows % n)]
        shape = (self.first.shape[0], self.second.shape[0])
        sums = torch.zeros(SCRAMBLINGS, len(rows), *shape, dtype=self.run.dtype, device=self.run.device)
        for scrambling, where, chunk, a, b in self._weights(rows):
            sums[scrambling, where] += products(chunk, a, b).mean(1)
        heads = max(one.shape[1] for one in self.shifts)
        sums = sums / heads
        value = sums.mean(0)
        error = float(sums.std(0).max() / sqrt(SCRAMBLINGS) / value.abs().max().clamp_min(1e-30))
        if not self.half:
            return value, error
        whole = value.new_empty(n, n, *shape)
        whole[rows // n, rows % n] = value
        whole[rows % n, rows // n] = value.transpose(-1, -2)
        return whole.reshape(-1, *shape), error

    def mean_weights(self) -> Tensor:
        """Mean of the left weights over draws and heads, ``[n, P, S]``."""
        rows = torch.arange(self.run.pairs(self.pair), device=self.run.device)
        total = torch.zeros(len(rows), *self.first.shape, dtype=self.run.dtype, device=self.run.device)
        for _, where, _, a, _ in self._weights(rows):
            total[where] += a.mean(1)
        return total / (SCRAMBLINGS * self.shifts[0].shape[1])

    def _weights(self, rows: Tensor) -> Iterator[tuple[int, slice, Tensor, Tensor, Tensor]]:
        """Scrambling, place among `rows`, rows, and weights of both sides, chunk by chunk and head by head."""
        (p, s), (r, t) = self.first.shape, self.second.shape
        numbers = 2 * self.points * ((p + r) * (s + t) + 6 * (p * s + r * t))
        step = max(1, CHUNK_NUMBERS // numbers)
        batches = [self._normals(scrambling, p + r, s + t) for scrambling in range(SCRAMBLINGS)]
        for start in range(0, len(rows), step):
            where = slice(start, min(start + step, len(rows)))
            chunk = rows[where]
            of_query, of_key = self.queries.root(chunk), self.keys.root(chunk)
            for scrambling, normals in enumerate(batches):
                random = self._scores(normals, of_query, of_key)
                heads = max(one.shape[1] for one in self.shifts)
                for head in range(heads):
                    yield scrambling, where, chunk, *self._attend(random, chunk, head)

    def _scores(self, normals: list[Tensor], of_query: Tensor, of_key: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The random part of both scores, ``[e, m, P, S]``; None where it is deterministic."""
        p, s = self.first.shape
        found: list[Tensor | None] = []
        for scores, place, queries, keys in (
            (self.first, 0, of_query[:, :p], of_key[:, :s]),
            (self.second, 1, of_query[:, p:], of_key[:, s:]),
        ):
            if not scores.random:
                found.append(None)
                continue
            total = 0.0
            for normal, phase in zip(normals, self.planes, strict=True):
                total = total + phase[place] * (queries.unsqueeze(1) @ normal @ keys.transpose(-1, -2).unsqueeze(1))
            half = scores.scale * scores.size**0.5 * total
            found.append(torch.cat([half, -half], 1))
        return found[0], found[1]

    def _attend(self, random: tuple[Tensor | None, Tensor | None], chunk: Tensor, head: int) -> tuple[Tensor, Tensor]:
        found = []
        for scores, offset, values, index in zip(
            (self.first, self.second), self.shifts, random, self.run_indices(chunk), strict=True
        ):
            certain = offset[index, head % offset.shape[1]].unsqueeze(1)
            found.append(attention_weights(scores, certain if values is None else certain + values))
        return found[0], found[1]

    def run_indices(self, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """Which input stands left and right in each row of the pairing."""
        return indices(self.run, self.pair, chunk)

    def _normals(self, scrambling: int, rows: int, columns: int) -> list[Tensor]:
        """One ``[m, rows, columns]`` array of standard normals for each pair of phases."""
        numbers = rows * columns * len(self.planes)
        if numbers <= SOBOL_LIMIT:
            uniform = torch.quasirandom.SobolEngine(numbers, scramble=True, seed=scrambling).draw(self.points)
            normal = torch.special.ndtri(uniform.double().clamp(1e-9, 1 - 1e-9))
        else:
            generator = torch.Generator().manual_seed(scrambling)
            normal = torch.randn(self.points, numbers, generator=generator, dtype=torch.float64)
        normal = normal.to(dtype=self.run.dtype, device=self.run.device)
        return list(normal.reshape(self.points, len(self.planes), rows, columns).unbind(1))


def indices(run: "Evaluator", pair: "Pair", rows: Tensor) -> tuple[Tensor, Tensor]:
    """Which input stands left and right in rows of a pairing."""
    if pair != "12":
        return rows, rows
    return rows // run.count(1), rows % run.count(1)


class _Joint:
    """The joint covariance of the queries (or keys) of both inputs of each pair."""

    def __init__(self, run: "Evaluator", u: tuple[Scores, str], v: tuple[Scores, str], pair: "Pair") -> None:
        self.run, self.pair = run, pair
        left, right = run.sides(pair)
        fields = [getattr(scores, name) if scores.random else None for scores, name in (u, v)]
        self.sizes = [scores.shape[0] if name == "query" else scores.shape[1] for scores, name in (u, v)]
        self.left = self._block(fields[0], fields[0], "11" if left == 0 else "22", 0, 0)
        self.right = self._block(fields[1], fields[1], "11" if right == 0 else "22", 1, 1)
        self.cross = self._block(fields[0], fields[1], pair, 0, 1)

    def _block(self, u, v, pair: "Pair", i: int, j: int) -> Tensor:  # type: ignore[no-untyped-def]
        sizes = self.sizes[i], self.sizes[j]
        value = None if u is None or v is None else self.run.moment(u, v, pair, diagonal=False)
        if value is None:
            count = self.run.pairs(pair)
            return torch.zeros(1, *sizes, dtype=self.run.dtype, device=self.run.device).expand(count, *sizes)
        return value.reshape(-1, *sizes)

    def root(self, rows: Tensor) -> Tensor:
        """The symmetric root of the joint covariance at rows of the pairing, ``[e, both, both]``."""
        i, j = indices(self.run, self.pair, rows)
        cross = self.cross[rows]
        upper = torch.cat([self.left[i], cross], 2)
        lower = torch.cat([cross.transpose(1, 2), self.right[j]], 2)
        values, vectors = torch.linalg.eigh(torch.cat([upper, lower], 1))
        return (vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)) @ vectors.transpose(-1, -2)
