"""Rules of normalisation layers, whose statistics become deterministic at infinite width."""

from typing import Any

import torch

from widthwise.kernels._affine import constant_part
from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Inputs,
    Normalised,
    Offset,
    blockwise,
    combine,
)
from widthwise.kernels._fields_batch import BATCH_NORM_RULE, BatchNormed
from widthwise.kernels._lowering import Lowering
from widthwise.kernels._registry import Lowered, rule
from widthwise.kernels._rules_pointwise import gain
from widthwise.kernels._rules_sampled import in_batches, over_positions
from widthwise.kernels._walks import since_matrix
from widthwise.program import AxisKind, Node, Weight, axis_size


def _normalise(run: Lowering, node: Node, *, centre: bool, axes: Any, eps: float) -> Field:
    source = run.field(node.args[0], node)
    factors = [factor for axis in axes for factor in axis]
    kinds = {factor.kind for factor in factors}
    if not kinds & {AxisKind.WIDTH, AxisKind.FEATURE}:
        raise run.refuse(node, "it normalises over positions only, which leaves a random scale at infinite width")
    positions = sum(factor.kind is AxisKind.POSITION for factor in factors)
    if positions not in (0, len(source.positions)):
        raise run.refuse(node, "it normalises over some of the positions")
    pooled = positions > 0
    statistic = blockwise(lambda part: part, source)
    if centre and not source.gaussian:
        if isinstance(source, Concat):
            raise run.refuse(node, "it centres a concatenation of blocks with different means")
        statistic = Centred(source, pooled)
    run.rules[node.name] = "exact"
    if isinstance(statistic, Concat):
        parts = tuple(Normalised(part, statistic, eps, pooled) for part in statistic.parts)
        return Concat(parts, statistic.fractions)
    return Normalised(statistic, statistic, eps, pooled)


def _affine(run: Lowering, node: Node, field: Field, weight: Any, bias: Any) -> Field:
    """Trained gain (one value at initialisation) and bias after a norm."""
    for parameter, what in ((weight, "gain"), (bias, "bias")):
        value = run.value(parameter)
        if parameter is None:
            continue
        if not isinstance(value, Weight):
            raise run.refuse(node, f"its {what} is not a parameter")
        field = (
            gain(run, node, value, run.axes(parameter), field)
            if what == "gain"
            else run.with_bias(field, parameter, node)
        )
    return field


@rule("aten.layer_norm.default")
def layer_norm(run: Lowering, node: Node) -> Lowered:
    count = len(node.args[1])
    axes = run.axes(node.args[0])[-count:]
    field = _normalise(run, node, centre=True, axes=axes, eps=run.arg(node, 4, "eps", 1e-5))
    return _affine(run, node, field, run.arg(node, 2, "weight"), run.arg(node, 3, "bias"))


@rule("aten.rms_norm.default")
def rms_norm(run: Lowering, node: Node) -> Lowered:
    count = len(node.args[1])
    axes = run.axes(node.args[0])[-count:]
    eps = run.arg(node, 3, "eps")
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    field = _normalise(run, node, centre=False, axes=axes, eps=eps)
    return _affine(run, node, field, run.arg(node, 2, "weight"), None)


@rule("aten.group_norm.default")
def group_norm(run: Lowering, node: Node) -> Lowered:
    """Each group has many coordinates of the same law, so that its statistics are those of all coordinates."""
    axes = run.axes(node.args[0])[1:]
    if isinstance(run.value(node.args[0]), Concat):
        raise run.refuse(node, "its groups cut through a concatenation")
    groups, channels = node.args[1], axis_size(axes[0])
    eps = run.arg(node, 4, "eps", 1e-5)
    if groups == channels > 1:
        return _affine(run, node, over_positions(run, node, eps), run.arg(node, 2, "weight"), run.arg(node, 3, "bias"))
    if groups > 1 and isinstance(run.field(node.args[0], node), Inputs):
        raise run.refuse(node, f"each of its {groups} groups holds {channels // groups} coordinates, not many")
    field = _normalise(run, node, centre=True, axes=axes, eps=eps)
    return _affine(run, node, field, run.arg(node, 2, "weight"), run.arg(node, 3, "bias"))


@rule("aten.batch_norm.default")
def batch_norm(run: Lowering, node: Node) -> Lowered:
    """Eval mode: a fixed affine map with the running statistics, the same for every channel at initialisation.

    Training mode: each coordinate is standardised over the batch and the positions: integrals, where it is Gaussian
    and an activation of two straight lines follows; samples where not."""
    source, weight, bias, mean, variance, training, _, eps = node.args[:8]
    if training:
        field = in_batches(run, node, eps) if run.sampling else _by_integrals(run, node, eps)
        return _affine(run, node, field, weight, bias)
    return _affine(run, node, _standardised(run, node, source, (mean, variance), eps), weight, bias)


def _by_integrals(run: Lowering, node: Node, eps: float) -> Field:
    """Each coordinate standardised over the batch, if it is Gaussian but for a constant, and no gain acts on it."""

    def standardised(part: Field) -> Field:
        constant = constant_part(part)
        if constant is None or any(isinstance(one, Gained) for one in since_matrix(part)):
            run.by_sampling(node, "batch norm in training mode of values that are not Gaussian has no integral")
        return BatchNormed(Centred(part, pooled=False, gaussian=True) if constant else part, eps)

    source = run.field(node.args[0], node)
    run.rules[node.name] = BATCH_NORM_RULE
    return blockwise(standardised, source)


@rule("aten.instance_norm.default")
def instance_norm(run: Lowering, node: Node) -> Lowered:
    """Each coordinate standardised over the positions of its own input, or by running statistics in eval mode."""
    source, weight, bias, mean, variance, own, _, eps = node.args[:8]
    if own:
        return _affine(run, node, over_positions(run, node, eps), weight, bias)
    return _affine(run, node, _standardised(run, node, source, (mean, variance), eps), weight, bias)


def _standardised(run: Lowering, node: Node, source: Any, running: tuple[Any, Any], eps: float) -> Field:
    """A fixed affine map by running statistics, the same for every channel at initialisation."""
    statistics = [run.tensor(tensor) for tensor in running]
    if any(tensor is None or not bool((tensor == tensor.reshape(-1)[0]).all()) for tensor in statistics):
        raise run.refuse(node, "its running statistics differ between channels: the module is not at initialisation")
    centre, spread = (float(tensor.reshape(-1)[0]) for tensor in statistics if tensor is not None)
    scale = (spread + eps) ** -0.5
    operand = run.field(source, node)
    terms: list[tuple[float, Field]] = [(scale, operand)]
    if centre:
        terms.append((-scale * centre, Offset(None, 1.0, operand.positions, (False,) * len(operand.positions))))
    run.rules[node.name] = "exact"
    return combine(terms)
