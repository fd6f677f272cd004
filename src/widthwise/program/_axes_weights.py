"""Axis rules of operations that use weights: contractions, convolutions, embeddings, norms, attention, recurrences."""

from collections.abc import Sequence
from math import prod
from typing import Any

from widthwise.program._axes import Axes, AxesUnknown, Call, MatrixUse, axis_rule, broadcast
from widthwise.program._factors import Ids


def apply_weight(call: Call, weight: Any, inner: Sequence[tuple[Ids, Ids]], outer: Sequence[Ids], taps: int) -> None:
    """A weight sums over the `inner` axes (pairs: data, weight) and gives the `outer` ones."""
    for data, own in inner:
        call.factors.unify(data, own)
        call.factors.flag(data, "contracted")
    for axis in outer:
        call.factors.flag(axis, "made")
    call.record_matrix(weight, [call.factors.leaves(own) for _, own in inner], outer, taps)


@axis_rule("aten.linear.default")
def _linear(call: Call) -> Axes:
    weight = call.axes("weight")
    if call.has("bias"):
        call.factors.unify(weight[0], call.axes("bias")[-1])
    data = call.axes("input")
    if call.is_trained(call["weight"]):
        apply_weight(call, call["weight"], [(data[-1], weight[-1])], weight[:-1], 1)
    else:
        call.factors.unify(data[-1], weight[-1])
    return (*data[:-1], *weight[:-1])


@axis_rule("aten.bilinear")
def _bilinear(call: Call) -> Axes:
    one, two, weight = (call.axes(name) for name in ("input1", "input2", "weight"))
    lead = broadcast(call.factors, [one[:-1], two[:-1]])
    if call.has("bias"):
        call.factors.unify(weight[0], call.axes("bias")[0])
    apply_weight(call, call["weight"], [(one[-1], weight[1]), (two[-1], weight[2])], weight[:1], 1)
    return (*lead, weight[0])


@axis_rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten.inner")
def _matmul(call: Call) -> Axes:
    return _product(call, *list(call.bound.values())[:2])


@axis_rule("aten.addmm", "aten.addmv", "aten.baddbmm")
def _added_matmul(call: Call) -> Axes:
    added, left, right = list(call.bound.values())[:3]
    return broadcast(call.factors, [_product(call, left, right), call.axes_of(added)])


def _product(call: Call, left: Any, right: Any) -> Axes:
    a, b = call.axes_of(left), call.axes_of(right)
    rows, inner_a = a[-2:-1], a[-1]
    inner_b, columns = (b[0], ()) if len(b) == 1 else (b[-2], b[-1:])
    lead = broadcast(call.factors, [a[:-2], b[:-2]])
    trained = call.is_trained(left), call.is_trained(right)
    if trained == (False, True):
        apply_weight(call, right, [(inner_a, inner_b)], columns, 1)
    elif trained == (True, False):
        apply_weight(call, left, [(inner_b, inner_a)], rows, 1)
    else:
        call.factors.unify(inner_a, inner_b)
        if all(trained):
            call.record_matrix(left, [inner_a], rows)
            call.record_matrix(right, columns, [inner_b])
    return (*lead, *rows, *columns)


@axis_rule("aten.einsum.default")
def _einsum(call: Call) -> Axes:
    left, _, result = call["equation"].replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in left or not result:
        raise AxesUnknown
    letters: dict[str, Ids] = {}
    tensors = [call.axes_of(ref) for ref in call["tensors"]]
    for term, axes in zip(terms, tensors, strict=True):
        for letter, axis in zip(term, axes, strict=True):
            if letters.get(letter):
                call.factors.unify(letters[letter], axis)
            else:
                letters[letter] = axis
    for index, ref in enumerate(call["tensors"]):
        others = set("".join(term for other, term in enumerate(terms) if other != index))
        if call.is_trained(ref) and not all(map(call.is_trained, call["tensors"])):
            inner = [letters[one] for one in terms[index] if one in others and one not in result]
            outer = [letters[one] for one in terms[index] if one not in others]
            if len(outer) > 1:  # as if one axis had been made and viewed as several: all but the last are heads
                sizes = [call.factors.size(axis) for axis in outer]
                for axis, part in zip(outer, call.factors.regroup(call.factors.fresh(prod(sizes)), sizes), strict=True):
                    call.factors.unify(axis, part)
            if inner:
                apply_weight(call, ref, [(axis, axis) for axis in inner], outer, 1)
    return tuple(letters[letter] for letter in result)


@axis_rule("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")
def _conv(call: Call) -> Axes:
    return _convolve(call, transposed=bool(call.get("transposed", False)))


@axis_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def _conv_transpose(call: Call) -> Axes:
    return _convolve(call, transposed=True)


