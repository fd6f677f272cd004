"""Rules of operations that move positions (views, slices, padding, pooling) or leave everything as it is."""

from typing import Any

import torch
from torch import Tensor

from widthwise.kernels._checks import coordinates
from widthwise.kernels._fields import Field, Sizes, blockwise
from widthwise.kernels._fields_filtered import Dropped
from widthwise.kernels._fields_stacked import picked
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._positions import moved, reordered, reshaped
from widthwise.kernels._registry import Lowered, Transposed, rule
from widthwise.kernels._rules_pointwise import position_axes
from widthwise.kernels._rules_sampled import averaged, averages_coordinates, laid_out, single_coordinate
from widthwise.program import Axis, AxisKind, Node, Weight, axis_size

SAME = [
    *("aten.contiguous.default", "aten.clone.default", "aten.alias.default", "aten.detach.default"),
    *(
        "aten.to.dtype",
        "aten.to.device",
        "aten.to.dtype_layout",
        "aten._to_copy.default",
        "aten.lift_fresh_copy.default",
    ),
    *("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default"),
]


@rule(*SAME)
def unchanged(run: Lowering, node: Node) -> Lowered:
    run.rules[node.name] = "exact"
    if "dropout" in node.op and run.arg(node, 2, "train", False):
        return _dropped(run, node)
    return run.value(node.args[0])


def _dropped(run: Lowering, node: Node) -> Field:
    """Dropout in training mode; nonlinear functions of it have no rule, products with matrices have."""
    if "alpha" in node.op:
        raise run.refuse(node, "alpha dropout in training mode has no rule")
    rate, everywhere = float(run.arg(node, 1, "p", 0.5)), "feature" in node.op
    if rate >= 1.0:
        raise run.refuse(node, "it drops everything")
    source = run.field(node.args[0], node)
    return blockwise(lambda part: Dropped(part, 1.0 - rate, everywhere, node.name) if rate else part, source)


VIEWS = [
    *("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints"),
    *("aten.unflatten.int", "aten.squeeze.dim", "aten.squeeze.default", "aten.squeeze.dims", "aten.unsqueeze.default"),
    *("aten.permute.default", "aten.transpose.int", "aten.t.default", "aten.movedim.int", "aten.movedim.intlist"),
    *("aten.swapaxes.default", "aten.numpy_T.default"),
]


@rule(*VIEWS)
def rearranged(run: Lowering, node: Node) -> Lowered:
    """Views and permutations: the width axis goes its way, the positions are permuted or regrouped."""
    matrix = run.value(node.args[0])
    if isinstance(matrix, (Weight, Transposed)) and _transposes(node, matrix):
        return matrix.weight if isinstance(matrix, Transposed) else Transposed(matrix)
    source = run.field(node.args[0], node)
    if coordinates(run.axes(node.args[0])) != coordinates(node.axes or ()):
        raise run.refuse(node, "it reorders coordinates")
    before, after = _position_factors(run.axes(node.args[0])), _position_factors(node.axes)
    run.rules[node.name] = "exact"
    ids_before, ids_after = [f.id for f in before], [f.id for f in after]
    if sorted(ids_before) == sorted(ids_after):
        order = tuple(ids_before.index(i) for i in ids_after)
        return blockwise(lambda part: reordered(part, order), source)
    sizes = tuple(f.size for f in after)
    viewed = any(word in node.op for word in ("view", "reshape", "flatten"))
    if not viewed or Tensor.numel(_empty(sizes)) != Tensor.numel(_empty(source.positions)):
        raise run.refuse(node, "it mixes positions with coordinates")
    return blockwise(lambda part: reshaped(part, sizes), source)


def _transposes(node: Node, matrix: Weight | Transposed) -> bool:
    weight = matrix.weight if isinstance(matrix, Transposed) else matrix
    if len(weight.shape) != 2 or node.shape is None or len(node.shape) != 2:
        return False
    if "permute" in node.op:
        return [dim % 2 for dim in node.args[1]] == [1, 0]
    return any(word in node.op for word in (".t.", ".numpy_T.", ".transpose.", ".swapaxes."))


def _empty(sizes: Sizes) -> Tensor:
    return Tensor().new_empty(sizes, device="meta")


def _position_factors(axes: tuple[Axis, ...] | None) -> list:
    return [f for axis in axes or () for f in axis if f.kind is AxisKind.POSITION]


