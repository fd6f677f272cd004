"""What has to hold for the covariance recursion to be right; whatever does not is refused, never guessed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from widthwise.core import UnsupportedOperation
from widthwise.kernels._fields import Concat, Field, Gained, Moved, Normalised, Product, Sum, Tokens
from widthwise.kernels._walks import below, children
from widthwise.program import Axis, AxisKind, Factor, Node, Program, Weight

if TYPE_CHECKING:
    from widthwise.kernels._lowering import Lowering

COORDINATES = (AxisKind.WIDTH, AxisKind.FEATURE, AxisKind.HEAD)


def coordinates(axes: Iterable[Axis]) -> tuple[Factor, ...]:
    """The factors that number coordinates, in the order of the axes."""
    return tuple(factor for axis in axes for factor in axis if factor.kind in COORDINATES)


def check_field(run: "Lowering", node: Node, value: Field, sizes: tuple[int, ...]) -> None:
    """A node's field has to fit the labels of its axes: one axis of coordinates, the batch, and positions.

    Args:
        sizes: position sizes by the labels.

    Raises:
        UnsupportedOperation: it does not.
    """
    axes = node.axes or ()
    if value.positions != sizes:
        raise run.refuse(node, "one of its axes holds positions for one operation and coordinates for another")
    if sum(any(f.kind in (AxisKind.WIDTH, AxisKind.FEATURE) for f in axis) for axis in axes) > 1:
        raise run.refuse(node, "two of its axes hold coordinates")
    ids = [factor.id for axis in axes for factor in axis]
    if len(set(ids)) < len(ids):
        raise run.refuse(node, "two of its axes are added or multiplied onto each other elsewhere (a transpose)")
    batches = {factor.id for axis in axes for factor in axis if factor.kind is AxisKind.BATCH}
    if batches - _input_batches(run.program):
        raise run.refuse(node, "it picks, joins or reorders the examples of the batch")


def _input_batches(program: Program) -> set[int]:
    axes = [program.node(name).axes for name in program.inputs]
    return {factor.id for one in axes if one for factor in one[0]}


def check_contracted(run: "Lowering", node: Node, axes: tuple[Axis, ...], contracted: int) -> None:
    """A random matrix has to act on the axis that holds all coordinates of its operand.

    Raises:
        UnsupportedOperation: it acts on positions, on heads alone, or on one number.
    """
    if not coordinates(axes[contracted : contracted + 1]):
        raise run.refuse(node, "its matrix mixes positions (or acts on a single number), not coordinates")
    if len(coordinates(axes)) != len(coordinates(axes[contracted : contracted + 1])):
        raise run.refuse(node, "its matrix mixes some of the coordinates only")


def check_storage(weights: Iterable[Weight]) -> None:
    """Parameters that share memory without being one tensor (a transposed tie) have no rule.

    Raises:
        UnsupportedOperation: two do.
    """
    seen: dict[int, Weight] = {}
    for weight in weights:
        place = weight.value.untyped_storage().data_ptr()
        other = seen.setdefault(place, weight)
        if place and other is not weight:
            raise UnsupportedOperation(
                "parameter", weight.name, f"it shares its memory with parameter {other.name}, in another layout"
            )


def check_inputs(program: Program, needed: set[str]) -> None:
    """The output has to depend on inputs that all have the batch in front.

    Raises:
        UnsupportedOperation: it depends on none, or on one without a batch.
    """
    used = [name for name in program.inputs if name in needed]
    if not used:
        raise UnsupportedOperation("input", "", "the output depends on no input")
    for name in used:
        axes = program.node(name).axes
        if not axes or all(factor.kind is not AxisKind.BATCH for factor in axes[0]):
            raise UnsupportedOperation("input", "", f"input {name} has no batch axis in front")


def gradients_independent(output: Field) -> bool:
    """The simple gradient independence check (sheet, section 2.4).

    Whether the output is a linear readout by a random matrix that is used nowhere else: only then may a backward pass
    take fresh copies of the transposed matrices. Kernels here come from derivatives along random directions of the
    parameters, which use no transpose, and are right without it; averages over coordinates are not, and have their
    own backward pass.
    """
    readouts = _readouts(output)
    inside = [field.weight for one in readouts for field in below(one.source) if isinstance(field, (Product, Tokens))]
    return output.gaussian and not any(one.weight is weight for one in readouts for weight in inside)


def _readouts(output: Field) -> list[Product]:
    if isinstance(output, Product):
        return [output]
    passed = isinstance(output, (Sum, Concat, Moved, Normalised, Gained))
    return [found for child in children(output) for found in _readouts(child)] if passed else []
