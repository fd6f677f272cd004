"""Rules of attention: scores of queries and keys, masks, softmax, and the values that they average.

Written by hand (matmul, scale, mask, softmax, matmul) or as one operation, it becomes an `Attended` field. The limit
is that of many heads with many entries each; kernels are means over heads.

How scores grow with the head size d cannot be read off one network. The scale decides: ``1/d`` is read as falling like
``1/d`` (scores of independent queries and keys vanish, those of tied ones are deterministic); any other scale is read
as falling like ``1/sqrt(d)``, so that scores of independent queries and keys have the variance
``scale^2 d K_q K_k`` that they have at the module's own head size.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from widthwise.kernels._affine import constant_part
from widthwise.kernels._attention_masks import added, given, left_out, lower_triangle
from widthwise.kernels._checks import coordinates
from widthwise.kernels._fields import Field, Sum, combine
from widthwise.kernels._fields_attention import Attended, Growth, Mask, Rotated, Scores
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._origins import independent
from widthwise.kernels._registry import Concrete, Intermediate, Lowered, Transposed, rule, rule_on
from widthwise.kernels._rules_linear import matmul as weight_product
from widthwise.kernels._rules_shape import rearranged
from widthwise.program import Axis, AxisKind, Node, Ref, Weight, axis_size


@dataclass(frozen=True)
class Affinity(Intermediate):
    """Scores, or the weights that a softmax made of them: ``[..., queries, keys]``.

    Attributes:
        scores: what they are.
        lead: the axes before queries and keys.
    """

    scores: Scores
    lead: tuple[Axis, ...]
    reason = "attention scores may be scaled, masked, passed to a softmax over keys and multiplied by values only"


def _tokens(run: Lowering, node: Node, axes: tuple[Axis, ...], axis: int, what: str) -> tuple[int, ...]:
    """Position sizes of the token axis of an operand; refuses other layouts."""
    if any(f.kind is not AxisKind.POSITION for f in axes[axis]):
        raise run.refuse(node, f"the token axis of its {what} is not an axis of positions")
    if position_sizes(axes[:-2]):
        raise run.refuse(node, f"its {what} holds positions besides tokens (attention within windows)")
    return position_sizes(axes[axis : axis + 1] if axis != -1 else axes[-1:])


def _check_entries(run: Lowering, node: Node, axis: Axis, what: str) -> None:
    if position_sizes((axis,)) or not coordinates((axis,)):
        raise run.refuse(node, f"the entries of its {what} that are summed over are not coordinates of a wide vector")


def scores_of(
    run: Lowering, node: Node, query: Ref, key: Ref, scale: float, *, transposed: bool
) -> tuple[Scores, tuple[Axis, ...]]:
    """Scores of two operands, the key given as ``[..., S, d]`` or (transposed) as ``[..., d, S]``."""
    of_query, of_key = run.axes(query), run.axes(key)
    entries, tokens = (-2, -1) if transposed else (-1, -2)
    _check_entries(run, node, of_query[-1], "queries")
    _check_entries(run, node, of_key[entries], "keys")
    queries = _tokens(run, node, of_query, -2, "queries")
    keys = _tokens(run, node, of_key, tokens, "keys")
    (a, one), (b, two) = _unit(run.field(query, node)), _unit(run.field(key, node))
    for field, sizes, what in ((one, queries, "queries"), (two, keys, "keys")):
        if prod(field.positions) != prod(sizes):
            raise run.refuse(node, f"its {what} hold other positions than their token axis")
    angles = None
    if isinstance(one, Rotated) and isinstance(two, Rotated):
        angles, one, two = (one.angles, two.angles), one.source, two.source
    elif isinstance(one, Rotated) or isinstance(two, Rotated):
        raise run.refuse(node, "only one of its queries and keys is rotated")
    size = axis_size(of_query[-1])
    return Scores(one, two, scale * a * b, size, "root", (), False, queries, keys, angles), of_query[:-2]


def _unit(field: Field) -> tuple[float, Field]:
    """Take a common factor of all terms out of a sum."""
    if isinstance(field, Sum):
        factor = field.terms[0][0]
        if factor > 0 and all(scale == factor for scale, _ in field.terms):
            return factor, combine([(1.0, term) for _, term in field.terms])
    return 1.0, field


def attend(run: Lowering, node: Node, scores: Scores, value: Ref) -> Attended:
    """Average values with the weights of scores."""
    axes = run.axes(value)
    keys = _tokens(run, node, axes, -2, "values")
    _check_entries(run, node, axes[-1], "values")
    field = run.field(value, node)
    if prod(keys) != prod(scores.keys) or prod(field.positions) != prod(keys):
        raise run.refuse(node, "its values hold other positions than its keys")
    if scores.query is not None:
        scores = replace(scores, growth=_growth(run, node, scores))
    if scores.random and not scores.softmax and scores.masks:
        raise run.refuse(node, "scores that are masked but not passed to a softmax have no rule")
    if run.sampling:
        raise run.refuse(node, "attention has no samples of one coordinate, which another operation here needs")
    run.rules[node.name] = "sampled" if scores.random and scores.softmax else "exact"
    return Attended(field, scores)


def _growth(run: Lowering, node: Node, scores: Scores) -> Growth:
    """How the scale falls with the head size, from its value; see the top of this file."""
    query, key, size = scores.query, scores.key, scores.size
    assert query is not None and key is not None
    inverse = size > 1 and abs(scores.scale * size - 1) < 1e-5
    centred = not (constant_part(query) and constant_part(key))
    if independent((query,), (key,)) and centred:
        return "inverse" if inverse else "root"
    if not inverse and abs(scores.scale) * size**0.5 > 1 - 1e-5:
        reason = (
            "its queries and keys share a matrix (or both have a mean) and scores are divided by no more than the "
            "root of the head size, so that they grow without bound with it; divide by the head size"
        )
        raise run.refuse(node, reason)
    return "inverse"


@rule("aten.scaled_dot_product_attention.default")
def attention(run: Lowering, node: Node) -> Lowered:
    query, key, value = node.args[:3]
    if run.arg(node, 4, "dropout_p", 0.0):
        raise run.refuse(node, "dropout in training mode has no exact rule here; trace the module in eval mode")
    size = axis_size(run.axes(query)[-1])
    scale = run.arg(node, 6, "scale")
    scores, lead = scores_of(run, node, query, key, size**-0.5 if scale is None else float(scale), transposed=False)
    masks: list[Mask] = []
    mask = run.arg(node, 3, "attn_mask")
    if mask is not None:
        masks.append(_mask(run, node, mask, scores, lead, keep=True))
    if run.arg(node, 5, "is_causal", False):
        masks.append(lower_triangle(scores.shape))
    return attend(run, node, replace(scores, masks=tuple(masks), softmax=True), value)


def _mask(run: Lowering, node: Node, argument: Any, scores: Scores, lead: tuple[Axis, ...], *, keep: bool) -> Mask:
    """A mask that is added (or of entries to keep, where it holds truth values), or of entries to leave out."""
    value = run.value(argument)
    if not isinstance(value, Concrete):
        raise run.refuse(node, "its mask or bias depends on random weights")
    try:
        return (added if keep else left_out)(value, run.tensor(argument), lead, scores.shape)
    except ValueError as reason:
        raise run.refuse(node, str(reason)) from None


# -- written by hand --------------------------------------------------------------------------------------------------


@rule("aten.matmul.default", "aten.bmm.default")
def product(run: Lowering, node: Node) -> Lowered:
    """A product of two operands: by a parameter, of queries and keys, or of given weights and values."""
    left, right = (run.value(argument) for argument in node.args[:2])
    if any(isinstance(one, (Weight, Transposed)) for one in (left, right)) or not isinstance(right, Field):
        return weight_product(run, node)
    if isinstance(left, Concrete):
        return _averaged_by_data(run, node)
    scores, lead = scores_of(run, node, node.args[0], node.args[1], 1.0, transposed=True)
    run.rules[node.name] = "exact"
    return Affinity(scores, lead)


@rule("aten.baddbmm.default")
def masked_product(run: Lowering, node: Node) -> Lowered:
    """``beta * mask + alpha * q k^T``."""
    if node.kwargs.get("beta", 1) != 1:
        raise run.refuse(node, "it scales the mask that it adds")
    query, key, scale = node.args[1], node.args[2], float(node.kwargs.get("alpha", 1))
    scores, lead = scores_of(run, node, query, key, scale, transposed=True)
    run.rules[node.name] = "exact"
    return Affinity(replace(scores, masks=(_mask(run, node, node.args[0], scores, lead, keep=True),)), lead)


def _averaged_by_data(run: Lowering, node: Node) -> Attended:
    """Weights that are data or constants: a map of positions of each input's own (graphs, given attention)."""
    of_weights = run.axes(node.args[0])
    value = run.axes(node.args[1])
    keys = _tokens(run, node, value, -2, "values")
    queries = position_sizes(node.axes[-2:-1] if node.axes else ())
    shape = prod(queries), prod(keys)
    try:
        mask = given(run.value(node.args[0]), run.tensor(node.args[0]), of_weights[:-2], shape)
    except ValueError as reason:
        raise run.refuse(node, str(reason)) from None
    scores = Scores(None, None, 0.0, 1, "inverse", (mask,), False, queries, keys)
    return attend(run, node, scores, node.args[1])


