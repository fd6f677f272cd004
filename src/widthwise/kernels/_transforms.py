"""Moments of activations of Gaussian fields: V-transforms and Stein's lemma."""

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._fields import Field, Image
from widthwise.numerics import Moments, diagonal_moments, mean_derivative, second_moments

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair


def transform(run: "Evaluator", u: Image, v: Image, pair: "Pair", diagonal: bool) -> Moments:
    """Both V-transforms of a pair of images, computed together and remembered."""
    if pair == "22" and run.same:
        pair = "11"
    key = ("transform", id(u), id(v), pair, diagonal)
    if key not in run.memory:
        run.memory[key] = _transform(run, u, v, pair, diagonal)
    return run.memory[key]


def _transform(run: "Evaluator", u: Image, v: Image, pair: "Pair", diagonal: bool) -> Moments:
    left, right = run.sides(pair)
    var_u, var_v = run.variance(u.source, left), run.variance(v.source, right)
    if u is v and pair != "12" and diagonal:
        result = diagonal_moments(u.activation, var_u)
    else:
        covariance = run.moment(u.source, v.source, pair, diagonal=diagonal)
        a, b = run.spread(var_u, var_v, pair, diagonal)
        sizes = u.positions if diagonal else u.positions + v.positions
        c = run.constant(0.0, pair, sizes) if covariance is None else covariance
        result = second_moments(u.activation, a, b, run.lead(c, pair), g=v.activation)
        result = Moments(run.flat(result.value, pair), run.flat(result.derivative, pair), result.error)
        if u is v and (pair != "12" or run.same):
            result = _with_diagonal(result, diagonal_moments(u.activation, var_u), pair, diagonal)
    run.note_error((u, v), result.error)
    return result


def _with_diagonal(result: Moments, exact: Moments, pair: "Pair", diagonal: bool) -> Moments:
    """The cancellation-free values where an input meets itself; written in place unless gradients are wanted."""
    value, slope = (_placed(a, b, pair, diagonal) for a, b in zip(result[:2], exact[:2], strict=True))
    return Moments(value, slope, result.error)


def _placed(target: Tensor, source: Tensor, pair: "Pair", diagonal: bool) -> Tensor:
    target = target.clone() if target.requires_grad else target
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
            view[where].clone(),
        )
    return target


def stein(
    run: "Evaluator", inner: Tensor | None, image: Image, side: int, u: Field, v: Field, pair: "Pair", diagonal: bool
) -> Tensor | None:
    """``inner * E[phi'(image.source)]``, the slope taken on the side (0 left, 1 right) where the image stands."""
    if inner is None:
        return None
    sides = run.sides(pair)
    slope = mean_derivative(image.activation, run.variance(image.source, sides[side]))
    ones = run.ones(v if side == 0 else u, sides[1 - side])
    return run.scale(inner, *((slope, ones) if side == 0 else (ones, slope)), pair, diagonal)
