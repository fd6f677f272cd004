"""The covariance recursion: second moments and tangents of pairs of fields, on demand and remembered.

Arrays are ``[N, *P]`` (both fields at the same position) or ``[N, *P, *Q]`` (all pairs of positions); N runs over the
n1 * n2 pairs of inputs (pairing ``"12"``), or over the inputs of one side with themselves (``"11"``, ``"22"``).
None stands for identically zero.
"""

from collections.abc import Callable
from math import prod
from typing import Literal

import torch
from torch import Tensor

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
    Sizes,
    Sum,
    Tokens,
    position_diagonal,
)
from widthwise.kernels._sampling import sampled_moments
from widthwise.numerics import Moments, diagonal_moments, mean, mean_derivative, second_moments
from widthwise.program import Weight

Pair = Literal["12", "11", "22"]
Contribution = Callable[[Weight, float, int], float]
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
        samples: int = 1024,
    ) -> None:
        self.data = data
        self.contribution = contribution
        self.dtype = dtype
        self.same = same
        self.samples = samples
        self.errors: dict[int, float] = {}  # id of a field -> worst relative error of its moments
        self._memory: dict[tuple, Tensor | Moments | None] = {}

    # -- public -----------------------------------------------------------------------------------------------------

    def moment(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        """``E[u v']`` over the random weights."""
        return self._remember("moment", u, v, pair, diagonal, self._moment)

    def tangent(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        """Sum over trained parameters of the product of the derivatives of u and v' by it."""
        return self._remember("tangent", u, v, pair, diagonal, self._tangent)

    def mean(self, u: Field, side: int) -> Tensor | None:
        """``E[u]``, ``[n, *P]``."""
        key = ("mean", id(u), side)
        if key not in self._memory:
            self._memory[key] = self._mean(u, side)
        return self._memory[key]  # type: ignore[return-value]

    def variance(self, u: Field, side: int) -> Tensor:
        """``E[u^2]`` at each input of a side and each position, ``[n, *P]``."""
        pair: Pair = "11" if side == 0 else "22"
        value = self.moment(u, u, pair, diagonal=True)
        if value is None:
            return torch.zeros(self.count(side), *u.positions, dtype=self.dtype, device=self.device)
        return value

    def count(self, side: int) -> int:
        """Number of inputs of a side."""
        return next(iter(self.data[side].values())).shape[0]

    @property
    def device(self) -> torch.device:
        return next(iter(self.data[0].values())).device

    # -- bookkeeping ------------------------------------------------------------------------------------------------

    def _remember(self, what: str, u: Field, v: Field, pair: Pair, diagonal: bool, compute: Callable) -> Tensor | None:
        if not diagonal and not u.positions and not v.positions:
            diagonal = True
        if pair == "22" and self.same:
            pair = "11"
        key = (what, id(u), id(v), pair, diagonal)
        if key not in self._memory:
            self._memory[key] = compute(u, v, pair, diagonal)
        return self._memory[key]  # type: ignore[return-value]

    def _sides(self, pair: Pair) -> tuple[int, int]:
        return (0, 0) if pair == "11" else (1, 1) if pair == "22" else (0, 1)

    def pairs(self, pair: Pair) -> int:
        """N of the pairing."""
        left, right = self._sides(pair)
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

    def _lead(self, array: Tensor, pair: Pair) -> Tensor:
        """``[N, ...]`` as ``[n1, n2, ...]`` for the outer pairing."""
        return array.reshape(self.count(0), self.count(1), *array.shape[1:]) if pair == "12" else array

    def _flat(self, array: Tensor, pair: Pair) -> Tensor:
        return array.reshape(-1, *array.shape[2:]) if pair == "12" else array

    def _constant(self, value: float, pair: Pair, sizes: Sizes) -> Tensor:
        return torch.full((self.pairs(pair), *sizes), value, dtype=self.dtype, device=self.device)

    def _outer_means(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        """``E[u] E[v']``: the moment of independent fields."""
        left, right = self._sides(pair)
        mean_u, mean_v = self.mean(u, left), self.mean(v, right)
        if mean_u is None or mean_v is None:
            return None
        a, b = self.spread(mean_u, mean_v, pair, diagonal)
        return self._flat(a * b, pair)

    def _bilinear(self, what: Callable, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        """Take apart sums and concatenations on either side; the other rules see neither."""
        if isinstance(u, Concat) and isinstance(v, Concat):
            terms = zip(u.fractions, u.parts, v.parts, strict=True)
            return _total([(c, what(a, b, pair, diagonal=diagonal)) for c, a, b in terms])
        if isinstance(u, Concat):
            return _total([(c, what(a, v, pair, diagonal=diagonal)) for c, a in zip(u.fractions, u.parts, strict=True)])
        if isinstance(v, Concat):
            return _total([(c, what(u, b, pair, diagonal=diagonal)) for c, b in zip(v.fractions, v.parts, strict=True)])
        if isinstance(u, Sum):
            return _total([(c, what(a, v, pair, diagonal=diagonal)) for c, a in u.terms])
        assert isinstance(v, Sum)
        return _total([(c, what(u, b, pair, diagonal=diagonal)) for c, b in v.terms])

    def _moved(self, what: Callable, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        """Apply position maps to the left or right positions of the moment of their sources."""
        if diagonal and isinstance(u, Moved) and isinstance(v, Moved) and u.move is v.move and u.move.gathers:
            inner = what(u.source, v.source, pair, diagonal=True)
            return None if inner is None else u.move.apply(inner)
        a = u.source if isinstance(u, Moved) else u
        b = v.source if isinstance(v, Moved) else v
        full = what(a, b, pair, diagonal=False)
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

    def _scale(self, u: Normalised, side: int) -> Tensor:
        """``gain / sqrt(E statistic^2 + eps)``, ``[n, *P]``."""
        power = self.variance(u.statistic, side)
        if u.pooled and u.positions:
            power = power.flatten(1).mean(1).reshape(-1, *(1,) * len(u.positions)).expand_as(power)
        return u.gain * torch.rsqrt(power + u.eps)

    def _normalised(self, what: Callable, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        a = u.source if isinstance(u, Normalised) else u
        b = v.source if isinstance(v, Normalised) else v
        inner = what(a, b, pair, diagonal=diagonal)
        if inner is None:
            return None
        left, right = self._sides(pair)
        ones = [torch.ones(self.count(s), *f.positions, dtype=self.dtype) for s, f in ((left, u), (right, v))]
        scale_u = self._scale(u, left) if isinstance(u, Normalised) else ones[0].to(self.device)
        scale_v = self._scale(v, right) if isinstance(v, Normalised) else ones[1].to(self.device)
        p, q = self.spread(scale_u, scale_v, pair, diagonal)
        return self._flat(self._lead(inner, pair) * (p * q), pair)

    # -- moments ----------------------------------------------------------------------------------------------------

    def _moment(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, (Concat, Sum)) or isinstance(v, (Concat, Sum)):
            return self._bilinear(self.moment, u, v, pair, diagonal)
        if isinstance(u, Gained) or isinstance(v, Gained):
            a, b = (f.source if isinstance(f, Gained) else f for f in (u, v))
            return self.moment(a, b, pair, diagonal=diagonal)
        if isinstance(u, Moved) or isinstance(v, Moved):
            return self._moved(self.moment, u, v, pair, diagonal)
        if isinstance(u, Normalised) or isinstance(v, Normalised):
            return self._normalised(self.moment, u, v, pair, diagonal)
        if isinstance(u, Centred) or isinstance(v, Centred):
            return self._centred_moment(u, v, pair, diagonal)
        if isinstance(u, Local) or isinstance(v, Local):
            return self._sampled(u, v, pair, diagonal).value
        if isinstance(u, Image) or isinstance(v, Image):
            return self._image_moment(u, v, pair, diagonal)
        return self._leaf_moment(u, v, pair, diagonal)

    def _centred_moment(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        a, b = (f.source if isinstance(f, Centred) else f for f in (u, v))
        value = self.moment(a, b, pair, diagonal=diagonal)
        left, right = self._sides(pair)
        mean_u, mean_v = self.mean(a, left), self.mean(b, right)
        if value is None or mean_u is None or mean_v is None:
            return value
        if any(isinstance(f, Centred) and f.pooled and f.positions for f in (u, v)):
            pooled = [_pool(m) if isinstance(f, Centred) and f.pooled else 0 * m for f, m in ((u, mean_u), (v, mean_v))]
            # E[(u - c)(v - d)] with constants c = mean over positions of E u, and d likewise
            (p, q), (c, d) = (self.spread(x, y, pair, diagonal) for x, y in ((mean_u, mean_v), pooled))
            return value - self._flat(p * d + c * q - c * d, pair)
        p, q = self.spread(mean_u, mean_v, pair, diagonal)
        return value - self._flat(p * q, pair)

    def _transform(self, u: Image, v: Image, pair: Pair, diagonal: bool) -> Moments:
        """Both V-transforms of a pair of images, computed together."""
        key = ("transform", id(u), id(v), pair, diagonal)
        if key not in self._memory:
            self._memory[key] = self._compute_transform(u, v, pair, diagonal)
        return self._memory[key]  # type: ignore[return-value]

    def _compute_transform(self, u: Image, v: Image, pair: Pair, diagonal: bool) -> Moments:
        left, right = self._sides(pair)
        var_u, var_v = self.variance(u.source, left), self.variance(v.source, right)
        same_field = u is v
        if same_field and pair != "12" and diagonal:
            result = diagonal_moments(u.activation, var_u)
        else:
            covariance = self.moment(u.source, v.source, pair, diagonal=diagonal)
            a, b = self.spread(var_u, var_v, pair, diagonal)
            sizes = u.positions if diagonal else u.positions + v.positions
            c = self._constant(0.0, pair, sizes) if covariance is None else covariance
            result = second_moments(u.activation, a, b, self._lead(c, pair), g=v.activation)
            result = Moments(self._flat(result.value, pair), self._flat(result.derivative, pair), result.error)
            if same_field and (pair != "12" or self.same):
                self._set_diagonal(result, diagonal_moments(u.activation, var_u), pair, diagonal)
        for field in (u, v):
            self.errors[id(field)] = max(self.errors.get(id(field), 0.0), result.error)
        return result

    def _set_diagonal(self, result: Moments, exact: Moments, pair: Pair, diagonal: bool) -> None:
        """Write the cancellation-free values where an input meets itself."""
        for target, source in ((result.value, exact.value), (result.derivative, exact.derivative)):
            count = source.shape[0]
            sites = prod(source.shape[1:])
            view = target.view(count, count, -1) if pair == "12" else target.view(count, -1)
            index = torch.arange(count, device=target.device)
            where = (index, index) if pair == "12" else (index,)
            if diagonal:
                view[where] = source.reshape(count, -1)
            else:
                view[where] = torch.where(
                    torch.eye(sites, dtype=torch.bool, device=target.device).reshape(1, -1),
                    source.reshape(count, sites, 1).expand(count, sites, sites).reshape(count, -1),
                    view[where],
                )

    def _image_moment(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, Image) and isinstance(v, Image):
            if u is not v and self.moment(u.source, v.source, pair, diagonal=diagonal) is None:
                return self._outer_means(u, v, pair, diagonal)
            return self._transform(u, v, pair, diagonal).value
        image, other, side = (u, v, 0) if isinstance(u, Image) else (v, u, 1)
        assert isinstance(image, Image)
        if isinstance(other, (Inputs, Offset)):
            return self._outer_means(u, v, pair, diagonal)
        sources = (image.source, other) if side == 0 else (other, image.source)
        covariance = self.moment(*sources, pair, diagonal=diagonal)
        return self._stein(covariance, image, side, u, v, pair, diagonal)

    def _stein(
        self, inner: Tensor | None, image: Image, side: int, u: Field, v: Field, pair: Pair, diagonal: bool
    ) -> Tensor | None:
        """``inner * E[phi'(image.source)]``, the slope taken on the side where the image stands."""
        if inner is None:
            return None
        sides = self._sides(pair)
        slope = mean_derivative(image.activation, self.variance(image.source, sides[side]))
        other = v if side == 0 else u
        ones = torch.ones(self.count(sides[1 - side]), *other.positions, dtype=self.dtype, device=self.device)
        p, q = self.spread(*((slope, ones) if side == 0 else (ones, slope)), pair, diagonal)
        return self._flat(self._lead(inner, pair) * (p * q), pair)

    def _leaf_moment(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, Product) and isinstance(v, Product) and u.weight is v.weight:
            return _times(u.variance, self._contracted(self.moment, u, v, pair, diagonal))
        if isinstance(u, Shared) and isinstance(v, Shared) and u.weight is v.weight:
            return _times(u.variance, self._same_position(u, pair, diagonal))
        if isinstance(u, Tokens) and isinstance(v, Tokens) and u.weight is v.weight:
            return _times(u.variance, self._same_token(u, v, pair, diagonal))
        if isinstance(u, Inputs) and isinstance(v, Inputs):
            return self._inner_product(u, v, pair, diagonal)
        if isinstance(u, (Offset, Inputs)) and isinstance(v, (Offset, Inputs)):
            return self._outer_means(u, v, pair, diagonal)
        return None

    def _contracted(self, what: Callable, u: Product, v: Product, pair: Pair, diagonal: bool) -> Tensor | None:
        """Moment or tangent of the sources, contracted as the shared matrix contracts."""
        only_diagonal = diagonal or u.contraction.needs_diagonal_only
        inner = what(u.source, v.source, pair, diagonal=only_diagonal)
        if inner is None:
            return None
        return (u.contraction.diagonal if only_diagonal else u.contraction.full)(inner)

    def _same_position(self, u: Shared, pair: Pair, diagonal: bool) -> Tensor:
        if diagonal:
            return self._constant(1.0, pair, u.positions)
        value = torch.ones((), dtype=self.dtype, device=self.device)
        count = len(u.positions)
        for axis, (size, own) in enumerate(zip(u.positions, u.own, strict=True)):
            if own:
                shape = [1] * (2 * count)
                shape[axis] = shape[count + axis] = size
                value = value * torch.eye(size, dtype=self.dtype, device=self.device).reshape(shape)
        return value.expand(self.pairs(pair), *u.positions, *u.positions)

    def _same_token(self, u: Tokens, v: Tokens, pair: Pair, diagonal: bool) -> Tensor:
        left, right = self._sides(pair)
        rows = self.data[left][u.node].reshape(-1, *u.positions)
        columns = self.data[right][v.node].reshape(-1, *v.positions)
        a, b = self.spread(rows, columns, pair, diagonal)
        return self._flat((a == b).to(self.dtype), pair)

    def _features(self, u: Inputs, side: int) -> Tensor:
        """``[n, prod(P), features]``."""
        return u.read(self.data[side][u.node].to(self.dtype))

    def _inner_product(self, u: Inputs, v: Inputs, pair: Pair, diagonal: bool) -> Tensor:
        left, right = self._sides(pair)
        x, y = self._features(u, left), self._features(v, right)
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

    # -- means ------------------------------------------------------------------------------------------------------

    def _mean(self, u: Field, side: int) -> Tensor | None:
        if u.gaussian:
            return None
        if isinstance(u, Concat):
            return _total([(c, self.mean(part, side)) for c, part in zip(u.fractions, u.parts, strict=True)])
        if isinstance(u, Sum):
            return _total([(c, self.mean(term, side)) for c, term in u.terms])
        if isinstance(u, Offset):
            return torch.full((self.count(side), *u.positions), u.value, dtype=self.dtype, device=self.device)
        if isinstance(u, Image):
            return mean(u.activation, self.variance(u.source, side))
        if isinstance(u, Moved):
            inner = self.mean(u.source, side)
            return None if inner is None else u.move.apply(inner)
        if isinstance(u, Normalised):
            inner = self.mean(u.source, side)
            return None if inner is None else inner * self._scale(u, side)
        if isinstance(u, Gained):
            return self.mean(u.source, side)
        if isinstance(u, Centred):
            inner = self.mean(u.source, side)
            return None if inner is None or not (u.pooled and u.positions) else inner - _pool(inner)
        if isinstance(u, Inputs):
            return self._features(u, side).mean(2).reshape(-1, *u.positions)
        if isinstance(u, Local):
            pair: Pair = "11" if side == 0 else "22"
            return self._sampled(u, u, pair, True).mean
        raise TypeError(f"no mean rule for {type(u).__name__}")

    # -- tangents ---------------------------------------------------------------------------------------------------

    def _tangent(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, (Concat, Sum)) or isinstance(v, (Concat, Sum)):
            return self._bilinear(self.tangent, u, v, pair, diagonal)
        if isinstance(u, Gained) or isinstance(v, Gained):
            return self._gained_tangent(u, v, pair, diagonal)
        if isinstance(u, Moved) or isinstance(v, Moved):
            return self._moved(self.tangent, u, v, pair, diagonal)
        if isinstance(u, Normalised) or isinstance(v, Normalised):
            return self._normalised(self.tangent, u, v, pair, diagonal)
        if isinstance(u, Centred) or isinstance(v, Centred):
            a, b = (f.source if isinstance(f, Centred) else f for f in (u, v))
            return self.tangent(a, b, pair, diagonal=diagonal)
        if isinstance(u, Local) or isinstance(v, Local):
            return self._sampled(u, v, pair, diagonal).tangent
        if isinstance(u, Image) or isinstance(v, Image):
            return self._image_tangent(u, v, pair, diagonal)
        return self._leaf_tangent(u, v, pair, diagonal)

    def _gained_tangent(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        a, b = (f.source if isinstance(f, Gained) else f for f in (u, v))
        value = self.tangent(a, b, pair, diagonal=diagonal)
        if isinstance(u, Gained) and isinstance(v, Gained) and u.weight is v.weight:
            factor = self.contribution(u.weight, 0.0, 1)
            if factor:
                own = self.moment(a, b, pair, diagonal=diagonal)
                value = _total([(1.0, value), (factor, own)])
        return value

    def _image_tangent(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, Image) and isinstance(v, Image):
            inner = self.tangent(u.source, v.source, pair, diagonal=diagonal)
            return None if inner is None else inner * self._transform(u, v, pair, diagonal).derivative
        image, other, side = (u, v, 0) if isinstance(u, Image) else (v, u, 1)
        assert isinstance(image, Image)
        sources = (image.source, other) if side == 0 else (other, image.source)
        return self._stein(self.tangent(*sources, pair, diagonal=diagonal), image, side, u, v, pair, diagonal)

    def _leaf_tangent(self, u: Field, v: Field, pair: Pair, diagonal: bool) -> Tensor | None:
        if isinstance(u, Product) and isinstance(v, Product) and u.weight is v.weight:
            through = _times(u.variance, self._contracted(self.tangent, u, v, pair, diagonal))
            factor = self.contribution(u.weight, u.variance, u.contracted)
            own = self._contracted(self.moment, u, v, pair, diagonal) if factor else None
            return _total([(1.0, through), (factor, own)])
        if isinstance(u, Shared) and isinstance(v, Shared) and u.weight is v.weight:
            return _times(self.contribution(u.weight, u.variance, 1), self._same_position(u, pair, diagonal))
        if isinstance(u, Tokens) and isinstance(v, Tokens) and u.weight is v.weight:
            return _times(self.contribution(u.weight, u.variance, 1), self._same_token(u, v, pair, diagonal))
        if isinstance(u, Offset) and isinstance(v, Offset) and u.weight is not None and u.weight is v.weight:
            sizes = u.positions if diagonal else u.positions + v.positions
            return _times(self.contribution(u.weight, 0.0, 1), self._constant(1.0, pair, sizes))
        return None

    # -- sampling ---------------------------------------------------------------------------------------------------

    def _sampled(self, u: Field, v: Field, pair: Pair, diagonal: bool):
        key = ("sampled", id(u), id(v), pair, diagonal)
        if key not in self._memory:
            self._memory[key] = sampled_moments(self, u, v, pair, diagonal)
        result = self._memory[key]
        for field in (u, v):
            self.errors[id(field)] = max(self.errors.get(id(field), 0.0), result.error)  # type: ignore[union-attr]
        return result


def _times(scale: float, array: Tensor | None) -> Tensor | None:
    if array is None or scale == 0.0:
        return None
    return array if scale == 1.0 else scale * array


def _total(terms: list[tuple[float, Tensor | None]]) -> Tensor | None:
    total: Tensor | None = None
    for scale, array in terms:
        term = _times(scale, array)
        if term is not None:
            total = term if total is None else total + term
    return total


def _pool(mean_values: Tensor) -> Tensor:
    return mean_values.flatten(1).mean(1).reshape(-1, *(1,) * (mean_values.dim() - 1)).expand_as(mean_values)
