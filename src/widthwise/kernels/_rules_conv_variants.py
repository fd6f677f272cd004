"""Rules of convolutions: dense, grouped, depthwise and transposed."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod

import torch
from torch import Tensor

from widthwise.kernels._checks import check_contracted
from widthwise.kernels._contractions import Contraction, Move
from widthwise.kernels._fields import (
    Concat,
    Field,
    Gained,
    Image,
    Inputs,
    Moved,
    Normalised,
    Product,
    Sizes,
    Sum,
    combine,
)
from widthwise.kernels._fields_filtered import Filtered, Tap
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._pieces import NoPiece
from widthwise.kernels._positions import convolved, pointwise
from widthwise.kernels._registry import Concrete, Lowered, rule
from widthwise.kernels._rules_linear import Filters, convolution_of, convolution_of_data, filters, spread
from widthwise.program import AxisKind, Node, Weight, axis_size


@rule(*(f"aten.conv{d}d.{form}" for d in (1, 2, 3) for form in ("default", "padding")))
def convolution(run: Lowering, node: Node) -> Lowered:
    """Filters shared over positions; groups of channels see their own group only."""
    bank = filters(run, node)
    data = isinstance(run.value(node.args[0]), Concrete)
    if bank.groups == 1:
        field: Field = (
            convolution_of_data(run, node, bank)
            if data
            else convolution_of(run, node, bank, run.field(node.args[0], node))
        )
    elif data:
        field = _groups_of_data(run, node, bank)
    elif bank.weight.shape[1] == 1:
        field = _depthwise(run, node, bank)
    else:
        field = _grouped(run, node, bank)
    key = field.contraction.key if isinstance(field, (Product, Filtered)) else ("groups",)
    run.used(bank.weight, (*bank.way, bank.groups, key), node)
    run.rules[node.name] = "exact"
    return run.with_bias(field, run.arg(node, 2, "bias"), node)


def _group(bank: Filters, index: int) -> tuple[Filters, slice]:
    """The filters of one group, and the channels that it sees."""
    rows, seen = bank.weight.shape[0] // bank.groups, bank.weight.shape[1]
    weight = bank.weight.part(0, range(index * rows, (index + 1) * rows))
    return replace(bank, weight=weight, groups=1), slice(index * seen, (index + 1) * seen)


def _groups_of_data(run: Lowering, node: Node, bank: Filters) -> Field:
    parts = [convolution_of_data(run, node, *_group(bank, index)) for index in range(bank.groups)]
    return Concat(tuple(parts), (1.0 / bank.groups,) * bank.groups)


def _grouped(run: Lowering, node: Node, bank: Filters) -> Field:
    """Groups of many coordinates: the mean over those of one group is that over all, where all have one law."""
    axis = run.axes(node.args[0])[1]
    if axis and axis[-1].kind is AxisKind.FEATURE:
        raise run.refuse(node, f"each of its groups holds {bank.weight.shape[1]} coordinates at any width, not many")
    field = run.field(node.args[0], node)
    if not isinstance(field, Concat):
        return convolution_of(run, node, bank, field)
    parts = []
    for index in range(bank.groups):
        inner, seen = _group(bank, index)
        try:
            source = _inside(run, node, field, seen, axis_size(axis))
        except NoPiece as reason:
            raise run.refuse(node, f"its groups cut through blocks that cannot be cut ({reason})") from None
        parts.append(convolution_of(run, node, inner, source))
    return Concat(tuple(parts), (1.0 / bank.groups,) * bank.groups)


def _inside(run: Lowering, node: Node, field: Concat, seen: slice, channels: int) -> Field:
    """The coordinates of a group, which have to lie in one block."""
    start = 0
    for part, fraction in zip(field.parts, field.fractions, strict=True):
        stop = start + round(fraction * channels)
        if start <= seen.start and seen.stop <= stop:
            whole = (seen.start, seen.stop) == (start, stop)
            return part if whole else run.pieces.cut(part, torch.arange(seen.start - start, seen.stop - start))
        start = stop
    raise run.refuse(node, "one of its groups lies across blocks of different law")


# -- depthwise ---------------------------------------------------------------------------------------------------------


def _depthwise(run: Lowering, node: Node, bank: Filters) -> Field:
    """Each coordinate has its own random taps: a product of random numbers, not Gaussian."""
    field = run.field(node.args[0], node)
    if isinstance(field, Concat):
        raise run.refuse(node, "its channels are blocks of different law")
    check_contracted(run, node, run.axes(node.args[0]), 1)
    if prod(field.positions) != prod(bank.image):
        raise run.refuse(node, "its image axes do not hold all positions")
    taps = prod(bank.kernel)
    variance = run.matrix(bank.weight, taps, node)
    contraction = convolved(field.positions, bank.image, bank.kernel, bank.stride, bank.padding, bank.dilation)
    places = list(product(*(range(size) for size in bank.kernel)))
    numbers = tuple(Tap(bank.weight, variance / taps, taps, i, contraction.positions) for i in range(taps))
    shifts = tuple(shifted(field, _at_tap(bank, place, contraction.positions)) for place in places)
    return Filtered(bank.weight, variance, taps, field, contraction, numbers, shifts)


def _at_tap(bank: Filters, place: tuple[int, ...], positions: Sizes) -> Move:
    """What one tap sees: shifted positions, zero outside."""

    def apply(moment: Tensor) -> Tensor:
        value = moment.reshape(-1, *bank.image)
        for axis, tap in enumerate(place):
            before, after = bank.padding[axis]
            value = torch.nn.functional.pad(value.movedim(1 + axis, -1), (before, after))
            start, step = tap * bank.dilation[axis], bank.stride[axis]
            count = (value.shape[-1] - bank.dilation[axis] * (bank.kernel[axis] - 1) - 1) // step + 1
            value = value[..., start : start + (count - 1) * step + 1 : step].movedim(-1, 1 + axis)
        return value.reshape(-1, *positions)

    return Move(positions, apply, gathers=True)


def shifted(field: Field, move: Move) -> Field:
    """A field at moved positions, as a function of moved Gaussian fields where that is the same."""
    if field.gaussian:
        return Moved(field, move)
    if isinstance(field, Sum):
        return combine([(scale, shifted(term, move)) for scale, term in field.terms])
    if isinstance(field, Gained):
        return replace(field, source=shifted(field.source, move))
    if isinstance(field, Normalised) and not field.pooled:
        statistic = shifted(field.statistic, move)
        source = statistic if field.source is field.statistic else shifted(field.source, move)
        return replace(field, source=source, statistic=statistic)
    if isinstance(field, Image) and float(field.activation.function(torch.zeros((), dtype=torch.float64))) == 0.0:
        return replace(field, source=shifted(field.source, move))
    return Moved(field, move)


# -- transposed --------------------------------------------------------------------------------------------------------


@rule("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def transposed_convolution(run: Lowering, node: Node) -> Lowered:
    """Each position is spread by the filters over several; a position of the result sums what reaches it."""
    weight = run.value(node.args[1])
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its filters are computed, not a parameter")
    dims = len(weight.shape) - 2
    kernel = tuple(weight.shape[2:])
    places = ((3, "stride", 1), (4, "padding", 0), (5, "output_padding", 0), (7, "dilation", 1))
    stride, padding, extra, dilation = (spread(run.arg(node, i, name, value), dims) for i, name, value in places)
    groups, axes = run.arg(node, 6, "groups", 1), run.axes(node.args[0])
    if len(axes) != dims + 2 or position_sizes(axes[:2]):
        raise run.refuse(node, "its operand is not batch, channels and image axes")
    if groups > 1 and (groups == weight.shape[0] or isinstance(run.value(node.args[0]), (Concrete, Concat))):
        raise run.refuse(node, "grouped transposed filters have a rule for groups of many coordinates only")
    image = tuple(axis_size(axis) for axis in axes[2:])
    out = tuple(
        (size - 1) * step - 2 * pad + gap * (taps - 1) + more + 1
        for size, step, pad, gap, taps, more in zip(image, stride, padding, dilation, kernel, extra, strict=True)
    )

    def place(value: Tensor, axis: int, dim: int, tap: int) -> Tensor:
        return _placed(value, dim, tap * dilation[axis] - padding[axis], stride[axis], out[axis])

    way = ("transposed filters", image, kernel, stride, padding, dilation, extra)
    contracted = weight.shape[0] // groups * prod(kernel)
    if isinstance(run.value(node.args[0]), Concrete):
        positions = tuple(size for size in out if size > 1)
        field: Field = Inputs(node.args[0].name, _reader(kernel, place, prod(out)), positions)
        contraction = pointwise(positions, way)
    else:
        field = run.field(node.args[0], node)
        check_contracted(run, node, axes, 1)
        if prod(field.positions) != prod(image):
            raise run.refuse(node, "its image axes do not hold all positions")
        contraction = _spreading(image, kernel, out, place, way)
    run.used(weight, (*way, groups), node)
    run.rules[node.name] = "exact"
    made = Product(weight, run.matrix(weight, contracted, node), contracted, field, contraction)
    return run.with_bias(made, run.arg(node, 2, "bias"), node)


def _placed(value: Tensor, dim: int, offset: int, stride: int, size: int) -> Tensor:
    """Entry p of an axis put at ``p * stride + offset`` of an axis of `size`, zero elsewhere."""
    length = value.shape[dim]
    first = max(0, -(offset // stride))
    last = min(length, (size - 1 - offset) // stride + 1)
    shape = list(value.shape)
    shape[dim] = size
    result = value.new_zeros(shape)
    if last > first:
        start = first * stride + offset
        target = result.movedim(dim, 0)[start : start + (last - first - 1) * stride + 1 : stride]
        target.copy_(value.movedim(dim, 0)[first:last])
    return result


def _reader(kernel: Sizes, place: Callable[..., Tensor], sites: int) -> Callable[[Tensor], Tensor]:
    def read(tensor: Tensor) -> Tensor:
        seen = []
        for taps in product(*(range(size) for size in kernel)):
            value = tensor
            for axis, tap in enumerate(taps):
                value = place(value, axis, 2 + axis, tap)
            seen.append(value.reshape(*tensor.shape[:2], sites))
        return torch.cat(seen, 1).transpose(1, 2)

    return read


def _spreading(image: Sizes, kernel: Sizes, out: Sizes, place: Callable[..., Tensor], way: tuple) -> Contraction:
    positions = tuple(size for size in out if size > 1)
    dims = len(image)

    def diagonal(moment: Tensor) -> Tensor:
        value = moment.reshape(-1, *image)
        for axis in range(dims):
            value = torch.stack([place(value, axis, 1 + axis, tap) for tap in range(kernel[axis])]).sum(0)
        return value.reshape(-1, *positions) / prod(kernel)

    def full(moment: Tensor) -> Tensor:
        value = moment.reshape(-1, *image, *image)
        for axis in range(dims):
            pairs = [
                place(place(value, axis, 1 + axis, tap), axis, 1 + dims + axis, tap) for tap in range(kernel[axis])
            ]
            value = torch.stack(pairs).sum(0)
        return value.reshape(-1, *positions, *positions) / prod(kernel)

    return Contraction(positions, way, diagonal, full, needs_diagonal_only=prod(out) == 1)
