"""Rules of operations that multiply by a random matrix: linear, matmul, convolution, embedding."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from widthwise.kernels._checks import check_contracted
from widthwise.kernels._fields import Field, Inputs, Offset, Product, Tokens, combine
from widthwise.kernels._lowering import Concrete, Lowered, Lowering, Scales, Transposed, position_sizes, rule
from widthwise.kernels._positions import convolved, flattened, patches, pointwise
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
    run.used(value, way, node)
    run.rules[node.name] = "sampled, transposes" if value.name in run.transposes else "exact"
    variance = run.matrix(value, fan_in, node)
    transposed = way != run.uses[value.name]
    if transposed and Scales.pick(run.scales.weight_std, value.name) is not None:
        variance = variance * fan_in / (value.value.numel() / fan_in)
    gaussian = value.name not in run.transposes  # a transpose adds what the matrix has been multiplied with
    return Product(value, variance, fan_in, field, contraction, gaussian, transposed)


@rule("aten.linear.default")
def linear(run: Lowering, node: Node) -> Lowered:
    product = contract_last_axis(run, node, node.args[0], node.args[1], rows_are_outputs=True)
    return run.with_bias(product, run.arg(node, 2, "bias"), node)


@rule("aten.addmm.default")
def addmm(run: Lowering, node: Node) -> Lowered:
    added, operand, matrix = node.args[:3]
    product = contract_last_axis(run, node, operand, matrix, rows_are_outputs=False)
    scale, of_added = (float(node.kwargs.get(name, 1)) for name in ("alpha", "beta"))
    return combine([(scale, product), (of_added, run.aligned(added, node))])


@rule("aten.matmul.default", "aten.mm.default", "aten.mv.default")
def matmul(run: Lowering, node: Node) -> Lowered:
    weight = run.value(node.args[1])
    if isinstance(weight, Weight) and len(weight.shape) > 2:
        raise run.refuse(node, "it multiplies by a stack of matrices")
    return contract_last_axis(run, node, node.args[0], node.args[1], rows_are_outputs=False)


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
    if len(axes) != dims + 2 or position_sizes(axes[:2]):
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
    check_contracted(run, node, run.axes(node.args[0]), 1)
    if prod(field.positions) != prod(bank.image):
        raise run.refuse(node, "its image axes do not hold all positions")
    contraction = convolved(field.positions, bank.image, bank.kernel, bank.stride, bank.padding, bank.dilation)
    variance = run.matrix(bank.weight, bank.contracted, node)
    return Product(bank.weight, variance, bank.contracted, field, contraction)


@rule("aten.embedding.default")
def embedding(run: Lowering, node: Node) -> Lowered:
    weight, indices = run.value(node.args[0]), run.value(node.args[1])
    if not isinstance(weight, Weight) or not isinstance(indices, Concrete):
        raise run.refuse(node, "only a parameter table looked up by data has a rule")
    padding = run.arg(node, 2, "padding_idx", -1)
    if padding >= 0 and bool(weight.value[padding].any()):
        raise run.refuse(node, f"row {padding} of table {weight.name} is a padding row but not zero")
    std = Scales.pick(run.scales.weight_std, weight.name)
    if std is None:
        run.matrix(weight, 1, node)
        std = weight.init_std
    assert node.axes is not None
    run.used(weight, ("table",), node)
    run.rules[node.name] = "exact"
    return Tokens(node.args[1].name, weight, std**2, position_sizes(node.axes), indices.batched, padding)
