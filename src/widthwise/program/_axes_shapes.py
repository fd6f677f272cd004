"""Axis rules of operations that move, cut, join or reduce axes."""

import re
from collections.abc import Sequence
from typing import Any

from widthwise.program._axes import Axes, AxesUnknown, Call, axis_rule, broadcast, pointwise
from widthwise.program._factors import Ids


@axis_rule(
    "aten.view",
    "aten.reshape",
    "aten._unsafe_view",
    "aten.flatten",
    "aten.unflatten",
    "aten.squeeze",
    "aten.unsqueeze",
    "aten.view_as",
    "aten.reshape_as",
    "aten.ravel",
)
def _reshape(call: Call) -> Axes:
    flat = tuple(one for axis in call.first for one in axis)
    return tuple(call.factors.regroup(flat, call.shape))


@axis_rule(
    "aten.contiguous",
    "aten.clone",
    "aten.to",
    "aten._to_copy",
    "aten.type_as",
    "aten.alias",
    "aten.detach",
    "aten.lift_fresh_copy",
    "aten.dropout",
    "aten.feature_dropout",
    "aten.alpha_dropout",
    "aten.softmax",
    "aten._softmax",
    "aten.cumsum",
    "aten.cumprod",
    "aten.flip",
    "aten.roll",
    "aten.triu",
    "aten.tril",
    "aten.zeros_like",
    "aten.ones_like",
    "aten.full_like",
    "aten.rand_like",
    "aten.randn_like",
    "aten.empty_like",
    "aten.scatter",
    "aten.index_put",
    "aten.index_fill",
    "aten.fill",
    "aten.float",
    "aten.bernoulli",
    "aten.normalize",
    "aten.local_response_norm",
    "aten.glu_jvp",
)
def _same(call: Call) -> Axes:
    return call.first


@axis_rule("aten.log_softmax", "aten._log_softmax")
def _log_softmax(call: Call) -> Axes:
    call.factors.flag(call.first[call["dim"]], "output")
    return call.first


@axis_rule("aten.cross_entropy_loss", "aten.nll_loss", "aten.nll_loss_nd")
def _cross_entropy(call: Call) -> Axes:
    logits = call.first
    call.factors.flag(logits[min(1, len(logits) - 1)], "output")
    if call.shape:
        raise AxesUnknown
    return ()


@axis_rule("aten.permute")
def _permute(call: Call) -> Axes:
    axes = call.first
    return tuple(axes[dim] for dim in call["dims"])


@axis_rule("aten.transpose", "aten.swapaxes", "aten.swapdims")
def _transpose(call: Call) -> Axes:
    axes = list(call.first)
    one, other = [value for value in call.bound.values() if isinstance(value, int)][:2]
    axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


@axis_rule("aten.t", "aten.numpy_T")
def _reverse(call: Call) -> Axes:
    return tuple(reversed(call.first))


@axis_rule("aten.mT", "aten.mH", "aten.adjoint")
def _matrix_transpose(call: Call) -> Axes:
    axes = call.first
    return (*axes[:-2], axes[-1], axes[-2])


@axis_rule("aten.movedim", "aten.moveaxis")
def _movedim(call: Call) -> Axes:
    axes = call.first
    listed = [[value] if isinstance(value, int) else list(value) for value in (call["source"], call["destination"])]
    source, target = ([dim % len(axes) for dim in dims] for dims in listed)
    rest = iter(dim for dim in range(len(axes)) if dim not in source)
    placed = dict(zip(target, source, strict=True))
    return tuple(axes[placed[dim] if dim in placed else next(rest)] for dim in range(len(axes)))


@axis_rule("aten.expand", "aten.broadcast_to", "aten.expand_as")
def _expand(call: Call) -> Axes:
    axes = call.first
    axes = ((),) * (len(call.shape) - len(axes)) + axes
    if call.has("other"):
        return broadcast(call.factors, [axes, call.axes("other")])
    return tuple(axis or call.factors.fresh(size) for axis, size in zip(axes, call.shape, strict=True))


