"""Rules of elementwise operations: activations, sums, scalings, products."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch

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
from widthwise.kernels._fields_joint import Averaged
from widthwise.kernels._fields_stacked import elementwise, together
from widthwise.kernels._fused import fused
from widthwise.kernels._lowering import Concrete, Lowered, Lowering, constant_value, position_sizes, rule
from widthwise.kernels._pieces import NoPiece
from widthwise.kernels._sampling import NoSamplingRule, gaussian_atoms
from widthwise.kernels._walks import children
from widthwise.numerics import ACTIVATIONS, Activation
from widthwise.program import Axis, AxisKind, Node, Weight


def _plain(name: str, *options: tuple[int, str, Any]) -> Callable[[Lowering, Node], Activation]:
    """An activation from the table; options are read from the node's arguments (index, name, default)."""

    def build(run: Lowering, node: Node) -> Activation:
        return ACTIVATIONS[name](*(run.arg(node, index, key, default) for index, key, default in options))

    return build


def _gelu(run: Lowering, node: Node) -> Activation:
    return ACTIVATIONS["gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"]()


def _elu(run: Lowering, node: Node) -> Activation:
    alpha, scale, input_scale = (run.arg(node, i, k, 1.0) for i, k in ((1, "alpha"), (2, "scale"), (3, "input_scale")))
    if scale == 1.0 and input_scale == 1.0:
        return ACTIVATIONS["elu"](alpha)
    if abs(scale - 1.0507009873554805) < 1e-12 and input_scale == 1.0:
        return ACTIVATIONS["selu"]()
    raise run.refuse(node, f"ELU with scale {scale} and input scale {input_scale} is not in the table")


def _prelu(run: Lowering, node: Node) -> Activation:
    weight = run.value(node.args[1])
    slope = constant_value(weight) if isinstance(weight, Weight) else None
    if slope is None:
        raise run.refuse(node, "its slopes differ between channels")
    run.untrained(weight, node)
    return ACTIVATIONS["leaky_relu"](slope)


def _rrelu(run: Lowering, node: Node) -> Activation:
    if run.arg(node, 3, "training", False):
        raise run.refuse(node, "random slopes in training mode have no rule; trace the module in eval mode")
    return ACTIVATIONS["leaky_relu"]((run.arg(node, 1, "lower", 1 / 8) + run.arg(node, 2, "upper", 1 / 3)) / 2)


def _softplus(run: Lowering, node: Node) -> Activation:
    if run.arg(node, 2, "threshold", 20.0) < 15:
        raise run.refuse(node, "softplus has a rule for thresholds of 15 and more")
    return ACTIVATIONS["softplus"](run.arg(node, 1, "beta", 1.0))


def _pow(run: Lowering, node: Node) -> Activation:
    exponent = node.args[1]
    if not isinstance(exponent, (int, float)) or exponent != int(exponent) or exponent < 1:
        raise run.refuse(node, f"only whole positive powers have a rule, not {exponent}")
    return ACTIVATIONS["monomial"](int(exponent))


def _hardtanh(run: Lowering, node: Node) -> Activation:
    low, high = run.arg(node, 1, "min_val", -1.0), run.arg(node, 2, "max_val", 1.0)
    return ACTIVATIONS["hardtanh"](low, high)


def _clamp(run: Lowering, node: Node) -> Activation:
    low, high = run.arg(node, 1, "min"), run.arg(node, 2, "max")
    if low is None or high is None:
        raise run.refuse(node, "a clamp with one bound has no rule; write relu or hardtanh")
    return ACTIVATIONS["hardtanh"](float(low), float(high))


# Operation -> how to build its activation. A new activation: one row in numerics/_table.py and one here.
ELEMENTWISE: dict[str, Callable[[Lowering, Node], Activation]] = {
    "aten.relu.default": _plain("relu"),
    "aten.relu6.default": _plain("relu6"),
    "aten.leaky_relu.default": _plain("leaky_relu", (1, "negative_slope", 0.01)),
    "aten.rrelu.default": _rrelu,
    "aten.prelu.default": _prelu,
    "aten.abs.default": _plain("absolute"),
    "aten.sign.default": _plain("sign"),
    "aten.erf.default": _plain("erf"),
    "aten.gelu.default": _gelu,
    "aten.tanh.default": _plain("tanh"),
    "aten.sigmoid.default": _plain("sigmoid"),
    "aten.silu.default": _plain("silu"),
    "aten.mish.default": _plain("mish"),
    "aten.softplus.default": _softplus,
    "aten.elu.default": _elu,
    "aten.selu.default": _plain("selu"),
    "aten.celu.default": _plain("celu", (1, "alpha", 1.0)),
    "aten.hardtanh.default": _hardtanh,
    "aten.clamp.default": _clamp,
    "aten.hardswish.default": _plain("hardswish"),
    "aten.hardsigmoid.default": _plain("hardsigmoid"),
    "aten.log_sigmoid.default": _plain("logsigmoid"),
    "aten.hardshrink.default": _plain("hardshrink", (1, "lambd", 0.5)),
    "aten.softshrink.default": _plain("softshrink", (1, "lambd", 0.5)),
    "aten.sin.default": _plain("sin"),
    "aten.cos.default": _plain("cos"),
    "aten.exp.default": _plain("exp"),
    "aten.square.default": lambda run, node: ACTIVATIONS["monomial"](2),
    "aten.pow.Tensor_Scalar": _pow,
}


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
