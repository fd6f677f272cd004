"""Gaussian expectations of activations: the V-transforms behind every infinite-width kernel."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from widthwise.numerics._activation import Activation, ActivationError, ClosedForm
from widthwise.numerics._hermite import TERMS, Line, line, mehler
from widthwise.numerics._near import NearLine
from widthwise.numerics._pairs import Pairs, pieces, take

GATHERED = 1 << 23


class Moments(NamedTuple):
    """Second moments of an activation.

    Attributes:
        value: E f(u) g(v).
        derivative: E f'(u) g'(v), which is dE f(u) g(v)/dc where f and g do not jump.
        error: largest absolute error, relative to sqrt(E f(u)^2 E g(v)^2) and to the same root of the derivatives;
            0 for closed forms.
    """

    value: Tensor
    derivative: Tensor
    error: float


def second_moments(
    f: Activation,
    a: Tensor | float,
    b: Tensor | float,
    c: Tensor | float,
    *,
    g: Activation | None = None,
    tolerance: float = 1e-10,
) -> Moments:
    """E f(u) g(v) and E f'(u) g'(v) for (u, v) ~ N(0, [[a, c], [c, b]]).

    Closed form where g is f and one is known. Otherwise Mehler's series with Parseval's remainder, and two-dimensional
    quadrature for the correlations that the series cannot reach. Gradients flow through `value` to a, b and c (jumps of
    f do not contribute).

    Args:
        f, g: the activations; g is f unless given.
        a, b: variances, >= 0, any shapes that broadcast with c.
        c: covariances; those beyond sqrt(ab) by rounding count as sqrt(ab).
        tolerance: relative error to aim at; `Moments.error` says what was reached.

    Returns:
        Moments of the broadcast shape, in the dtype of the inputs.

    Raises:
        ActivationError: a variance is negative or not finite.

    Source: Yang 2019 (arXiv 1902.04760), section 2.7 of the fact sheet.

    >>> import torch
    >>> from widthwise.numerics import relu
    >>> second_moments(relu(), *torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)).value
    tensor(0.1592, dtype=torch.float64)
    """
    a, b, c = _tensors(a, b, c)
    _check(f, a)
    _check(f, b)
    if g is None or g == f:
        if f.closed_form is not None:
            return Moments(*_by_chunks(f.closed_form, a, b, c), 0.0)
        g = f
    value, slope, error = _series(f, g, a.double(), b.double(), c.double(), tolerance)
    return Moments(value.to(c.dtype), slope.to(c.dtype), error)


def diagonal_moments(f: Activation, a: Tensor | float) -> Moments:
    """E f(u)^2 and E f'(u)^2 for u ~ N(0, a), without the cancellation of the general formula.

    >>> import torch
    >>> from widthwise.numerics import relu
    >>> diagonal_moments(relu(), torch.tensor([3.0])).value
    tensor([1.5000])
    """
    (a,) = _tensors(a)
    _check(f, a)
    if f.closed_form is not None and f.closed_form.diagonal is not None:
        return Moments(*f.closed_form.diagonal(a), 0.0)
    found, place = _at_distinct(f, a.double())
    square = found.square[place].to(a.dtype)
    exact = f.closed_form is not None
    return Moments(square[..., 0], square[..., 1], 0.0 if exact else found.error)


def mean(f: Activation, a: Tensor | float) -> Tensor:
    """E f(u) for u ~ N(0, a); the shape of a."""
    return _means(f, a)[0]


def mean_derivative(f: Activation, a: Tensor | float) -> Tensor:
    """E f'(u) for u ~ N(0, a). By Stein's lemma E[w f(u)] = Cov(w, u) E f'(u) for any w jointly Gaussian with u."""
    return _means(f, a)[1]


def _means(f: Activation, a: Tensor | float) -> tuple[Tensor, Tensor]:
    (a,) = _tensors(a)
    _check(f, a)
    if f.closed_form is not None and f.closed_form.means is not None:
        return f.closed_form.means(a)
    found, place = _at_distinct(f, a.double())
    means = found.mean[place].to(a.dtype)
    return means[..., 0], means[..., 1]


def _tensors(*values: Tensor | float) -> list[Tensor]:
    """All in one floating type and on one device: those of the tensors, float64 for plain numbers."""
    given = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    given = [value for value in given if value.ndim] or given
    kind, device = (given[0].dtype, given[0].device) if given else (torch.float64, None)
    return [torch.as_tensor(value, dtype=kind, device=device) for value in values]


