"""Rules of operations whose kernels only samples of one coordinate give: maxima, batch norm, averages."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from widthwise.kernels._checks import COORDINATES
from widthwise.kernels._fields import Concat, Field, Sizes, blockwise
from widthwise.kernels._fields_joint import Averaged, Joint
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._registry import Concrete, Lowered, Several, rule
from widthwise.kernels._rules_pointwise import check_random, position_axes
from widthwise.program import AxisKind, Node, axis_size


def single_coordinate(run: Lowering, node: Node, *, mixed: bool = False) -> list[int]:
    """The shape of the node's operand with -1 for the batch and one coordinate.

    Args:
        mixed: whether an axis may hold positions beside coordinates (the operation has to leave that axis alone).
    """
    layout: list[int] = []
    for axis in run.axes(node.args[0]):
        if any(f.kind is AxisKind.BATCH for f in axis):
            if axis[0].kind is not AxisKind.BATCH:
                raise run.refuse(node, "one of its axes holds positions and then the batch")
            layout.append(-1)
        elif any(f.kind in COORDINATES for f in axis):
            inside = position_sizes((axis,))
            if inside and not mixed:
                raise run.refuse(node, "one of its axes holds positions and coordinates together")
            layout.append(prod(inside))
        else:
            layout.append(axis_size(axis))
    if -1 not in layout:
        raise run.refuse(node, "its operand has no batch axis")
    return layout


def laid_out(values: Tensor, layout: list[int]) -> Tensor:
    """``[N, *P]`` in the shape of an operand, with N in the place of its batch."""
    front = layout.index(-1)
    return values.reshape(-1, *layout[:front], *layout[front + 1 :]).movedim(0, front)


def _joint(run: Lowering, node: Node, positions: Sizes, *, result: int | None = None) -> Field:
    """The node's own operation on one coordinate at all positions."""
    source = run.field(node.args[0], node)
    check_random(run, node, source.parts if isinstance(source, Concat) else (source,))
    layout = single_coordinate(run, node)
    if layout[0] != -1:
        raise run.refuse(node, "the batch is not the first axis of its operand")
    assert node.target is not None
    target, rest, options = node.target, node.args[1:], node.kwargs

    def apply(values: Tensor) -> Tensor:
        found = target(values.reshape(layout), *rest, **options)
        return (found if result is None else found[result]).reshape(-1, *positions)

    return blockwise(lambda part: Joint(apply, (part,), positions, node.op), source)


def _first_result(run: Lowering, node: Node) -> Several:
    """The values of an operation that also gives indices, which have no kernel."""
    layout = single_coordinate(run, node)
    assert node.target is not None
    meta = torch.empty([2 if size == -1 else size for size in layout], device="meta")
    shape = node.target(meta, *node.args[1:], **node.kwargs)[0].shape
    positions: Sizes = ()
    for axis, before, size in zip(run.axes(node.args[0]), layout, shape, strict=True):
        if any(factor.kind is not AxisKind.POSITION for factor in axis):
            continue
        positions += position_sizes((axis,)) if before == size else (size,) * (size > 1)
    return Several((_joint(run, node, positions, result=0), None))


MAXIMA = [f"aten.max_pool{d}d.default" for d in (1, 2, 3)]


@rule(*MAXIMA)
def max_pool(run: Lowering, node: Node) -> Lowered:
    run.by_sampling(node, "the maximum of dependent coordinates has no closed form")
    return _joint(run, node, position_sizes(node.axes or ()))


@rule("aten.amax.default", "aten.amin.default", "aten.logsumexp.default")
def extremum(run: Lowering, node: Node) -> Lowered:
    position_axes(run, node, run.arg(node, 1, "dim"))
    run.by_sampling(node, "the maximum of dependent coordinates has no closed form")
    return _joint(run, node, position_sizes(node.axes or ()))


@rule(*(f"aten.adaptive_max_pool{d}d.default" for d in (1, 2, 3)))
def adaptive_max_pool(run: Lowering, node: Node) -> Lowered:
    run.by_sampling(node, "the maximum of dependent coordinates has no closed form")
    return _first_result(run, node)


@rule("aten.sort.default", "aten.sort.stable", "aten.topk.default", "aten.max.dim", "aten.min.dim", "aten.median.dim")
def ordered(run: Lowering, node: Node) -> Lowered:
    place, name = {"aten.sort.default": (1, "dim"), "aten.topk.default": (2, "dim")}.get(node.op, (1, "dim"))
    position_axes(run, node, run.arg(node, place, name, -1))
    run.by_sampling(node, "the order of dependent coordinates has no closed form")
    return _first_result(run, node)


def in_batches(run: Lowering, node: Node, eps: float) -> Field:
    """Each coordinate standardised over the batch and all positions (batch norm in training mode)."""
    run.by_sampling(node, "batch norm in training mode joins the examples of a batch")
    source = run.field(node.args[0], node)
    check_random(run, node, source.parts if isinstance(source, Concat) else (source,))
    standardise = standardised(eps)
    return blockwise(lambda part: Joint(standardise, (part,), part.positions, "batch norm", over_batch=True), source)


def over_positions(run: Lowering, node: Node, eps: float) -> Field:
    """Each coordinate standardised over the positions of each input."""
    run.by_sampling(node, "it standardises each coordinate over the positions")
    source = run.field(node.args[0], node)
    check_random(run, node, source.parts if isinstance(source, Concat) else (source,))
    if not source.positions:
        raise run.refuse(node, "it standardises over a single position, which leaves nothing")
    standardise = standardised(eps)
    return blockwise(
        lambda part: Joint(
            lambda values: standardise(values.unsqueeze(1)).squeeze(1), (part,), part.positions, "instance norm"
        ),
        source,
    )


def standardised(eps: float) -> Callable[[Tensor], Tensor]:
    """``[M, batch, *P]``: minus its mean, over its standard deviation, of each coordinate."""

    def apply(values: Tensor) -> Tensor:
        sites = tuple(range(1, values.dim()))
        centred = values - values.mean(sites, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(sites, keepdim=True) + eps)

    return apply


def averages_coordinates(run: Lowering, node: Node) -> bool:
    """Whether a reduction runs over all coordinates of a wide vector, and over nothing else."""
    if isinstance(run.value(node.args[0]), Concrete):
        return False
    axes, dims = run.axes(node.args[0]), run.arg(node, 1, "dim")
    chosen = range(len(axes)) if dims is None else [dims] if isinstance(dims, int) else dims
    reduced = [factor for dim in chosen for factor in axes[dim]]
    return bool(reduced) and all(factor.kind is AxisKind.WIDTH for factor in reduced)


def averaged(run: Lowering, node: Node) -> Field:
    """A mean (or sum) over coordinates: one number for each input, whose gradients depend on the forward pass."""
    run.by_sampling(node, "an average over coordinates is no linear readout (gradient independence fails)")
    run.rules[node.name] = "sampled, transposes"
    dims: Any = run.arg(node, 1, "dim")
    axes = run.axes(node.args[0])
    width = 1
    for dim in [dims] if isinstance(dims, int) else dims:
        width *= axis_size(axes[dim])
    source = run.field(node.args[0], node)
    if isinstance(source, Concat):
        raise run.refuse(node, "it averages over concatenated coordinates")
    return Averaged(source, width, 1.0 if ".mean" in node.op else float(width))
