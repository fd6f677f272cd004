"""Kernels by samples of one coordinate: the fallback that reads every program, with standard errors.

Several independent sets of quasi-random points give the mean and its standard error; their size is doubled until the
error is small enough or the budget is spent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2, prod, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import Value, available_bytes, progress
from widthwise.kernels import _coordinates_fields  # noqa: F401 (registers fields)
from widthwise.kernels._batch import Batch, joined
from widthwise.kernels._coordinates_backward import Backward
from widthwise.kernels._coordinates_draws import check_drawable
from widthwise.kernels._coordinates_values import Contribution, Coordinates
from widthwise.kernels._fields import Field, Product, Sum
from widthwise.kernels._fields_joint import Joint, is_average
from widthwise.kernels._walks import below

SETS = 16
FEWEST = 512
LARGEST = 1 << 16
SAMPLE_BYTES = 1 << 28
MOST_ROWS = 256
"""Inputs times positions in one tile."""

Wanted = Sequence[tuple[str, Field]]


@dataclass(frozen=True)
class Estimate:
    """Mean of a Gram matrix over sets of samples, ``[n, n]``, with its standard error."""

    mean: Tensor
    error: Tensor

    @property
    def relative(self) -> float:
        """Largest standard error, relative to the root of both diagonal entries."""
        size = self.mean.diagonal().abs().sqrt()
        scale = (size[:, None] * size[None, :]).clamp_min(1e-12 * float(size.max()) ** 2 + 1e-300)
        return float((self.error / scale).max())


@dataclass(frozen=True)
class SampledKernels(Value):
    """Both kernels with their standard errors, ``[n1, n2]`` each.

    Attributes:
        samples: coordinates that were drawn for each tile, over all sets.
        relative_error: largest standard error, relative to the root of both diagonal entries.
    """

    samples: int
    relative_error: float
    nngp: Float[Tensor, "n1 n2"] = field(repr=False, metadata={"plain": False})
    ntk: Float[Tensor, "n1 n2"] = field(repr=False, metadata={"plain": False})
    nngp_error: Float[Tensor, "n1 n2"] = field(repr=False, metadata={"plain": False})
    ntk_error: Float[Tensor, "n1 n2"] = field(repr=False, metadata={"plain": False})


@dataclass(frozen=True)
class TileEstimate:
    """Estimates of what was wanted on one tile; relative errors of the fields by id; samples over all sets."""

    estimates: list[Estimate]
    errors: dict[int, float]
    samples: int


@dataclass(frozen=True)
class Sampler:
    """Draws sets of samples until the Gram matrices are known well enough.

    Attributes:
        rtol: relative standard error to reach.
        most: samples of one tile over all sets, at most.
    """

    contribution: Contribution
    rtol: float = 1e-2
    most: int = 1 << 20
    seed: int = 0

    @staticmethod
    def check(output: Field) -> None:
        """Refuse an output that samples of one coordinate cannot show.

        Raises:
            NotDrawable: it depends on attention, or on rotary positions.
        """
        check_drawable([output])

    def tile(
        self, data: dict[str, Tensor], batches: tuple[int, ...], wanted: Wanted, dtype: torch.dtype
    ) -> TileEstimate:
        """Gram matrices over all inputs of a tile, both sides together."""
        cap = _largest_set(sum(batches), wanted)
        size, sets = min(FEWEST, cap), SETS
        grams, squares = self._sets(data, batches, wanted, dtype, size, range(sets))
        while True:
            estimates = [_estimate(parts) for parts in grams]
            worst = max(estimate.relative for estimate in estimates)
            more = 2 ** max(1, ceil(log2(max(1.0, worst / self.rtol))))
            if worst <= self.rtol or 2 * size * sets > self.most:
                errors = {key: _relative(torch.stack(parts)) for key, parts in squares.items()}
                return TileEstimate(estimates, errors, size * sets)
            if size < cap:
                size = min(cap, size * more, 2 ** int(log2(self.most // sets)))
                grams, squares = self._sets(data, batches, wanted, dtype, size, range(sets))
                continue
            others, further = self._sets(data, batches, wanted, dtype, size, range(sets, 2 * sets))
            grams = [[*first, *second] for first, second in zip(grams, others, strict=True)]
            squares = {key: [*parts, *further[key]] for key, parts in squares.items()}
            sets *= 2

    def _sets(
        self,
        data: dict[str, Tensor],
        batches: tuple[int, ...],
        wanted: Wanted,
        dtype: torch.dtype,
        size: int,
        numbers: range,
    ) -> tuple[list[list[Tensor]], dict[int, list[Tensor]]]:
        """For each wanted Gram matrix its value by each set, and the mean squares of the fields."""
        grams: list[list[Tensor]] = [[] for _ in wanted]
        squares: dict[int, list[Tensor]] = {}
        averaged = any(is_average(one) for _, one in wanted)
        tangents = any(what == "tangent" for what, _ in wanted) and not averaged
        for number in numbers:
            run = Coordinates(
                data, batches, self.contribution, samples=size, seed=self.seed + number, tangents=tangents, dtype=dtype
            )
            read = list({id(f): f for _, one in wanted for f in _read(one)}.values())
            run.evaluate(read, keep_all=averaged)
            for (what, one), found in zip(wanted, grams, strict=True):
                found.append(_gram(run, what, one))
            for key, square in run.squares.items():
                squares.setdefault(key, []).append(square)
        return grams, squares


def _gram(run: Coordinates, what: str, field: Field) -> Tensor:
    """``[n, n]``, mean over equal positions."""
    if what == "tangent" and is_average(field):
        return Backward(run, field).kernel
    gram = run.gram(field, field, tangent=what == "tangent")
    if gram is None:
        return torch.zeros(run.count, run.count, dtype=run.dtype)
    return gram.reshape(run.count, run.count, -1).mean(2)


def _read(field: Field) -> list[Field]:
    """The fields whose samples a Gram matrix is made from: what readouts contract, and all else itself."""
    terms = [term for _, term in field.terms] if isinstance(field, Sum) else [field]
    drawn = any(not term.gaussian for term in terms) or any(
        isinstance(f, Product) and f.transposed for f in below(field)
    )
    read = [term.source for term in terms if isinstance(term, Product)]
    return read + [term for term in terms if drawn or not isinstance(term, Product)]


def _estimate(parts: list[Tensor]) -> Estimate:
    stacked = torch.stack(parts)
    return Estimate(stacked.mean(0), stacked.std(0) / sqrt(len(parts)))


def _relative(squares: Tensor) -> float:
    """Largest relative standard error of mean squares ``[sets, entries]``."""
    mean = squares.mean(0)
    return float((squares.std(0) / sqrt(len(squares)) / mean.clamp_min(1e-12 * float(mean.max()) + 1e-300)).max())


def _largest_set(count: int, wanted: Wanted) -> int:
    """Samples of one set that fit in memory, a power of two."""
    sites = sorted(prod(one.positions) for _, output in wanted for one in below(output))
    numbers = 2 * count * (sum(sites[-6:]) + sum(sites) // 4)
    budget = min(SAMPLE_BYTES, available_bytes() // 4)
    return int(min(LARGEST, max(FEWEST, 2 ** int(log2(max(2, budget / (8 * numbers)))))))


@dataclass(frozen=True)
class Grams:
    """Estimates over all tiles; most samples of a tile; largest relative errors of the Gram matrices and fields."""

    estimates: list[Estimate]
    samples: int
    relative: float
    errors: dict[int, float]


def sampled_grams(
    sampler: Sampler,
    data_of: Callable[[Tensor | Batch], dict[str, Tensor]],
    inputs: tuple[Tensor | Batch, Tensor | Batch | None],
    wanted: Wanted,
    dtype: torch.dtype,
    show: bool,
) -> Grams:
    """Gram matrices between two sets of inputs, tile by tile; both sides of a tile share their samples."""
    x1, x2 = inputs[0], inputs[0] if inputs[1] is None else inputs[1]
    same, n1, n2 = inputs[1] is None, x1.shape[0], x2.shape[0]
    side1, side2 = _sides(wanted, n1, n2)
    means = [torch.empty(n1, n2, dtype=dtype) for _ in wanted]
    spreads = [torch.empty(n1, n2, dtype=dtype) for _ in wanted]
    samples, relative = 0, 0.0
    errors: dict[int, float] = {}
    tiles = [(i, j) for i in range(0, n1, side1) for j in range(0, n2, side2) if not same or j >= i]
    with progress("sampled tiles", len(tiles), show=show and len(tiles) > 1) as advance:
        for i, j in tiles:
            rows, columns = slice(i, min(i + side1, n1)), slice(j, min(j + side2, n2))
            alone = same and i == j
            batch = x1[rows] if alone else joined(x1[rows], x2[columns])
            sizes = (rows.stop - i,) if alone else (rows.stop - i, columns.stop - j)
            tile = sampler.tile(data_of(batch), sizes, wanted, dtype)
            block = (slice(0, sizes[0]), slice(0 if alone else sizes[0], sum(sizes)))
            for found, mean, spread in zip(tile.estimates, means, spreads, strict=True):
                for target, source in ((mean, found.mean), (spread, found.error)):
                    target[rows, columns] = source[block]
                    if same and not alone:
                        target[columns, rows] = source[block].T
                relative = max(relative, found.relative)
            samples = max(samples, tile.samples)
            errors.update({key: max(error, errors.get(key, 0.0)) for key, error in tile.errors.items()})
            advance(1)
    return Grams([Estimate(m, e) for m, e in zip(means, spreads, strict=True)], samples, relative, errors)


def _sides(wanted: Wanted, n1: int, n2: int) -> tuple[int, int]:
    """Inputs on each side of a tile; where examples are joined each side is one batch, never cut."""
    fields = [field for _, output in wanted for field in below(output)]
    if any(isinstance(field, Joint) and field.over_batch for field in fields):
        return n1, n2
    side = sampled_side([output for _, output in wanted])
    return side, side


def sampled_side(outputs: list[Field]) -> int:
    """Inputs on a side of a tile of samples: a bounded number of inputs times positions."""
    return max(1, MOST_ROWS // (2 * max(prod(field.positions) for output in outputs for field in below(output))))