def _check(f: Activation, variance: Tensor) -> None:
    if not variance.numel():
        return
    low, high = torch.aminmax(variance.detach())
    if not bool((low >= 0) & (high < float("inf"))):
        worst = float(low) if not low >= 0 else float(high)
        raise ActivationError(f"a variance before {f.name} is {worst:g}; give finite variances of 0 or more.")


def _root(variance: Tensor) -> Tensor:
    """Standard deviation, with gradient 0 instead of infinite at 0."""
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)


def _by_chunks(form: ClosedForm, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form over pieces that stay in the cache."""
    shape = torch.broadcast_shapes(a.shape, b.shape, c.shape)
    a, b, c = (t.reshape((1,) * (len(shape) - t.ndim) + t.shape) for t in (a, b, c))
    alpha, beta = a.detach().sqrt(), b.detach().sqrt()
    snap = 4 * torch.finfo(c.dtype).eps  # u = v up to rounding is u = v: the square root would turn 1e-16 into 1e-8
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or c.requires_grad):
        limit = alpha * beta
        c = c + (torch.clamp(c, -limit, limit) - c).detach()
        return form.pair(a, b, c, a * b - c * c - (2 * snap * a * b).detach())
    value, slope = (torch.empty(shape, dtype=c.dtype, device=c.device) for _ in range(2))
    for piece in pieces(shape, c.device):
        limit = take(alpha, piece) * take(beta, piece)
        inside = torch.clamp(take(c, piece), -limit, limit)
        edge = limit * (1 - snap)
        gap = (edge - inside) * (edge + inside)
        value[piece], slope[piece] = form.pair(take(a, piece), take(b, piece), inside, gap)
    return value, slope


def _at_distinct(f: Activation, a: Tensor, terms: int = 0) -> tuple[Line, Tensor]:
    """One-dimensional expectations at the distinct variances, and where each entry of `a` finds its own."""
    if a.requires_grad:
        return line(f, _root(a.reshape(-1)), terms), torch.arange(a.numel(), device=a.device).reshape(a.shape)
    values, place = torch.unique(a, return_inverse=True)
    return line(f, values.sqrt(), terms), place


def _series(
    f: Activation, g: Activation, a: Tensor, b: Tensor, c: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, float]:
    shape = torch.broadcast_shapes(a.shape, b.shape, c.shape)
    if not shape.numel():
        return torch.zeros(shape).to(c), torch.zeros(shape).to(c), 0.0
    a, b, c = (t.reshape((1,) * (len(shape) - t.ndim) + t.shape) for t in (a, b, c))
    (left, at_a), (right, at_b) = _at_distinct(f, a, TERMS), _at_distinct(g, b, TERMS)
    remainder = (left.remainder() * right.remainder()).sqrt().amax(dim=0)
    pairs = Pairs(_root(a), _root(b), c, shape)
    furthest = pairs.furthest()
    terms, reach = _terms(remainder, furthest, tolerance)
    first, second = _gathered(left, at_a, terms), _gathered(right, at_b, terms)
    near = NearLine(f, g, pairs, reach, tolerance) if furthest > reach else None
    value, slope = (torch.zeros(shape, dtype=c.dtype, device=c.device) for _ in range(2))
    for piece in pairs.blocks():
        rho = pairs.correlation(piece)
        one, two = first(piece), second(piece)
        block = [mehler(one[j], two[j], rho) for j in range(2)]
        value[piece], slope[piece] = near.replaced(block, piece) if near else block
    error = max(left.error, right.error, float(remainder[terms]) * min(furthest, reach) ** terms)
    return value, slope, max(error, near.error if near else 0.0)


def _gathered(found: Line, place: Tensor, terms: int) -> Callable[[tuple[slice, ...]], Tensor]:
    """The series of every entry of a piece, [2, terms, ...]; gathered once if that is small, else piece by piece."""
    series = found.series[:, :terms].contiguous()
    if place.numel() * terms > GATHERED:
        return lambda piece: series[:, :, take(place, piece)]
    whole = series[:, :, place]
    return lambda piece: take(whole, (slice(None), slice(None), *piece))


def _terms(remainder: Tensor, furthest: float, tolerance: float) -> tuple[int, float]:
    """How many terms of the series to take, and the correlation up to which they keep the tolerance."""
    counts = torch.arange(len(remainder)).to(remainder)
    good = (remainder * furthest**counts <= tolerance / 2).nonzero().flatten()
    if len(good):
        return max(1, int(good[0])), 1.0
    left = max(float(remainder[-1]), 1e-300)
    return TERMS, min(1.0, (tolerance / 2 / left) ** (1 / TERMS))
