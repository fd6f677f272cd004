"""The pass that labels the axes of every tensor of a program; one rule per operation, found by its name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from widthwise.program._arguments import arguments
from widthwise.program._factors import Factors, Ids
from widthwise.program._types import Node, Ref

Axes = tuple[Ids, ...]
Rule = Callable[["Call"], Any]
"""Gives the axes of the result; a list of them for an operation with several results."""

RULES: dict[str, Rule] = {}


def axis_rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations named by overload (``"aten.linear.default"``) or by packet (``"aten.sum"``)."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, rule))
        return rule

    return register


class AxesUnknown(Exception):
    """An argument has no known axes, so neither has the result."""


_UNTAGGED = {f"aten.{name}" for name in ("__and__", "__or__", "__xor__", "where", "masked_fill", "clamp", "lerp")}


@dataclass(frozen=True)
class MatrixUse:
    """One contraction of a weight: the axes summed over and produced, and the fans with kernel taps."""

    inner: Ids
    outer: Ids
    fan_in: int
    fan_out: int


@dataclass
class Labels:
    """What the pass knows: axes per node, which nodes are made of weights alone, how weights are used."""

    factors: Factors = field(default_factory=Factors)
    axes: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, frozenset[str] | None] = field(default_factory=dict)
    weight_axes: dict[str, Axes] = field(default_factory=dict)
    matrices: dict[str, list[MatrixUse]] = field(default_factory=dict)
    looked_up: dict[str, MatrixUse] = field(default_factory=dict)
    taps: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One operation as its axis rule sees it: arguments by name, the axes of the tensors among them."""

    node: Node
    labels: Labels
    bound: dict[str, Any]

    @property
    def factors(self) -> Factors:
        return self.labels.factors

    @property
    def shape(self) -> Any:
        """Shape of the result; a list of shapes for several results."""
        return self.labels.shapes[self.node.name]

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.bound.get(name, default)

    def axes_of(self, argument: Any) -> Axes:
        """Axes of a tensor argument.

        Raises:
            AxesUnknown: they are not known.
        """
        axes = self.labels.axes.get(argument.name) if isinstance(argument, Ref) else None
        if axes is None or isinstance(axes, list):
            raise AxesUnknown
        return tuple(self.factors.leaves(axis) for axis in axes)

    def axes(self, name: str) -> Axes:
        """Axes of the argument with this name."""
        return self.axes_of(self.bound[name])

    @property
    def first(self) -> Axes:
        """Axes of the first argument."""
        return self.axes_of(next(iter(self.bound.values())))

    def has(self, name: str) -> bool:
        """Whether a tensor is given for this argument."""
        return isinstance(self.bound.get(name), Ref)

    def fresh(self, sizes: Sequence[int], *flags: str) -> Axes:
        return tuple(self.factors.fresh(size, *flags) for size in sizes)

    def is_trained(self, argument: Any) -> bool:
        """Whether the tensor is made of weights (and constants) alone."""
        return isinstance(argument, Ref) and bool(self.labels.sources.get(argument.name))

    def record_matrix(self, argument: Any, inner: Sequence[Ids], outer: Sequence[Ids], taps: int = 1) -> None:
        """Note that a tensor made of weights maps the `inner` axes to the `outer` ones."""
        flat_inner, flat_outer = (tuple(one for axis in axes for one in axis) for axes in (inner, outer))
        use = MatrixUse(
            flat_inner, flat_outer, self.factors.size(flat_inner) * taps, self.factors.size(flat_outer) * taps
        )
        size = _count(self.labels.shapes[argument.name])
        for weight in self.labels.sources[argument.name] or ():
            if _count(self.labels.shapes[weight]) == size:
                self.labels.matrices.setdefault(weight, []).append(use)


def label(nodes: Sequence[Node], shapes: dict[str, Any]) -> Labels:
    """Run the axis rules over the nodes in order.

    Args:
        nodes: the program without axes.
        shapes: shape (or list of shapes) of the result of each node.
    """
    labels = Labels(shapes=dict(shapes))
    for node in nodes:
        if node.kind == "op":
            labels.sources[node.name] = _sources(labels, node)
            labels.axes[node.name] = _apply(labels, node)
        else:
            _leaf(labels, node)
    return labels


