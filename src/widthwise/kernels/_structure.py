"""How moments and tangents alike pass through sums, concatenations, position maps and deterministic scales."""

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._contractions import position_diagonal
from widthwise.kernels._fields import Concat, Field, Moved, Normalised, Sum
from widthwise.kernels._fields_filtered import Dropped
from widthwise.kernels._fields_stacked import Stacked

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair

Ask = Callable[..., Tensor | None]
"""``ask(u, v, pair, diagonal=...)``: the moment or the chain of an inner pair of fields."""


def times(scale: float | Tensor, array: Tensor | None) -> Tensor | None:
    """``scale * array`` where None is zero."""
    if array is None or isinstance(scale, Tensor):
        return None if array is None else scale * array
    if scale == 0.0:
        return None
    return array if scale == 1.0 else scale * array


def total(terms: Sequence[tuple[float | Tensor, Tensor | None]]) -> Tensor | None:
    """Linear combination where None is zero."""
    result: Tensor | None = None
    for scale, array in terms:
        term = times(scale, array)
        if term is not None:
            result = term if result is None else result + term
    return result


def through_structure(
    run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool
) -> tuple[bool, Tensor | None]:
    """Take apart the outermost structure on either side, if there is one; the other rules see none."""
    if isinstance(u, (Concat, Sum)) or isinstance(v, (Concat, Sum)):
        return True, _bilinear(ask, u, v, pair, diagonal)
    if isinstance(u, Stacked) or isinstance(v, Stacked):
        return True, _stacked(ask, u, v, pair, diagonal)
    if isinstance(u, Moved) or isinstance(v, Moved):
        return True, _moved(ask, u, v, pair, diagonal)
    if isinstance(u, Dropped) or isinstance(v, Dropped):
        return True, _dropped(run, ask, u, v, pair, diagonal)
    if isinstance(u, Normalised) or isinstance(v, Normalised):
        return True, _normalised(run, ask, u, v, pair, diagonal)
    return False, None


