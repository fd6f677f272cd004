"""From a program to fields: each node is read by the rule of its operation.

Rules live in the ``_rules_*.py`` files and register themselves by operation name; a new operation is one function.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._fields import Field, Inputs, Offset, Shared, Sizes, combine
from widthwise.kernels._positions import broadcast
from widthwise.program import Axis, AxisKind, Node, Program, Ref, Weight


@dataclass(frozen=True)
class Concrete:
    """The value of a node that no random weight has touched: computed with real tensors.

    Attributes:
        node: its name.
        batched: whether it depends on the inputs; constants do not.
    """

    node: str
    batched: bool


Lowered = Field | Concrete | Weight
Rule = Callable[["Lowering", Node], Lowered]

RULES: dict[str, Rule] = {}


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register a rule under the ATen overloads that it reads (in-place variants are found by themselves)."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return register


def find_rule(op: str) -> Rule | None:
    """The rule of an operation; ``aten.relu_.default`` is read as ``aten.relu.default``."""
    if op in RULES:
        return RULES[op]
    parts = op.split(".")
    return RULES.get(".".join([parts[0], parts[1].rstrip("_"), *parts[2:]])) if len(parts) > 2 else None


@dataclass
class Scales:
    """Overrides of what is read off the module's tensors; None keeps the module's own.

    A dict maps name patterns (as in `fnmatch`) to values: the first that fits wins.
    """

    weight_std: float | dict[str, float] | None = None
    bias_std: float | dict[str, float] | None = None

    @staticmethod
    def pick(override: float | dict[str, float] | None, name: str) -> float | None:
        """The override for a weight name, if any."""
        if isinstance(override, dict):
            return next((value for pattern, value in override.items() if fnmatchcase(name, pattern)), None)
        return override


@dataclass
class Lowering:
    """Walks a program once and keeps the value of each node."""

    program: Program
    scales: Scales = field(default_factory=Scales)
    values: dict[str, Any] = field(default_factory=dict)
    concrete: list[Node] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)  # node name -> how it was read
    weights: dict[str, Weight] = field(default_factory=dict)

    def run(self) -> None:
        """Lower every node that the output needs.

        Raises:
            UnsupportedOperation: a node on the way to the output has no rule.
        """
        self.weights = {weight.name: weight for weight in self.program.weights}
        for node in self.program.nodes:
            if node.name in self._needed:
                self.values[node.name] = self._lower(node)

    @property
    def _needed(self) -> set[str]:
        if not hasattr(self, "_needed_names"):
            needed, stack = set(), [self.program.output]
            nodes = {node.name: node for node in self.program.nodes}
            while stack:
                name = stack.pop()
                if name not in needed:
                    needed.add(name)
                    stack += [ref.name for ref in references((nodes[name].args, nodes[name].kwargs))]
            self._needed_names = needed
        return self._needed_names

    def _lower(self, node: Node) -> Lowered:
        if node.kind == "weight":
            return self.weights[node.op]
        if node.kind in ("input", "constant"):
            return Concrete(node.name, batched=node.kind == "input")
        operands = [self.values[ref.name] for ref in references((node.args, node.kwargs))]
        if all(isinstance(operand, Concrete) for operand in operands):
            self.concrete.append(node)
            self.rules[node.name] = "concrete"
            return Concrete(node.name, batched=any(operand.batched for operand in operands))
        found = find_rule(node.op)
        if found is None:
            raise UnsupportedOperation(node.op, node.module_path)
        if node.axes is None:
            raise self.refuse(node, "the meaning of its axes is not known")
        return found(self, node)

    # -- what rules ask for ------------------------------------------------------------------------------------------

    def refuse(self, node: Node, reason: str) -> UnsupportedOperation:
        """An error that names the operation, its place and why there is no exact kernel."""
        return UnsupportedOperation(node.op, node.module_path, reason)

    def arg(self, node: Node, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or name, as given (references stay)."""
        return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)

    def value(self, argument: Any) -> Any:
        """The lowered value of a reference; anything else as it is."""
        return self.values[argument.name] if isinstance(argument, Ref) else argument

    def axes(self, argument: Ref) -> tuple[Axis, ...]:
        """Axes of an operand."""
        axes = self.program.node(argument.name).axes
        assert axes is not None
        return axes

    def tensor(self, argument: Any) -> Tensor | None:
        """The tensor of a constant operand, None for anything else."""
        if not isinstance(argument, Ref):
            return None
        node = self.program.node(argument.name)
        return node.value if node.kind == "constant" else None

    def field(self, argument: Any, node: Node) -> Field:
        """An operand as a field: weights become random vectors.

        Raises:
            UnsupportedOperation: it is concrete data, which has no wide axis.
        """
        value = self.value(argument)
        if isinstance(value, Field):
            return value
        if isinstance(value, Weight):
            return self.vector(value, self.axes(argument), node)
        if isinstance(value, Concrete) and value.batched:
            axes = self.axes(argument)
            return self.inputs(argument, tuple(i for i, axis in enumerate(axes) if _is_feature(axis)), node)
        raise self.refuse(node, "it mixes a constant tensor with random coordinates")

    def vector(self, weight: Weight, axes: tuple[Axis, ...], node: Node) -> Field:
        """A parameter that is added as it is (bias, positional parameter)."""
        positions = position_sizes(axes)
        constant = constant_value(weight)
        std = Scales.pick(self.scales.bias_std, weight.name)
        if std is None and constant is not None:
            return Offset(weight, constant, positions)
        std = weight.init_std if std is None else std
        if std == weight.init_std and abs(weight.init_mean) > 6 * std / weight.value.numel() ** 0.5:
            raise self.refuse(
                node, f"parameter {weight.name} is random with a mean of {weight.init_mean:.3g}, not zero"
            )
        return Shared(weight, std**2, positions, (True,) * len(positions))

    def matrix(self, weight: Weight, contracted: int, node: Node) -> float:
        """sigma_w^2 of a matrix: variance of its entries times the number contracted."""
        std = Scales.pick(self.scales.weight_std, weight.name)
        if std is not None:
            return std**2
        constant = constant_value(weight)
        if constant is not None and constant != 0.0:
            raise self.refuse(node, f"matrix {weight.name} is constant ({constant:.3g}), not random")
        if abs(weight.init_mean) > 6 * weight.init_std / weight.value.numel() ** 0.5:
            raise self.refuse(node, f"matrix {weight.name} is random with a mean of {weight.init_mean:.3g}, not zero")
        return weight.init_std**2 * contracted

    def inputs(self, argument: Ref, contracted: tuple[int, ...], node: Node) -> Inputs:
        """Concrete data whose feature axes a random matrix contracts."""
        axes = self.axes(argument)
        if not axes or not any(factor.kind is AxisKind.BATCH for factor in axes[0]):
            raise self.refuse(node, "its data operand has no batch axis in front")
        kept = [i for i in range(1, len(axes)) if i not in contracted]
        positions = tuple(factor.size for i in kept for factor in axes[i])

        def read(tensor: Tensor) -> Tensor:
            return tensor.permute(0, *kept, *contracted).reshape(tensor.shape[0], prod(positions), -1)

        return Inputs(argument.name, read, positions)

    def aligned(self, argument: Any, node: Node) -> Field:
        """An operand broadcast to the positions of the node's result."""
        operand = self.field(argument, node)
        assert node.axes is not None
        axes = self.axes(argument)
        axes = ((),) * (len(node.axes) - len(axes)) + tuple(axes)
        present, sizes = [], []
        for own, result in zip(axes, node.axes, strict=True):
            for factor in result:
                if factor.kind is AxisKind.POSITION:
                    present.append(bool(own))
                    sizes.append(factor.size)
        if tuple(size for size, here in zip(sizes, present, strict=True) if here) != operand.positions:
            raise self.refuse(node, "its operands' positions do not line up")
        if isinstance(operand, (Shared, Offset)):
            own = iter(operand.own) if isinstance(operand, Shared) else iter(())
            if isinstance(operand, Offset):
                return replace(operand, positions=tuple(sizes))
            return replace(operand, positions=tuple(sizes), own=tuple(next(own) if here else False for here in present))
        return broadcast(operand, tuple(sizes), tuple(present))

    def with_bias(self, product: Field, bias: Any, node: Node) -> Field:
        """Add a bias parameter of the width axis to a product."""
        if bias is None:
            return product
        vector = self.vector(self.value(bias), ((),), node)
        own = (False,) * len(product.positions)
        placed = replace(vector, positions=product.positions)
        if isinstance(placed, Shared):
            placed = replace(placed, own=own)
        return combine([(1.0, product), (1.0, placed)])


def references(tree: Any) -> list[Ref]:
    """Every reference inside nested arguments."""
    if isinstance(tree, Ref):
        return [tree]
    if isinstance(tree, dict):
        return [ref for item in tree.values() for ref in references(item)]
    if isinstance(tree, (list, tuple)):
        return [ref for item in tree for ref in references(item)]
    return []


def position_sizes(axes: tuple[Axis, ...]) -> Sizes:
    """Sizes of the position factors, in the order of the tensor's axes."""
    return tuple(factor.size for axis in axes for factor in axis if factor.kind is AxisKind.POSITION)


def constant_value(weight: Weight) -> float | None:
    """The one value of all entries of a weight, None where they differ."""
    first = weight.value.detach().reshape(-1)[0]
    return float(first) if bool(torch.all(weight.value == first)) else None


def _is_feature(axis: Axis) -> bool:
    return any(factor.kind in (AxisKind.FEATURE, AxisKind.WIDTH) for factor in axis)
