"""Tangents: sums over trained parameters of the product of derivatives.

Between two matrices the derivative by a matrix or bias is the same number for every coordinate (a mean over many), so
that it passes an activation as a factor. The derivative by a gain vector is not: entry i of the vector scales
coordinate i alone, and its product with later slopes has to be averaged as a whole. Hence two parts: the chain, and
one moment of derivative fields for each gain vector since the last matrix.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._affine import affine
from widthwise.kernels._attention import special
from widthwise.kernels._batch_moments import Standardised, batch_chain
from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Local,
    Moved,
    Normalised,
    Offset,
    Product,
    Shared,
    Sum,
    Tokens,
    combine,
)
from widthwise.kernels._fields_attention import Attended, Rotated
from widthwise.kernels._fields_batch import BatchImage, slope_of_gain
from widthwise.kernels._fields_filtered import Dropped, Filtered, Tap
from widthwise.kernels._fields_stacked import Stacked
from widthwise.kernels._moments import acts_alike, contracted, same_position, same_token
from widthwise.kernels._pieces import check_apart
from widthwise.kernels._structure import through_structure, times, total
from widthwise.kernels._transforms import stein, transform
from widthwise.numerics import Activation
from widthwise.program import Weight

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair

Derivatives = dict[str, tuple[Weight, Field]]
"""By name of a gain vector: the vector, and the derivative of coordinate i by its entry i."""


def chain_of(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """The tangent by everything but the gain vectors since the last matrix."""
    if isinstance(u, Gained) or isinstance(v, Gained):
        (a, p), (b, q) = ((f.source, f.value) if isinstance(f, Gained) else (f, 1.0) for f in (u, v))
        return times(p * q, run.chain(a, b, pair, diagonal=diagonal))
    done, value = through_structure(run, run.chain, u, v, pair, diagonal)
    if done:
        return value
    if isinstance(u, Centred) or isinstance(v, Centred):
        a, b = (f.source if isinstance(f, Centred) else f for f in (u, v))
        return run.chain(a, b, pair, diagonal=diagonal)
    if isinstance(u, Standardised) or isinstance(v, Standardised):
        return batch_chain(run, u, v, pair, diagonal)
    done, value = special(run, run.chain, u, v, pair, diagonal, tangent=True)
    if done:
        return value
    if isinstance(u, Local) or isinstance(v, Local):
        return run.sampled(u, v, pair, diagonal=diagonal).chain
    if isinstance(u, Image) or isinstance(v, Image):
        return _image(run, u, v, pair, diagonal)
    return _leaf(run, u, v, pair, diagonal)


def _image(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if isinstance(u, Image) and isinstance(v, Image):
        inner = run.chain(u.source, v.source, pair, diagonal=diagonal)
        return None if inner is None else inner * transform(run, u, v, pair, diagonal).derivative
    image, other, side = (u, v, 0) if isinstance(u, Image) else (v, u, 1)
    assert isinstance(image, Image)
    sources = (image.source, other) if side == 0 else (other, image.source)
    return stein(run, run.chain(*sources, pair, diagonal=diagonal), image, side, u, v, pair, diagonal)


def _leaf(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    if acts_alike(u, v):
        of_sources = run.tangent if isinstance(u, Product) else run.chain
        through = times(u.variance, contracted(run, of_sources, u, v, pair, diagonal))
        factor = run.contribution(u.weight, u.variance, u.contracted)
        own = contracted(run, run.moment, u, v, pair, diagonal) if factor else None
        return total([(1.0, through), (factor, own)])
    if isinstance(u, Tap) and isinstance(v, Tap) and u.weight is v.weight and u.index == v.index:
        factor = run.contribution(u.weight, u.variance * u.contracted, u.contracted) / u.contracted
        return times(factor, run.constant(1.0, pair, u.positions if diagonal else u.positions + v.positions))
    if isinstance(u, Shared) and isinstance(v, Shared) and u.weight is v.weight:
        return times(run.contribution(u.weight, u.variance, 1), same_position(run, u, v, pair, diagonal))
    if isinstance(u, Tokens) and isinstance(v, Tokens) and u.weight is v.weight:
        return times(run.contribution(u.weight, u.variance, 1), same_token(run, u, v, pair, diagonal))
    if isinstance(u, Offset) and isinstance(v, Offset) and u.weight is not None and u.weight is v.weight:
        return times(run.contribution(u.weight, 0.0, 1), same_position(run, u, v, pair, diagonal))
    check_apart(u, v)
    return None


def gain_terms(run: "Evaluator", u: Field, v: Field, pair: "Pair", diagonal: bool) -> list[Tensor]:
    """What each gain vector since the last matrix adds to the tangent."""
    first, second = derivatives(run, u), derivatives(run, v)
    found = []
    for name in first.keys() & second.keys():
        weight = first[name][0]
        moment = run.moment(first[name][1], second[name][1], pair, diagonal=diagonal)
        term = times(run.contribution(weight, 0.0, 1), moment)
        if term is not None:
            found.append(term)
    return found


def derivatives(run: "Evaluator", u: Field) -> Derivatives:
    """Derivatives of a field by the gain vectors since the last matrix, remembered."""
    if id(u) not in run.gains:
        run.gains[id(u)] = _derivatives(run, u)
    return run.gains[id(u)]


def _derivatives(run: "Evaluator", u: Field) -> Derivatives:
    if isinstance(u, Gained):
        found = _mapped(derivatives(run, u.source), lambda d: combine([(u.value, d)]))
        if run.contribution(u.weight, 0.0, 1):
            before = found.get(u.weight.name)
            terms = [(1.0, u.source)] + ([(1.0, before[1])] if before else [])
            found[u.weight.name] = (u.weight, combine(terms))
        return found
    if isinstance(u, Sum):
        return _gathered(run, [(scale, term) for scale, term in u.terms], combine)
    if isinstance(u, Concat):
        zero = Offset(None, 0.0, u.positions)
        names = {name: weight for part in u.parts for name, (weight, _) in derivatives(run, part).items()}
        return {
            name: (
                weight,
                Concat(tuple(derivatives(run, p).get(name, (weight, zero))[1] for p in u.parts), u.fractions),
            )
            for name, weight in names.items()
        }
    if isinstance(u, Stacked):
        return _of_stack(run, u)
    if isinstance(u, (Filtered, Dropped)):
        return _mapped(derivatives(run, u.source), lambda d: replace(u, source=d))
    if isinstance(u, Moved):
        return _mapped(derivatives(run, u.source), lambda d: Moved(d, u.move))
    if isinstance(u, Normalised):
        return _mapped(derivatives(run, u.source), lambda d: Normalised(d, u.statistic, u.eps, u.pooled))
    if isinstance(u, Centred):
        return derivatives(run, u.source)
    if isinstance(u, Attended):
        return _mapped(derivatives(run, u.value), lambda d: replace(u, value=d))
    if isinstance(u, Rotated):
        return _mapped(derivatives(run, u.source), lambda d: replace(u, source=d))
    if isinstance(u, Image):
        return _mapped(derivatives(run, u.source), lambda d: _sloped(u, d))
    if isinstance(u, BatchImage):
        return _mapped(derivatives(run, u.source), lambda d: _behind_batch_norm(u, d))
    if isinstance(u, Local):
        return _of_local(run, u)
    return {}


def _behind_batch_norm(u: BatchImage, inner: Field) -> Field:
    found = slope_of_gain(u, inner)
    if found is None:
        raise UnsupportedOperation("batch_norm", "", "the slope by a gain behind batch norm is no multiple of it")
    return found


def _mapped(found: Derivatives, change: Callable[[Field], Field]) -> Derivatives:
    return {name: (weight, change(field)) for name, (weight, field) in found.items()}


def _gathered(run: "Evaluator", terms: list[tuple[float, Field]], join: Callable) -> Derivatives:
    collected: dict[str, tuple[Weight, list[tuple[float, Field]]]] = {}
    for scale, term in terms:
        for name, (weight, field) in derivatives(run, term).items():
            collected.setdefault(name, (weight, []))[1].append((scale, field))
    return {name: (weight, join(parts)) for name, (weight, parts) in collected.items()}


def _of_stack(run: "Evaluator", u: Stacked) -> Derivatives:
    found = [derivatives(run, part) for part in u.parts]
    names = {name: weight for one in found for name, (weight, _) in one.items()}

    def stacked(name: str) -> Field:
        zeros = (Offset(None, 0.0, part.positions) for part in u.parts)
        parts = tuple(one[name][1] if name in one else zero for one, zero in zip(found, zeros, strict=True))
        return replace(u, parts=parts)

    return {name: (weight, stacked(name)) for name, weight in names.items()}


def _sloped(u: Image, inner: Field) -> Field:
    """``phi'(source) * inner``; an activation again where `inner` is an affine function of the source."""
    (p, start, core), (q, offset, other) = affine(u.source), affine(inner)
    if core is other and p:
        return Image(_times_slope(u.activation, q / p, offset - start * q / p), u.source)
    return Local(lambda x, d: u.activation.derivative(x) * d, (u.source, inner), f"slope of {u.activation.name}")


