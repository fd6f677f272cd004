"""Which axes are positions because a matrix mixes them, whatever width they look like."""

from dataclasses import replace

from widthwise.kernels._patterns import Pattern, pattern_of
from widthwise.program import Axis, AxisKind, Factor, Program

WIDE = (AxisKind.WIDTH, AxisKind.HEAD)


def with_token_axes(program: Program) -> Program:
    """The program with such axes labelled as positions.

    A matrix that acts on an axis of tokens while another axis holds the coordinates mixes positions, and what it makes
    are positions as well: as many as it has rows, at any width.
    """
    tokens: set[int] = set()
    while True:
        found = {
            factor.id
            for node in program.nodes
            if node.kind == "op" and (pattern := pattern_of(program, node)) is not None
            for factor in _tokens(program, pattern, node.axes, tokens)
        }
        if found <= tokens:
            break
        tokens |= found
    if not tokens:
        return program
    nodes = (
        node if node.axes is None else replace(node, axes=tuple(_relabelled(axis, tokens) for axis in node.axes))
        for node in program.nodes
    )
    return replace(program, nodes=tuple(nodes))


def _relabelled(axis: Axis, tokens: set[int]) -> Axis:
    return tuple(replace(factor, kind=AxisKind.POSITION) if factor.id in tokens else factor for factor in axis)


def _tokens(program: Program, pattern: Pattern, result: tuple[Axis, ...] | None, known: set[int]) -> list[Factor]:
    """The factors that a product shows to be tokens: those that it mixes, and those that it makes of them."""
    axes = program.node(pattern.operand.name).axes
    if axes is None or result is None or not pattern.contracted or pattern.shared:
        return []
    mixed = [factor for i in pattern.contracted for factor in axes[i]]
    rest = [factor for i, axis in enumerate(axes) if i not in pattern.contracted for factor in axis]
    if not mixed or any(f.kind in WIDE and f.id not in known for f in mixed):
        return []
    if not any(f.kind in WIDE and f.id not in known for f in rest):
        return []
    made = [factor for letter in pattern.made for factor in result[pattern.letters[2].index(letter)]]
    return [factor for factor in (*mixed, *made) if factor.kind is not AxisKind.POSITION]
