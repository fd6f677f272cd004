"""Second moments and means: the rule of each kind of field."""

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from widthwise.core import DataError
from widthwise.kernels._attention import special, special_mean
from widthwise.kernels._batch_moments import Standardised, batch_mean, batch_moment
from widthwise.kernels._contractions import position_diagonal
from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Inputs,
    Local,
    Moved,
    Normalised,
    Offset,
    Product,
    Shared,
    Sum,
    Tokens,
)
from widthwise.kernels._fields_attention import Attended, Gated
from widthwise.kernels._fields_filtered import Dropped, Filtered, Tap
from widthwise.kernels._fields_stacked import Stacked
from widthwise.kernels._pieces import check_apart
from widthwise.kernels._structure import Ask, assembled, norm_scale, pool, through_structure, times, total
from widthwise.kernels._transforms import stein, transform
from widthwise.numerics import mean

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair


def moment_of(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """``E[u v']`` by the rules of the two fields."""
    if isinstance(u, Gained) or isinstance(v, Gained):
        (a, p), (b, q) = ((f.source, f.value) if isinstance(f, Gained) else (f, 1.0) for f in (u, v))
        return times(p * q, run.moment(a, b, pair, diagonal=diagonal))
    done, value = through_structure(run, run.moment, u, v, pair, diagonal)
    if done:
        return value
    if isinstance(u, Centred) or isinstance(v, Centred):
        return _centred(run, u, v, pair, diagonal)
    if isinstance(u, Standardised) or isinstance(v, Standardised):
        return batch_moment(run, u, v, pair, diagonal)
    done, value = special(run, run.moment, u, v, pair, diagonal, tangent=False)
    if done:
        return value
    if isinstance(u, Local) or isinstance(v, Local):
        return run.sampled(u, v, pair, diagonal=diagonal).value
    if isinstance(u, Image) or isinstance(v, Image):
        return _image(run, u, v, pair, diagonal)
    return _leaf(run, u, v, pair, diagonal)


def _image(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if isinstance(u, Image) and isinstance(v, Image):
        if u is not v and run.moment(u.source, v.source, pair, diagonal=diagonal) is None:
            return outer_means(run, u, v, pair, diagonal)
        return transform(run, u, v, pair, diagonal).value
    image, other, side = (u, v, 0) if isinstance(u, Image) else (v, u, 1)
    assert isinstance(image, Image)
    if isinstance(other, (Inputs, Offset)):
        return outer_means(run, u, v, pair, diagonal)
    sources = (image.source, other) if side == 0 else (other, image.source)
    return stein(run, run.moment(*sources, pair, diagonal=diagonal), image, side, u, v, pair, diagonal)


def outer_means(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """``E[u] E[v']``: the moment of independent fields."""
    left, right = run.sides(pair)
    mean_u, mean_v = run.mean(u, left), run.mean(v, right)
    if mean_u is None or mean_v is None:
        return None
    a, b = run.spread(mean_u, mean_v, pair, diagonal)
    return run.flat(a * b, pair)


def _centred(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """``E[(u - c)(v - d)]`` with c the mean of u, pooled over positions or not, and 0 where u is not centred."""
    a, b = (f.source if isinstance(f, Centred) else f for f in (u, v))
    value = run.moment(a, b, pair, diagonal=diagonal)
    left, right = run.sides(pair)
    mean_u, mean_v = run.mean(a, left), run.mean(b, right)
    if value is None or mean_u is None or mean_v is None:
        return value
    p, q = run.spread(mean_u, mean_v, pair, diagonal)
    c, d = run.spread(_centre(u, mean_u), _centre(v, mean_v), pair, diagonal)
    return value - run.flat(p * d + c * q - c * d, pair)


def _centre(u: Field, mean_values: Tensor) -> Tensor:
    if not isinstance(u, Centred):
        return torch.zeros_like(mean_values)
    return pool(mean_values) if u.pooled and u.positions else mean_values


def _leaf(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if acts_alike(u, v):
        return times(u.variance, contracted(run, run.moment, u, v, pair, diagonal))
    if isinstance(u, Tap) and isinstance(v, Tap) and u.weight is v.weight and u.index == v.index:
        return times(u.variance, run.constant(1.0, pair, u.positions if diagonal else u.positions + v.positions))
    if isinstance(u, Shared) and isinstance(v, Shared) and u.weight is v.weight:
        return times(u.variance, same_position(run, u, v, pair, diagonal))
    if isinstance(u, Tokens) and isinstance(v, Tokens) and u.weight is v.weight:
        return times(u.variance, same_token(run, u, v, pair, diagonal))
    if isinstance(u, Inputs) and isinstance(v, Inputs):
        return _inner_product(run, u, v, pair, diagonal)
    if isinstance(u, (Offset, Inputs)) and isinstance(v, (Offset, Inputs)):
        return outer_means(run, u, v, pair, diagonal)
    check_apart(u, v)
    return None


def acts_alike(u: Field, v: Field) -> TypeGuard[Product | Filtered]:
    """Whether both are products with the same random matrix or filters."""
    both = all(isinstance(f, Product) for f in (u, v)) or all(isinstance(f, Filtered) for f in (u, v))
    return both and u.weight is v.weight  # type: ignore[attr-defined]


def contracted(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """Moment or tangent of the sources, contracted as the shared matrix contracts."""
    assert isinstance(u, (Product, Filtered)) and isinstance(v, (Product, Filtered))
    only_diagonal = diagonal or u.contraction.needs_diagonal_only
    inner = ask(u.source, v.source, pair, diagonal=only_diagonal)
    if inner is None:
        return None
    return (u.contraction.diagonal if only_diagonal else u.contraction.full)(inner)


def same_position(run: "Evaluator", u: Shared | Offset, v: Shared | Offset, pair: "Pair", diagonal: bool) -> Tensor:
    """1 where both read the same entry of their parameter, else 0."""
    if diagonal and u.own == v.own:
        return run.constant(1.0, pair, u.positions)
    value = torch.ones((), dtype=run.dtype, device=run.device)
    rank = len(u.positions) + len(v.positions)
    own_u = [axis for axis, own in enumerate(u.own) if own]
    own_v = [axis for axis, own in enumerate(v.own) if own]
    for i, j in zip(own_u, own_v, strict=True):
        shape = [1] * rank
        shape[i] = shape[len(u.positions) + j] = u.positions[i]
        value = value * torch.eye(u.positions[i], dtype=run.dtype, device=run.device).reshape(shape)
    value = value.expand(run.pairs(pair), *u.positions, *v.positions)
    return position_diagonal(value, u.positions) if diagonal else value


def same_token(run: "Evaluator", u: Tokens, v: Tokens, pair: "Pair", diagonal: bool) -> Tensor:
    """1 where both sides look up the same row, other than the padding row, else 0."""
    rows, columns = (_indices(run, f, side) for f, side in zip((u, v), run.sides(pair), strict=True))
    a, b = run.spread(rows, columns, pair, diagonal)
    return run.flat(((a == b) & (a != u.padding)).to(run.dtype), pair)


def _indices(run: "Evaluator", u: Tokens, side: int) -> Tensor:
    indices = run.data[side][u.node]
    table = u.weight.shape[0]
    if bool((indices < 0).any()) or bool((indices >= table).any()):
        worst = int(indices.min()) if bool((indices < 0).any()) else int(indices.max())
        raise DataError(f"token {worst} is not in table {u.weight.name} of {table} rows; give tokens 0 to {table - 1}.")
    indices = indices.reshape(-1, *u.positions)
    return indices if u.batched else indices[:1].expand(run.count(side), *u.positions)


def _features(run: "Evaluator", u: Inputs, side: int) -> Tensor:
    """``[n, prod(P), features]``."""
    return u.read(run.data[side][u.node].to(run.dtype))


def _inner_product(run: "Evaluator", u: Inputs, v: Inputs, pair: "Pair", diagonal: bool) -> Tensor:
    left, right = run.sides(pair)
    x, y = _features(run, u, left), _features(run, v, right)
    scale = 1.0 / x.shape[2]
    if pair == "12":
        if diagonal:
            value = torch.bmm(x.transpose(0, 1), y.permute(1, 2, 0)).permute(1, 2, 0)  # [n1, n2, P]
            return (value * scale).reshape(-1, *u.positions)
        value = (x.reshape(-1, x.shape[2]) @ y.reshape(-1, y.shape[2]).T).reshape(*x.shape[:2], *y.shape[:2])
        return (value.transpose(1, 2) * scale).reshape(-1, *u.positions, *v.positions)
    if diagonal:
        return ((x * y).sum(2) * scale).reshape(-1, *u.positions)
    return (torch.bmm(x, y.transpose(1, 2)) * scale).reshape(-1, *u.positions, *v.positions)


def mean_of(run: "Evaluator", u: Field, side: int) -> Tensor | None:
    """``E[u]`` by the rule of the field."""
    if u.gaussian or isinstance(u, Filtered):
        return None
    if isinstance(u, Stacked):
        parts = [run.mean(part, side) for part in u.parts]
        return assembled(u, parts, u.axis, [part.positions for part in u.parts])
    if isinstance(u, Concat):
        return total([(c, run.mean(part, side)) for c, part in zip(u.fractions, u.parts, strict=True)])
    if isinstance(u, Sum):
        return total([(c, run.mean(term, side)) for c, term in u.terms])
    if isinstance(u, Offset):
        return u.value * run.ones(u, side)
    if isinstance(u, Image):
        return mean(u.activation, run.variance(u.source, side))
    if isinstance(u, Inputs):
        return _features(run, u, side).mean(2).reshape(-1, *u.positions)
    if isinstance(u, (Attended, Gated)):
        return special_mean(run, u, side)
    if isinstance(u, Standardised):
        return batch_mean(run, u, side)
    if isinstance(u, Local):
        return run.sampled(u, u, "11" if side == 0 else "22", diagonal=True).mean
    assert isinstance(u, (Moved, Normalised, Gained, Centred, Dropped))
    inner = run.mean(u.source, side)
    if inner is None or isinstance(u, Dropped):
        return inner
    if isinstance(u, Moved):
        return u.move.apply(inner)
    if isinstance(u, Normalised):
        return inner * norm_scale(run, u, side)
    if isinstance(u, Gained):
        return times(u.value, inner)
    return inner - pool(inner) if u.pooled and u.positions else None
