"""Rules of matrices that mix positions, as token-mixing layers do (arXiv:2105.01601).

One small matrix acts on all channels. Nothing averages over its entries, however many channels there are, so that
kernels are numbers only given these entries: the limit takes them as the module has them, and counts them as not
trained (their part of the tangent kernel stays random). Kernels of the network with ever more channels are then exact;
drawn anew, the small matrices give other kernels.
"""

import torch
from torch import Tensor

from widthwise.kernels._fields import Field, Offset, blockwise, combine
from widthwise.kernels._fields_stacked import picked, stack
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._patterns import Pattern
from widthwise.kernels._positions import moved, reshaped
from widthwise.kernels._registry import Transposed
from widthwise.kernels._scales import Scales
from widthwise.program import AxisKind, Node, Ref, Weight, axis_size

GIVEN = "exact, given this layer's own weights (not trained)"


def mixes_positions(run: Lowering, pattern: Pattern) -> bool:
    """Whether a parameter acts on positions of a random field."""
    axes = run.axes(pattern.operand)
    factors = [factor for i in pattern.contracted for factor in axes[i]]
    random = isinstance(run.value(pattern.operand), Field)
    return random and bool(factors) and all(factor.kind is AxisKind.POSITION for factor in factors)


def mixed(run: Lowering, node: Node, pattern: Pattern) -> Field:
    """The positions of a field, mixed by a matrix as it stands."""
    if pattern.shared:
        raise run.refuse(node, "its parameter mixes positions, with entries of its own for others")
    matrix = _values(run, node, pattern)
    axes = run.axes(pattern.operand)
    operand, of_matrix, result = pattern.letters
    held = {letter: position_sizes(axes[i : i + 1]) for i, letter in enumerate(operand)}
    before = [letter for letter in operand if held[letter]]
    after = [letter for letter in result if held.get(letter) or letter in pattern.made]
    sizes = [torch.Size(held[letter]).numel() for letter in before]
    assert node.axes is not None
    positions = position_sizes(node.axes)
    equation = f"Z{''.join(before)},{of_matrix}->Z{''.join(after)}"

    def apply(moment: Tensor) -> Tensor:
        weights = matrix.to(device=moment.device, dtype=moment.dtype)
        return torch.einsum(equation, moment.reshape(-1, *sizes), weights).reshape(-1, *positions)

    run.rules[node.name] = GIVEN
    field = run.field(pattern.operand, node)
    return blockwise(lambda part: moved(part, positions, apply, gathers=False), field)


def _values(run: Lowering, node: Node, pattern: Pattern) -> Tensor:
    """The entries of the matrix, at the scale that was asked for."""
    value = run.value(pattern.matrix)
    weight = value.weight if isinstance(value, Transposed) else value
    axes = run.axes(pattern.operand)
    fan_in = torch.Size([axis_size(axes[i]) for i in pattern.contracted]).numel()
    std = Scales.pick(run.scales.weight_std, weight.name)
    values = weight.value.detach().double()
    if std is not None:
        if weight.init_std == 0.0:
            raise run.refuse(node, f"matrix {weight.name}, which it takes as it is, is constant and cannot be rescaled")
        values = values * (std / (weight.init_std * fan_in**0.5))
    return values.t() if isinstance(value, Transposed) else values


def with_given_bias(run: Lowering, node: Node, field: Field, bias: Ref | None) -> Field:
    """Add a number to each position along the last axis, the same for all coordinates."""
    if bias is None:
        return field
    weight = run.value(bias)
    if not isinstance(weight, Weight):
        raise run.refuse(node, "its bias is computed, not a parameter")
    numbers = weight.value.detach().double()
    std = Scales.pick(run.scales.bias_std, weight.name)
    if std is not None and weight.init_std > 0:
        numbers = numbers * (float(std) / weight.init_std)
    if not bool(numbers.any()):
        return field
    return blockwise(lambda part: _shifted(part, numbers.tolist()), field)


def _shifted(field: Field, numbers: list[float]) -> Field:
    rest = field.positions
    while rest and torch.Size(field.positions[len(rest) :]).numel() < len(numbers):
        rest = rest[:-1]
    flat = reshaped(field, (*rest, len(numbers)))
    parts = []
    for entry, number in enumerate(numbers):
        one = picked(flat, len(rest), (entry,))
        parts.append(combine([(1.0, one), (1.0, Offset(None, number, one.positions, (False,) * len(one.positions)))]))
    return reshaped(stack(parts, len(rest)), field.positions)
