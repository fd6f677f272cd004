"""Rules of operations that move positions (views, slices, padding, pooling) or leave everything as it is."""

from typing import Any

from torch import Tensor

from widthwise.kernels._checks import COORDINATES, coordinates
from widthwise.kernels._fields import Concat, Field, Sizes, blockwise
from widthwise.kernels._lowering import Lowered, Lowering, Transposed, position_sizes, rule
from widthwise.kernels._positions import moved, reordered, reshaped
from widthwise.kernels._rules_pointwise import position_axes
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
    if "dropout" in node.op and len(node.args) > 2 and node.args[2]:
        raise run.refuse(node, "dropout in training mode has no exact rule yet; trace the module in eval mode")
    run.rules[node.name] = "exact"
    return run.value(node.args[0])


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


def positionwise(run: Lowering, node: Node, *, gathers: bool) -> Field:
    """Any operation that acts on position axes alone, applied to moments by running it on them.

    The moment's positions are laid out as in the node's operand, its pairs take the place of the batch, and every
    coordinate axis shrinks to one.
    """
    source = run.field(node.args[0], node)
    assert node.axes is not None and node.target is not None
    layout: list[int] = []
    for axis in run.axes(node.args[0]):
        if any(f.kind is AxisKind.BATCH for f in axis):
            layout.append(-1)
        elif any(f.kind in COORDINATES for f in axis):
            if any(f.kind is AxisKind.POSITION for f in axis):
                raise run.refuse(node, "one of its axes holds positions and coordinates together")
            layout.append(1)
        else:
            layout.append(axis_size(axis))
    if -1 not in layout:
        raise run.refuse(node, "its operand has no batch axis")
    positions = position_sizes(node.axes)
    target, rest, options = node.target, node.args[1:], node.kwargs

    def apply(moment: Tensor) -> Tensor:
        return target(moment.reshape(layout), *rest, **options).reshape(-1, *positions)

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
    position_axes(run, node, run.arg(node, 1, "dim"))
    return positionwise(run, node, gathers=False)


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
    return positionwise(run, node, gathers=True)


@rule("aten.cat.default", "aten.concat.default")
def concatenated(run: Lowering, node: Node) -> Lowered:
    """Concatenation over coordinates: blocks of different law."""
    operands = list(node.args[0])
    assert node.axes is not None
    dim = run.arg(node, 1, "dim", 0) % len(node.axes)
    axes = [run.axes(operand)[dim] for operand in operands]
    if any(f.kind not in COORDINATES for axis in (*axes, node.axes[dim]) for f in axis):
        raise run.refuse(node, "concatenation over positions or examples has no rule yet")
    sizes = [axis_size(axis) for axis in axes]
    parts: list[Field] = []
    shares: list[float] = []
    for operand, size in zip(operands, sizes, strict=True):
        field = run.field(operand, node)
        blocks = zip(field.parts, field.fractions, strict=True) if isinstance(field, Concat) else [(field, 1.0)]
        for part, fraction in blocks:
            parts.append(part)
            shares.append(fraction * size / sum(sizes))
    run.rules[node.name] = "exact"
    return Concat(tuple(parts), tuple(shares))
