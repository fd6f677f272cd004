"""Products with a parameter in any position: einsum, matrices from the left, one matrix for each position."""

from typing import Any

import torch
from torch import Tensor

from widthwise.kernels._checks import coordinates
from widthwise.kernels._contractions import Contraction
from widthwise.kernels._fields import Field, Product
from widthwise.kernels._lowering import Lowering
from widthwise.kernels._patterns import Pattern, pattern_of
from widthwise.kernels._positions import flattened, pointwise, reordered
from widthwise.kernels._registry import Concrete, Lowered, rule
from widthwise.kernels._rules_tokens import mixed, mixes_positions
from widthwise.kernels._scales import Scales
from widthwise.program import AxisKind, Node, Weight, axis_size


@rule("aten.einsum.default")
def einsum(run: Lowering, node: Node) -> Lowered:
    pattern = pattern_of(run.program, node)
    if pattern is None:
        raise run.refuse(node, f"equation '{node.args[0]}' is no plain product of a parameter and something else")
    if mixes_positions(run, pattern):
        return mixed(run, node, pattern)
    return contract(run, node, pattern)


def contract(run: Lowering, node: Node, pattern: Pattern) -> Field:
    """A parameter times an operand, summed over all coordinates of the operand.

    Along axes that both have and the result keeps the parameter is another random matrix at each position (unshared
    filters): products at different positions are independent.
    """
    operand, matrix, result = pattern.letters
    axes = run.axes(pattern.operand)
    contracted, shared = pattern.contracted, pattern.shared
    if any(letter not in matrix and letter not in result for letter in operand):
        raise run.refuse(node, "it sums over an axis that its parameter lacks")
    if any(letter not in operand and letter not in result for letter in matrix) or not contracted:
        raise run.refuse(node, "it sums over no axis that both operands have, or over one of its parameter alone")
    if any(factor.kind is not AxisKind.POSITION for i in shared for factor in axes[i]):
        raise run.refuse(node, "its parameter has entries of its own for examples or coordinates that it keeps")
    if isinstance(run.value(pattern.operand), Concrete):
        field: Field = run.inputs(pattern.operand, contracted, node)
        sites = [
            (i, f.size)
            for i in range(len(axes))
            if i not in contracted
            for f in axes[i]
            if f.kind is not AxisKind.BATCH
        ]
    else:
        field = run.field(pattern.operand, node)
        held = tuple(factor for i in contracted for factor in axes[i])
        if not coordinates([held]) or len(coordinates([held])) != len(coordinates(axes)):
            raise run.refuse(node, "its matrix mixes positions (or acts on a single number), not coordinates")
        sites = [(i, f.size) for i, axis in enumerate(axes) for f in axis if f.kind is AxisKind.POSITION]
    gone = tuple(i in contracted for i, _ in sites)
    layout = tuple((factor.kind, factor.size) for i in contracted for factor in axes[i])
    contraction = flattened(field.positions, gone, layout) if any(gone) else pointwise(field.positions)
    kept = [i for i, _ in sites if i not in contracted]
    if any(i in shared for i in kept):
        contraction = unshared(contraction, tuple(i in shared for i in kept))
    fan_in = 1
    for i in contracted:
        fan_in *= axis_size(axes[i])
    where = tuple(matrix.index(operand[i]) for i in contracted)
    way: tuple[Any, ...] = (where, tuple(matrix.index(operand[i]) for i in shared), contraction.key)
    if len(matrix) <= 2 and not shared:
        way = (where == (len(matrix) - 1,), contraction.key)
    made = multiplied(run, node, run.value(pattern.matrix), field, contraction, (fan_in, way))
    order = tuple(place for letter in result for place, i in enumerate(kept) if operand[i] == letter)
    return reordered(made, order)


def multiplied(
    run: Lowering, node: Node, weight: Weight, field: Field, contraction: Contraction, use: tuple[int, tuple]
) -> Product:
    """A random matrix times a field, used in the given way.

    Args:
        use: number of entries that are summed over, and which of the matrix's axes in comparable form.
    """
    fan_in, way = use
    run.used(weight, way, node)
    run.rules[node.name] = "sampled, transposes" if weight.name in run.transposes else "exact"
    variance = run.matrix(weight, fan_in, node)
    transposed = way != run.uses[weight.name]
    if transposed and Scales.pick(run.scales.weight_std, weight.name) is not None:
        variance = variance * fan_in / (weight.value.numel() / fan_in)
    gaussian = weight.name not in run.transposes  # a transpose adds what the matrix has been multiplied with
    return Product(weight, variance, fan_in, field, contraction, gaussian, transposed)


def unshared(inner: Contraction, own: tuple[bool, ...]) -> Contraction:
    """A matrix of its own at each position of some axes: what differs there is independent.

    Args:
        inner: how the matrix acts at one of them.
        own: for each position axis of the result, whether it is such an axis.
    """
    sizes = inner.positions

    def full(moment: Tensor) -> Tensor:
        value = inner.full(moment)
        for axis in (i for i, flag in enumerate(own) if flag):
            shape = [1] * (1 + 2 * len(sizes))
            shape[1 + axis] = shape[1 + len(sizes) + axis] = sizes[axis]
            value = value * torch.eye(sizes[axis], dtype=value.dtype, device=value.device).reshape(shape)
        return value

    return Contraction(sizes, ("unshared", own, inner.key), inner.diagonal, full)
