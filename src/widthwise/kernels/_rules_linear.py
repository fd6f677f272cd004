"""Rules of operations that multiply by a random matrix: linear, matmul, convolution, embedding."""

from typing import Any

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._fields import Field, Inputs, Product, Tokens
from widthwise.kernels._lowering import Concrete, Lowered, Lowering, position_sizes, rule
from widthwise.kernels._positions import convolved, flattened, patches, pointwise
from widthwise.program import AxisKind, Node, Ref, Weight, axis_size


def contract_last_axis(run: Lowering, node: Node, operand: Ref, weight: Weight) -> Product:
    """``operand @ weight`` over the operand's last axis."""
    axes = run.axes(operand)
    fan_in = axis_size(axes[-1])
    source = run.value(operand)
    if isinstance(source, Concrete):
        inputs = run.inputs(operand, (len(axes) - 1,), node)
        return Product(weight, run.matrix(weight, fan_in, node), fan_in, inputs, pointwise(inputs.positions))
    field = run.field(operand, node)
    kinds = [factor.kind for factor in axes[-1]]
    if kinds and AxisKind.WIDTH not in kinds and AxisKind.FEATURE not in kinds and AxisKind.HEAD not in kinds:
        raise run.refuse(node, "its matrix mixes positions, not coordinates")
    last = len(position_sizes(axes[-1:]))
    gone = (False,) * (len(field.positions) - last) + (True,) * last
    contraction = flattened(field.positions, gone) if last else pointwise(field.positions)
    return Product(weight, run.matrix(weight, fan_in, node), fan_in, field, contraction)


@rule("aten.linear.default")
def linear(run: Lowering, node: Node) -> Lowered:
    weight = run.value(node.args[1])
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its matrix is computed, not a parameter")
    run.rules[node.name] = "exact"
    product = contract_last_axis(run, node, node.args[0], weight)
    return run.with_bias(product, run.arg(node, 2, "bias"), node)


@rule("aten.addmm.default")
def addmm(run: Lowering, node: Node) -> Lowered:
    bias, operand, matrix = node.args[:3]
    weight = run.value(matrix)
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its matrix is computed, not a parameter")
    run.rules[node.name] = "exact"
    return run.with_bias(contract_last_axis(run, node, operand, weight), bias, node)


@rule("aten.matmul.default", "aten.mm.default")
def matmul(run: Lowering, node: Node) -> Lowered:
    weight = run.value(node.args[1])
    if not isinstance(weight, Weight) or len(weight.shape) != 2:
        raise run.refuse(node, "it multiplies two activations (attention comes with a later version)")
    run.rules[node.name] = "exact"
    return contract_last_axis(run, node, node.args[0], weight)


def _spread(value: Any, count: int) -> tuple[int, ...]:
    value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value * count if len(value) == 1 else value


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    if value == "valid":
        return [(0, 0)] * len(kernel)
    if value == "same":
        totals = [step * (taps - 1) for taps, step in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(amount, amount) for amount in _spread(value, len(kernel))]


@rule(*(f"aten.conv{d}d.{form}" for d in (1, 2, 3) for form in ("default", "padding")))
def convolution(run: Lowering, node: Node) -> Lowered:
    operand, weight = node.args[0], run.value(node.args[1])
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its filters are computed, not a parameter")
    dims = len(weight.shape) - 2
    if run.arg(node, 6, "groups", 1) != 1:
        raise run.refuse(node, "grouped and depthwise filters have no exact rule yet")
    kernel = tuple(weight.shape[2:])
    stride, dilation = (_spread(run.arg(node, i, name, 1), dims) for i, name in ((3, "stride"), (5, "dilation")))
    padding = _padding(run.arg(node, 4, "padding", 0), kernel, dilation)
    axes = run.axes(operand)
    if len(axes) != dims + 2:
        raise run.refuse(node, "it is applied without a batch axis")
    image = tuple(axis_size(axis) for axis in axes[2:])
    field: Field
    if isinstance(run.value(operand), Concrete):
        _, sizes = patches(torch.zeros(1, 1, *image, device="meta"), kernel, stride, padding, dilation)
        positions = tuple(size for size in sizes if size > 1)

        def read(tensor: Tensor) -> Tensor:
            return patches(tensor, kernel, stride, padding, dilation)[0]

        field, contraction = Inputs(operand.name, read, positions), pointwise(positions)
    else:
        field = run.field(operand, node)
        contraction = convolved(field.positions, image, kernel, stride, padding, dilation)
    contracted = weight.shape[1]
    for taps in kernel:
        contracted *= taps
    run.rules[node.name] = "exact"
    product = Product(weight, run.matrix(weight, contracted, node), contracted, field, contraction)
    return run.with_bias(product, run.arg(node, 2, "bias"), node)


@rule("aten.embedding.default")
def embedding(run: Lowering, node: Node) -> Lowered:
    weight, indices = run.value(node.args[0]), run.value(node.args[1])
    if not isinstance(weight, Weight) or not isinstance(indices, Concrete):
        raise run.refuse(node, "only a parameter table looked up by data has a rule")
    if not indices.batched:
        raise UnsupportedOperation(node.op, node.module_path, "a table looked up by a constant index has no rule yet")
    std = run.scales.pick(run.scales.weight_std, weight.name)
    variance = (weight.init_std if std is None else std) ** 2
    assert node.axes is not None
    run.rules[node.name] = "exact"
    return Tokens(node.args[1].name, weight, variance, position_sizes(node.axes))
