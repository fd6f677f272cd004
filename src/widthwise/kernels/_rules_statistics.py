"""Norms written out operation by operation: ``x * rsqrt(mean(x^2) + eps)`` and its kin."""

from dataclasses import dataclass, replace

from widthwise.kernels._checks import COORDINATES
from widthwise.kernels._fields import Field, Normalised
from widthwise.kernels._lowering import Lowering
from widthwise.kernels._registry import Intermediate, Lowered, rule, rule_on
from widthwise.kernels._rules_pointwise import activation
from widthwise.program import Node, Ref


@dataclass(frozen=True)
class Statistic(Intermediate):
    """The mean square of a field over its coordinates, and what is made of it on the way to a norm.

    Attributes:
        source: the field.
        stage: ``"squares"`` (before the mean), ``"mean"``, ``"root"`` or ``"inverse root"``.
        eps: what has been added to the mean.
    """

    source: Field
    stage: str
    eps: float = 0.0
    reason = "a mean square over coordinates has a rule only where a field is divided by its root"


@rule("aten.pow.Tensor_Scalar")
def power(run: Lowering, node: Node) -> Lowered:
    """A power; a square that goes into a mean over coordinates alone is the start of a norm."""
    if node.args[1] == 2 and isinstance(run.value(node.args[0]), Field) and _averaged(run, node):
        run.rules[node.name] = "exact"
        return Statistic(run.value(node.args[0]), "squares")
    return activation(run, node)


def _averaged(run: Lowering, node: Node) -> bool:
    users = run.program.users(node.name)
    return bool(users) and all(user.op == "aten.mean.dim" and _over_coordinates(run, user, node) for user in users)


def _over_coordinates(run: Lowering, mean: Node, operand: Node) -> bool:
    axes = operand.axes or ()
    dims = mean.args[1] if len(mean.args) > 1 else None
    if not isinstance(dims, (list, tuple)) or not mean.kwargs.get("keepdim", len(mean.args) > 2 and mean.args[2]):
        return False
    chosen = [factor for dim in dims for factor in axes[dim % len(axes)]]
    held = [factor for axis in axes for factor in axis if factor.kind in COORDINATES]
    return bool(chosen) and set(chosen) <= set(held)


def _stage(run: Lowering, node: Node, argument: object, *stages: str) -> Statistic:
    value = run.value(argument)
    if not isinstance(value, Statistic) or value.stage not in stages:
        raise run.refuse(node, Statistic.reason)
    run.rules[node.name] = "exact"
    return value


@rule_on(Statistic, "aten.mean.dim")
def mean(run: Lowering, node: Node) -> Lowered:
    return replace(_stage(run, node, node.args[0], "squares"), stage="mean")


@rule_on(Statistic, "aten.add.Tensor", "aten.add.Scalar")
def shifted(run: Lowering, node: Node) -> Lowered:
    found = _stage(run, node, node.args[0], "mean")
    number = node.args[1]
    tensor = run.tensor(number) if isinstance(number, Ref) else None
    if not isinstance(number, (int, float)) and (tensor is None or tensor.numel() != 1):
        raise run.refuse(node, Statistic.reason)
    return replace(found, eps=found.eps + float(number if tensor is None else tensor))


@rule_on(Statistic, "aten.rsqrt.default", "aten.sqrt.default")
def root(run: Lowering, node: Node) -> Lowered:
    stage = "inverse root" if "rsqrt" in node.op else "root"
    return replace(_stage(run, node, node.args[0], "mean"), stage=stage)


@rule_on(Statistic, "aten.to.dtype", "aten._to_copy.default", "aten.expand.default")
def kept(run: Lowering, node: Node) -> Lowered:
    return _stage(run, node, node.args[0], "squares", "mean", "root", "inverse root")


@rule_on(Statistic, "aten.mul.Tensor")
def normalised(run: Lowering, node: Node) -> Lowered:
    left, right = node.args[:2]
    if isinstance(run.value(left), Statistic):
        left, right = right, left
    found = _stage(run, node, right, "inverse root")
    return Normalised(run.field(left, node), found.source, found.eps, False)


@rule_on(Statistic, "aten.div.Tensor")
def divided(run: Lowering, node: Node) -> Lowered:
    found = _stage(run, node, node.args[1], "root")
    return Normalised(run.field(node.args[0], node), found.source, found.eps, False)
