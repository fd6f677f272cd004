"""Rules of operations that join, cut and reorder coordinates or positions."""

from math import prod

import torch

from widthwise.kernels._checks import COORDINATES
from widthwise.kernels._fields import Concat, Field, Offset, blockwise
from widthwise.kernels._fields_stacked import Stacked, picked, stack
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._positions import reshaped
from widthwise.kernels._registry import Lowered, rule
from widthwise.program import AxisKind, Node, Ref, axis_size


def _operand(run: Lowering, argument: Ref, node: Node) -> Field:
    """An operand of a join: a random field, or zero."""
    if run.is_zero(argument):
        return Offset(None, 0.0, position_sizes(run.axes(argument)))
    return run.field(argument, node)


@rule("aten.stack.default")
def stacked(run: Lowering, node: Node) -> Lowered:
    """Fields as the entries of a new position axis."""
    assert node.axes is not None
    dim = run.arg(node, 1, "dim", 0) % len(node.axes)
    if any(factor.kind is not AxisKind.POSITION for factor in node.axes[dim]):
        raise run.refuse(node, "it stacks along an axis of coordinates")
    parts = [_operand(run, operand, node) for operand in node.args[0]]
    if any(part.positions != parts[0].positions for part in parts):
        raise run.refuse(node, "its operands' positions do not line up")
    run.rules[node.name] = "exact"
    return stack(parts, len(position_sizes(node.axes[:dim])))


@rule("aten.cat.default", "aten.concat.default")
def concatenated(run: Lowering, node: Node) -> Lowered:
    """Concatenation over coordinates (blocks of different law) or over positions."""
    operands = list(node.args[0])
    assert node.axes is not None
    dim = run.arg(node, 1, "dim", 0) % len(node.axes)
    axes = [run.axes(operand)[dim] for operand in operands]
    kinds = {factor.kind for axis in (*axes, node.axes[dim]) for factor in axis}
    run.rules[node.name] = "exact"
    if kinds <= {AxisKind.POSITION}:
        return _joined(run, node, operands, dim)
    if not kinds <= set(COORDINATES):
        raise run.refuse(node, "it joins examples, or positions with coordinates")
    sizes = [axis_size(axis) for axis in axes]
    parts: list[Field] = []
    shares: list[float] = []
    for operand, size in zip(operands, sizes, strict=True):
        field = _operand(run, operand, node)
        blocks = zip(field.parts, field.fractions, strict=True) if isinstance(field, Concat) else [(field, 1.0)]
        for part, fraction in blocks:
            parts.append(part)
            shares.append(fraction * size / sum(sizes))
    return Concat(tuple(parts), tuple(shares))


def _joined(run: Lowering, node: Node, operands: list[Ref], dim: int) -> Field:
    """Positions put behind each other."""
    assert node.axes is not None
    parts: list[Field] = []
    lengths: list[int] = []
    place = len(position_sizes(node.axes[:dim]))
    rest = (*position_sizes(node.axes[:dim]), *position_sizes(node.axes[dim + 1 :]))
    for operand in operands:
        length = axis_size(run.axes(operand)[dim])
        field = _operand(run, operand, node)
        sizes = rest if length == 1 else (*rest[:place], length, *rest[place:])
        if prod(field.positions) != prod(sizes):
            raise run.refuse(node, "its operands' positions do not line up")
        parts.append(reshaped(field, sizes))
        lengths.append(length)
    return Stacked(tuple(parts), place, tuple(lengths))


@rule("aten.roll.default", "aten.index_select.default")
def reselected(run: Lowering, node: Node) -> Lowered:
    """Positions in another order, or chosen by constant indices."""
    axes = run.axes(node.args[0])
    if "roll" in node.op:
        shifts, dims = (value if isinstance(value, (list, tuple)) else [value] for value in node.args[1:3])
        steps = [(dim, torch.arange(axis_size(axes[dim])).roll(shift)) for shift, dim in zip(shifts, dims, strict=True)]
    else:
        index = run.tensor(node.args[2])
        if index is None:
            raise run.refuse(node, "its indices depend on the data")
        steps = [(node.args[1], index % axis_size(axes[node.args[1]]))]
    field = run.field(node.args[0], node)
    for dim, entries in steps:
        axis = axes[dim]
        if len(axis) != 1 or axis[0].kind is not AxisKind.POSITION:
            raise run.refuse(node, "it picks or reorders coordinates, examples or joined axes")
        place = len(position_sizes(axes[: dim % len(axes)]))
        field = _picked_blocks(field, place, tuple(entries.tolist()))
    run.rules[node.name] = "exact"
    return field


def _picked_blocks(field: Field, place: int, entries: tuple[int, ...]) -> Field:
    """The chosen entries of every block."""
    return blockwise(lambda part: picked(part, place, entries), field)