def _bilinear(ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if isinstance(u, Concat) and isinstance(v, Concat):
        if u.fractions != v.fractions:
            raise UnsupportedOperation("cat", "", "concatenations that are split at different places meet")
        terms = zip(u.fractions, u.parts, v.parts, strict=True)
        return total([(c, ask(a, b, pair, diagonal=diagonal)) for c, a, b in terms])
    if isinstance(u, Concat):
        return total([(c, ask(a, v, pair, diagonal=diagonal)) for c, a in zip(u.fractions, u.parts, strict=True)])
    if isinstance(v, Concat):
        return total([(c, ask(u, b, pair, diagonal=diagonal)) for c, b in zip(v.fractions, v.parts, strict=True)])
    if isinstance(u, Sum):
        return total([(c, ask(a, v, pair, diagonal=diagonal)) for c, a in u.terms])
    assert isinstance(v, Sum)
    return total([(c, ask(u, b, pair, diagonal=diagonal)) for c, b in v.terms])


def _stacked(ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """Put moments with each part of a stack side by side."""
    if isinstance(u, Stacked) and isinstance(v, Stacked) and diagonal and (u.axis, u.lengths) == (v.axis, v.lengths):
        arrays = [ask(a, b, pair, diagonal=True) for a, b in zip(u.parts, v.parts, strict=True)]
        return assembled(u, arrays, u.axis, [part.positions for part in u.parts])
    if diagonal:
        full = _stacked(ask, u, v, pair, False)
        return None if full is None else position_diagonal(full, u.positions)
    if isinstance(u, Stacked):
        arrays = [ask(part, v, pair, diagonal=False) for part in u.parts]
        return assembled(u, arrays, u.axis, [part.positions + v.positions for part in u.parts])
    assert isinstance(v, Stacked)
    arrays = [ask(u, part, pair, diagonal=False) for part in v.parts]
    sizes = [u.positions + part.positions for part in v.parts]
    return assembled(v, arrays, len(u.positions) + v.axis, sizes)


def assembled(stack: Stacked, arrays: list[Tensor | None], axis: int, sizes: list[tuple[int, ...]]) -> Tensor | None:
    """Join one array per part of a stack, ``[N, *sizes]`` each, along a position axis."""
    like = next((array for array in arrays if array is not None), None)
    if like is None:
        return None
    pieces = []
    for array, size, length in zip(arrays, sizes, stack.lengths, strict=True):
        piece = like.new_zeros(1).expand(like.shape[0], *size) if array is None else array.reshape(-1, *size)
        pieces.append(piece.unsqueeze(1 + axis) if length == 1 else piece)
    return torch.cat(pieces, 1 + axis)


def _dropped(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """Masks are independent, with mean one, but for one coordinate at one input and position: then ``1 / keep``."""
    a, b = (f.source if isinstance(f, Dropped) else f for f in (u, v))
    inner = ask(a, b, pair, diagonal=diagonal)
    if inner is None or not isinstance(u, Dropped) or not isinstance(v, Dropped) or u.mask != v.mask:
        return inner
    if pair == "12" and not run.same:
        return inner
    factor = torch.full(u.positions if diagonal else u.positions + v.positions, 1.0 / u.keep, dtype=run.dtype)
    if not diagonal and not u.everywhere and u.positions:
        eye = torch.eye(prod(u.positions), dtype=run.dtype).reshape(u.positions + v.positions)
        factor = 1 + (factor - 1) * eye
    factor = factor.to(run.device)
    if pair == "12":
        same = torch.eye(run.count(0), dtype=run.dtype, device=run.device)
        factor = 1 + (factor - 1) * same.reshape(*same.shape, *(1,) * factor.dim())
    return run.flat(run.lead(inner, pair) * factor, pair)


def _moved(ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """Apply position maps to the left or right positions of the moment of their sources."""
    if diagonal and isinstance(u, Moved) and isinstance(v, Moved) and u.move is v.move and u.move.gathers:
        inner = ask(u.source, v.source, pair, diagonal=True)
        return None if inner is None else u.move.apply(inner)
    a = u.source if isinstance(u, Moved) else u
    b = v.source if isinstance(v, Moved) else v
    full = ask(a, b, pair, diagonal=False)
    if full is None:
        return None
    if isinstance(v, Moved):
        rows = full.reshape(-1, *b.positions)
        full = v.move.apply(rows).reshape(full.shape[0], *a.positions, *v.positions)
    if isinstance(u, Moved):
        turned = full.reshape(full.shape[0], prod(a.positions), prod(v.positions)).transpose(1, 2)
        turned = u.move.apply(turned.reshape(-1, *a.positions))
        turned = turned.reshape(full.shape[0], prod(v.positions), prod(u.positions)).transpose(1, 2)
        full = turned.reshape(full.shape[0], *u.positions, *v.positions)
    return position_diagonal(full, u.positions) if diagonal else full


def norm_scale(run: "Evaluator", u: Normalised, side: int) -> Tensor:
    """``1 / sqrt(E statistic^2 + eps)``, ``[n, *P]``."""
    power = run.variance(u.statistic, side)
    if u.pooled and u.positions:
        power = pool(power)
    return torch.rsqrt(power + u.eps)


def _normalised(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    a = u.source if isinstance(u, Normalised) else u
    b = v.source if isinstance(v, Normalised) else v
    inner = ask(a, b, pair, diagonal=diagonal)
    if inner is None:
        return None
    left, right = run.sides(pair)
    of_u = norm_scale(run, u, left) if isinstance(u, Normalised) else run.ones(u, left)
    of_v = norm_scale(run, v, right) if isinstance(v, Normalised) else run.ones(v, right)
    return run.scale(inner, of_u, of_v, pair, diagonal)


def pool(values: Tensor) -> Tensor:
    """``[n, *P]`` with its mean over positions at every position."""
    return values.flatten(1).mean(1).reshape(-1, *(1,) * (values.dim() - 1)).expand_as(values)