def _leaf(labels: Labels, node: Node) -> None:
    if node.shape is None:
        labels.axes[node.name], labels.sources[node.name] = None, frozenset()
        return
    flags = {"input": ("input",), "weight": ("param",)}.get(node.kind, ())
    if node.kind == "weight" and node.op in labels.weight_axes:
        axes = labels.weight_axes[node.op]
    else:
        axes = tuple(labels.factors.fresh(size, *flags) for size in node.shape)
    labels.axes[node.name] = axes
    if node.kind == "weight":
        labels.weight_axes[node.op] = axes
        labels.shapes[node.op] = node.shape
        labels.sources[node.name] = frozenset({node.op})
    elif node.kind == "constant":
        labels.sources[node.name] = frozenset()
    else:
        labels.sources[node.name] = None
        if axes:
            labels.factors.flag(axes[0], "batch")
            _share_batch(labels, axes[0])


def _share_batch(labels: Labels, axis: Ids) -> None:
    """Several inputs run over the same examples where their first axes have one size."""
    for name, sources in labels.sources.items():
        other = labels.axes[name]
        if sources is None and other and labels.factors.size(other[0]) == labels.factors.size(axis):
            labels.factors.unify(other[0], axis)
            return


def _sources(labels: Labels, node: Node) -> frozenset[str] | None:
    found: frozenset[str] = frozenset()
    for ref in node.refs:
        one = labels.sources.get(ref.name)
        if one is None:
            return None
        found |= one
    return found


def _apply(labels: Labels, node: Node) -> Any:
    """Axes of the result; new factors marked unknown where no rule gives them, so that later weights keep theirs."""
    rule, shape = rule_of(node), labels.shapes[node.name]
    try:
        axes = rule(Call(node, labels, arguments(node))) if rule is not None else None
    except (AxesUnknown, KeyError, IndexError, TypeError, ValueError, AttributeError, NotImplementedError):
        axes = None
    return axes if _fits(labels, axes, shape) else _unknown(labels, shape)


def _unknown(labels: Labels, shape: Any) -> Any:
    if isinstance(shape, list):
        return [_unknown(labels, one) for one in shape]
    return None if shape is None else tuple(labels.factors.fresh(size, "unknown") for size in shape)


def rule_of(node: Node) -> Rule | None:
    """The axis rule of an operation: by overload, by packet without the in-place mark, or as a pointwise one."""
    packet = node.op.rsplit(".", 1)[0]
    for name in (node.op, packet, re.sub(r"(?<=[a-z0-9])_$", "", packet)):
        if name in RULES:
            return RULES[name]
    tags = getattr(node.target, "tags", ())
    return pointwise if torch.Tag.pointwise in tags or packet in _UNTAGGED else None


def _fits(labels: Labels, axes: Any, shape: Any) -> bool:
    """Whether the axes that a rule gave have the sizes of the result: the check on every rule."""
    if isinstance(axes, list):
        return isinstance(shape, list) and all(
            one is None or _fits(labels, one, its) for one, its in zip(axes, shape, strict=False)
        )
    if axes is None or shape is None or isinstance(shape, list):
        return False
    return tuple(labels.factors.size(axis) for axis in axes) == tuple(shape)


def _count(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def pointwise(call: Call) -> Axes:
    """Broadcast all tensor arguments against each other."""
    tensors = [call.axes_of(ref) for ref in call.node.refs]
    return broadcast(call.factors, tensors)


def broadcast(factors: Factors, tensors: Sequence[Axes]) -> Axes:
    """Line axes up from the last one; those of size 1 give way, the others are the same axis."""
    result: list[Ids] = []
    for back in range(1, max(map(len, tensors), default=0) + 1):
        present = [axes[-back] for axes in tensors if len(axes) >= back and axes[-back]]
        for other in present[1:]:
            factors.unify(present[0], other)
        result.append(present[0] if present else ())
    return tuple(reversed(result))