@rule("aten.expand.default", "aten.expand_as.default")
def expanded(run: Lowering, node: Node) -> Lowered:
    run.rules[node.name] = "exact"
    return run.aligned(node.args[0], node)


def positionwise(run: Lowering, node: Node, *, gathers: bool, mixed: bool = False) -> Field:
    """Any operation that acts on position axes alone, applied to moments by running it on them.

    The moment's positions are laid out as in the node's operand, its pairs take the place of the batch, and every
    coordinate axis shrinks to one.
    """
    source = run.field(node.args[0], node)
    assert node.axes is not None and node.target is not None
    layout = single_coordinate(run, node, mixed=mixed)
    positions = position_sizes(node.axes)
    target, rest, options = node.target, node.args[1:], node.kwargs
    place = next((i for i, axis in enumerate(node.axes) if any(f.kind is AxisKind.BATCH for f in axis)), 0)

    def apply(moment: Tensor) -> Tensor:
        return target(laid_out(moment, layout), *rest, **options).movedim(place, 0).reshape(-1, *positions)

    run.rules[node.name] = "exact"
    return blockwise(lambda part: moved(part, positions, apply, gathers=gathers), source)


POOLS = [
    *(f"aten.avg_pool{d}d.default" for d in (1, 2, 3)),
    *(f"aten.adaptive_avg_pool{d}d.default" for d in (1, 2, 3)),
    *(
        f"aten.upsample_{kind}.{form}"
        for kind in ("nearest1d", "nearest2d", "nearest3d")
        for form in ("default", "vec")
    ),
    *(f"aten.upsample_{kind}.{form}" for kind in ("linear1d", "bilinear2d") for form in ("default", "vec")),
]


@rule(*POOLS)
def pooled(run: Lowering, node: Node) -> Lowered:
    return positionwise(run, node, gathers=False)


@rule("aten.mean.dim", "aten.sum.dim_IntList", "aten.cumsum.default")
def reduced(run: Lowering, node: Node) -> Lowered:
    if averages_coordinates(run, node):
        return averaged(run, node)
    position_axes(run, node, run.arg(node, 1, "dim"))
    return positionwise(run, node, gathers=False, mixed=True)


def _gathered_dims(node: Node) -> Any:
    if "pad" in node.op:
        return range(-(len(node.args[1]) // 2), 0)
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


GATHERS = [
    *("aten.slice.Tensor", "aten.select.int", "aten.narrow.default", "aten.flip.default"),
    *("aten.constant_pad_nd.default", "aten.pad.default"),
]


@rule(*GATHERS)
def gathered(run: Lowering, node: Node) -> Lowered:
    """Slices, flips and padding of positions (with zeros or with copies)."""
    if node.shape == run.program.node(node.args[0].name).shape and "slice" in node.op:
        run.rules[node.name] = "exact"
        return run.value(node.args[0])
    fill = run.arg(node, 3, "value") if node.op == "aten.pad.default" else run.arg(node, 2, "value", 0)
    if "pad" in node.op and fill not in (None, 0, 0.0):
        raise run.refuse(node, f"padding with {fill} has no rule, padding with zero has")
    axes = run.axes(node.args[0])
    dims = _gathered_dims(node)
    for dim in [dims] if isinstance(dims, int) else dims:
        if any(f.kind is not AxisKind.POSITION for f in axes[dim % len(axes)]):
            raise run.refuse(node, "it picks or reorders coordinates or examples")
    entries = None if "pad" in node.op else _entries(run, node, dims)
    if entries is None:
        return positionwise(run, node, gathers=True, mixed="pad" not in node.op)
    run.rules[node.name] = "exact"
    return picked(run.field(node.args[0], node), *entries)


def _entries(run: Lowering, node: Node, dims: Any) -> tuple[int, tuple[int, ...]] | None:
    """The position axis of a selection along one axis, and the entries that are left; None for any other."""
    axes = run.axes(node.args[0])
    dims = dims if isinstance(dims, (list, tuple)) else [dims]
    if len(dims) != 1 or len(axes[dims[0] % len(axes)]) != 1 or node.target is None:
        return None
    dim = dims[0] % len(axes)
    layout = [1] * len(axes)
    layout[dim] = axis_size(axes[dim])
    index = node.target(torch.arange(layout[dim]).reshape(layout), *node.args[1:], **node.kwargs)
    return len(position_sizes(axes[:dim])), tuple(index.flatten().tolist())