def _convolve(call: Call, transposed: bool) -> Axes:
    """Channels are contracted within each group; a depthwise convolution keeps them, one group each."""
    factors, groups = call.factors, call["groups"]
    weight = call.axes("weight")
    taps = prod(map(factors.size, weight[2:]))
    factors.flag([one for axis in weight[2:] for one in axis], "spatial")
    first, second = weight[:2]
    size = factors.size(first) // groups
    group, own = factors.regroup(first, (groups, size))
    inner, outer = (own, second) if transposed else (second, own)
    output = (*group, *outer)
    if call.has("bias"):
        factors.unify(output, call.axes("bias")[0])
    data = call.axes("input")
    lead, channel, spatial = data[: -len(weight) + 1], data[-len(weight) + 1], data[-len(weight) + 2 :]
    factors.flag([one for axis in spatial for one in axis], "spatial")
    data_group, data_inner = factors.regroup(channel, (groups, factors.size(inner)))
    factors.unify(data_group, group)
    if groups > 1:
        factors.flag(group, "made")
    if call.is_trained(call["weight"]):
        if groups > 1 and not inner:
            factors.flag(outer, "made")
            call.labels.taps.update(dict.fromkeys(call.labels.sources[call["weight"].name] or (), taps))
        else:
            apply_weight(call, call["weight"], [(data_inner, inner)], [outer], taps)
    kept = _same_positions(call, weight)
    sizes = call.shape[len(lead) + 1 :]
    return (*lead, factors.leaves(output), *(spatial if kept else call.fresh(sizes, "spatial")))


def _same_positions(call: Call, weight: Axes) -> bool:
    """Whether the kernel is one tap with stride 1, so that positions stay what they are."""
    padding = call["padding"]
    ones = all(step == 1 for step in call["stride"])
    return not any(weight[2:]) and ones and (isinstance(padding, str) or not any(padding))


@axis_rule("aten.embedding.default")
def _embedding(call: Call) -> Axes:
    weight = call.axes("weight")
    call.factors.flag(weight[0], "input", "contracted")
    call.factors.flag(weight[1], "made")
    _record_lookup(call, weight)
    return (*call.axes("indices"), weight[1])


@axis_rule("aten.embedding_bag")
def _embedding_bag(call: Call) -> list[Axes | None]:
    weight = call.axes("weight")
    call.factors.flag(weight[0], "input", "contracted")
    call.factors.flag(weight[1], "made")
    _record_lookup(call, weight)
    return [(_bags(call), weight[1]), None, None, None]


def _bags(call: Call) -> Ids:
    """The axis of bags: that of the examples, where the indices are theirs one after the other."""
    count = call.shape[0][0]
    flat = call.axes("indices")[0]
    if len(flat) > 1 and call.factors.size(flat[:1]) == count:
        return flat[:1]
    return call.axes("offsets")[0] if call.has("offsets") else call.fresh((count,))[0]


def _record_lookup(call: Call, weight: Axes) -> None:
    use = MatrixUse(weight[0], weight[1], 1, call.factors.size(weight[1]))
    for name in call.labels.sources[call["weight"].name] or ():
        call.labels.looked_up[name] = use


@axis_rule("aten.layer_norm", "aten.rms_norm", "aten.native_layer_norm")
def _layer_norm(call: Call) -> Any:
    data = call.axes("input")
    count = len(call["normalized_shape"])
    for name in ("weight", "bias"):
        if call.has(name):
            broadcast(call.factors, [data[-count:], call.axes(name)])
    call.factors.flag([one for axis in data[-count:] for one in axis], "normalised")
    return data if not isinstance(call.shape, list) else [data, None, None]


@axis_rule(
    "aten.batch_norm",
    "aten.instance_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._native_batch_norm_legit_functional",
    "aten.native_batch_norm",
    "aten.cudnn_batch_norm",
)
def _batch_norm(call: Call) -> Any:
    data = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.has(name):
            call.factors.unify(data[1], call.axes(name)[0])
    return data if not isinstance(call.shape, list) else [data, *([None] * (len(call.shape) - 1))]


@axis_rule("aten.group_norm")
def _group_norm(call: Call) -> Axes:
    data = call.axes("input")
    for name in ("weight", "bias"):
        if call.has(name):
            call.factors.unify(data[1], call.axes(name)[0])
    call.factors.flag(data[1], "normalised")
    return data


@axis_rule("aten.prelu")
def _prelu(call: Call) -> Axes:
    data, slope = call.axes("self"), call.axes("weight")
    if slope and slope[0]:
        call.factors.unify(data[1], slope[0])
    return data


@axis_rule("aten._weight_norm")
def _weight_norm(call: Call) -> Axes:
    return broadcast(call.factors, [call.axes("v"), call.axes("g")])


@axis_rule("aten.scaled_dot_product_attention")
def _attention(call: Call) -> Axes:
    factors = call.factors
    query, key, value = (call.axes(name) for name in ("query", "key", "value"))
    factors.unify(query[-1], key[-1])
    factors.unify(key[-2], value[-2])
    if call.get("enable_gqa"):
        for axes in (key, value):
            groups = factors.size(axes[-3])
            shared, _ = factors.regroup(query[-3], (groups, factors.size(query[-3]) // groups))
            factors.unify(shared, axes[-3])
        lead = query[:-2]
    else:
        lead = broadcast(factors, [query[:-2], key[:-2], value[:-2]])
    if call.has("attn_mask"):
        broadcast(factors, [(*lead, query[-2], key[-2]), call.axes("attn_mask")])
    return (*lead, query[-2], value[-1])
