"""The covariance recursion: second moments and tangents of pairs of fields, on demand and remembered.

Arrays are ``[N, *P]`` (both fields at the same position) or ``[N, *P, *Q]`` (all pairs of positions); N runs over the
n1 * n2 pairs of inputs (pairing ``"12"``), or over the inputs of one side with themselves (``"11"``, ``"22"``).
None stands for identically zero.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from widthwise.kernels._fields import Field, Sizes
from widthwise.kernels._moments import mean_of, moment_of
from widthwise.kernels._recursion import deep_recursion
from widthwise.kernels._sampling import SampledMoments, sampled_moments
from widthwise.kernels._tangents import chain_of, gain_terms
from widthwise.program import Weight

Pair = Literal["12", "11", "22"]
Contribution = Callable[[Weight, float | Tensor, int], float | Tensor]
"""Trained weight, sigma_w^2, fan-in -> factor of its own term in the NTK."""


class Evaluator:
    """Evaluates fields on one tile of inputs.

    Args:
        data: for each side, the concrete value of every data node of the program.
        contribution: how much a trained parameter adds to the tangent kernel.
        same: whether both sides are the same inputs, so that the diagonal is exact.
        samples: number of quasi-random points for moments without a closed form.
    """

    def __init__(
        self,
        data: tuple[dict[str, Tensor], dict[str, Tensor]],
        contribution: Contribution,
        *,
        dtype: torch.dtype,
        same: bool,
        samples: int = 4096,
    ) -> None:
        self.data = data
        self.contribution = contribution
        self.dtype = dtype
        self.same = same
        self.samples = samples
        self.errors: dict[int, float] = {}  # id of a field -> worst relative error of its moments
        self.memory: dict[tuple, Any] = {}
        self.gains: dict[int, dict[str, tuple[Weight, Field]]] = {}  # id of a field -> its derivatives by gain vectors

    # -- what is asked for ------------------------------------------------------------------------------------------

    def moment(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        """``E[u v']`` over the random weights."""
        return self._remember("moment", u, v, pair, diagonal, moment_of)

    def tangent(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        """Sum over trained parameters of the product of the derivatives of u and v' by it, mean over coordinates."""
        return self._remember("tangent", u, v, pair, diagonal, _tangent)

    def chain(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        """The tangent without the gain vectors since the last matrix: the same number for every coordinate."""
        return self._remember("chain", u, v, pair, diagonal, chain_of)

    def sampled(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> SampledMoments:
        """Moment, chain and mean by quasi-random sampling."""
        result = self._remember("sampled", u, v, pair, diagonal, sampled_moments)
        self.note_error((u, v), result.error)
        return result

    def mean(self, u: Field, side: int) -> Tensor | None:
        """``E[u]``, ``[n, *P]``."""
        key = ("mean", id(u), side)
        if key not in self.memory:
            self.memory[key] = mean_of(self, u, side)
        return self.memory[key]

    def variance(self, u: Field, side: int) -> Tensor:
        """``E[u^2]`` at each input of a side and each position, ``[n, *P]``."""
        pair: Pair = "11" if side == 0 else "22"
        value = self.moment(u, u, pair, diagonal=True)
        if value is None:
            return torch.zeros(self.count(side), *u.positions, dtype=self.dtype, device=self.device)
        return value

    def note_error(self, fields: tuple[Field, ...], error: float) -> None:
        """Keep the worst error met for each field."""
        for field in fields:
            self.errors[id(field)] = max(self.errors.get(id(field), 0.0), error)

    def _remember(self, what: str, u: Field, v: Field, pair: Pair, diagonal: bool, compute: Callable) -> Any:
        if not diagonal and not u.positions and not v.positions:
            diagonal = True
        if pair == "22" and self.same:
            pair = "11"
        key = (what, id(u), id(v), pair, diagonal)
        if key not in self.memory:
            self.memory[key] = compute(self, u, v, pair, diagonal)
        return self.memory[key]

    def own(self, side: int) -> "Evaluator":
        """The evaluator of one side with itself, where whole batches are wanted."""
        if self.same:
            return self
        key = ("own", side)
        if key not in self.memory:
            data = (self.data[side], self.data[side])
            run = Evaluator(data, self.contribution, dtype=self.dtype, same=True, samples=self.samples)
            run.errors = self.errors
            self.memory[key] = run
        return self.memory[key]

    # -- shapes -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(iter(self.data[0].values())).device

    def count(self, side: int) -> int:
        """Number of inputs of a side."""
        return next(iter(self.data[side].values())).shape[0]

    def sides(self, pair: Pair) -> tuple[int, int]:
        """The side of the left and of the right field."""
        return (0, 0) if pair == "11" else (1, 1) if pair == "22" else (0, 1)

    def pairs(self, pair: Pair) -> int:
        """N of the pairing."""
        left, right = self.sides(pair)
        return self.count(left) * self.count(right) if pair == "12" else self.count(left)

    def spread(self, of_u: Tensor, of_v: Tensor, pair: Pair, diagonal: bool) -> tuple[Tensor, Tensor]:
        """Shape two per-input arrays ``[n, *P]`` and ``[n, *Q]`` to broadcast against ``[n1, n2, *P, *Q]``."""
        p, q = of_u.shape[1:], of_v.shape[1:]
        if not diagonal:
            of_u = of_u.reshape(of_u.shape[0], *p, *(1,) * len(q))
            of_v = of_v.reshape(of_v.shape[0], *(1,) * len(p), *q)
        if pair == "12":
            return of_u.unsqueeze(1), of_v.unsqueeze(0)
        return of_u, of_v

    def lead(self, array: Tensor, pair: Pair) -> Tensor:
        """``[N, ...]`` as ``[n1, n2, ...]`` for the outer pairing."""
        return array.reshape(self.count(0), self.count(1), *array.shape[1:]) if pair == "12" else array

    def flat(self, array: Tensor, pair: Pair) -> Tensor:
        """The reverse of `lead`."""
        return array.reshape(-1, *array.shape[2:]) if pair == "12" else array

    def constant(self, value: float, pair: Pair, sizes: Sizes) -> Tensor:
        """``[N, *sizes]`` filled with a value."""
        return torch.full((self.pairs(pair), *sizes), value, dtype=self.dtype, device=self.device)

    def scale(self, inner: Tensor, of_u: Tensor, of_v: Tensor, pair: Pair, diagonal: bool) -> Tensor:
        """A moment times per-input factors of both sides."""
        a, b = self.spread(of_u, of_v, pair, diagonal)
        return self.flat(self.lead(inner, pair) * (a * b), pair)

    def ones(self, u: Field, side: int) -> Tensor:
        """``[n, *P]`` of ones."""
        return torch.ones(self.count(side), *u.positions, dtype=self.dtype, device=self.device)


def _tangent(run: Evaluator, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
    chain = run.chain(u, v, pair, diagonal=diagonal)
    for term in gain_terms(run, u, v, pair, diagonal):
        chain = term if chain is None else chain + term
    return chain


def gram_of(run: Evaluator, what: str, field: Field, rows: int, columns: int) -> Tensor:
    """A moment or tangent between both sides, ``[rows, columns]``: the mean over equal positions."""
    with deep_recursion():
        value = (run.moment if what == "moment" else run.tangent)(field, field, "12", diagonal=True)
    if value is None:
        return torch.zeros(rows, columns, dtype=run.dtype)
    return value.reshape(rows, columns, -1).mean(2)
