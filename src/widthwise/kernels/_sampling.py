"""Moments of elementwise functions of several Gaussian fields, by quasi-random sampling of one coordinate.

For a pair of inputs (and positions) the Gaussian fields that enter both expressions have a small joint covariance;
scrambled Sobol points turned into draws from it give every expectation, without a width bias. Independent scramblings
give the standard error ("coordinate Monte Carlo", section 2.9 of the tensor-programs sheet).
"""

from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._fields import Centred, Field, Gained, Image, Local, Normalised, Offset, Sum
from widthwise.kernels._fields_filtered import Filtered
from widthwise.kernels._structure import norm_scale

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair

SCRAMBLINGS = 8
CHUNK_NUMBERS = 4_000_000


class NoSamplingRule(Exception):
    """The expression mixes positions or concrete data below the function that is to be sampled."""


@dataclass(frozen=True)
class SampledMoments:
    """``E[u v']``, the chain (tangent without gain vectors), ``E[u]`` (for one-sided pairings only), and the worst
    relative standard error."""

    value: Tensor
    chain: Tensor | None
    mean: Tensor
    error: float


def gaussian_atoms(field: Field) -> list[Field]:
    """The Gaussian fields that an expression is an elementwise function of, in a fixed order.

    Raises:
        NoSamplingRule: it is not such a function.
    """
    if field.gaussian:
        return [field]
    if isinstance(field, Offset):
        return []
    if isinstance(field, Sum):
        return _union([term for _, term in field.terms])
    if isinstance(field, (Local, Filtered)):
        return _union(list(field.sources))
    if isinstance(field, (Image, Normalised, Centred, Gained)):
        return gaussian_atoms(field.source)
    raise NoSamplingRule(type(field).__name__)


def _union(fields: list[Field]) -> list[Field]:
    found: dict[int, Field] = {}
    for field in fields:
        found.update({id(atom): atom for atom in gaussian_atoms(field)})
    return list(found.values())