@rule_on(Affinity, "aten.matmul.default", "aten.bmm.default")
def values(run: Lowering, node: Node) -> Lowered:
    affinity = run.value(node.args[0])
    if not isinstance(affinity, Affinity) or not isinstance(run.value(node.args[1]), Field):
        raise run.refuse(node, "attention weights have to stand left of the values that they average")
    return attend(run, node, affinity.scores, node.args[1])


def _unfinished(run: Lowering, node: Node, affinity: Any) -> Scores:
    if not isinstance(affinity, Affinity):
        raise run.refuse(node, Affinity.reason)
    if affinity.scores.softmax:
        raise run.refuse(node, "attention weights are changed after the softmax")
    return affinity.scores


@rule_on(Affinity, "aten.mul.Tensor", "aten.div.Tensor", "aten.mul.Scalar", "aten.div.Scalar")
def scaled(run: Lowering, node: Node) -> Lowered:
    left, right = node.args[:2]
    if not isinstance(run.value(left), Affinity) and ".mul" in node.op:
        left, right = right, left
    scores = _unfinished(run, node, run.value(left))
    tensor = run.tensor(right)
    number = right if isinstance(right, (int, float)) else float(tensor) if tensor is not None else None
    if number is None or scores.masks:
        raise run.refuse(node, "scores are multiplied by something else than one number, before any mask")
    run.rules[node.name] = "exact"
    factor = 1.0 / number if ".div" in node.op else float(number)
    return replace(run.value(left), scores=replace(scores, scale=scores.scale * factor))


