"""Rules of operations that move entries between channels and positions: pixel and channel shuffles, patches."""

import torch
from torch import Tensor

from widthwise.kernels._fields import blockwise
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._pieces import NoPiece
from widthwise.kernels._positions import moved
from widthwise.kernels._registry import Lowered, rule
from widthwise.kernels._rules_shape import rearranged
from widthwise.program import AxisKind, Node, axis_size


@rule("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default")
def shuffled_pixels(run: Lowering, node: Node) -> Lowered:
    """Sub-pixels lie among the channels on one side: positions that stand in the axis of coordinates."""
    return rearranged(run, node)


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def shuffled_channels(run: Lowering, node: Node) -> Lowered:
    """The same coordinates in another order; where both orders meet in one sum that is refused."""
    source, axis = run.field(node.args[0], node), run.axes(node.args[0])[1]
    if any(factor.kind is AxisKind.POSITION for factor in axis):
        raise run.refuse(node, "it reorders coordinates and positions together")
    index = torch.arange(axis_size(axis)).reshape(node.args[1], -1).T.reshape(-1)
    run.rules[node.name] = "exact"
    try:
        return run.pieces.cut(source, index)
    except NoPiece as reason:
        raise run.refuse(node, f"it reorders coordinates that are not all of one law ({reason})") from None


@rule("aten.im2col.default")
def patches(run: Lowering, node: Node) -> Lowered:
    """Windows of an image: taps beside the channels, and places."""
    source, axes = run.field(node.args[0], node), run.axes(node.args[0])
    if position_sizes(axes[:2]):
        raise run.refuse(node, "its operand holds positions among its channels")
    assert node.target is not None and node.axes is not None
    target, rest = node.target, node.args[1:]
    image = tuple(axis_size(axis) for axis in axes[2:])
    positions = position_sizes(node.axes)

    def apply(moment: Tensor) -> Tensor:
        return target(moment.reshape(-1, 1, *image), *rest).reshape(-1, *positions)

    run.rules[node.name] = "exact"
    return blockwise(lambda part: moved(part, positions, apply, gathers=True), source)
