"""Moments and tangents of fields behind batch norm in training mode: whole batches at once.

What other rules ask for pair by pair is read off one matrix over all inputs and positions of a tile, which holds whole
batches: both sides are one batch each, or the same one.
"""

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._batch_norm import (
    Batch,
    Integral,
    Pair,
    Slopes,
    across,
    mean_jacobian,
    mean_within,
    passed_within,
    slope_product,
    within,
)
from widthwise.kernels._fields import Field, Inputs, Offset
from widthwise.kernels._fields_batch import BatchImage, BatchNormed, biases, in_units, of_shift
from widthwise.kernels._sampling import NoSamplingRule, gaussian_atoms
from widthwise.kernels._structure import Ask, total

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator
    from widthwise.kernels._evaluator import Pair as Pairing

Standardised = (BatchNormed, BatchImage)


def core_of(field: Field) -> BatchNormed:
    """The norm that a field stands behind."""
    assert isinstance(field, Standardised)
    return field if isinstance(field, BatchNormed) else field.core


def batch_moment(run: "Evaluator", u: Field, v: Field, pair: "Pairing", diagonal: bool) -> Tensor | None:
    """``E[u v']`` where at least one of them stands behind batch norm."""
    return _of_tile(run, u, v, pair, diagonal, "moment")


def batch_chain(run: "Evaluator", u: Field, v: Field, pair: "Pairing", diagonal: bool) -> Tensor | None:
    """The tangent without the gain vectors, likewise."""
    return _of_tile(run, u, v, pair, diagonal, "chain")


def batch_mean(run: "Evaluator", u: BatchNormed | BatchImage, side: int) -> Tensor | None:
    """``E[u]``, ``[n, *P]``."""
    slopes = in_units(u)
    if slopes.even == 0.0:
        return None
    own = run.own(side)
    return mean_within(_batch(own, core_of(u)), slopes).to(run.dtype).reshape(-1, *u.positions)


def _of_tile(run: "Evaluator", u: Field, v: Field, pair: "Pairing", diagonal: bool, what: str) -> Tensor | None:
    """Read off the matrix over all inputs and positions: between both sides, or of one side with itself."""
    whole = run if pair == "12" else run.own(run.sides(pair)[0])
    key = ("batch", what, id(u), id(v))
    if key not in whole.memory:
        whole.memory[key] = _whole(whole, u, v, what)
    matrix = whole.memory[key]
    if matrix is None:
        return None
    p, q = prod(u.positions), prod(v.positions)
    blocks = matrix.to(run.dtype).reshape(whole.count(0), p, whole.count(1), q).transpose(1, 2)
    blocks = blocks.flatten(0, 1) if pair == "12" else torch.diagonal(blocks, dim1=0, dim2=1).movedim(-1, 0)
    if diagonal:
        return torch.diagonal(blocks, dim1=1, dim2=2).reshape(-1, *u.positions)
    return blocks.reshape(-1, *u.positions, *v.positions)


def _whole(run: "Evaluator", u: Field, v: Field, what: str) -> Tensor | None:
    """``[n1 P, n2 Q]``, or None for zero."""
    ask: Ask = run.moment if what == "moment" else run.chain
    if isinstance(u, Standardised) and isinstance(v, Standardised):
        return _both(run, u, v, what)
    standardised, other, side = (u, v, 0) if isinstance(u, Standardised) else (v, u, 1)
    assert isinstance(standardised, Standardised)
    core = core_of(standardised)
    if not isinstance(other, (Offset, Inputs)):
        sources = (core.source, other) if side == 0 else (other, core.source)
        if other.gaussian:
            return _with_gaussian(run, standardised, _matrix(run, ask, *sources), side)
        _check_independent(run, core, other)
    return _outer_means(run, u, v) if what == "moment" else None


