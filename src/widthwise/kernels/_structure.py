"""How moments and tangents alike pass through sums, concatenations, position maps and deterministic scales."""

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._fields import Concat, Field, Moved, Normalised, Sum, position_diagonal

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
    if isinstance(u, Moved) or isinstance(v, Moved):
        return True, _moved(ask, u, v, pair, diagonal)
    if isinstance(u, Normalised) or isinstance(v, Normalised):
        return True, _normalised(run, ask, u, v, pair, diagonal)
    return False, None


def _bilinear(ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if isinstance(u, Concat) and isinstance(v, Concat):
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