def _times_slope(phi: Activation, factor: float, offset: float) -> Activation:
    """``x -> (factor * x + offset) * phi'(x)``, which can be phi itself for relu and its kin."""

    def function(x: Tensor) -> Tensor:
        return (factor * x + offset) * phi.derivative(x)

    grid = torch.tensor([-3.0, -1.7, -0.4, 0.3, 1.1, 2.9], dtype=torch.float64)
    if len(phi.kinks) < 2 and torch.allclose(function(grid), phi.function(grid), rtol=1e-12, atol=1e-12):
        return phi
    name = f"({factor!r} x + {offset!r}) {phi.name}'"
    return Activation.of(function, name, phi.kinks, scale=phi.scale, continuous=not phi.kinks)


def _of_local(run: "Evaluator", u: Local) -> Derivatives:
    """Chain rule through a function of several fields, by forward differentiation."""
    inner = [derivatives(run, source) for source in u.sources]
    weights = {name: weight for found in inner for name, (weight, _) in found.items()}
    count = len(u.sources)

    def field(name: str) -> Field:
        moving = [i for i, found in enumerate(inner) if name in found]

        def function(*values: Tensor) -> Tensor:
            tangents = [torch.zeros_like(value) for value in values[:count]]
            for place, i in enumerate(moving):
                tangents[i] = values[count + place]
            return torch.func.jvp(u.function, values[:count], tuple(tangents))[1]

        return Local(function, (*u.sources, *(inner[i][name][1] for i in moving)), f"slope of {u.name}")

    return {name: (weight, field(name)) for name, weight in weights.items()}
