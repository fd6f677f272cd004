"""Rules of elementwise operations: activations, sums, scalings, products."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch

from widthwise.kernels._activations import ELEMENTWISE
from widthwise.kernels._affine import constant_part
from widthwise.kernels._checks import coordinates
from widthwise.kernels._fields import (
    Centred,
    Field,
    Gained,
    Image,
    Inputs,
    Local,
    Offset,
    Product,
    Sum,
    blockwise,
    combine,
)
from widthwise.kernels._fields_batch import BATCH_NORM_RULE, batch_image
from widthwise.kernels._fields_joint import Averaged
from widthwise.kernels._fields_stacked import elementwise, together
from widthwise.kernels._fused import fused
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._pieces import NoPiece
from widthwise.kernels._registry import Concrete, Lowered, rule
from widthwise.kernels._sampling import NoSamplingRule, gaussian_atoms
from widthwise.kernels._scales import constant_value
from widthwise.kernels._walks import children
from widthwise.numerics import ACTIVATIONS, Activation
from widthwise.program import Axis, AxisKind, Node, Weight


@rule(*ELEMENTWISE)
def activation(run: Lowering, node: Node) -> Lowered:
    op = node.op if node.op in ELEMENTWISE else node.op.replace("_.", ".")
    phi = ELEMENTWISE[op](run, node)
    source = run.field(node.args[0], node)
    return elementwise(lambda part: image(run, node, phi, part), source)


def image(run: Lowering, node: Node, phi: Activation, source: Field) -> Field:
    """An activation of a field: closed form or quadrature if the field is Gaussian, sampled otherwise."""
    if isinstance(source, Sum):
        offset, source = without_offset(source)
        phi = shifted(phi, offset) if offset else phi
    if constant := constant_part(source):
        phi, source = shifted(phi, constant), Centred(source, pooled=False, gaussian=True)
    if source.gaussian:
        run.rules[node.name] = "exact" if phi.closed_form is not None else "quadrature"
        return Image(phi, source)
    standardised = batch_image(phi, source)
    if standardised is not None:
        run.rules[node.name] = BATCH_NORM_RULE
        return standardised
    return sampled(run, node, phi.function, (source,), phi.name, smooth=not phi.kinks)


def without_offset(source: Sum) -> tuple[float, Field]:
    """Split a sum into its constant and the rest; a trained constant leaves a zero that still has its tangent."""
    offset = sum((scale * term.value for scale, term in source.terms if isinstance(term, Offset)), 0.0)
    rest = [
        (scale, replace(term, value=0.0) if isinstance(term, Offset) and term.value else term)
        for scale, term in source.terms
        if not isinstance(term, Offset) or term.weight is not None
    ]
    return offset, combine(rest) if rest else source


def shifted(phi: Activation, offset: float) -> Activation:
    """``x -> phi(x + offset)``."""
    return replace(
        phi,
        name=f"{phi.name} at x{offset:+}",
        function=lambda x: phi.function(x + offset),
        derivative=lambda x: phi.derivative(x + offset),
        kinks=tuple(kink - offset for kink in phi.kinks),
        closed_form=None,
    )


def sampled(
    run: Lowering,
    node: Node,
    function: Callable[..., torch.Tensor],
    sources: tuple[Field, ...],
    name: str,
    *,
    smooth: bool = False,
) -> Field:
    """An elementwise function of fields that are not all Gaussian; where it is one of a single one, an activation.

    Args:
        smooth: whether the function has no kinks.
    """
    activation_of_one = fused(function, sources, name) if smooth else None
    if activation_of_one is not None:
        run.rules[node.name] = "quadrature"
        return activation_of_one
    result = together(lambda *fields: Local(function, fields, name), sources)
    run.rules[node.name] = "sampled"
    if run.sampling:
        check_random(run, node, sources)
        return result
    try:
        gaussian_atoms(result)
    except NoSamplingRule as reason:
        raise run.refuse(node, f"its argument is not Gaussian and cannot be sampled ({reason} below it)") from None
    return result


def check_random(run: Lowering, node: Node, sources: tuple[Field, ...]) -> None:
    """A function of coordinates has to see wide vectors, in whose many coordinates data with few features get lost.

    Raises:
        UnsupportedOperation: data enter it without a random matrix, or an average over all coordinates does.
    """
    stack = list(sources)
    while stack:
        one = stack.pop()
        if isinstance(one, (Inputs, Averaged)):
            raise run.refuse(node, "it joins random coordinates with data, or with an average over coordinates")
        if not isinstance(one, Product):
            stack += children(one)


@rule("aten.threshold.default")
def threshold(run: Lowering, node: Node) -> Lowered:
    if tuple(node.args[1:3]) != (0, 0):
        raise run.refuse(node, "only threshold(x, 0, 0) has a rule")
    source = run.field(node.args[0], node)
    return elementwise(lambda part: image(run, node, ACTIVATIONS["relu"](), part), source)


def _number(run: Lowering, argument: Any) -> float | None:
    """A scalar operand: a Python number, or a constant tensor whose entries are all equal."""
    if isinstance(argument, (int, float)):
        return float(argument)
    tensor = run.tensor(argument)
    if tensor is not None and tensor.numel() and bool((tensor == tensor.reshape(-1)[0]).all()):
        return float(tensor.reshape(-1)[0])
    return None


def _offset(value: float, like: Field) -> Offset:
    return Offset(None, value, like.positions, (False,) * len(like.positions))


@rule("aten.add.Tensor", "aten.sub.Tensor", "aten.add.Scalar", "aten.sub.Scalar")
def add(run: Lowering, node: Node) -> Lowered:
    sign = -1.0 if ".sub" in node.op else 1.0
    factors = (1.0, sign * float(run.arg(node, 2, "alpha", 1)))
    terms: list[tuple[float, Field]] = []
    number = 0.0
    for scale, argument in zip(factors, node.args[:2], strict=True):
        constant = _number(run, argument)
        if constant is not None:
            number += scale * constant
        else:
            terms.append((scale, run.aligned(argument, node)))
    run.rules[node.name] = "exact"
    if number:
        terms.append((1.0, _offset(number, terms[0][1])))
    try:
        return combine(run.pieces.lined_up(terms, prod(factor.size for factor in coordinates(node.axes or ()))))
    except NoPiece as reason:
        raise run.refuse(node, f"it adds coordinates to a cut of them that has no rule ({reason})") from None
    except ValueError as reason:
        raise run.refuse(node, str(reason)) from None


@rule("aten.rsub.Scalar")
def reversed_sub(run: Lowering, node: Node) -> Lowered:
    source = run.field(node.args[0], node)
    run.rules[node.name] = "exact"
    return combine([(-run.arg(node, 2, "alpha", 1), source), (1.0, _offset(float(node.args[1]), source))])


@rule("aten.neg.default")
def negative(run: Lowering, node: Node) -> Lowered:
    run.rules[node.name] = "exact"
    return combine([(-1.0, run.field(node.args[0], node))])


@rule("aten.mul.Tensor", "aten.div.Tensor", "aten.mul.Scalar", "aten.div.Scalar")
def multiply(run: Lowering, node: Node) -> Lowered:
    left, right = node.args[:2]
    divide = ".div" in node.op
    number = _number(run, right)
    if number is not None:
        run.rules[node.name] = "exact"
        return combine([(1.0 / number if divide else number, run.field(left, node))])
    number = _number(run, left)
    if number is not None and not divide:
        run.rules[node.name] = "exact"
        return combine([(number, run.field(right, node))])
    if divide:
        raise run.refuse(node, "division by random coordinates has no rule")
    for vector, other in ((left, right), (right, left)):
        weight = run.value(vector)
        if isinstance(weight, Weight):
            return gain(run, node, weight, run.axes(vector), run.aligned(other, node))
    if any(isinstance(run.value(side), Concrete) for side in (left, right)):
        raise run.refuse(node, "it multiplies random coordinates by data")
    pair = (run.aligned(left, node), run.aligned(right, node))
    return sampled(run, node, torch.mul, pair, "product", smooth=True)


def gain(run: Lowering, node: Node, weight: Weight, axes: tuple[Axis, ...], source: Field) -> Field:
    """A field times a trained vector that is constant at initialisation."""
    value = constant_value(weight)
    if value is None:
        raise run.refuse(node, f"gain {weight.name} differs between coordinates")
    if not coordinates(axes) or position_sizes(axes):
        run.untrained(weight, node)
    run.rules.setdefault(node.name, "exact")
    return blockwise(lambda part: Gained(part, weight, value), source)


def position_axes(run: Lowering, node: Node, dims: Any) -> list[int]:
    """The dims of a reduction as non-negative numbers, checked to run over positions only."""
    axes = run.axes(node.args[0])
    dims = range(len(axes)) if dims is None else [dims] if isinstance(dims, int) else dims
    chosen = [dim % len(axes) for dim in dims]
    for dim in chosen:
        if any(factor.kind is not AxisKind.POSITION for factor in axes[dim]):
            raise run.refuse(node, f"axis {dim} that it reduces is not a position axis")
    return chosen