@axis_rule("aten.repeat", "aten.tile")
def _repeat(call: Call) -> Axes:
    axes = ((),) * (len(call.shape) - len(call.first)) + call.first
    counts = [size // call.factors.size(axis) for size, axis in zip(call.shape, axes, strict=True)]
    return tuple((*call.factors.fresh(count), *axis) for count, axis in zip(counts, axes, strict=True))


@axis_rule("aten.repeat_interleave.self_int")
def _repeat_interleave(call: Call) -> Axes:
    axes = list(call.first)
    axes[call["dim"]] = (*axes[call["dim"]], *call.factors.fresh(call["repeats"]))
    return tuple(axes)


def _part(call: Call, axis: Ids, size: int) -> Ids:
    return axis if call.factors.size(axis) == size else call.factors.derive(size, [axis])


def _shrunk(call: Call, shape: Sequence[int]) -> Axes:
    """Axes of a piece: the same where the size is, else a part of the axis."""
    return tuple(_part(call, axis, size) for axis, size in zip(call.first, shape, strict=True))


@axis_rule("aten.slice", "aten.narrow", "aten.diff", "aten.pad", "aten.constant_pad_nd", "aten.unfold")
@axis_rule("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.replication_pad1d", "aten.replication_pad2d")
def _slice(call: Call) -> Axes:
    if len(call.shape) != len(call.first):
        raise AxesUnknown
    return _shrunk(call, call.shape)


@axis_rule("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split")
def _split(call: Call) -> list[Axes]:
    return [_shrunk(call, shape) for shape in call.shape]


@axis_rule("aten.glu")
def _glu(call: Call) -> Axes:
    return _shrunk(call, call.shape)


@axis_rule("aten.select")
def _select(call: Call) -> Axes:
    return _without(call.first, [call["dim"]], False)


@axis_rule("aten.unbind")
def _unbind(call: Call) -> list[Axes]:
    return [_without(call.first, [call["dim"]], False)] * len(call.shape)


@axis_rule("getitem")
def _getitem(call: Call) -> Axes:
    results = call.labels.axes[call["0"].name]
    axes = results[call["1"]] if isinstance(results, list) else None
    if axes is None:
        raise AxesUnknown
    return tuple(call.factors.leaves(axis) for axis in axes)


@axis_rule("aten.cat", "aten.concat", "aten.concatenate")
def _cat(call: Call) -> Axes:
    tensors = [call.axes_of(ref) for ref in call["tensors"]]
    dim = call["dim"] % len(tensors[0])
    joined = call.factors.derive(call.shape[dim], [axes[dim] for axes in tensors])
    others = broadcast(call.factors, [(*axes[:dim], (), *axes[dim + 1 :]) for axes in tensors])
    return (*others[:dim], joined, *others[dim + 1 :])


@axis_rule("aten.stack")
def _stack(call: Call) -> Axes:
    axes = list(broadcast(call.factors, [call.axes_of(ref) for ref in call["tensors"]]))
    axes.insert(call["dim"] % (len(axes) + 1), call.factors.fresh(len(call["tensors"])))
    return tuple(axes)


@axis_rule("aten.index_select")
def _index_select(call: Call) -> Axes:
    axes = list(call.axes("self"))
    axes[call["dim"]] = call.axes("index")[0]
    return tuple(axes)


@axis_rule("aten.gather")
def _gather(call: Call) -> Axes:
    return call.axes("index")


@axis_rule("aten.index.Tensor")
def _index(call: Call) -> Axes:
    axes, given = call.first, list(call["indices"])
    places = [dim for dim, ref in enumerate(given) if ref is not None]
    block = broadcast(call.factors, [call.axes_of(given[dim]) for dim in places])
    left = [axis for dim, axis in enumerate(axes) if dim not in places]
    adjacent = places == list(range(places[0], places[-1] + 1))
    start = places[0] if adjacent else 0
    return (*left[:start], *block, *left[start:])


def _without(axes: Axes, dims: Sequence[int], keep: bool) -> Axes:
    gone = {dim % len(axes) for dim in dims} if axes else set()
    return tuple(() if dim in gone else axis for dim, axis in enumerate(axes) if keep or dim not in gone)


@axis_rule(
    "aten.sum",
    "aten.mean",
    "aten.amax",
    "aten.amin",
    "aten.aminmax",
    "aten.var",
    "aten.std",
    "aten.var_mean",
    "aten.std_mean",
    "aten.prod",
    "aten.logsumexp",
    "aten.any",
    "aten.all",
    "aten.argmax",
    "aten.argmin",
    "aten.max",
    "aten.min",
    "aten.median",
    "aten.norm",
    "aten.linalg_vector_norm",
    "aten.nanmean",
    "aten.nansum",
)
def _reduce(call: Call) -> Any:
    if call.has("other"):
        return pointwise(call)
    dims = call.get("dim")
    axes = call.first
    dims = range(len(axes)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    kept = _without(axes, list(dims), bool(call.get("keepdim", False)))
    return [kept] * len(call.shape) if isinstance(call.shape, list) else kept


@axis_rule("aten.topk", "aten.sort")
def _topk(call: Call) -> list[Axes]:
    return [_shrunk(call, call.shape[0])] * 2


@axis_rule("aten.zeros", "aten.ones", "aten.full", "aten.arange", "aten.empty", "aten.scalar_tensor", "aten.linspace")
@axis_rule("aten.rand", "aten.randn", "aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.eye", "aten.new_empty")
def _created(call: Call) -> Axes:
    return call.fresh(call.shape)


def _positions(call: Call) -> Any:
    """Pooling and resampling: the last one, two or three axes become new positions, the others stay."""
    found = re.search(r"(\d)d", call.node.op)
    if found is None:
        raise AxesUnknown
    count = int(found.group(1))
    axes = call.first
    call.factors.flag([one for axis in axes[-count:] for one in axis], "spatial")
    shape = call.shape[0] if isinstance(call.shape, list) else call.shape
    result = (*axes[:-count], *call.fresh(shape[-count:], "spatial"))
    return [result] * len(call.shape) if isinstance(call.shape, list) else result


def _register_positions() -> None:
    kinds = ["avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool"]
    kinds += ["upsample_nearest", "upsample_bilinear", "upsample_linear", "upsample_trilinear", "upsample_bicubic"]
    names = [f"aten.{kind}{dim}d{end}" for kind in kinds for dim in (1, 2, 3) for end in ("", "_with_indices")]
    axis_rule(*names)(_positions)


_register_positions()
