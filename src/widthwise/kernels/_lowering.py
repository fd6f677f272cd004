"""From a program to fields: each node is read by the rule of its operation.

Rules live in the ``_rules_*.py`` files and register themselves by operation name; a new operation is one function.
"""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._checks import check_field, check_inputs, check_storage, coordinates
from widthwise.kernels._concrete import constant_of
from widthwise.kernels._fields import Field, Inputs, Offset, Shared, Sizes, combine
from widthwise.kernels._mixed_axes import coordinates_only, parted
from widthwise.kernels._pieces import NoPiece, Pieces
from widthwise.kernels._positions import broadcast
from widthwise.kernels._registry import RULES_ON, Concrete, Lowered, Rule, find_rule
from widthwise.kernels._scales import Scales, constant_value
from widthwise.kernels._token_axes import with_token_axes
from widthwise.program import Axis, AxisKind, Node, Program, Ref, Role, Weight


@dataclass
class Lowering:
    """Walks a program once and keeps the value of each node.

    Attributes:
        trains_constants: whether parameters that are constant at initialisation count as trained.
        values: value of each node.
        concrete: nodes that are computed on the data itself.
        rules: how each node was read.
        uses: how each matrix is used; one matrix has to be used in one way, or in that and its transpose if samples
            of one coordinate are to give the kernels.
        pieces: fields that are cut out of others.
        sampling: whether they are.
        transposes: names of the matrices that are also used transposed.
    """

    program: Program
    scales: Scales = field(default_factory=Scales)
    trains_constants: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    concrete: list[Node] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    uses: dict[str, tuple] = field(default_factory=dict)
    pieces: Pieces = field(default_factory=Pieces)
    sampling: bool = False
    transposes: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Lower every node that the output needs.

        Raises:
            UnsupportedOperation: a node on the way to the output has no rule.
        """
        self.program = with_token_axes(self.program)
        self.weights = {weight.name: weight for weight in self.program.weights}
        needed = self._needed()
        check_inputs(self.program, needed)
        nodes = [node for node in self.program.nodes if node.name in needed]
        check_storage(self.weights[name] for name in dict.fromkeys(node.op for node in nodes if node.kind == "weight"))
        for node in nodes:
            self.values[node.name] = self._lower(node)

    def _needed(self) -> set[str]:
        """Names of the nodes that the output depends on."""
        needed: set[str] = set()
        stack = [self.program.output]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += [ref.name for ref in self.program.node(name).refs]
        return needed

    def _lower(self, node: Node) -> Lowered:
        if node.kind == "weight":
            return self.weights[node.op]
        if node.kind in ("input", "constant"):
            return Concrete(node.name, batched=node.kind == "input")
        operands = [self.values[ref.name] for ref in node.refs]
        if all(isinstance(operand, Concrete) for operand in operands):
            if "dropout" in node.op and self.arg(node, 2, "train", False) and self.arg(node, 1, "p", 0.5):
                raise self.refuse(node, "it drops entries of the data, whose few features keep the kernel random")
            self.concrete.append(node)
            self.rules[node.name] = "concrete"
            return Concrete(node.name, batched=any(operand.batched for operand in operands))
        value = self._rule_for(node, operands)(self, node)
        if isinstance(value, Field):
            try:
                value = parted(value, node.axes or (), self.pieces)
            except NoPiece as reason:
                raise self.refuse(node, f"it makes positions of coordinates not of one law ({reason})") from None
            check_field(self, node, value, position_sizes(node.axes or ()))
        return value

    def _rule_for(self, node: Node, operands: list[Any]) -> Rule:
        special = next((one for one in operands if type(one) in RULES_ON), None)
        found = find_rule(node.op, None if special is None else RULES_ON[type(special)])
        if found is None and special is not None:
            raise self.refuse(node, getattr(special, "reason", "it takes all results of an operation at once"))
        if found is None:
            raise UnsupportedOperation(node.op, node.module_path)
        if node.axes is None and node.shape is not None:
            raise self.refuse(node, "the meaning of its axes is not known")
        return found

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
        """The tensor of an operand that depends on no input and no weight, None for anything else."""
        value = self.value(argument)
        if not isinstance(argument, Ref) or not isinstance(value, Concrete) or value.batched:
            return None
        return constant_of(self.program, self.program.node(argument.name))

    def is_zero(self, argument: Ref) -> bool:
        """Whether an operand is zeros, whatever the inputs."""
        node = self.program.node(argument.name)
        if not isinstance(self.value(argument), Concrete):
            return False
        if node.op in ("aten.new_zeros.default", "aten.zeros_like.default"):
            return True
        if node.op in ("aten.expand.default", "aten.select.int", "aten.view.default") and isinstance(node.args[0], Ref):
            return self.is_zero(node.args[0])
        tensor = self.tensor(argument)
        return tensor is not None and not bool(tensor.any())

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
            return self.inputs(argument, tuple(i for i, axis in enumerate(axes) if coordinates([axis])), node)
        raise self.refuse(node, "it mixes a constant tensor with random coordinates")

    def vector(self, weight: Weight, axes: tuple[Axis, ...], node: Node) -> Field:
        """A parameter that is added as it is (bias, positional parameter)."""
        positions = position_sizes(axes)
        own = (True,) * len(positions)
        std = Scales.pick(self.scales.bias_std, weight.name)
        constant = constant_value(weight) if std is None else None
        if coordinates(node.axes or ()) and not coordinates(axes):
            self._refuse_shared(weight, constant, node)
        if constant is not None:
            return Offset(weight, constant, positions, own)
        if std is None:
            std = weight.init_std
            if abs(weight.init_mean) > 6 * std / weight.value.numel() ** 0.5:
                mean = f"{weight.init_mean:.3g}"
                raise self.refuse(node, f"parameter {weight.name} is random with a mean of {mean}, not zero")
        return Shared(weight, std**2, positions, own)

    def _refuse_shared(self, weight: Weight, constant: float | None, node: Node) -> None:
        if constant is None:
            raise self.refuse(node, f"one random number of parameter {weight.name} is shared by all coordinates")
        self.untrained(weight, node)

    def untrained(self, weight: Weight, node: Node) -> None:
        """A parameter whose own part of the tangent kernel has no deterministic limit has to count as not trained.

        Raises:
            UnsupportedOperation: it is trained, and constants count as trained.
        """
        if self.trains_constants and weight.value.requires_grad:
            raise self.refuse(
                node,
                f"one number of the trained parameter {weight.name} acts on all coordinates, so that its part of the "
                "tangent kernel stays random (freeze it, or take parametrization='ntk')",
            )

    def used(self, weight: Weight, way: tuple, node: Node) -> None:
        """Note how a matrix is used.

        Raises:
            UnsupportedOperation: it is already used in another way, for example transposed.
        """
        first = self.uses.setdefault(weight.name, way)
        if first == way:
            return
        turned = first[1:] == way[1:] == (("pointwise",),) and weight.role is Role.HIDDEN
        if turned and self.sampling:
            self.transposes.add(weight.name)
        else:
            raise self.refuse(node, f"matrix {weight.name} is used a second time in another way (transposed, resized)")

    def by_sampling(self, node: Node, reason: str) -> None:
        """Refuse unless samples of one coordinate give the kernels of the whole program.

        Raises:
            UnsupportedOperation: an exact rule is wanted, and there is none because of `reason`.
        """
        if not self.sampling:
            raise self.refuse(node, f"{reason}, so that only samples give its kernel (method='sampled')")
        self.rules[node.name] = "sampled"

    def matrix(self, weight: Weight, contracted: int, node: Node) -> float | Tensor:
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
        front = [factor.kind for factor in axes[0]] if axes else []
        if AxisKind.BATCH not in front[:1] or AxisKind.BATCH in front[1:] or 0 in contracted:
            raise self.refuse(node, "its data operand has no batch axis in front")
        kept = [i for i in range(1, len(axes)) if i not in contracted]
        positions = tuple(f.size for i in (0, *kept) for f in axes[i] if f.kind is not AxisKind.BATCH)
        sites = prod(positions)

        def read(tensor: Tensor) -> Tensor:
            ordered = tensor.permute(0, *kept, *contracted)
            return ordered.reshape(-1, sites, prod(ordered.shape) // max(1, _examples(ordered, axes) * sites))

        return Inputs(argument.name, read, positions)

    def aligned(self, argument: Any, node: Node) -> Field:
        """An operand broadcast to the positions of the node's result."""
        operand = self.field(argument, node)
        assert node.axes is not None
        axes = self.axes(argument)
        random = not isinstance(operand, (Inputs, Offset, Shared))
        if random and coordinates(node.axes) != coordinates(axes):
            raise self.refuse(node, "coordinates of its operands do not line up, or all share one random number")
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
            own = iter(operand.own)
            return replace(operand, positions=tuple(sizes), own=tuple(next(own) if here else False for here in present))
        return broadcast(operand, tuple(sizes), tuple(present))

    def with_bias(self, product: Field, bias: Any, node: Node) -> Field:
        """Add a bias parameter of the width axis to a product."""
        if bias is None:
            return product
        if not isinstance(self.value(bias), Weight):
            raise self.refuse(node, "its bias is computed, not a parameter")
        axes = coordinates_only(self.axes(bias))
        if position_sizes(axes):
            return combine([(1.0, product), (1.0, self.aligned(bias, node))])
        vector = self.vector(self.value(bias), axes, node)
        assert isinstance(vector, (Shared, Offset))
        placed = replace(vector, positions=product.positions, own=(False,) * len(product.positions))
        return combine([(1.0, product), (1.0, placed)])


def _examples(tensor: Tensor, axes: tuple[Axis, ...]) -> int:
    """Number of examples along the first axis, which may hold positions too."""
    return tensor.shape[0] // prod(f.size for f in axes[0] if f.kind is not AxisKind.BATCH)


def position_sizes(axes: tuple[Axis, ...]) -> Sizes:
    """Sizes of the position factors, in the order of the tensor's axes."""
    return tuple(factor.size for axis in axes for factor in axis if factor.kind is AxisKind.POSITION)
