"""The second interpreter of fields: every field as samples of one coordinate, at all inputs and positions at once.

Where the `Evaluator` asks for moments of pairs, this keeps ``M`` samples of each field and of its derivative along one
random direction of the trained parameters. The tangent kernel is the second moment of that derivative: with a matrix W
goes a second random matrix, its derivative, and ``d(W h) = dW h + W dh`` is one more line of the same program, so that
no backward pass is needed ("coordinate Monte Carlo", section 2.9 of the tensor-programs sheet).
"""

from collections.abc import Callable
from functools import singledispatchmethod
from math import prod
from typing import Any

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation, derived_seed
from widthwise.kernels._coordinates_matrices import Acting, Blocks, NoTranspose, RandomMatrix, Track, moments
from widthwise.kernels._fields import (
    Field,
    Gained,
    Normalised,
    Offset,
    Product,
    Shared,
    Sizes,
    Sum,
    Tokens,
)
from widthwise.kernels._fields_joint import Joint
from widthwise.kernels._pieces import CutWeight, check_apart
from widthwise.kernels._walks import in_order, operands
from widthwise.program import Weight

Contribution = Callable[[Weight, Any, int], Any]

MOST_DIMENSIONS = 4096
"""Of quasi-random points; further ones are pseudo-random."""

POOL_NUMBERS = 1 << 25