@rule_on(Affinity, "aten.add.Tensor")
def biased(run: Lowering, node: Node) -> Lowered:
    left, right = node.args[:2]
    if not isinstance(run.value(left), Affinity):
        left, right = right, left
    affinity = run.value(left)
    scores = _unfinished(run, node, affinity)
    if run.arg(node, 2, "alpha", 1) != 1:
        raise run.refuse(node, "it scales the mask that it adds")
    mask = _mask(run, node, right, scores, affinity.lead, keep=True)
    run.rules[node.name] = "exact"
    return replace(affinity, scores=replace(scores, masks=(*scores.masks, mask)))


@rule_on(Affinity, "aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def filled(run: Lowering, node: Node) -> Lowered:
    affinity = run.value(node.args[0])
    scores = _unfinished(run, node, affinity)
    value = node.args[2] if isinstance(node.args[2], (int, float)) else run.tensor(node.args[2])
    if value is None or float(value) > -1e4:
        raise run.refuse(node, "scores are filled with something else than a large negative number")
    mask = _mask(run, node, node.args[1], scores, affinity.lead, keep=False)
    run.rules[node.name] = "exact"
    return replace(affinity, scores=replace(scores, masks=(*scores.masks, mask)))


@rule_on(Affinity, "aten.softmax.int", "aten._softmax.default")
def softmax(run: Lowering, node: Node) -> Lowered:
    affinity = run.value(node.args[0])
    scores = _unfinished(run, node, affinity)
    if node.args[1] % len(run.axes(node.args[0])) != len(run.axes(node.args[0])) - 1:
        raise run.refuse(node, "its softmax does not run over keys")
    run.rules[node.name] = "exact"
    return replace(affinity, scores=replace(scores, softmax=True))


@rule_on(
    Affinity,
    *("aten.dropout.default", "aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default", "aten.clone.default"),
    *("aten.contiguous.default", "aten.view.default", "aten.reshape.default", "aten.unsqueeze.default"),
    *("aten.squeeze.dim", "aten.alias.default", "aten._unsafe_view.default"),
)
def passed(run: Lowering, node: Node) -> Lowered:
    """Operations that leave scores as they are, or regroup the axes before queries and keys."""
    if "dropout" in node.op and len(node.args) > 2 and node.args[2]:
        raise run.refuse(node, "dropout in training mode has no exact rule here; trace the module in eval mode")
    affinity = run.value(node.args[0])
    assert node.axes is not None
    sizes = tuple(map(axis_size, node.axes[-2:]))
    if sizes != affinity.scores.shape or position_sizes(node.axes[:-2]):
        raise run.refuse(node, Affinity.reason)
    run.rules[node.name] = "exact"
    return replace(affinity, lead=node.axes[:-2])


@rule("aten.mT.default", "aten.adjoint.default")
def transposed(run: Lowering, node: Node) -> Lowered:
    """The last two axes exchanged."""
    matrix = run.value(node.args[0])
    if isinstance(matrix, Transposed):
        return matrix.weight
    return Transposed(matrix) if isinstance(matrix, Weight) else rearranged(run, node)