def sampled_moments(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> SampledMoments:
    """Estimate the moment and tangent of two expressions over their joint Gaussian fields."""
    left, right = run.sides(pair)
    atoms_u, atoms_v = gaussian_atoms(u), gaussian_atoms(v)
    sizes = u.positions if diagonal else u.positions + v.positions
    elements = run.pairs(pair) * prod(sizes)
    covariance = _joint_covariance(run, atoms_u, atoms_v, pair, diagonal, sizes)
    constants = _Constants(run, pair, diagonal, sizes, elements)
    points = _normal_points(len(atoms_u) + len(atoms_v), run.samples, run.dtype, covariance.device)
    tangents = _joint_tangents(run, atoms_u, atoms_v, pair, diagonal)
    value, chain, mean, errors = [], [], [], []
    step = max(1, CHUNK_NUMBERS // (points.shape[0] * points.shape[1] * max(1, points.shape[2])))
    for start in range(0, elements, step):
        rows = slice(start, min(start + step, elements))
        draws = torch.einsum("rmd,ecd->ermc", points, _root(covariance[rows]))
        first, slopes_u = _evaluate(u, atoms_u, draws[..., : len(atoms_u)], constants.at(left, 0, rows))
        second, slopes_v = _evaluate(v, atoms_v, draws[..., len(atoms_u) :], constants.at(right, 1, rows))
        batches = (first * second).mean(2)  # [elements, scramblings]
        value.append(batches.mean(1))
        errors.append(_relative_error(batches, first, second))
        mean.append(first.mean((1, 2)))
        total = torch.zeros(rows.stop - rows.start, dtype=run.dtype, device=draws.device)
        for (i, j), array in tangents.items():
            batches = (slopes_u[i] * slopes_v[j]).mean(2)
            errors.append(_relative_error(batches, slopes_u[i], slopes_v[j]))
            total += batches.mean(1) * array.reshape(-1)[rows]
        chain.append(total)
    shape = (run.pairs(pair), *sizes)
    symmetric = u is v and (pair != "12" or run.same)

    def finished(parts: list[Tensor]) -> Tensor:
        array = torch.cat(parts).reshape(shape)
        return _symmetrised(run, array, len(u.positions), pair, diagonal) if symmetric else array

    return SampledMoments(
        finished(value),
        finished(chain) if tangents else None,
        torch.cat(mean).reshape(shape),
        float(torch.stack(errors).max()),
    )


def _symmetrised(run: "Evaluator", array: Tensor, rank: int, pair: "Pair", diagonal: bool) -> Tensor:
    """The mean of both orders of a pair: points play different roles on the left and on the right."""
    placed = run.lead(array, pair)
    lead = (1, 0) if pair == "12" else (0,)
    rest = tuple(range(len(lead), placed.dim()))
    turned = placed.permute(*lead, *rest) if diagonal else placed.permute(*lead, *rest[rank:], *rest[:rank])
    return run.flat((placed + turned) / 2, pair)


def _relative_error(batches: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Standard error over scramblings, relative to the root of both second moments."""
    size = (first.square().mean((1, 2)) * second.square().mean((1, 2))).sqrt().clamp_min(1e-30)
    return (batches.std(1) / sqrt(SCRAMBLINGS) / size).max()


def _joint_covariance(run, atoms_u, atoms_v, pair, diagonal, sizes) -> Tensor:  # type: ignore[no-untyped-def]
    left, right = run.sides(pair)
    a, b = len(atoms_u), len(atoms_v)
    lead = (run.count(0), run.count(1)) if pair == "12" else (run.count(left),)
    joint = torch.zeros(*lead, *sizes, a + b, a + b, dtype=run.dtype, device=run.device)
    one_sided = {0: "11", 1: "11" if run.same else "22"}
    for offset, atoms, side, which in ((0, atoms_u, left, 0), (a, atoms_v, right, 1)):
        for i, first in enumerate(atoms):
            for j, second in enumerate(atoms):
                block = run.moment(first, second, one_sided[side], diagonal=True)
                if block is not None:
                    spread = run.spread(block, block, pair, diagonal)[which]
                    joint[..., offset + i, offset + j] = spread
    for i, first in enumerate(atoms_u):
        for j, second in enumerate(atoms_v):
            block = run.moment(first, second, pair, diagonal=diagonal)
            if block is not None:
                joint[..., i, a + j] = joint[..., a + j, i] = run.lead(block, pair)
    return joint.reshape(-1, a + b, a + b)


def _joint_tangents(run, atoms_u, atoms_v, pair, diagonal) -> dict[tuple[int, int], Tensor]:  # type: ignore[no-untyped-def]
    found = {}
    for i, first in enumerate(atoms_u):
        for j, second in enumerate(atoms_v):
            block = run.chain(first, second, pair, diagonal=diagonal)
            if block is not None:
                found[i, j] = block
    return found


def _root(covariance: Tensor) -> Tensor:
    """The symmetric root of covariances, which may be singular (equal inputs); it depends on no basis."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)) @ vectors.transpose(-1, -2)


def _normal_points(dimension: int, samples: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[scramblings, points, dimension]`` standard normal quasi-random points."""
    count = max(1, samples // SCRAMBLINGS)
    batches = []
    for seed in range(SCRAMBLINGS):
        uniform = torch.quasirandom.SobolEngine(max(1, dimension), scramble=True, seed=seed).draw(count)
        uniform = uniform.double().clamp(1e-9, 1 - 1e-9)
        batches.append(torch.special.ndtri(uniform)[:, :dimension])
    return torch.stack(batches).to(dtype=dtype, device=device)


class _Constants:
    """Deterministic scales and means inside an expression, at each element of the pairing."""

    def __init__(self, run: "Evaluator", pair: "Pair", diagonal: bool, sizes: tuple[int, ...], elements: int) -> None:
        self.run, self.pair, self.diagonal, self.sizes, self.elements = run, pair, diagonal, sizes, elements

    def at(self, side: int, which: int, rows: slice):  # type: ignore[no-untyped-def]
        def spread(array: Tensor) -> Tensor:
            """``[n, *P]`` of one side to ``[chunk, 1, 1]``."""
            lead = (self.run.count(0), self.run.count(1)) if self.pair == "12" else (self.run.count(side),)
            placed = self.run.spread(array, array, self.pair, self.diagonal)[which]
            return placed.expand(*lead, *self.sizes).reshape(-1)[rows].reshape(-1, 1, 1)

        return lambda field: _constant_of(self.run, field, side, spread)


def _constant_of(run: "Evaluator", field: Field, side: int, spread) -> Tensor | float:  # type: ignore[no-untyped-def]
    if isinstance(field, Normalised):
        return spread(norm_scale(run, field, side))
    assert isinstance(field, Centred)
    mean = run.mean(field.source, side)
    return 0.0 if mean is None else spread(mean)


def _evaluate(field: Field, atoms: list[Field], draws: Tensor, constant) -> tuple[Tensor, list[Tensor]]:  # type: ignore[no-untyped-def]
    """The expression at the draws ``[elements, scramblings, points, atoms]``, and its derivative by each atom."""
    with torch.enable_grad():
        leaves = [draws[..., i].detach().requires_grad_() for i in range(len(atoms))]
        known = {id(atom): leaf for atom, leaf in zip(atoms, leaves, strict=True)}

        def value(node: Field) -> Tensor:
            if id(node) not in known:
                known[id(node)] = fresh(node)
            return known[id(node)]

        def fresh(node: Field) -> Tensor:
            if isinstance(node, Offset):
                return torch.full_like(draws[..., 0], node.value)
            if isinstance(node, Sum):
                return torch.stack([scale * value(term) for scale, term in node.terms]).sum(0)
            if isinstance(node, Image):
                return node.activation.function(value(node.source))
            if isinstance(node, (Local, Filtered)):
                return node.function(*[value(source) for source in node.sources])
            if isinstance(node, Normalised):
                return value(node.source) * constant(node)
            if isinstance(node, Centred):
                return value(node.source) - constant(node)
            assert isinstance(node, Gained)
            return node.value * value(node.source)

        result = value(field)
        slopes = torch.autograd.grad(result.sum(), leaves, allow_unused=True) if leaves else ()
    zero = torch.zeros_like(result)
    return result.detach(), [zero if slope is None else slope for slope in slopes]