class Coordinates:
    """One set of samples for a tile of inputs.

    Args:
        data: value of every data node, the inputs of both sides one after the other.
        batches: sizes of the batches that these inputs form (they matter where examples are joined).
        contribution: how much a trained parameter adds to the tangent kernel.
        samples: M; a power of two keeps the quasi-random points balanced.
        tangents: whether derivatives are wanted.
    """

    def __init__(
        self,
        data: dict[str, Tensor],
        batches: tuple[int, ...],
        contribution: Contribution,
        *,
        samples: int,
        seed: int,
        tangents: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.data = data
        self.batches = batches
        self.count = sum(batches)
        self.contribution = contribution
        self.samples = samples
        self.tangents = tangents
        self.dtype = dtype
        self.mixing = False
        self.values: dict[int, Track | Blocks] = {}
        self.squares: dict[int, Tensor] = {}  # id of a field -> its mean square at each input and position
        self.reused: set[str] = set()
        self.matrices: dict[str, RandomMatrix] = {}
        self._vectors: dict[tuple, Tensor] = {}
        self.seed = seed
        self._draws = 0
        self._pool: Tensor | None = None
        self._taken = 0

    # -- random numbers ----------------------------------------------------------------------------------------------

    def normals(self, count: int) -> Tensor:
        """Fresh standard normal coordinates, ``[M, count]``: the next ones of a scrambled Sobol sequence.

        Where one sequence would be too long, each call has its own, in a random order.
        """
        if self._pool is not None and self._taken + count <= self._pool.shape[1]:
            self._taken += count
            return self._pool[:, self._taken - count : self._taken]
        self._draws += 1
        seed = derived_seed(self.seed, "coordinates", self._draws) >> 1
        shuffle = torch.Generator().manual_seed(seed)
        low = min(count, MOST_DIMENSIONS)
        points = _sobol(low, self.samples, seed)[torch.randperm(self.samples, generator=shuffle)]
        if low < count:
            rest = torch.randn(self.samples, count - low, generator=shuffle, dtype=torch.float64)
            points = torch.cat([points, rest], 1)
        return points.to(self.dtype)

    def _open_pool(self, fields: list[Field]) -> None:
        """One Sobol sequence for all that is random, if it is not too long."""
        sites = sum(prod(one.positions) for one in fields if isinstance(one, (Product, Shared, Tokens, Gained, Offset)))
        dimensions = (2 if self.tangents else 1) * self.count * sites
        if self._pool is None and dimensions <= MOST_DIMENSIONS and dimensions * self.samples <= POOL_NUMBERS:
            seed = derived_seed(self.seed, "coordinates") >> 1
            self._pool = _sobol(max(1, dimensions), self.samples, seed).to(self.dtype)

    def vector(self, name: str, what: str, shape: Sizes) -> Tensor:
        """Standard normal entries of a parameter vector, or of its derivative: ``[M, *shape]``, the same when asked
        again."""
        key = (name, what)
        if key not in self._vectors:
            self._vectors[key] = self.normals(prod(shape)).reshape(self.samples, *shape)
        return self._vectors[key]

    # -- fields ------------------------------------------------------------------------------------------------------

    def evaluate(self, fields: list[Field], *, keep_all: bool = False) -> None:
        """Draw samples of fields and of all that they depend on, in order; what is no longer needed is dropped.

        Raises:
            UnsupportedOperation: samples of one coordinate cannot show a field.
        """
        order = list({id(one): one for field in fields for one in in_order(field)}.values())
        _check_cuts(order)
        self._open_pool(order)
        self.mixing |= any(isinstance(one, Joint) and one.over_batch for one in order)
        used: dict[str, int] = {}
        for one in order:
            if isinstance(one, Product):
                used[one.weight.name] = used.get(one.weight.name, 0) + 1
        self.reused |= {name for name, count in used.items() if count > 1 or keep_all}
        last = {id(part): i for i, one in enumerate(order) for part in operands(one)}
        kept = {id(field) for field in fields}
        for i, one in enumerate(order):
            if id(one) not in self.values:
                try:
                    self.values[id(one)] = self.draw(one)
                except NoTranspose as reason:
                    raise UnsupportedOperation("matmul", _place(one), str(reason)) from None
                self.squares[id(one)] = _square(self.values[id(one)])
            for part in operands(one):
                if last[id(part)] == i and id(part) not in kept and not keep_all:
                    self.values.pop(id(part), None)

    def of(self, field: Field) -> Track | Blocks:
        """A field's samples."""
        if id(field) not in self.values:
            self.evaluate([field])
        return self.values[id(field)]

    def track(self, field: Field) -> Track:
        """The samples of a field that is not a concatenation."""
        value = self.values[id(field)]
        if isinstance(value, Blocks):
            raise UnsupportedOperation("cat", "", "a function of concatenated coordinates has no rule here")
        return value

    @singledispatchmethod
    def draw(self, field: Field) -> Track | Blocks:
        """Samples of a field from those of what it is made from; one rule for each kind of field."""
        raise UnsupportedOperation(type(field).__name__.lower(), "", "samples of one coordinate cannot show it")

    @draw.register
    def _(self, field: Product) -> Track:
        matrix = self.matrix(field.weight)
        keep = field.weight.name in self.reused
        return matrix.multiply(self.values[id(field.source)], self.acting(field), tangents=self.tangents, keep=keep)

    def matrix(self, weight: Weight) -> RandomMatrix:
        """All that is known of a matrix."""
        return self.matrices.setdefault(weight.name, RandomMatrix(self.normals, self.mixing))

    def acting(self, field: Product) -> Acting:
        """How a product's matrix acts on mean products."""
        contraction = field.contraction
        diagonal = contraction.needs_diagonal_only or not field.source.positions
        variance = float(field.variance)
        return Acting(
            field.transposed,
            variance,
            self.trained(field) if self.tangents else 0.0,
            contraction.diagonal if diagonal else contraction.full,
            contraction.positions,
            contraction.key[0] == "pointwise",
            diagonal,
        )

    def trained(self, field: Product) -> float:
        """What the matrix's own derivative is worth: that of its first use, times the ratio of contracted entries."""
        variance, contracted = float(field.variance), field.contracted
        if not field.transposed:
            return self.contribution(field.weight, variance, contracted)
        first = field.weight.value.numel() // contracted
        return self.contribution(field.weight, variance * first / contracted, first) * contracted / first

    def norm_scale(self, field: Normalised) -> Tensor:
        """``1 / sqrt(E statistic^2 + eps)``, ``[n, *P]`` or, pooled, ``[n, 1, ...]``."""
        statistic = self.values[id(field.statistic)]
        parts = statistic.parts if isinstance(statistic, Blocks) else (statistic,)
        shares = statistic.fractions if isinstance(statistic, Blocks) else (1.0,)
        power = sum(share * part.value.square().mean(0) for share, part in zip(shares, parts, strict=True))
        return torch.rsqrt(self.pooled(power, field.pooled) + field.eps)  # type: ignore[arg-type]

    @staticmethod
    def pooled(means: Tensor, over_positions: bool) -> Tensor:
        """``[n, *P]``, or its mean over positions ``[n, 1, ...]``."""
        positions = tuple(range(1, means.dim()))
        return means.mean(positions, keepdim=True) if over_positions and positions else means

    def over_samples(self, field: Joint) -> Callable[..., Tensor]:
        """A joint function on ``[M, n, *P]``: each batch on its own, or all examples alike."""

        def each_batch(*values: Tensor) -> Tensor:
            split = [value.split(self.batches, 1) for value in values]
            return torch.cat([field.function(*batch) for batch in zip(*split, strict=True)], 1)

        def each_example(*values: Tensor) -> Tensor:
            lead = values[0].shape[:2]
            return field.function(*(value.flatten(0, 1) for value in values)).unflatten(0, lead)

        return each_batch if field.over_batch else each_example

    def function(self, function: Callable[..., Tensor], tracks: list[Track]) -> Track:
        """A function of several fields, and its derivative along the tangents."""
        values = tuple(track.value for track in tracks)
        if all(track.tangent is None for track in tracks):
            return Track(function(*values))
        slopes = tuple(torch.zeros_like(t.value) if t.tangent is None else t.tangent for t in tracks)
        return Track(*torch.func.jvp(function, values, slopes))

    # -- results -----------------------------------------------------------------------------------------------------

    def gram(self, u: Field, v: Field, *, tangent: bool) -> Tensor | None:
        """Mean product of two fields (or of their derivatives) at equal positions, ``[n * n, *P]``; None for zero.

        Readouts are not sampled: their mean product is that of what they contract.
        """
        if isinstance(u, Sum) or isinstance(v, Sum):
            return self._bilinear(u, v, tangent)
        if isinstance(u, Product) and isinstance(v, Product) and not self._transposes():
            if u.weight is not v.weight:
                return None
            act = self.acting(u)
            return self._read_out(self.of(u.source), self.of(v.source), u, act, tangent)
        if u.gaussian and v.gaussian and not self._transposes() and isinstance(u, Product) != isinstance(v, Product):
            return None
        return moments(self.of(u), self.of(v), tangent=tangent, diagonal=True)

    def _transposes(self) -> bool:
        return any(len(matrix.uses[True]) for matrix in self.matrices.values())

    def _bilinear(self, u: Field, v: Field, tangent: bool) -> Tensor | None:
        left, right = (f.terms if isinstance(f, Sum) else ((1.0, f),) for f in (u, v))
        total = None
        for a, first in left:
            for b, second in right:
                term = self.gram(first, second, tangent=tangent)
                if term is not None:
                    total = a * b * term if total is None else total + a * b * term
        return total

    def _read_out(self, a: Track | Blocks, b: Track | Blocks, u: Product, act: Acting, tangent: bool) -> Tensor | None:
        primal = moments(a, b, diagonal=True)
        found = [(act.trained if tangent else act.variance, primal)]
        if tangent:
            found.append((act.variance, moments(a, b, tangent=True, diagonal=True)))
        terms = [scale * u.contraction.diagonal(moment) for scale, moment in found if moment is not None and scale]
        return sum(terms[1:], terms[0]) if terms else None


def _check_cuts(order: list[Field]) -> None:
    """Cuts of one weight are drawn apart, so that they have to have no rows in common."""
    for one in (one for one in order if isinstance(getattr(one, "weight", None), CutWeight)):
        for other in order:
            check_apart(one, other)


def _sobol(dimensions: int, samples: int, seed: int) -> Tensor:
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)
    return torch.special.ndtri(engine.draw(samples, dtype=torch.float64).clamp(1e-12, 1 - 1e-12))


def _square(value: Track | Blocks) -> Tensor:
    parts = value.parts if isinstance(value, Blocks) else (value,)
    return torch.cat([part.value.square().mean(0).flatten() for part in parts])


def _place(field: Field) -> str:
    return field.weight.module_path if isinstance(field, Product) else ""