def _both(run: "Evaluator", u: BatchNormed | BatchImage, v: BatchNormed | BatchImage, what: str) -> Tensor | None:
    one, other = core_of(u), core_of(v)
    same = one is other and run.same
    covariance = None if same else _matrix(run, run.moment, one.source, other.source)
    if covariance is None and not same:
        return _outer_means(run, u, v) if what == "moment" else None
    first = _batch(run.own(0), one)
    pair = first if covariance is None else Pair.of(first, _batch(run.own(1), other), covariance)
    if what == "moment":
        return _noted(run, u, v, _integral(pair, in_units(u), in_units(v), None))
    tangent = _matrix(run, run.chain, one.source, other.source)
    passed = None
    if tangent is not None:
        passed = _noted(run, u, v, _integral(pair, in_units(u), in_units(v), tangent))
    shifts = [(a * b, _matrix(run, run.chain, p, q)) for a, p in _shifts(u) for b, q in _shifts(v)]
    by_bias = total(shifts)
    if by_bias is not None:
        by_bias = by_bias * slope_product(of_shift(u), of_shift(v), pair)
    return total([(1.0, passed), (1.0, by_bias)])


def _shifts(u: BatchNormed | BatchImage) -> list[tuple[float, Field]]:
    return biases(u.source) if isinstance(u, BatchImage) else []


def _integral(pair: Pair | Batch, first: Slopes, second: Slopes, tangent: Tensor | None) -> Integral:
    if isinstance(pair, Pair):
        return across(pair, first, second, tangent)
    return within(pair, first, second) if tangent is None else passed_within(pair, first, second, tangent)


def _noted(run: "Evaluator", u: Field, v: Field, found: Integral) -> Tensor:
    run.note_error((u, v), found.error)
    return found.value


def _with_gaussian(
    run: "Evaluator", standardised: BatchNormed | BatchImage, covariance: Tensor | None, side: int
) -> Tensor | None:
    """Stein's lemma: the covariance with what is standardised, times the mean Jacobian."""
    if covariance is None:
        return None
    jacobian = mean_jacobian(_batch(run.own(side), core_of(standardised)), in_units(standardised))
    return jacobian.T @ covariance.double() if side == 0 else covariance.double() @ jacobian


def _check_independent(run: "Evaluator", core: BatchNormed, other: Field) -> None:
    """A function of other Gaussian fields has to be independent of what is standardised.

    Raises:
        UnsupportedOperation: it is not, or reads something else.
    """
    try:
        atoms = gaussian_atoms(other)
    except NoSamplingRule:
        atoms = None
    if atoms is None or any(_matrix(run, run.moment, core.source, atom) is not None for atom in atoms):
        raise UnsupportedOperation(
            "batch_norm", "", "batch norm in training mode meets another function of what it standardises"
        )


def _outer_means(run: "Evaluator", u: Field, v: Field) -> Tensor | None:
    first, second = run.mean(u, 0), run.mean(v, 0 if run.same else 1)
    if first is None or second is None:
        return None
    return first.reshape(-1, 1) * second.reshape(1, -1)


def _batch(run: "Evaluator", core: BatchNormed) -> Batch:
    """The covariance of what is standardised, over the one batch of a tile of a batch with itself."""
    key = ("batch covariance", id(core))
    if key not in run.memory:
        matrix = _matrix(run, run.moment, core.source, core.source)
        sites = run.count(0) * prod(core.positions)
        run.memory[key] = Batch.of(matrix if matrix is not None else torch.zeros(sites, sites), core.eps)
    return run.memory[key]


def _matrix(run: "Evaluator", ask: Ask, u: Field, v: Field) -> Tensor | None:
    """What is asked for between all inputs and positions of both sides, ``[n1 P, n2 Q]``."""
    value = ask(u, v, "12", diagonal=False)
    if value is None:
        return None
    p, q = prod(u.positions), prod(v.positions)
    return value.reshape(run.count(0), run.count(1), p, q).transpose(1, 2).reshape(run.count(0) * p, run.count(1) * q)
