"""Rules of operations that multiply by a random matrix: linear, matmul, convolution, embedding."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from widthwise.kernels._checks import check_contracted
from widthwise.kernels._fields import Field, Inputs, Offset, Product, combine
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._patterns import pattern_of
from widthwise.kernels._positions import after, convolved, flattened, patches, pointwise
from widthwise.kernels._registry import Concrete, Lowered, Transposed, rule
from widthwise.kernels._rules_contract import contract, multiplied
from widthwise.kernels._rules_tokens import mixed, mixes_positions, with_given_bias
from widthwise.program import Node, Ref, Weight, axis_size


def contract_last_axis(run: Lowering, node: Node, operand: Ref, matrix: Any, *, rows_are_outputs: bool) -> Product:
    """``operand @ matrix`` over the operand's last axis.

    Args:
        rows_are_outputs: whether the matrix is stored as ``[out, in]``.
    """
    value = run.value(matrix)
    if isinstance(value, Transposed):
        value, rows_are_outputs = value.weight, not rows_are_outputs
    if not isinstance(value, Weight):
        raise run.refuse(node, "its matrix is computed, not a parameter")
    axes = run.axes(operand)
    fan_in = axis_size(axes[-1])
    if run.is_zero(operand):
        field: Field = Offset(None, 0.0, position_sizes(axes[:-1]))
        contraction = pointwise(field.positions)
    elif isinstance(run.value(operand), Concrete):
        field = run.inputs(operand, (len(axes) - 1,), node)
        contraction = pointwise(field.positions)
    else:
        field = run.field(operand, node)
        check_contracted(run, node, axes, len(axes) - 1)
        last = len(position_sizes(axes[-1:]))
        gone = (False,) * (len(field.positions) - last) + (True,) * last
        layout = tuple((factor.kind, factor.size) for factor in axes[-1])
        contraction = flattened(field.positions, gone, layout) if last else pointwise(field.positions)
    way = (rows_are_outputs or len(value.shape) == 1, contraction.key)
    return multiplied(run, node, value, field, contraction, (fan_in, way))


@rule("aten.linear.default")
def linear(run: Lowering, node: Node) -> Lowered:
    pattern = pattern_of(run.program, node)
    if pattern is not None and mixes_positions(run, pattern):
        return with_given_bias(run, node, mixed(run, node, pattern), run.arg(node, 2, "bias"))
    product = contract_last_axis(run, node, node.args[0], node.args[1], rows_are_outputs=True)
    return run.with_bias(product, run.arg(node, 2, "bias"), node)


@rule("aten.addmm.default")
def addmm(run: Lowering, node: Node) -> Lowered:
    added, operand, matrix = node.args[:3]
    product = contract_last_axis(run, node, operand, matrix, rows_are_outputs=False)
    scale, of_added = (float(node.kwargs.get(name, 1)) for name in ("alpha", "beta"))
    return combine([(scale, product), (of_added, run.aligned(added, node))])


@rule("aten.matmul.default", "aten.mm.default", "aten.mv.default", "aten.bmm.default")
def matmul(run: Lowering, node: Node) -> Lowered:
    pattern = pattern_of(run.program, node)
    if pattern is None or run.is_zero(pattern.operand):
        return contract_last_axis(run, node, node.args[0], node.args[1], rows_are_outputs=False)
    if mixes_positions(run, pattern):
        return mixed(run, node, pattern)
    if pattern.matrix == node.args[1] and len(pattern.letters[1]) <= 2:
        return contract_last_axis(run, node, node.args[0], node.args[1], rows_are_outputs=False)
    return contract(run, node, pattern)


def spread(value: Any, count: int) -> tuple[int, ...]:
    value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value * count if len(value) == 1 else value


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[tuple[int, int]]:
    if value == "valid":
        return [(0, 0)] * len(kernel)
    if value == "same":
        totals = [step * (taps - 1) for taps, step in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(amount, amount) for amount in spread(value, len(kernel))]


@dataclass(frozen=True)
class Filters:
    """A convolution's parameter and how it moves over its operand."""

    weight: Weight
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: list[tuple[int, int]]
    dilation: tuple[int, ...]
    image: tuple[int, ...]

    @property
    def way(self) -> tuple:
        """The same in comparable form."""
        return ("filters", self.kernel, self.stride, tuple(self.padding), self.dilation, self.image)

    @property
    def contracted(self) -> int:
        """Number of entries that one output sums over."""
        return prod(self.weight.shape[1:])


def filters(run: Lowering, node: Node) -> Filters:
    """What a convolution does, checked."""
    weight = run.value(node.args[1])
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its filters are computed, not a parameter")
    dims = len(weight.shape) - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = (spread(run.arg(node, i, name, 1), dims) for i, name in ((3, "stride"), (5, "dilation")))
    padding = _padding(run.arg(node, 4, "padding", 0), kernel, dilation)
    axes = run.axes(node.args[0])
    if len(axes) != dims + 2 or position_sizes(axes[:1]):
        raise run.refuse(node, "its operand is not batch, channels and image axes")
    image = tuple(axis_size(axis) for axis in axes[2:])
    return Filters(weight, run.arg(node, 6, "groups", 1), kernel, stride, padding, dilation, image)


def convolution_of_data(run: Lowering, node: Node, bank: Filters, channels: slice = slice(None)) -> Product:
    """Filters on some channels of the data."""
    geometry = (bank.kernel, bank.stride, bank.padding, bank.dilation)
    _, sizes = patches(torch.zeros(1, 1, *bank.image, device="meta"), *geometry)
    positions = tuple(size for size in sizes if size > 1)

    def read(tensor: Tensor) -> Tensor:
        return patches(tensor[:, channels], *geometry)[0]

    field, contraction = Inputs(node.args[0].name, read, positions), pointwise(positions, ("patches", *bank.way[1:]))
    variance = run.matrix(bank.weight, bank.contracted, node)
    return Product(bank.weight, variance, bank.contracted, field, contraction)


def convolution_of(run: Lowering, node: Node, bank: Filters, field: Field) -> Product:
    """Filters on a random field."""
    axes = run.axes(node.args[0])
    check_contracted(run, node, axes, 1)
    inside = len(position_sizes(axes[1:2]))
    if prod(field.positions[inside:]) != prod(bank.image):
        raise run.refuse(node, "its image axes do not hold all positions")
    outside = field.positions[inside:]
    contraction = convolved(outside, bank.image, bank.kernel, bank.stride, bank.padding, bank.dilation)
    if inside:
        gone = (True,) * inside + (False,) * len(outside)
        layout = tuple((factor.kind, factor.size) for factor in axes[1])
        contraction = after(flattened(field.positions, gone, layout), contraction)
    variance = run.matrix(bank.weight, bank.contracted, node)
    return Product(bank.weight, variance, bank.contracted, field, contraction)
