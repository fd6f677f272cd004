"""Rules that cut coordinates, multiply fields, and rotate them by their position."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from widthwise.kernels._checks import COORDINATES, coordinates
from widthwise.kernels._fields import Field, Offset, blockwise
from widthwise.kernels._fields_attention import Gated, Rotated
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._origins import independent
from widthwise.kernels._pieces import NoPiece, chosen, turned_halves
from widthwise.kernels._positions import moved
from widthwise.kernels._registry import Intermediate, Lowered, Several, rule, rule_on
from widthwise.kernels._rules_pointwise import image, multiply
from widthwise.kernels._rules_shape import expanded as plain_expand
from widthwise.kernels._rules_shape import gathered, positionwise
from widthwise.numerics import ACTIVATIONS
from widthwise.program import AxisKind, Node, Ref, axis_size

# -- cuts ----------------------------------------------------------------------------------------------------------


def piece(run: Lowering, node: Node, operand: Ref, dim: int, entries: range) -> Field:
    """Some entries along an axis of coordinates of an operand."""
    axes = run.axes(operand)
    sizes = tuple(axis_size(tuple(f for f in axis if f.kind in COORDINATES)) for axis in axes)
    if any(factor.kind not in COORDINATES for factor in axes[dim]):
        raise run.refuse(node, "it picks or reorders coordinates and positions together")
    if node.shape is not None and any(f.kind is AxisKind.FEATURE for f in axes[dim]):
        raise run.refuse(node, "it picks some of the network's outputs")
    run.rules[node.name] = "exact"
    source = run.field(operand, node)
    if entries == range(axis_size(axes[dim])):
        return source
    try:
        return run.pieces.cut(source, chosen(sizes, dim, entries))
    except NoPiece as reason:
        raise run.refuse(node, f"it picks coordinates that are not many of one law ({reason})") from None


def _along_coordinates(run: Lowering, node: Node, dim: int) -> bool:
    axes = run.axes(node.args[0])
    return bool(coordinates(axes[dim % len(axes) : dim % len(axes) + 1]))


@rule("aten.slice.Tensor", "aten.select.int", "aten.narrow.default")
def picked(run: Lowering, node: Node) -> Lowered:
    """Entries of positions or coordinates."""
    dim = run.arg(node, 1, "dim", 0)
    if not isinstance(run.value(node.args[0]), Field) or not _along_coordinates(run, node, dim):
        return gathered(run, node)
    axes = run.axes(node.args[0])
    size = axis_size(axes[dim % len(axes)])
    if "select" in node.op:
        entries = range(size)[node.args[2] % size :][:1]
    elif "narrow" in node.op:
        entries = range(size)[node.args[2] : node.args[2] + node.args[3]]
    else:
        start, stop, step = (run.arg(node, i, name) for i, name in ((2, "start"), (3, "end"), (4, "step")))
        entries = range(size)[start : size if stop is None else min(stop, size) : step or 1]
    return piece(run, node, node.args[0], dim % len(axes), entries)


def _cuts(run: Lowering, node: Node, size: int) -> list[range]:
    """The entries that each result of a split holds."""
    if "unbind" in node.op:
        lengths = [1] * size
    elif "split_with_sizes" in node.op:
        lengths = list(node.args[1])
    elif "chunk" in node.op:
        step = -(-size // node.args[1])
        lengths = [min(step, size - start) for start in range(0, size, step)]
    else:
        lengths = [min(node.args[1], size - start) for start in range(0, size, node.args[1])]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [range(start, start + length) for start, length in zip(starts, lengths, strict=True)]


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default", "aten.unbind.int")
def split(run: Lowering, node: Node) -> Lowered:
    """All pieces along an axis of coordinates or positions."""
    axes = run.axes(node.args[0])
    dim = run.arg(node, 1 if "unbind" in node.op else 2, "dim", 0) % len(axes)
    cuts = _cuts(run, node, axis_size(axes[dim]))
    run.rules[node.name] = "exact"
    if coordinates(axes[dim : dim + 1]):
        return Several(tuple(piece(run, node, node.args[0], dim, cut) for cut in cuts))
    if any(f.kind is not AxisKind.POSITION for f in axes[dim]):
        raise run.refuse(node, "it picks or reorders examples")
    results: list[Field | None] = [None] * len(cuts)
    for user in run.program.users(node.name):
        if user.op == "getitem" and user.axes is not None:
            results[user.args[1]] = _positions(run, node, user, dim, cuts[user.args[1]])
    return Several(tuple(results))


def _positions(run: Lowering, node: Node, user: Node, dim: int, cut: range) -> Field:
    def narrow(tensor: Tensor, *_: object) -> Tensor:
        return tensor.narrow(dim, cut.start, len(cut))

    return positionwise(run, _with(node, user, narrow), gathers=True)


def _with(node: Node, user: Node, target: Callable[..., Tensor]) -> Node:
    return Node(node.name, "op", node.op, user.shape, user.axes, node.module_path, target, node.args[:1], {})


@rule("aten.expand.default", "aten.expand_as.default")
def expanded(run: Lowering, node: Node) -> Lowered:
    """Repeats along positions, or of heads (keys and values that several heads share)."""
    if isinstance(run.value(node.args[0]), Field) and node.axes is not None:
        before, after = coordinates(run.axes(node.args[0])), coordinates(node.axes)
        new = [factor for factor in after if factor not in before]
        kept = tuple(factor for factor in after if factor in before)
        if new and kept == before and all(factor.kind is AxisKind.HEAD for factor in new):
            run.rules[node.name] = "exact"
            return run.value(node.args[0])
    return plain_expand(run, node)


# -- products ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Modulated(Intermediate):
    """A field times a table over positions and the entries of a head.

    Attributes:
        source: the field.
        operand: the node that holds it.
        table: ``[P, d]``.
    """

    source: Field
    operand: Ref
    table: Tensor
    reason = "coordinates that are multiplied by numbers of their own have a rule in rotary positions only"


@rule("aten.mul.Tensor")
def product(run: Lowering, node: Node) -> Lowered:
    """By a number, a gain, an independent or dependent field, or a table of rotations."""
    left, right = node.args[:2]
    if isinstance(run.value(left), Field) and isinstance(run.value(right), Field):
        pair = run.aligned(left, node), run.aligned(right, node)
        if independent((pair[0],), (pair[1],)) and not any(isinstance(one, Offset) for one in pair):
            run.rules[node.name] = "exact"
            return Gated(torch.mul, pair, "product")
    for one, other in ((left, right), (right, left)):
        weights = _position_weights(run, node, one) if isinstance(run.value(other), Field) else None
        if weights is not None:
            run.rules[node.name] = "exact"
            return _weighted(run.aligned(other, node), weights)
    for one, other in ((left, right), (right, left)):
        table = _table(run, one) if isinstance(run.value(other), Field) else None
        if table is not None:
            return Modulated(run.value(other), other, table)
    return multiply(run, node)


def _position_weights(run: Lowering, node: Node, argument: object) -> Tensor | None:
    """A constant of several numbers that differ between positions alone, ``[*P]``."""
    tensor = run.tensor(argument)
    if tensor is None or tensor.numel() == 1 or node.axes is None:
        return None
    shape = (1,) * (len(node.axes) - tensor.dim()) + tuple(tensor.shape)
    sizes = [axis_size(axis) if {f.kind for f in axis} <= {AxisKind.POSITION} else 1 for axis in node.axes]
    if any(own not in (1, size) for own, size in zip(shape, sizes, strict=True)):
        return None
    return tensor.reshape(shape).expand(sizes).reshape(position_sizes(node.axes))


def _weighted(field: Field, weights: Tensor) -> Field:
    """A field times a number for each position: a map of positions that is no copy."""

    def apply(moment: Tensor) -> Tensor:
        return moment * weights.to(moment)

    return blockwise(lambda part: moved(part, field.positions, apply, gathers=False), field)


def _table(run: Lowering, argument: object) -> Tensor | None:
    """A constant with an entry for each coordinate of its last axis that are not all equal."""
    tensor = run.tensor(argument)
    if tensor is None or tensor.dim() < 2 or tensor.numel() != prod(tensor.shape[-2:]):
        return None
    table = tensor.reshape(tensor.shape[-2:])
    return None if table.shape[1] < 2 or bool((table == table[:, :1]).all()) else table


@rule_on(Modulated, "aten.add.Tensor")
def rotation(run: Lowering, node: Node) -> Lowered:
    """``x cos + [-second half, first half] sin``: rotary positions."""
    operands = [run.value(argument) for argument in node.args[:2]]
    if not all(isinstance(one, Modulated) for one in operands) or run.arg(node, 2, "alpha", 1) != 1:
        raise run.refuse(node, Modulated.reason)
    plain, halves = operands
    axes = run.axes(plain.operand)
    size = axis_size(axes[-1])
    first, second = (
        piece(run, node, plain.operand, len(axes) - 1, entries)
        for entries in (range(size // 2), range(size // 2, size))
    )
    cosine, sine = plain.table.double(), halves.table.double()
    pairs = bool(((cosine**2 + sine**2 - 1).abs() < 1e-4).all()) and torch.equal(
        torch.cat([cosine[:, : size // 2]] * 2, 1), cosine
    )
    sites = prod(plain.source.positions)
    if not pairs or not turned_halves(plain.source, halves.source, first, second) or len(cosine) != sites:
        raise run.refuse(node, Modulated.reason)
    run.rules[node.name] = "exact"
    return Rotated(plain.source, torch.atan2(sine, cosine)[:, : size // 2])


@rule("aten.glu.default")
def gated_linear(run: Lowering, node: Node) -> Lowered:
    """``a * sigmoid(b)`` of the two halves of an operand."""
    axes = run.axes(node.args[0])
    dim = run.arg(node, 1, "dim", -1) % len(axes)
    size = axis_size(axes[dim])
    value, gate = (
        piece(run, node, node.args[0], dim, entries) for entries in (range(size // 2), range(size // 2, size))
    )
    gate = blockwise(lambda part: image(run, node, ACTIVATIONS["sigmoid"](), part), gate)
    run.rules[node.name] = "exact" if independent((value,), (gate,)) else "sampled"
    return Gated(torch.mul, (value, gate), "gated linear unit")


@rule_on(Several, "getitem")
def one_of_several(run: Lowering, node: Node) -> Lowered:
    """One result of an operation that has several."""
    results = run.value(node.args[0]).results
    value = results[node.args[1]]
    if value is None:
        raise run.refuse(node, "this result of the operation has no rule")
    run.rules[node.name] = "exact"
    return value
